//! The tokens of forms: what a page of another site cannot know.
//!
//! A token is an HMAC of the session that the form is shown in; before sign-in, of a cookie that is made for it. Neither a token nor that
//! cookie is worth anything without the other.

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};

use crate::{access::Credential, types::SessionId};

/// The cookie of a browser in which nobody has signed in.
const VISITOR: &str = "__Host-authgate-visitor";

/// The length of its value: 16 bytes of base64url.
const VISITOR_LENGTH: usize = 22;

/// Bytes of a token.
const LENGTH: usize = 16;

/// What a form is bound to.
#[derive(Debug, Clone)]
pub(super) enum Binding {
    /// The session in which it is shown.
    Session(SessionId),
    /// The cookie of a visitor.
    Visitor(String),
}

/// Makes and checks the tokens of forms.
pub(super) struct FormTokens(hmac::Key);

impl FormTokens {
    pub(super) fn new(key: hmac::Key) -> Self {
        Self(key)
    }

    /// Returns the token of forms that are bound to this.
    pub(super) fn token(&self, binding: &Binding) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        match binding {
            Binding::Session(session) => {
                context.update(b"session\0");
                context.update(session.to_string().as_bytes());
            }
            Binding::Visitor(value) => {
                context.update(b"visitor\0");
                context.update(value.as_bytes());
            }
        }
        URL_SAFE_NO_PAD.encode(&context.sign().as_ref()[..LENGTH])
    }

    /// Returns whether a token is that of forms that are bound to this.
    pub(super) fn is_genuine(&self, token: &str, binding: &Binding) -> bool {
        constant_time::verify_slices_are_equal(self.token(binding).as_bytes(), token.as_bytes()).is_ok()
    }
}

/// Returns the value of the visitor's cookie, if there is one that may be ours.
pub(super) fn visitor(headers: &HeaderMap) -> Option<String> {
    let Credential::Cookie(value) = Credential::of_cookies(headers.get_all(header::COOKIE), VISITOR) else {
        return None;
    };
    let value = std::str::from_utf8(value).ok().filter(|value| value.len() == VISITOR_LENGTH)?;
    URL_SAFE_NO_PAD.decode(value).ok()?;
    Some(value.to_owned())
}

/// Makes the value of a visitor's cookie.
pub(super) fn new_visitor(random: [u8; 16]) -> String {
    URL_SAFE_NO_PAD.encode(random)
}

/// Returns the `Set-Cookie` of a visitor. It ends with the browser.
pub(super) fn visitor_cookie(value: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{VISITOR}={value}; Path=/; Secure; HttpOnly; SameSite=Lax")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::OsRandom;

    #[test]
    fn a_token_is_genuine_for_what_it_is_bound_to_and_for_nothing_else() {
        let tokens = FormTokens::new(hmac::Key::new(hmac::HMAC_SHA256, b"key"));
        let others = FormTokens::new(hmac::Key::new(hmac::HMAC_SHA256, b"other"));
        let session = SessionId::generate(&OsRandom);
        let bindings = [
            Binding::Session(session),
            Binding::Session(SessionId::generate(&OsRandom)),
            Binding::Visitor(new_visitor([1; 16])),
            // What a stranger chooses is no session.
            Binding::Visitor(session.to_string()),
        ];
        for (index, binding) in bindings.iter().enumerate() {
            let token = tokens.token(binding);
            for (other, bound) in bindings.iter().enumerate() {
                assert_eq!(tokens.is_genuine(&token, bound), index == other);
            }
            assert!(!others.is_genuine(&token, binding) && !tokens.is_genuine("", binding));
        }
    }
}
