//! People with browsers: `public_url`, `pages` and `cookies`.

use std::time::Duration;

use super::Check;
use crate::{
    config::{Browser, Cookies, HttpUrl, Pages, PublicUrl, raw},
    types::{host, path},
};

/// Languages whose texts are built in.
const BUILT_IN: &[&str] = &["en", "de"];

/// The most languages.
const MOST_LANGUAGES: usize = 20;

const ACCENT: &str = "#2457c5";

impl Check<'_> {
    pub(super) fn public_url(&mut self, text: Option<&str>) -> Option<PublicUrl> {
        let text = text?;
        let url = HttpUrl::parse(text).ok().filter(|url| url.target == "/" && host::is_host(&url.authority));
        let Some(url) = url else {
            self.error(
                "public_url",
                "expected an origin such as https://app.example.com, or http:// on this machine, without a path",
            );
            return None;
        };
        let scheme = if url.is_https { "https" } else { "http" };
        // A browser leaves the scheme's own port out (RFC 6454, section 6.1).
        let own_port = if url.is_https { 443 } else { 80 };
        let name = host::name_of(&url.authority).into_owned();
        let port = if url.port == own_port { String::new() } else { format!(":{}", url.port) };
        Some(PublicUrl { origin: format!("{scheme}://{name}{port}"), host: name, is_https: url.is_https })
    }

    pub(super) fn browser(
        &mut self,
        public_url: Option<PublicUrl>,
        has_public_url: bool,
        pages: Option<raw::Pages>,
        cookies: Option<raw::Cookies>,
    ) -> Option<Browser> {
        let Some(pages) = pages else {
            if cookies.is_some() {
                self.warnings.push("cookies: nobody gets one without `pages`".to_owned());
            }
            return None;
        };
        if !has_public_url {
            self.error(
                "pages",
                "needs `public_url`, the address that people type, such as https://app.example.com",
            );
        }
        let nobody = || PublicUrl { origin: String::new(), host: String::new(), is_https: true };
        let is_known = public_url.is_some();
        let public_url = public_url.unwrap_or_else(nobody);
        let pages = self.pages(pages, &public_url);
        let cookies = self.cookies(cookies.unwrap_or_default(), &public_url, is_known);
        Some(Browser { public_url, pages, cookies })
    }

    fn pages(&mut self, raw: raw::Pages, public_url: &PublicUrl) -> Pages {
        let name = raw.name.unwrap_or_else(|| public_url.host.clone());
        if name.trim().is_empty() && raw.folder.is_none() && !public_url.host.is_empty() {
            self.error("pages.name", "expected a name that people read");
        }
        let accent = raw.theme.accent.unwrap_or_else(|| ACCENT.to_owned());
        let accent = colour(&accent).unwrap_or_else(|| {
            self.error("pages.theme.accent", "expected a colour such as #0a5 or #00aa55");
            ACCENT.to_owned()
        });
        let after_login = raw.after_login.unwrap_or_else(|| "/".to_owned());
        let is_path = after_login.starts_with('/') && path::canonical(&after_login).is_ok();
        if !is_path {
            self.error("pages.after_login", "expected a path such as / or /app");
        }
        let is_image = |logo: &String| [".svg", ".png", ".webp"].iter().any(|end| logo.ends_with(end));
        if raw.logo.as_ref().is_some_and(|logo| !is_image(logo)) {
            self.error("pages.logo", "expected a file that ends in .svg, .png or .webp");
        }
        let languages =
            raw.languages.unwrap_or_else(|| BUILT_IN.iter().map(|tag| (*tag).to_owned()).collect());
        if languages.is_empty() || languages.len() > MOST_LANGUAGES {
            self.error("pages.languages", format!("expected 1 to {MOST_LANGUAGES} languages"));
        }
        for (index, tag) in languages.iter().enumerate() {
            let key = format!("pages.languages[{index}]");
            let is_tag = (2..=16).contains(&tag.len())
                && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if !is_tag {
                self.error(&key, "expected a language such as en or pt-BR");
            } else if languages[..index].contains(tag) {
                self.error(&key, "is named twice");
            } else if !BUILT_IN.contains(&tag.as_str()) && raw.folder.is_none() {
                self.error(
                    &key,
                    "has no texts: en and de are built in, others come as a file in `pages.folder`",
                );
            }
        }
        Pages {
            name,
            logo: raw.logo.map(|file| self.document.folder.join(file)),
            accent,
            folder: raw.folder.map(|folder| self.document.folder.join(folder)),
            languages,
            after_login,
            source: self.document.source("pages"),
        }
    }

    fn cookies(&mut self, raw: raw::Cookies, public_url: &PublicUrl, is_known: bool) -> Cookies {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let mut span = |key: &str, value, default| {
            let span = self.span(&format!("cookies.{key}"), value, default);
            if span < Duration::from_secs(1) {
                self.error(&format!("cookies.{key}"), "expected 1s or more");
            }
            span
        };
        let idle = span("idle", raw.idle, hours(2));
        let ttl = span("ttl", raw.ttl, hours(12));
        let remember = span("remember", raw.remember, hours(30 * 24));
        let domain = raw.domain.map(|domain| domain.trim_start_matches('.').to_ascii_lowercase());
        if let Some(domain) = &domain {
            let is_within = || {
                let host = &public_url.host;
                host == domain || host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
            };
            let is_name = host::is_host(domain) && !domain.contains(':') && domain.contains('.');
            if !is_name || (is_known && !is_within()) {
                self.error("cookies.domain", "expected the host of public_url, or a domain above it");
            }
        }
        Cookies { domain, idle, ttl, remember }
    }
}

/// Returns a colour with six digits.
fn colour(text: &str) -> Option<String> {
    let digits = text.strip_prefix('#')?;
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let digits = match digits.len() {
        3 => digits.chars().flat_map(|digit| [digit, digit]).collect(),
        6 => digits.to_owned(),
        _ => return None,
    };
    Some(format!("#{}", digits.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::colour;

    #[test]
    fn colours_have_three_or_six_digits() {
        assert_eq!(colour("#0a5").as_deref(), Some("#00aa55"));
        assert_eq!(colour("#00AA5f").as_deref(), Some("#00aa5f"));
        for wrong in ["0a5", "#0a", "#0a5;", "#0a5}b", "red", "#00aa5g", ""] {
            assert_eq!(colour(wrong), None, "{wrong}");
        }
    }
}
