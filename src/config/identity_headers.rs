//! The headers that tell an upstream who is calling.

use http::HeaderName;

/// The headers that carry an identity upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// The user's id.
    pub id: HeaderName,
    /// The user's name.
    pub name: HeaderName,
    /// The user's roles.
    pub roles: HeaderName,
    /// The id that an imported user had before.
    pub external_id: Option<HeaderName>,
    /// Those of claims, in the order of the rules that have one.
    pub claims: Vec<HeaderName>,
    /// Further headers that no client may send.
    pub strip: Vec<StripRule>,
}

/// Headers that are stripped, folded as [`IdentityHeaders::fold`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StripRule {
    /// Of this name.
    Name(String),
    /// Whose names begin so.
    Prefix(String),
}

impl IdentityHeaders {
    /// Returns the names of the headers that carry an identity, claims included.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        [&self.id, &self.name, &self.roles].into_iter().chain(&self.external_id).chain(&self.claims)
    }

    /// Every header name that any preset or the defaults use: none of them may come from a client,
    /// because the backend may have been set up for another preset before.
    pub const RESERVED: &'static [&'static str] = &[
        "x-user-id",
        "x-user-name",
        "x-user-roles",
        "x-auth-request-user",
        "x-auth-request-preferred-username",
        "x-auth-request-groups",
        "x-auth-request-email",
        "x-auth-request-access-token",
        "remote-user",
        "remote-name",
        "remote-groups",
        "remote-email",
        "remote-id",
        "x-webauth-user",
        "x-webauth-name",
        "x-webauth-email",
        "x-webauth-role",
        "x-webauth-groups",
        "x-webauth-id",
    ];

    /// The form in which spellings of a header name are one: CGI, WSGI and PHP fold `-`, `_` and `.` into one.
    pub fn fold(name: &str) -> String {
        name.bytes().map(|byte| char::from(Self::fold_byte(byte))).collect()
    }

    /// The form of a byte of a name.
    pub fn fold_byte(byte: u8) -> u8 {
        if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
    }

    /// The names of a preset.
    pub fn preset(name: &str) -> Option<Self> {
        let names = match name {
            "oauth2-proxy" => {
                ["x-auth-request-user", "x-auth-request-preferred-username", "x-auth-request-groups"]
            }
            "authelia" => ["remote-id", "remote-user", "remote-groups"],
            "grafana" => ["x-webauth-id", "x-webauth-user", "x-webauth-groups"],
            _ => return None,
        };
        let [id, name, roles] = names.map(HeaderName::from_static);
        Some(Self { id, name, roles, external_id: None, claims: Vec::new(), strip: Vec::new() })
    }
}
