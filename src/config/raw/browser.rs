//! `pages` and `cookies` as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Span;

/// Pages on which people sign in and keep their accounts, below `auth.path`/ui.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pages {
    /// What the pages call the service. Default: the host of public_url.
    pub name: Option<String>,
    /// An image at their head: a file that ends in .svg, .png or .webp, of 256 KiB at most. Default: none.
    pub logo: Option<String>,
    /// How they look.
    #[serde(default)]
    pub theme: Theme,
    /// A folder with templates and texts in place of ours. Default: none.
    pub folder: Option<String>,
    /// The languages of the pages; the first one is the default. Default: [en, de].
    pub languages: Option<Vec<String>>,
    /// Where people go who came for nothing else. Default: /.
    pub after_login: Option<String>,
}

/// How pages look.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Theme {
    /// The colour of buttons and links, such as #0a5 or #00aa55. Default: #2457c5.
    pub accent: Option<String>,
}

/// The cookies that people are signed in by.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cookies {
    /// A domain that the cookie is sent to with all its subdomains. Default: the host of public_url alone.
    pub domain: Option<String>,
    /// How long a session lasts without a request. Default: 2h.
    pub idle: Option<Span>,
    /// How long it lasts. Default: 12h.
    pub ttl: Option<Span>,
    /// How long it lasts if the person asked to be remembered. Default: 30d.
    pub remember: Option<Span>,
}
