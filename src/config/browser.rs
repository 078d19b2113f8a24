//! People with browsers: pages, and the cookies that they are signed in by.

use std::{path::PathBuf, time::Duration};

use super::Source;

/// Where people meet the gateway, and how they are known again.
#[derive(Debug, Clone)]
pub struct Browser {
    /// The only origin that is ours.
    pub public_url: PublicUrl,
    /// The pages.
    pub pages: Pages,
    /// The cookies.
    pub cookies: Cookies,
}

/// The origin (RFC 6454) by which people reach the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// Scheme, host and port, as `Origin` has them: no final slash.
    pub origin: String,
    /// The host in lower case, as routes are compared with it.
    pub host: String,
    /// Whether it is https.
    pub is_https: bool,
}

/// Pages.
#[derive(Debug, Clone)]
pub struct Pages {
    /// What they call the service.
    pub name: String,
    /// An image at their head.
    pub logo: Option<PathBuf>,
    /// The colour of buttons and links: `#` and six hexadecimal digits.
    pub accent: String,
    /// Templates and texts in place of ours.
    pub folder: Option<PathBuf>,
    /// The languages that are offered, the default first; at least one.
    pub languages: Vec<String>,
    /// Where people go who came for nothing else: a path.
    pub after_login: String,
    /// Where they stand in the config.
    pub source: Source,
}

/// Cookies that people are signed in by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookies {
    /// A domain, with its subdomains; the host of the public URL alone if absent.
    pub domain: Option<String>,
    /// How long a session lasts without a request.
    pub idle: Duration,
    /// How long it lasts.
    pub ttl: Duration,
    /// How long it lasts if the person asked to be remembered.
    pub remember: Duration,
}
