//! How a PostgreSQL server is reached: libpq's names for TLS, taken out of a connection string.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use crate::types::Secret;

/// A connection string, and how the connection is protected.
#[derive(Debug, Clone)]
pub struct PostgresUrl {
    /// The connection string without what concerns TLS.
    pub url: Secret,
    /// How the connection is protected.
    pub tls: PostgresTls,
}

/// How a connection to PostgreSQL is protected, by libpq's names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PostgresTls {
    /// `sslmode`; if absent, `verify-full` for a host that is not local and `disable` for one that is.
    pub mode: Option<SslMode>,
    /// `sslrootcert`: the authorities to trust.
    pub root: RootCertificates,
    /// `sslcert`: a client certificate.
    pub certificate: Option<PathBuf>,
    /// `sslkey`: its key.
    pub key: Option<PathBuf>,
}

/// The authorities that are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RootCertificates {
    /// Not configured: those of the system.
    #[default]
    Unsaid,
    /// The system's, and anybody can get a certificate from one of those: only with the host's name.
    System,
    /// Those in a file.
    File(PathBuf),
}

/// Which protection is required (libpq, section 34.19.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// None.
    Disable,
    /// TLS where the server has it, unverified.
    Prefer,
    /// TLS; its certificate is verified if `sslrootcert` is given, but not its name.
    Require,
    /// TLS with a verified certificate, of any name.
    VerifyCa,
    /// TLS with a verified certificate of the host's name.
    VerifyFull,
}

impl PostgresUrl {
    /// Reads a connection string; relative paths in it begin at `folder`.
    ///
    /// # Errors
    /// The problem, without the text of the URL.
    pub fn parse(url: &Secret, folder: &Path) -> Result<Self, &'static str> {
        let text = url.expose();
        // A password may hold a question mark.
        let host = text.rfind('@').map_or(0, |at| at + 1);
        let Some(mark) = text[host..].find('?').map(|mark| host + mark) else {
            return Ok(Self { url: url.clone(), tls: PostgresTls::default() });
        };
        let (base, query) = (&text[..mark], &text[mark + 1..]);
        let mut tls = PostgresTls::default();
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value =
                percent_decode_str(value).decode_utf8().map_err(|_| "expected UTF-8 values behind `?`")?;
            let path = || folder.join(value.as_ref());
            match name {
                "sslmode" => {
                    tls.mode = Some(match value.as_ref() {
                        "disable" => SslMode::Disable,
                        "prefer" => SslMode::Prefer,
                        "require" => SslMode::Require,
                        "verify-ca" => SslMode::VerifyCa,
                        "verify-full" => SslMode::VerifyFull,
                        _ => {
                            return Err(
                                "sslmode: expected disable, prefer, require, verify-ca or verify-full",
                            );
                        }
                    });
                }
                "sslrootcert" if value == "system" => tls.root = RootCertificates::System,
                "sslrootcert" => tls.root = RootCertificates::File(path()),
                "sslcert" => tls.certificate = Some(path()),
                "sslkey" => tls.key = Some(path()),
                _ => rest.push(pair),
            }
        }
        if tls.certificate.is_some() != tls.key.is_some() {
            return Err("expected sslcert and sslkey together");
        }
        if tls.root == RootCertificates::System && tls.mode.is_some_and(|mode| mode != SslMode::VerifyFull) {
            return Err("sslrootcert=system: expected sslmode=verify-full with it");
        }
        let url = match rest.is_empty() {
            true => base.to_owned(),
            false => format!("{base}?{}", rest.join("&")),
        };
        Ok(Self { url: Secret::new(&url), tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresUrl, &'static str> {
        PostgresUrl::parse(&Secret::new(url), Path::new("/etc/authgate"))
    }

    #[test]
    fn what_concerns_tls_is_taken_out_and_the_rest_stays() {
        let read = parse(
            "postgres://u:p@db.example/x?sslmode=verify-ca&options=-c%20a=b&sslrootcert=ca.pem&sslcert=/c.pem&sslkey=k%20.pem",
        )
        .unwrap();
        assert_eq!(read.url.expose(), "postgres://u:p@db.example/x?options=-c%20a=b");
        let path = |text: &str| Some(PathBuf::from(text));
        let expected = PostgresTls {
            mode: Some(SslMode::VerifyCa),
            root: RootCertificates::File("/etc/authgate/ca.pem".into()),
            certificate: path("/c.pem"),
            key: path("/etc/authgate/k .pem"),
        };
        assert_eq!(read.tls, expected);
        let plain = parse("postgres://u:p@db.example/x").unwrap();
        assert_eq!((plain.url.expose(), plain.tls), ("postgres://u:p@db.example/x", PostgresTls::default()));
        assert_eq!(parse("postgres://h/x?sslmode=require").unwrap().url.expose(), "postgres://h/x");
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        for url in [
            "postgres://h/x?sslmode=verify-ca&sslrootcert=system",
            "postgres://h/x?sslmode=allow",
            "postgres://h/x?sslmode=",
            "postgres://h/x?sslcert=c.pem",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
