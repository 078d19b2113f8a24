//! The decision: who is calling, and may they.
//!
//! [`Access::decide`] is the only maker of [`Permit`], and nothing is forwarded without one. What
//! a route asks for is looked at on every request and never cached with a token.

mod credential;
mod failure;

use std::{sync::Arc, task::Waker};

use thiserror::Error;

pub use credential::Credential;
pub use failure::{Failure, answer};

use crate::{
    clock::{Now, TimeKeeper},
    config::{self, OnStale, RoleRule},
    error::Kind,
    revocation::{self, Mirror, Registration, Staleness},
    telemetry::Metrics,
    token::{Identity, TokenError, Verifier},
    types::Roles,
};

/// The right to be forwarded, and in whose name.
#[derive(Debug, Clone)]
pub struct Permit {
    identity: Option<Arc<Identity>>,
    on_stale: OnStale,
}

impl Permit {
    /// The caller; `None` for an anonymous one.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }
}

/// Why a request is refused. The text is for the log.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// No credential.
    #[error("no bearer token")]
    NoToken,
    /// Several credentials, another scheme, or not a token.
    #[error("the Authorization header is not one bearer token")]
    UnusableCredential,
    /// The token does not hold.
    #[error("token: {0}")]
    BadToken(#[from] TokenError),
    /// The token was revoked.
    #[error("token: revoked")]
    Revoked,
    /// It is not known whether the token was revoked.
    #[error("the revocation mirror is stale")]
    Stale,
    /// The roles are not enough.
    #[error("roles not sufficient")]
    Role,
}

impl Denied {
    /// What the client hears.
    pub fn kind(self) -> Kind {
        match self {
            Self::NoToken | Self::UnusableCredential | Self::BadToken(_) | Self::Revoked => {
                Kind::Unauthenticated
            }
            Self::Stale => Kind::Unavailable,
            Self::Role => Kind::InsufficientRole,
        }
    }

    /// The label of `authgate_denied_total`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::UnusableCredential => "unusable_credential",
            Self::BadToken(TokenError::Expired) => "expired_token",
            Self::BadToken(_) => "bad_token",
            Self::Revoked => "revoked",
            Self::Stale => "stale",
            Self::Role => "insufficient_role",
        }
    }

    /// Whether a token was there and was bad, which `WWW-Authenticate` tells (RFC 6750, section 3).
    pub fn had_token(self) -> bool {
        matches!(self, Self::UnusableCredential | Self::BadToken(_) | Self::Revoked)
    }
}

/// Decides.
pub struct Access {
    verifier: Arc<Verifier>,
    mirror: Arc<Mirror>,
    time: Arc<TimeKeeper>,
    metrics: Arc<Metrics>,
}

impl Access {
    /// A decider on these means.
    pub fn new(
        verifier: Arc<Verifier>,
        mirror: Arc<Mirror>,
        time: Arc<TimeKeeper>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { verifier, mirror, time, metrics }
    }

    /// The time that decisions go by.
    pub fn now(&self) -> Now {
        self.time.now()
    }

    /// Who holds this credential: a signature checked once, everything else on every use.
    ///
    /// # Errors
    /// Why nobody can be said to.
    pub fn identify(
        &self,
        credential: Credential<'_>,
        on_stale: OnStale,
        now: Now,
    ) -> Result<Arc<Identity>, Denied> {
        let token = match credential {
            Credential::Bearer(token) => token,
            Credential::Absent => return Err(Denied::NoToken),
            Credential::Unusable => return Err(Denied::UnusableCredential),
        };
        let checked = self.verifier.verify(token, now)?;
        if checked.hit {
            self.metrics.token_cache_hits.inc();
        } else {
            self.metrics.token_cache_misses.inc();
        }
        let identity = checked.identity;
        // How old the mirror is comes first: were it the other way round, what was not in it yet when the token
        // was looked up could have been confirmed by the time that its age is.
        let staleness = self.mirror.staleness(now);
        if self.is_revoked(&identity) {
            return Err(Denied::Revoked);
        }
        match staleness {
            Staleness::Fresh => {}
            Staleness::Stale if on_stale == OnStale::Allow => self.metrics.served_stale.inc(),
            Staleness::Stale | Staleness::NeverLoaded => return Err(Denied::Stale),
        }
        Ok(identity)
    }

    /// Takes in a stream that outlives its decision, carried by `task`: from now on it is cut when the
    /// permit ends. Nothing for an anonymous caller, whose permit has no end.
    ///
    /// # Errors
    /// Why the permit has ended already.
    pub fn watch(&self, permit: &Permit, task: &Waker) -> Result<Option<Registration>, Denied> {
        let Some(identity) = &permit.identity else { return Ok(None) };
        let token = revocation::Token {
            session: identity.session,
            user: identity.user,
            generation: identity.generation,
            key: identity.key,
            expires_at: identity.expires_at,
        };
        let outlives_staleness = permit.on_stale == OnStale::Allow;
        // Taken in first and looked at then: whatever ends it meanwhile finds it, or is found.
        let registration = self.mirror.watch(token, outlives_staleness, task.clone());
        let now = self.now();
        if self.is_revoked(identity) {
            return Err(Denied::Revoked);
        }
        if identity.expires_at <= now.seconds() {
            return Err(Denied::BadToken(TokenError::Expired));
        }
        match self.mirror.staleness(now) {
            Staleness::Fresh => Ok(Some(registration)),
            _ if outlives_staleness => Ok(Some(registration)),
            _ => Err(Denied::Stale),
        }
    }

    fn is_revoked(&self, identity: &Identity) -> bool {
        self.mirror.is_revoked(identity.session, identity.user, identity.generation)
            || self.mirror.is_key_revoked(identity.key)
    }

    /// Whether a request with this credential may use a route.
    ///
    /// # Errors
    /// Why not.
    pub fn decide(
        &self,
        access: &config::Access,
        on_stale: OnStale,
        credential: Credential<'_>,
    ) -> Result<Permit, Denied> {
        let identity = match (access, credential) {
            (config::Access::Open, _) | (config::Access::Optional, Credential::Absent) => None,
            _ => Some(self.identify(credential, on_stale, self.now())?),
        };
        judge(access, identity.as_ref().map(|identity| &identity.roles))?;
        Ok(Permit { identity, on_stale })
    }
}

/// The rule itself: what a route asks of a caller with these roles, `None` for an anonymous one.
///
/// # Errors
/// What is missing.
pub fn judge(access: &config::Access, roles: Option<&Roles>) -> Result<(), Denied> {
    match (access, roles) {
        (config::Access::Open | config::Access::Optional, _) | (config::Access::SignedIn(None), Some(_)) => {
            Ok(())
        }
        (config::Access::SignedIn(_), None) => Err(Denied::NoToken),
        (config::Access::SignedIn(Some(rule)), Some(roles)) => {
            let enough = match rule {
                RoleRule::Any(any) => any.iter().any(|role| roles.contains(role.as_str())),
                RoleRule::All(all) => all.iter().all(|role| roles.contains(role.as_str())),
            };
            if enough { Ok(()) } else { Err(Denied::Role) }
        }
    }
}
