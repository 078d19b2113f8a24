//! The credential of a request.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderName, HeaderValue, Method, header};

use crate::{
    config::ApiKeys,
    token::SessionCookies,
    types::{cookies::pairs, looks_like_api_key},
};

static AUTHORIZATION: HeaderName = header::AUTHORIZATION;
static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static COOKIE: HeaderName = header::COOKIE;
static ORIGIN: HeaderName = header::ORIGIN;
static UPGRADE: HeaderName = header::UPGRADE;
static SEC_WEBSOCKET_KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
static SEC_WEBSOCKET_VERSION: HeaderName = header::SEC_WEBSOCKET_VERSION;
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The credential of a request. A token in a query or in a body is never one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// There is none.
    Absent,
    /// One bearer token (RFC 6750, section 2.1), which may be an API key.
    Bearer(&'a [u8]),
    /// One user and password (RFC 7617, section 2), encoded. The password is to be an API key.
    Basic(&'a [u8]),
    /// What is to be an API key, in a header of its own.
    ApiKey(&'a [u8]),
    /// One session cookie.
    Cookie(&'a [u8]),
    /// A session cookie that a page of another site may have had the browser send.
    CrossSite,
    /// Something that is not exactly one credential.
    Unusable,
}

/// What is read as a credential beside bearer tokens.
#[derive(Clone, Copy, Default)]
pub struct CredentialKinds<'a> {
    /// Session cookies.
    pub cookies: Option<&'a SessionCookies>,
    /// API keys.
    pub keys: ApiKeys,
}

impl<'a> Credential<'a> {
    /// Reads the credential of a request whose values of a header `values` returns: what `Authorization` has, or the API key, or else the
    /// cookie.
    pub fn of_request<I>(
        method: &Method,
        values: impl Fn(&'static HeaderName) -> I,
        kinds: CredentialKinds<'_>,
    ) -> Self
    where
        I: Iterator<Item = &'a HeaderValue>,
    {
        let mut credential = Self::of_authorization(values(&AUTHORIZATION), kinds.keys);
        if kinds.keys.header {
            let mut keys = values(&X_API_KEY);
            credential = match (keys.next(), keys.next(), credential) {
                (None, _, credential) => credential,
                (Some(key), None, Self::Absent) => Self::ApiKey(key.as_bytes()),
                _ => Self::Unusable,
            };
        }
        let Some(cookies) = kinds.cookies.filter(|_| credential == Self::Absent) else { return credential };
        let cookie = Self::of_cookies(values(&COOKIE), cookies.name());
        if !matches!(cookie, Self::Cookie(_)) {
            return cookie;
        }
        let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        // A WebSocket acts for its user, and is begun by GET.
        // Another proxy that asks about one leaves out what is of its own connection only.
        let is_handshake = values(&UPGRADE).next().is_some()
            || values(&SEC_WEBSOCKET_KEY).next().is_some()
            || values(&SEC_WEBSOCKET_VERSION).next().is_some()
            || values(&SEC_FETCH_MODE).any(|mode| mode == "websocket");
        if is_safe && !is_handshake {
            return cookie;
        }
        if is_own(values, cookies.origin()) == Some(true) { cookie } else { Self::CrossSite }
    }

    /// Reads the cookie of a name from the values of `Cookie` (RFC 6265bis, section 5.8.3).
    pub fn of_cookies(values: impl IntoIterator<Item = &'a HeaderValue>, name: &str) -> Self {
        let pairs = values.into_iter().flat_map(|value| pairs(value.as_bytes()));
        let mut tokens = pairs
            .filter_map(|pair| pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")));
        match (tokens.next(), tokens.next()) {
            (None, _) => Self::Absent,
            (Some(token), None) => Self::Cookie(token),
            // A sibling's may be among them.
            (Some(_), Some(_)) => Self::Unusable,
        }
    }

    /// Whether it is a cookie that a browser has sent by itself.
    pub fn is_cookie(&self) -> bool {
        matches!(self, Self::Cookie(_) | Self::CrossSite)
    }

    /// Whether it is to be an API key.
    pub fn is_api_key(&self) -> bool {
        match self {
            Self::Bearer(token) => looks_like_api_key(token),
            Self::Basic(_) | Self::ApiKey(_) => true,
            Self::Absent | Self::Cookie(_) | Self::CrossSite | Self::Unusable => false,
        }
    }

    /// Reads the values of `Authorization` as a bearer token.
    pub fn of(values: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        Self::of_authorization(values, ApiKeys::default())
    }

    /// Reads the values of `Authorization`.
    pub fn of_authorization(values: impl IntoIterator<Item = &'a HeaderValue>, keys: ApiKeys) -> Self {
        let mut values = values.into_iter();
        let Some(value) = values.next() else { return Self::Absent };
        if values.next().is_some() {
            return Self::Unusable;
        }
        let bytes = value.as_bytes();
        match bytes.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
                // Which characters a token has is the verifier's to judge, once a token.
                match token.trim_ascii() {
                    [] => Self::Unusable,
                    token => Self::Bearer(token),
                }
            }
            _ => match bytes.split_at_checked(6) {
                Some((scheme, encoded)) if keys.basic && scheme.eq_ignore_ascii_case(b"basic ") => {
                    Self::Basic(encoded.trim_ascii())
                }
                _ => Self::Unusable,
            },
        }
    }
}

/// Returns whether a value of `Authorization` shows an API key, in whatever scheme, so that no upstream gets it.
pub fn shows_api_key(value: &HeaderValue) -> bool {
    // Parts as tokens have them, so that none of a token is taken for a key, and parts as base64 has them.
    let of_token = |byte: &u8| !(byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    let of_base64 = |byte: &u8| !(byte.is_ascii_alphanumeric() || b"+/".contains(byte));
    let is_encoded = |part: &[u8]| {
        let decoded = STANDARD_NO_PAD.decode(part).unwrap_or_default();
        decoded.split(|byte| *byte == b':').any(looks_like_api_key)
    };
    // What most requests bring is no base64, and long.
    let is_bearer = value.as_bytes().starts_with(b"Bearer ");
    value.as_bytes().split(of_token).any(looks_like_api_key)
        || (!is_bearer && value.as_bytes().split(of_base64).any(is_encoded))
}

/// Returns whether a request comes from a page of `origin`, or from nobody's page (Fetch Metadata Request Headers, section 2.3); none if
/// the browser does not tell.
pub fn is_own<'a, I>(values: impl Fn(&'static HeaderName) -> I, origin: &str) -> Option<bool>
where
    I: Iterator<Item = &'a HeaderValue>,
{
    let only = |name: &'static HeaderName| {
        let mut values = values(name);
        // Of several none is believed.
        values.next().map(|value| (value, values.next().is_none()))
    };
    let from = only(&ORIGIN);
    match (only(&SEC_FETCH_SITE), from) {
        (Some((site, is_only)), from) => {
            let is_one = is_only && from.is_none_or(|(_, is_only)| is_only);
            Some(is_one && matches!(site.as_bytes(), b"same-origin" | b"none"))
        }
        (None, Some((from, is_only))) => Some(is_only && from == origin),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> String {
        let values: Vec<_> = values.iter().copied().map(HeaderValue::from_static).collect();
        format!("{:?}", Credential::of(&values))
    }

    #[test]
    fn one_cookie_of_the_name_is_a_credential() {
        let of = |values: &[&'static str]| {
            let values: Vec<_> = values.iter().copied().map(HeaderValue::from_static).collect();
            format!("{:?}", Credential::of_cookies(&values, "__Host-authgate"))
        };
        assert_eq!(
            of(&["a=b", "__Host-authgate-visitor=x; x__Host-authgate=y; __host-authgate=z"]),
            "Absent"
        );
        assert_eq!(of(&["a=b;__Host-authgate=a ; c=d"]), "Cookie([97])");
        assert_eq!(of(&["a=b", "__Host-authgate="]), "Cookie([])");
        assert_eq!(of(&["__Host-authgate=a; __Host-authgate=a"]), "Unusable");
        assert_eq!(of(&["__Host-authgate=a", "__Host-authgate=b"]), "Unusable");
    }

    #[test]
    fn api_keys_are_taken_by_the_ways_that_are_configured() {
        let of = |lines: &[(&'static HeaderName, &'static str)], basic, header| {
            let lines: Vec<_> =
                lines.iter().map(|(name, value)| (*name, HeaderValue::from_static(value))).collect();
            let values = |name| lines.iter().filter(move |(own, _)| *own == name).map(|(_, value)| value);
            let kinds = CredentialKinds { cookies: None, keys: ApiKeys { basic, header } };
            format!("{:?}", Credential::of_request(&Method::GET, values, kinds))
        };
        let (basic, key) = ((&AUTHORIZATION, "bAsic  YQ== "), (&X_API_KEY, "a"));
        assert_eq!(of(&[basic], true, false), "Basic([89, 81, 61, 61])");
        assert_eq!(of(&[basic], false, true), "Unusable");
        assert_eq!(of(&[key], false, true), "ApiKey([97])");
        assert_eq!(of(&[key], true, false), "Absent");
        assert_eq!(of(&[key, basic], true, true), "Unusable");
        assert_eq!(of(&[key, (&AUTHORIZATION, "Bearer a")], true, true), "Unusable");
        assert_eq!(of(&[key, (&AUTHORIZATION, "Bearer a")], true, false), "Bearer([97])");
        assert_eq!(of(&[key, key], true, true), "Unusable");
    }

    #[test]
    fn one_bearer_value_and_nothing_else_is_a_credential() {
        assert_eq!(of(&[]), "Absent");
        for value in ["Bearer a", "bEARER  a "] {
            assert_eq!(of(&[value]), "Bearer([97])");
        }
        for values in [
            &["Bearer a.b.c", "Bearer a.b.c"][..],
            &["Bearer"],
            &["Bearer "],
            &["Bearera.b.c"],
            &["Basic YTpi"],
            &["a.b.c"],
            &[""],
        ] {
            assert_eq!(of(values), "Unusable", "{values:?}");
        }
    }
}
