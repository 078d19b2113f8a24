//! Addresses that the gateway connects to by HTTP on its own behalf: those of issuers, and of what takes its telemetry.

/// An address that the gateway connects to by HTTP on its own behalf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// Whether it is https.
    pub is_https: bool,
    /// The name or address of the host, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// `Host` of requests: the port only if it is not the scheme's.
    pub authority: String,
    /// The path and the query.
    pub target: String,
}

impl HttpUrl {
    /// Parses an address that begins with https://, or with http:// and leads to this machine.
    ///
    /// # Errors
    /// What is legal.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const LEGAL: &str = "expected an address that begins with https://, or http:// on this machine, without user or fragment";
        Self::parse_any(text).filter(|url| url.is_https || is_loopback(&url.host)).ok_or(LEGAL)
    }

    /// Parses an address that begins with https:// or http://. Returns none if it is another one, or has a user or a fragment.
    pub(super) fn parse_any(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok()?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || text.contains('#') || authority.host().is_empty() {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Some(Self { is_https, host, port, authority: authority.as_str().to_owned(), target })
    }

    /// Returns the address of a document at `path` below this one (OpenID Connect Discovery 1.0, section 4.1).
    #[must_use]
    pub fn below(&self, path: &str) -> Self {
        let base = self.target.split('?').next().unwrap_or_default().trim_end_matches('/');
        Self { target: format!("{base}{path}"), ..self.clone() }
    }
}

/// Returns whether a host can only be this machine.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_https_or_on_this_machine() {
        let url = HttpUrl::parse("https://id.example.com/realms/corp?x=1").unwrap();
        assert!(url.is_https && url.port == 443 && url.host == "id.example.com");
        assert_eq!(url.below("/.well-known/a").target, "/realms/corp/.well-known/a");
        let url = HttpUrl::parse("http://[::1]:8080").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.target.as_str()), ("::1", 8080, "/"));
        assert_eq!(url.below("/a").target, "/a");
        assert!(HttpUrl::parse_any("http://id.example.com/").is_some());
        for wrong in [
            "http://id.example.com/",
            "ftp://localhost/",
            "https://user@host/",
            "https://host/#a",
            "localhost",
            "/path",
            "http://127.0.0.1.example.com/",
        ] {
            assert!(HttpUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}
