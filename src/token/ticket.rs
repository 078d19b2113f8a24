//! Tickets: a browser's cookies during a sign-in by a provider.
//!
//! A ticket names the provider, the state and the address to continue at. It is authenticated by a key outside the database. The nonce and
//! the PKCE verifier (RFC 7636) are derived from the state by the same key, so neither leaves the gateway before the callback.

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    clock::UnixMillis,
    types::{Random, SessionId, hash::sha256},
};

/// The length of a state: 32 bytes of base64url.
const STATE_LENGTH: usize = 43;

/// An authorization request in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The provider's name.
    pub provider: String,
    /// The state.
    pub state: String,
    /// The address to continue at.
    pub return_to: Option<String>,
    /// The session that it was begun in, unless it is a sign-in.
    session: Option<String>,
    /// Whether that session is to be proved, and no link made.
    #[serde(default)]
    is_proof: bool,
    /// Its expiry.
    expires_at: UnixMillis,
}

/// The purpose of an authorization request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketPurpose {
    /// Somebody signs in.
    SignIn,
    /// The account of this session is linked.
    Link(SessionId),
    /// The owner of this session proves their identity again.
    Proof(SessionId),
}

impl Ticket {
    /// Returns a ticket with a random state.
    pub fn new(
        random: &dyn Random,
        provider: &str,
        return_to: Option<String>,
        purpose: TicketPurpose,
        expires_at: UnixMillis,
    ) -> Self {
        let (session, is_proof) = match purpose {
            TicketPurpose::SignIn => (None, false),
            TicketPurpose::Link(session) => (Some(session), false),
            TicketPurpose::Proof(session) => (Some(session), true),
        };
        Self {
            provider: provider.to_owned(),
            state: URL_SAFE_NO_PAD.encode(random.bytes::<32>()),
            return_to,
            session: session.map(|session| session.to_string()),
            is_proof,
            expires_at,
        }
    }

    /// Returns its expiry.
    pub fn expires_at(&self) -> UnixMillis {
        self.expires_at
    }

    /// Returns its purpose; `None` if its session is none.
    pub fn purpose(&self) -> Option<TicketPurpose> {
        let Some(session) = &self.session else { return Some(TicketPurpose::SignIn) };
        let session = SessionId::parse(session)?;
        Some(if self.is_proof { TicketPurpose::Proof(session) } else { TicketPurpose::Link(session) })
    }
}

/// Returns whether a text has the form of a state.
pub fn is_state(text: &str) -> bool {
    text.len() == STATE_LENGTH
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Seals and opens tickets.
#[derive(Clone)]
pub struct Tickets(hmac::Key);

impl Tickets {
    pub(super) fn new(key: hmac::Key) -> Self {
        Self(key)
    }

    fn derive(&self, purpose: &[u8], text: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose);
        context.update(&[0]);
        context.update(text.as_bytes());
        URL_SAFE_NO_PAD.encode(context.sign())
    }

    /// Returns the value of a ticket's cookie.
    pub fn seal(&self, ticket: &Ticket) -> String {
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(ticket).unwrap_or_default());
        let tag = self.derive(b"ticket", &body);
        format!("{body}.{tag}")
    }

    /// Opens the ticket of a state, unless it has expired at `now`.
    pub fn open(&self, sealed: &str, state: &str, now: UnixMillis) -> Option<Ticket> {
        let (body, tag) = sealed.split_once('.')?;
        let genuine = self.derive(b"ticket", body);
        constant_time::verify_slices_are_equal(genuine.as_bytes(), tag.as_bytes()).ok()?;
        let ticket: Ticket = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        (ticket.state == state && now < ticket.expires_at).then_some(ticket)
    }

    /// Returns the nonce of a state (OpenID Connect Core 1.0, section 3.1.2.1).
    pub fn nonce(&self, state: &str) -> String {
        self.derive(b"nonce", state)
    }

    /// Returns the PKCE verifier of a state (RFC 7636, section 4.1).
    pub fn verifier(&self, state: &str) -> String {
        self.derive(b"verifier", state)
    }

    /// Returns the challenge of its verifier (RFC 7636, section 4.2).
    pub fn challenge(&self, state: &str) -> String {
        URL_SAFE_NO_PAD.encode(sha256(self.verifier(state).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{token::RootSecret, types::OsRandom};

    #[test]
    fn a_ticket_is_of_one_state_and_time_and_cannot_be_made_elsewhere() {
        let tickets = |root: &[u8]| RootSecret::new(root, Arc::new(OsRandom)).tickets();
        let session = SessionId::generate(&OsRandom);
        let purpose = TicketPurpose::Link(session);
        let ticket = Ticket::new(&OsRandom, "corp", Some("/a".to_owned()), purpose, 1_000);
        let (ours, theirs) = (tickets(b"a"), tickets(b"b"));
        let sealed = ours.seal(&ticket);
        assert_eq!(ours.open(&sealed, &ticket.state, 999), Some(ticket.clone()));
        assert_eq!(ticket.purpose(), Some(purpose));
        for purpose in [TicketPurpose::SignIn, TicketPurpose::Proof(session)] {
            assert_eq!(Ticket::new(&OsRandom, "corp", None, purpose, 1).purpose(), Some(purpose));
        }
        assert_eq!(ours.open(&sealed, &ticket.state, 1_000), None);
        assert_eq!(ours.open(&sealed, "other", 999), None);
        assert_eq!(theirs.open(&sealed, &ticket.state, 999), None);
        assert_eq!(ours.open(&sealed.replace('.', "A."), &ticket.state, 999), None);
        assert!(is_state(&ticket.state) && !is_state("x") && !is_state(&format!("{};", &ticket.state[1..])));
        assert_ne!(ours.nonce(&ticket.state), ours.verifier(&ticket.state));
        assert!(ours.verifier(&ticket.state).len() >= 43);
        // RFC 7636, appendix B, has the challenge of a verifier.
        let challenge = URL_SAFE_NO_PAD.encode(sha256(b"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
