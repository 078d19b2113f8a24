//! How a device shows that it was logged in from before: by a header of its own, for programs, or a cookie, for browsers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use crate::token::DeviceTokens;

/// The header that carries the token, both ways.
pub const HEADER: HeaderName = HeaderName::from_static("x-authgate-device");

/// The cookie that carries it. Browsers send it by TLS only (RFC 6265bis, section 4.1.3.1), and only below the mount. As
/// the header, it is taken out of what goes to upstreams.
const COOKIE: &str = "__Secure-authgate-device";

/// The cookie of a device where a second factor was shown, and is not asked for again for a while.
const REMEMBERED: &str = "__Secure-authgate-remembered";

/// The token that a request brings.
pub fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(HEADER) {
        return value.to_str().ok();
    }
    find(headers, COOKIE)
}

/// The token that a request brings of a device where a second factor was shown.
pub fn remembered(headers: &HeaderMap) -> Option<&str> {
    find(headers, REMEMBERED)
}

fn find<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(name, value)| (name == wanted).then_some(value))
}

/// Gives a device its token, by header and by cookie.
pub fn give(response: &mut Response<Bytes>, token: &str, mount: &str) {
    // Neither can be illegal: a token is base64url, a mount was checked. Without them a device is a stranger.
    if let Ok(value) = HeaderValue::from_str(token) {
        response.headers_mut().insert(HEADER, value);
    }
    if let Some(value) = cookie(token, mount) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// Returns the `Set-Cookie` that gives a browser its token.
pub fn cookie(token: &str, mount: &str) -> Option<HeaderValue> {
    set(COOKIE, token, mount, DeviceTokens::TTL)
}

/// Returns the `Set-Cookie` by which a browser is not asked for a second factor for so long.
pub fn remembered_cookie(token: &str, mount: &str, ttl: Duration) -> Option<HeaderValue> {
    set(REMEMBERED, token, mount, ttl)
}

fn set(name: &str, token: &str, mount: &str, ttl: Duration) -> Option<HeaderValue> {
    let path = if mount.is_empty() { "/" } else { mount };
    let age = ttl.as_secs();
    let cookie = format!("{name}={token}; Path={path}; Max-Age={age}; Secure; HttpOnly; SameSite=Lax");
    HeaderValue::try_from(cookie).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_goes_before_the_cookie_and_other_cookies_do_not_count() {
        let mut headers = HeaderMap::new();
        assert_eq!(token(&headers), None);
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; x__Secure-authgate-device=no"));
        assert_eq!(token(&headers), None);
        headers.append(header::COOKIE, HeaderValue::from_static("c=d; __Secure-authgate-device=yes; e=f"));
        assert_eq!(token(&headers), Some("yes"));
        headers.insert(HEADER, HeaderValue::from_static("first"));
        assert_eq!(token(&headers), Some("first"));
    }
}
