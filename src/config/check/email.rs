//! Mails: `auth.email`.

use std::time::Duration;

use super::{Check, Links};
use crate::config::{Email, Encryption, MailsPerHour, Smtp, raw};

impl Check<'_> {
    /// `mount` is `auth.path`.
    pub(super) fn email(&mut self, raw: raw::Email, mount: &str, links: Links<'_>) -> Email {
        let key = |name: &str| format!("auth.email.{name}");
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let base = match (&raw.base_url, links.public_url) {
            (Some(base), _) => base.trim_end_matches('/').to_owned(),
            (None, Some(url)) => url.origin.clone(),
            (None, None) => String::new(),
        };
        let uri = base.parse::<http::Uri>().ok();
        let legal = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some()
                && uri.query().is_none()
        });
        if !legal || base.contains(['#', '{', '@']) {
            self.error(
                &key("base_url"),
                "expected an address such as https://app.example.com; without it, `public_url` is taken",
            );
        }
        let page = |page: &str, other: &str| {
            if links.has_pages {
                format!("{mount}/ui/{page}?token={{token}}")
            } else {
                format!("{other}?token={{token}}")
            }
        };
        let mut link = |name: &str, path: Option<String>, default: String| {
            let path = path.unwrap_or_else(|| default.clone());
            let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
            if !path.starts_with('/') || path.matches("{token}").count() != 1 || !plain {
                self.error(&key(name), format!("expected a path with {{token}} once, such as {default}"));
            }
            format!("{base}{path}")
        };
        let verify_link = link("verify_path", raw.verify_path, page("verify", "/verify-email"));
        let reset_link = link("reset_path", raw.reset_path, page("reset", "/reset-password"));
        Email {
            smtp: self.smtp(raw.smtp),
            from: raw.from,
            verify_link,
            reset_link,
            verify_ttl: self.span(&key("verify_ttl"), raw.verify_ttl, hours(24)),
            reset_ttl: self.span(&key("reset_ttl"), raw.reset_ttl, Duration::from_secs(1_800)),
            retry_for: self.span(&key("retry_for"), raw.retry_for, hours(72)),
            templates: raw.templates.map(|folder| self.document.folder.join(folder)),
            per_hour: MailsPerHour {
                all: self.number(&key("max_per_hour"), raw.max_per_hour, 1_000, (1, 10_000_000)) as u32,
                account: self.number(
                    &key("max_per_hour_of_account"),
                    raw.max_per_hour_of_account,
                    20,
                    (1, 10_000),
                ) as u32,
            },
            source: self.document.source("auth.email"),
        }
    }

    fn smtp(&mut self, raw: raw::Smtp) -> Smtp {
        let default_port = match raw.encryption {
            Encryption::Starttls => 587,
            Encryption::Tls => 465,
            Encryption::None => 25,
        };
        let port = self.number("auth.email.smtp.port", raw.port, default_port, (1, 65_535));
        let loopback = raw.host == "localhost"
            || raw.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if raw.host.is_empty() || !raw.host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b))
        {
            self.error("auth.email.smtp.host", "expected a host name or address");
        }
        let credentials = match (raw.username, raw.password) {
            (Some(username), Some(password)) => Some((username, password)),
            (None, None) => None,
            _ => {
                self.error("auth.email.smtp", "expected both `username` and `password`, or neither");
                None
            }
        };
        if raw.encryption == Encryption::None && !loopback {
            if credentials.is_some() {
                self.error(
                    "auth.email.smtp.encryption",
                    "a password would cross the network in the clear: expected starttls or tls",
                );
            }
            self.warnings.push(
                "auth.email.smtp.encryption: links that reset passwords cross the network in the clear"
                    .to_owned(),
            );
        }
        Smtp {
            host: raw.host,
            // Within the range of ports.
            port: port as u16,
            encryption: raw.encryption,
            credentials,
            ca: raw.ca.map(|file| self.document.folder.join(file)),
            timeout: self.span("auth.email.smtp.timeout", raw.timeout, Duration::from_secs(20)),
        }
    }
}
