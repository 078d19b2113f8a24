//! The caller of a request, with the header values that identify it to an upstream.

use std::sync::{Arc, atomic::AtomicBool};

use http::HeaderValue;

use super::{
    api_key::{KeyCaller, KeyOwner},
    claims,
    cookie::CookieLife,
    external::{ExternalCaller, ExternalIssuer},
    header_text::encode,
};
use crate::{
    config::Claims,
    types::{ClientId, ExternalId, KeyId, Proofs, Roles, SessionId, Subject, UserId},
};

/// The principal of a verified credential. The header values are made when the credential is verified, and shared by all of
/// its requests.
#[derive(Debug)]
pub struct Principal {
    /// The user, program or external subject.
    pub subject: Subject,
    /// The session that the credential belongs to, if any.
    pub session: Option<SessionId>,
    /// The subject's generation when the credential was issued.
    pub generation: i64,
    /// When the credential expires, in Unix seconds.
    pub expires_at: i64,
    /// When the user last showed who they are, in Unix seconds; 0 if that is not known here.
    pub authenticated_at: i64,
    /// How they have; none if that is not known here.
    pub proofs: Proofs,
    /// The subject's name. For a user the canonical one.
    pub name: String,
    /// The subject's roles.
    pub roles: Roles,
    /// The id for an upstream.
    pub id_value: HeaderValue,
    /// The name for an upstream, percent-encoded where it is not plain ASCII.
    pub name_value: HeaderValue,
    /// The roles for an upstream, sorted and joined with commas.
    pub roles_value: HeaderValue,
    /// The id that an imported user had before, for an upstream.
    pub external_id_value: Option<HeaderValue>,
    /// The claims for an upstream, one for each header of [`IdentityHeaders::claims`](crate::config::IdentityHeaders::claims).
    pub claim_values: Box<[Option<HeaderValue>]>,
    /// The key that signed the token.
    pub key: KeyId,
    pub(super) key_in_use: Arc<AtomicBool>,
    /// What else it can be revoked by, if it is of another issuer: the session, the token, the subject while it is suspended.
    pub others: Box<[ExternalId]>,
    /// The other issuer, if it was asked about the token.
    pub(super) asked: Option<Arc<ExternalIssuer>>,
    /// Until when what its issuer said of it holds, in Unix seconds; for ever if nobody was asked.
    pub(super) asked_until: i64,
    /// The life of the cookie, if it came by one.
    pub(super) cookie: Option<Box<CookieLife>>,
    /// The API key, if it came by one.
    pub(super) api_key: Option<Box<KeyCaller>>,
}

/// A user with a session. The calls below `auth.path` require one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedIn {
    /// The account.
    pub user: UserId,
    /// The session.
    pub session: SessionId,
    /// The account's generation when the credential was issued.
    pub generation: i64,
    /// When the credential expires, in Unix seconds.
    pub expires_at: i64,
    /// Whether it is a browser's cookie.
    pub by_cookie: bool,
    /// Whether the browser keeps it when it is closed.
    pub is_kept: bool,
}

/// The claims of an access token of a user.
pub(super) struct UserClaims {
    pub(super) user: UserId,
    pub(super) session: SessionId,
    pub(super) generation: i64,
    pub(super) expires_at: i64,
    pub(super) authenticated_at: i64,
    pub(super) proofs: Proofs,
    pub(super) name: String,
    pub(super) external_id: Option<String>,
    pub(super) roles: Roles,
    pub(super) claim_values: Box<[Option<HeaderValue>]>,
}

/// The claims of an access token of a client program.
pub(super) struct ClientCaller {
    pub(super) client: ClientId,
    pub(super) generation: i64,
    pub(super) expires_at: i64,
    pub(super) name: String,
    pub(super) roles: Roles,
    /// The token, which can be revoked by itself.
    pub(super) token: ExternalId,
}

impl Principal {
    /// Creates the principal of a client's token that `key` has signed. Returns `None` if a header value would be illegal.
    pub(super) fn of_client(caller: ClientCaller, key: KeyId, key_in_use: Arc<AtomicBool>) -> Option<Self> {
        Some(Self {
            id_value: HeaderValue::try_from(caller.client.to_string()).ok()?,
            name_value: HeaderValue::try_from(encode(&caller.name)).ok()?,
            roles_value: HeaderValue::try_from(caller.roles.to_string()).ok()?,
            external_id_value: None,
            claim_values: Box::default(),
            subject: Subject::Client(caller.client),
            session: None,
            generation: caller.generation,
            expires_at: caller.expires_at,
            authenticated_at: 0,
            proofs: Proofs::NONE,
            name: caller.name,
            roles: caller.roles,
            key,
            key_in_use,
            others: Box::new([caller.token]),
            asked: None,
            asked_until: i64::MAX,
            cookie: None,
            api_key: None,
        })
    }

    /// Creates the principal of a token that `key` has signed. Returns `None` if a header value would be illegal.
    pub(super) fn new(claims: UserClaims, key: KeyId, key_in_use: Arc<AtomicBool>) -> Option<Self> {
        Some(Self {
            id_value: HeaderValue::try_from(claims.user.to_string()).ok()?,
            name_value: HeaderValue::try_from(encode(&claims.name)).ok()?,
            roles_value: HeaderValue::try_from(claims.roles.to_string()).ok()?,
            external_id_value: match claims.external_id {
                Some(id) => Some(HeaderValue::try_from(encode(&id)).ok()?),
                None => None,
            },
            claim_values: claims.claim_values,
            subject: Subject::User(claims.user),
            session: Some(claims.session),
            generation: claims.generation,
            expires_at: claims.expires_at,
            authenticated_at: claims.authenticated_at,
            proofs: claims.proofs,
            name: claims.name,
            roles: claims.roles,
            key,
            key_in_use,
            others: Box::default(),
            asked: None,
            asked_until: i64::MAX,
            cookie: None,
            api_key: None,
        })
    }

    /// Creates the principal of another issuer's token. Returns `None` if a header value would be illegal.
    pub(super) fn external(
        caller: ExternalCaller,
        expires_at: i64,
        asked: Option<(Arc<ExternalIssuer>, i64)>,
        key: KeyId,
        key_in_use: Arc<AtomicBool>,
    ) -> Option<Self> {
        Some(Self {
            id_value: HeaderValue::try_from(encode(&caller.id)).ok()?,
            name_value: HeaderValue::try_from(encode(&caller.name)).ok()?,
            roles_value: HeaderValue::try_from(caller.roles.to_string()).ok()?,
            external_id_value: None,
            claim_values: Box::default(),
            subject: Subject::External(caller.subject),
            session: None,
            generation: caller.issued_at,
            expires_at,
            authenticated_at: 0,
            proofs: Proofs::NONE,
            name: caller.name,
            roles: caller.roles,
            key,
            key_in_use,
            others: caller.others.into(),
            asked_until: asked.as_ref().map_or(i64::MAX, |(_, until)| *until),
            asked: asked.map(|(issuer, _)| issuer),
            cookie: None,
            api_key: None,
        })
    }

    /// Creates the principal of an API key. Returns `None` if a header value would be illegal.
    pub fn of_api_key(
        caller: KeyCaller,
        expires_at: i64,
        in_use: Arc<AtomicBool>,
        claims: &Claims,
    ) -> Option<Self> {
        let roles = caller.roles();
        let claim_values = claims::header_values(claims, &claims.of(&caller.owner.profile()))?;
        let KeyOwner { id, name, .. } = &*caller.owner;
        Some(Self {
            id_value: HeaderValue::try_from(id.to_string()).ok()?,
            name_value: HeaderValue::try_from(encode(name)).ok()?,
            roles_value: HeaderValue::try_from(roles.to_string()).ok()?,
            external_id_value: match caller.owner.external_id() {
                Some(id) => Some(HeaderValue::try_from(encode(id)).ok()?),
                None => None,
            },
            claim_values,
            subject: Subject::User(*id),
            session: None,
            // What ends the owner's sessions does not end their keys.
            generation: i64::MAX,
            expires_at,
            authenticated_at: 0,
            proofs: Proofs::NONE,
            name: name.to_string(),
            roles,
            key: KeyId::of(""),
            key_in_use: in_use,
            others: Box::default(),
            asked: None,
            asked_until: i64::MAX,
            cookie: None,
            api_key: Some(Box::new(caller)),
        })
    }

    /// Returns the API key that the principal came by, if any.
    pub fn api_key(&self) -> Option<&KeyCaller> {
        self.api_key.as_deref()
    }

    /// Returns the other issuer, if it was asked about the token.
    pub fn asked(&self) -> Option<&Arc<ExternalIssuer>> {
        self.asked.as_ref()
    }

    /// Returns the flag that falls when the key is taken out of use.
    pub fn key_in_use(&self) -> &Arc<AtomicBool> {
        &self.key_in_use
    }

    /// Returns roughly how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let values = [&self.id_value, &self.name_value, &self.roles_value];
        let values = values.into_iter().chain(self.claim_values.iter().flatten());
        let values: usize = values.map(HeaderValue::len).sum();
        // The roles lie there once more, each by itself.
        values * 2 + self.name.len() + self.roles.len() * 32
    }

    /// Returns the user and session, if the principal has both.
    pub fn signed_in(&self) -> Option<SignedIn> {
        match (self.subject, self.session) {
            (Subject::User(user), Some(session)) => {
                let Self { generation, expires_at, .. } = *self;
                let is_kept = self.cookie.as_ref().is_some_and(|cookie| cookie.is_kept);
                Some(SignedIn {
                    user,
                    session,
                    generation,
                    expires_at,
                    by_cookie: self.is_by_cookie(),
                    is_kept,
                })
            }
            _ => None,
        }
    }
}
