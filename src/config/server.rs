//! The address of an upstream's server.

use http::uri::Authority;

/// The address of an upstream's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// `host:port`, as it is resolved.
    Tcp(String),
    /// The same, spoken to by TLS.
    Tls(String),
    /// The same, spoken to in HTTP/2 by prior knowledge.
    H2c(String),
    /// The absolute path of a socket, behind `unix:`.
    Unix(String),
}

/// The longest path of a socket, in bytes (`sockaddr_un`, with its final zero).
const MAX_PATH: usize = 107;

impl Server {
    /// Reads the URL of a server.
    ///
    /// # Errors
    /// What is legal.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        const LEGAL: &str =
            "expected http://HOST:PORT, https://HOST:PORT or h2c://HOST:PORT without a path, or unix:PATH";
        if let Some(path) = url.strip_prefix("unix:") {
            let legal = path.starts_with('/') && path.len() <= MAX_PATH && !path.contains('\0');
            return if legal {
                Ok(Self::Unix(url.to_owned()))
            } else {
                Err("expected unix: and an absolute path of at most 107 bytes")
            };
        }
        let (rest, of, usual): (_, fn(String) -> Self, _) = match url.split_once("://") {
            Some(("http", rest)) => (rest, Self::Tcp, 80),
            Some(("https", rest)) => (rest, Self::Tls, 443),
            Some(("h2c", rest)) => (rest, Self::H2c, 80),
            _ => return Err(LEGAL),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority: Authority = rest.parse().map_err(|_| LEGAL)?;
        let bare = !rest.contains(['@', '/', '?', '#']) && !authority.host().is_empty();
        match authority.port() {
            Some(port) if bare && port.as_u16() > 0 => Ok(of(authority.to_string())),
            // `host:` and a port that is no number parse as an authority without one.
            None if bare && !rest.ends_with(':') && authority.as_str() == authority.host() => {
                Ok(of(format!("{authority}:{usual}")))
            }
            _ => Err(LEGAL),
        }
    }

    /// Returns the address as logs have it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tcp(text) | Self::Tls(text) | Self::H2c(text) | Self::Unix(text) => text,
        }
    }

    /// Returns the URL.
    pub fn url(&self) -> String {
        match self {
            Self::Tcp(authority) => format!("http://{authority}"),
            Self::Tls(authority) => format!("https://{authority}"),
            Self::H2c(authority) => format!("h2c://{authority}"),
            Self::Unix(url) => url.clone(),
        }
    }

    /// Returns the `Host` of a request that names none.
    pub fn host(&self) -> &str {
        match self {
            Self::Tcp(authority) | Self::Tls(authority) | Self::H2c(authority) => authority,
            Self::Unix(_) => "localhost",
        }
    }

    /// Returns the name or address of the host alone.
    pub fn host_name(&self) -> &str {
        let host = self.host();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port_or_a_socket() {
        let tcp = |authority: &str| Ok(Server::Tcp(authority.to_owned()));
        assert_eq!(Server::parse("http://10.0.0.5:9000"), tcp("10.0.0.5:9000"));
        assert_eq!(Server::parse("http://orders/"), tcp("orders:80"));
        assert_eq!(Server::parse("http://[::1]:9000"), tcp("[::1]:9000"));
        let tls = Server::parse("https://orders.internal").unwrap();
        assert_eq!(tls, Server::Tls("orders.internal:443".to_owned()));
        assert_eq!((tls.url().as_str(), tls.host_name()), ("https://orders.internal:443", "orders.internal"));
        assert_eq!(Server::parse("https://[::1]:1").unwrap().host_name(), "::1");
        assert_eq!(Server::parse("unix:/run/orders.sock"), Ok(Server::Unix("unix:/run/orders.sock".into())));
        let long = format!("unix:/{}", "a".repeat(107));
        for url in [
            "",
            "orders:80",
            "https://",
            "ftp://a",
            "http://",
            "http://a:b",
            "http://a:",
            "http://a/b",
            "http://u@a",
            "http://a:0",
            "unix:",
            "unix:a.sock",
            &long,
        ] {
            assert!(Server::parse(url).is_err(), "{url:?}");
        }
    }
}
