//! Calls from pages of other origins: `cors`, below `auth` and on routes.

use std::time::Duration;

use http::HeaderValue;

use super::Check;
use crate::config::{Cors, raw};

/// Browsers cut longer times anyway.
const MAX_AGE: Duration = Duration::from_secs(86_400);

impl Check<'_> {
    pub(super) fn cors(&mut self, key: &str, raw: raw::Cors) -> Cors {
        let credentials = raw.credentials.is_some_and(|credentials| credentials.0);
        if raw.origins.is_empty() {
            self.error(
                &format!("{key}.origins"),
                "expected at least one origin, such as https://app.example.com",
            );
        }
        let any = raw.origins.iter().any(|origin| origin == "*");
        if any && raw.origins.len() > 1 {
            self.error(&format!("{key}.origins"), "`*` stands alone");
        }
        if any && credentials {
            self.error(
                &format!("{key}.credentials"),
                "`*` with credentials lets every page act in the name of whoever looks at it; name the origins",
            );
        }
        let mut origins = Vec::new();
        for (index, origin) in raw.origins.iter().enumerate().filter(|(_, origin)| *origin != "*") {
            match HeaderValue::try_from(origin).ok().filter(|_| is_origin(origin)) {
                Some(value) => origins.push(value),
                None => self.error(
                    &format!("{key}.origins[{index}]"),
                    "expected scheme and host in lower case, and a port if it is not the scheme's own, such as https://app.example.com",
                ),
            }
        }
        let max_age =
            self.span(&format!("{key}.max_age"), raw.max_age, Duration::from_secs(600)).min(MAX_AGE);
        Cors { origins: (!any).then_some(origins), credentials, max_age: max_age.as_secs().into() }
    }
}

/// Whether it is an origin as browsers send it (RFC 6454, section 6.2). `null` is none: any page can
/// send it from a sandboxed frame.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    let parsed: Option<http::uri::Authority> = authority.parse().ok();
    let default_port = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    !scheme.is_empty()
        && scheme.bytes().all(plain)
        && authority.bytes().all(|byte| plain(byte) && byte != b'+' || b"_:[]".contains(&byte))
        && parsed.is_some_and(|parsed| {
            !parsed.host().is_empty()
                && (parsed.port().is_some() || parsed.host() == authority)
                && (parsed.port_u16() != default_port || default_port.is_none())
        })
}

#[cfg(test)]
mod tests {
    use super::is_origin;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for origin in [
            "https://app.example.com",
            "http://localhost:3000",
            "https://[::1]:8443",
            "capacitor://localhost",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in [
            "",
            "null",
            "example.com",
            "https://",
            "https://a/",
            "https://a/b",
            "https://A.example.com",
            "https://u@a",
            "https://a:443",
            "http://a:80",
            "https://a:",
            "https://a b",
            "https://*.example.com",
        ] {
            assert!(!is_origin(origin), "{origin}");
        }
    }
}
