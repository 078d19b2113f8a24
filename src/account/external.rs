//! Ends tokens of other issuers: by an operator, or by the issuer itself.

use std::net::IpAddr;

use super::{Accounts, Actor, Operator, Result, Revoker};
use crate::{
    clock::{UnixMillis, millis},
    config::{Issuer, IssuerKeys},
    store::{Event, LogEntry, Revoked},
    types::ExternalId,
};

/// What is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalTarget<'a> {
    /// The tokens of a subject (`sub`).
    Subject(&'a str),
    /// The tokens of a subject that name no session.
    Sessionless(&'a str),
    /// The tokens of a session (`sid`).
    Session(&'a str),
    /// A token (`jti`).
    Token(&'a str),
}

impl ExternalTarget<'_> {
    fn id(self, issuer: &str, ended: Ended) -> ExternalId {
        match self {
            // Apart from what ends by the time of issue: joined, the longer time would hold for all.
            Self::Subject(sub) if matches!(ended, Ended::Until(_)) => ExternalId::of_suspended(issuer, sub),
            Self::Subject(sub) => ExternalId::of(issuer, sub),
            Self::Sessionless(sub) => ExternalId::of_sessionless(issuer, sub),
            Self::Session(sid) => ExternalId::of_session(issuer, sid),
            Self::Token(jti) => ExternalId::of_token(issuer, jti),
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Subject(_) | Self::Sessionless(_) => "sub",
            Self::Session(_) => "sid",
            Self::Token(_) => "jti",
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Subject(text) | Self::Sessionless(text) | Self::Session(text) | Self::Token(text) => text,
        }
    }
}

/// Which tokens of a subject are ended, and for how long that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Those issued up to a Unix second by the issuer's clock.
    IssuedUpTo(i64),
    /// Those issued until now.
    UntilNow,
    /// All of them until a time.
    Until(UnixMillis),
}

impl Revoker {
    /// Ends tokens of another issuer. Returns until when they are ended.
    ///
    /// # Errors
    /// The store's. If it leaves open whether the store holds it, the tokens are denied here until that is settled.
    pub async fn end_external(
        &self,
        issuer: &Issuer,
        target: ExternalTarget<'_>,
        ended: Ended,
    ) -> Result<UnixMillis> {
        let now = self.clock.wall();
        let leeway = issuer.leeway.as_secs() as i64;
        // What an issuer says of an opaque token need not tell when that was issued.
        let is_asked = matches!(issuer.keys, IssuerKeys::Introspection(_));
        let max_ttl = if is_asked { Issuer::MOST_TTL } else { issuer.max_ttl };
        let life = millis(max_ttl) + millis(issuer.leeway) * 2 + 1_000;
        let generation = match (target, ended) {
            // A session or a token never comes back.
            (ExternalTarget::Session(_) | ExternalTarget::Token(_), _) | (_, Ended::Until(_)) => {
                LogEntry::ALL
            }
            (_, Ended::IssuedUpTo(second)) => second.saturating_add(1),
            // The issuer's clock may be ahead.
            (_, Ended::UntilNow) => now / 1_000 + leeway + 1,
        };
        let expires_at = match ended {
            Ended::Until(until) => until,
            // The same each time that it is told.
            Ended::IssuedUpTo(second) => second.saturating_mul(1_000).saturating_add(life),
            Ended::UntilNow => now + life,
        };
        let entry =
            LogEntry { revoked: Revoked::External(target.id(&issuer.issuer, ended)), generation, expires_at };
        self.settle(entry).await?;
        Ok(expires_at)
    }
}

/// Describes the end of tokens for the audit trail.
fn external_detail(issuer: &Issuer, target: ExternalTarget<'_>) -> String {
    // The texts are the issuer's, and may be of any length.
    let text: String = target.text().chars().filter(|char| !char.is_control()).take(128).collect();
    format!("{} {}: {text}", issuer.name, target.kind())
}

impl Accounts {
    /// Ends tokens of another issuer, which says so itself from `address`.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_external(
        &self,
        issuer: &Issuer,
        target: ExternalTarget<'_>,
        ended: Ended,
        address: IpAddr,
    ) -> Result<()> {
        self.revoker.end_external(issuer, target, ended).await?;
        let event = Event::of_stranger(address, "external.logout", external_detail(issuer, target));
        Ok(self.store.record(None, &event).await?)
    }
}

impl Operator {
    /// Ends tokens of another issuer. Returns until when they are ended.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_external(
        &self,
        by: &Actor,
        issuer: &Issuer,
        target: ExternalTarget<'_>,
        ended: Ended,
    ) -> Result<UnixMillis> {
        let until = self.revoker.end_external(issuer, target, ended).await?;
        let event: Event = by.event("external.revoke", external_detail(issuer, target));
        self.store.record(None, &event).await?;
        Ok(until)
    }
}
