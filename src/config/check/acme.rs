//! Certificates by ACME: `acme`.

use super::Check;
use crate::config::{Acme, ChallengeKind, HttpUrl, Listener, Route, UpstreamTls, raw};

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

impl Check<'_> {
    /// What listeners want, the admin listener among them; none if none of them has `acme`.
    pub(super) fn acme<'a>(
        &mut self,
        raw: Option<raw::Acme>,
        listeners: impl Iterator<Item = &'a Listener>,
        routes: &[Route],
    ) -> Option<Acme> {
        let is_wanted =
            listeners.into_iter().any(|listener| listener.tls.as_ref().is_some_and(|tls| tls.acme));
        if !is_wanted {
            if raw.is_some() {
                self.warnings.push("acme: no listener has `tls: {acme: true}`".to_owned());
            }
            return None;
        }
        let raw = raw.unwrap_or_default();
        let names = self.acme_names(&raw.names, routes);
        let directory_text = raw.directory.unwrap_or_else(|| LETS_ENCRYPT.to_owned());
        let directory = HttpUrl::parse(&directory_text)
            .map_err(|legal| self.error("acme.directory", legal.to_owned()))
            .ok();
        if raw.email.as_ref().is_some_and(|email| !email.contains('@') || email.contains(char::is_whitespace))
        {
            self.error("acme.email", "expected an address such as ops@example.com");
        }
        Some(Acme {
            directory: directory?,
            directory_text,
            email: raw.email,
            names,
            challenges: self.challenge_kinds(raw.challenges.as_deref()),
            tls: UpstreamTls {
                ca: raw.ca.map(|ca| self.document.folder.join(ca)),
                beside_system: true,
                name: None,
                own: None,
                source: self.document.source("acme.ca"),
            },
        })
    }

    fn acme_names(&mut self, further: &[String], routes: &[Route]) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (index, name) in further.iter().enumerate() {
            if is_name(name) {
                names.push(name.to_ascii_lowercase());
            } else {
                self.error(
                    &format!("acme.names[{index}]"),
                    "expected a name such as www.example.com, without a wildcard, which is proved by DNS only",
                );
            }
        }
        for host in routes.iter().filter_map(|route| route.host.as_deref()) {
            match host {
                host if is_name(host) => names.push(host.to_owned()),
                host => {
                    let warning = format!(
                        "acme: no certificate is obtained for the host {host}; give one in `tls.certificates`"
                    );
                    if !self.warnings.contains(&warning) {
                        self.warnings.push(warning);
                    }
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        if names.is_empty() && self.errors.is_empty() {
            self.error("acme.names", "expected a name, here or as the host of a route");
        }
        names
    }

    fn challenge_kinds(&mut self, raw: Option<&[String]>) -> Vec<ChallengeKind> {
        let all = ChallengeKind::NAMES;
        let Some(names) = raw else { return all.map(|(_, kind)| kind).to_vec() };
        let mut kinds = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match all.iter().find(|(known, _)| known == name) {
                Some((_, kind)) if !kinds.contains(kind) => kinds.push(*kind),
                Some(_) => {}
                None => {
                    self.error(&format!("acme.challenges[{index}]"), "expected tls-alpn-01 or http-01");
                }
            }
        }
        if names.is_empty() {
            self.error("acme.challenges", "expected tls-alpn-01, http-01, or both");
        }
        kinds
    }
}

/// Returns whether a certificate can be obtained for a name: one of DNS (RFC 1034, section 3.5), which no address is.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(legal)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_numeric =
        name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(is_label) && !is_numeric
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_those_of_dns() {
        for name in ["www.example.com", "localhost", "xn--bcher-kva.example", "a-b.c"] {
            assert!(is_name(name), "{name}");
        }
        for wrong in
            ["", "*.example.com", "192.0.2.1", "[::1]", "a..b", "-a.b", "a_b.c", "a.b.", "example.com:443"]
        {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
