//! API keys: made, listed and ended by their owners.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{AccountError, Accounts, Actor, Operator, Result};
use crate::{
    config::Pattern,
    error::Kind,
    revocation::Mirror,
    store::{ApiKey, ApiKeyLimits, ApiKeyPage, Event, LogEntry, NewApiKey, Purpose, Revoked, Store, User},
    token::SignedIn,
    types::{ApiKeyId, NewApiKeyText, Random, Roles, Secret, UserId},
};

/// The most keys of an account.
pub const MOST_KEYS: u32 = 100;

/// The most routes and networks of a key, and characters of its name.
const MOST_ROUTES: usize = 32;
const MOST_NETWORKS: usize = 64;
const MOST_NAME_CHARS: usize = 64;
const MOST_ROUTE_BYTES: usize = 512;

/// The longest life that can be asked for, in seconds: ten years.
const LONGEST: i64 = 3_653 * 86_400;

/// An API key that is asked for.
#[derive(Debug, Default)]
pub struct ApiKeyRequest {
    /// What its owner calls it.
    pub name: String,
    /// Of the owner's roles those that it is to have; all without.
    pub roles: Option<Vec<String>>,
    /// The patterns of the paths that it is to open; all without.
    pub routes: Option<Vec<String>>,
    /// The addresses and networks that it is to be accepted from; all without.
    pub networks: Option<Vec<String>>,
    /// How long it is to live, in seconds; for ever without.
    pub expires_in: Option<i64>,
}

/// A new API key, which is shown once.
#[derive(Debug)]
pub struct NewKey {
    /// The key as it is listed.
    pub key: ApiKey,
    /// Its text.
    pub text: Secret,
}

/// A page of a list of keys.
pub struct ListedKeys {
    /// The keys, newest first.
    pub keys: Vec<ApiKey>,
    /// Where the next page begins; none at the end.
    pub next: Option<String>,
}

/// Tells whether somebody with these roles may reach what a pattern opens.
pub type MayReach<'a> = &'a (dyn Fn(&Pattern, &Roles) -> bool + Sync);

/// What the audit trail calls the making and the end of a key.
const CREATED: &str = "api-key.create";
const ENDED: &str = "api-key.end";

fn detail(key: &NewApiKey) -> String {
    // Without its name, which is a person's own words: the audit trail outlives an account.
    format!("api key: {}", key.id.prefix())
}

fn illegal(detail: &'static str) -> AccountError {
    AccountError::Explained(Kind::MissingParameters, detail)
}

impl ApiKeyRequest {
    /// Generates a key as it is asked for, for an owner with these roles. Returns it with its text.
    ///
    /// # Errors
    /// 400 for what is no limit, 403 for more than the owner may.
    fn generate(
        self,
        owned: &Roles,
        may_reach: MayReach<'_>,
        random: &dyn Random,
    ) -> Result<(NewApiKey, Secret)> {
        let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_some_and(Vec::is_empty);
        if is_empty(&self.routes) || is_empty(&self.networks) {
            return Err(illegal("an empty list of routes or addresses opens nothing; leave it out"));
        }
        let name = self.name.trim().to_owned();
        if name.is_empty() || name.chars().count() > MOST_NAME_CHARS || name.chars().any(char::is_control) {
            return Err(illegal("expected a name of 1 to 64 characters"));
        }
        let roles = self.roles.map(|roles| Roles::parse_all(&roles));
        let roles = roles.transpose().map_err(|_| illegal("expected names of roles"))?;
        let is_owned = |roles: &Roles| roles.iter().all(|role| owned.contains(role.as_str()));
        let routes = self.routes.unwrap_or_default();
        if routes.len() > MOST_ROUTES || routes.iter().any(|route| route.len() > MOST_ROUTE_BYTES) {
            return Err(illegal("expected at most 32 routes"));
        }
        let patterns =
            routes.iter().map(|route| Pattern::parse(route)).collect::<std::result::Result<Vec<_>, _>>();
        let patterns = patterns.map_err(|_| illegal("expected routes such as /orders/**"))?;
        let networks = self.networks.unwrap_or_default();
        let networks = networks.iter().map(|text| network(text)).collect::<Option<Vec<_>>>();
        let networks = networks.filter(|networks| networks.len() <= MOST_NETWORKS);
        let networks = networks.ok_or(illegal("expected addresses or networks such as 10.0.0.0/8"))?;
        if self.expires_in.is_some_and(|seconds| !(1..=LONGEST).contains(&seconds)) {
            return Err(illegal("expected a life of 1 second to ten years"));
        }
        if !roles.as_ref().is_none_or(is_owned) || !patterns.iter().all(|route| may_reach(route, owned)) {
            return Err(AccountError::Refused(Kind::InsufficientRole));
        }
        let lives_for = self.expires_in.map(|seconds| seconds * 1_000);
        let NewApiKeyText { id, text, hash } = NewApiKeyText::generate(random);
        let limits = ApiKeyLimits { roles, routes, networks };
        Ok((NewApiKey { id, hash, name, limits, lives_for, most: MOST_KEYS, mail: None }, text))
    }
}

/// Reads an address or a network. One of IPv4 that is written as IPv6 is what it stands for, as clients' addresses are.
fn network(text: &str) -> Option<IpNet> {
    let network: IpNet = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    let canonical = match (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED)) {
        (address @ IpAddr::V4(_), Some(length)) if network.addr().is_ipv6() => {
            IpNet::new(address, length).ok()?
        }
        _ => network,
    };
    Some(canonical.trunc())
}

/// The bits before an address of IPv4 in one of IPv6 (RFC 4291, section 2.5.5.2).
const MAPPED: u8 = 96;

impl Accounts {
    /// Makes a key of the caller's.
    ///
    /// # Errors
    /// 403 for more than the caller may, 401 without a recent proof of who they are.
    pub async fn add_api_key(
        &self,
        caller: &SignedIn,
        wanted: ApiKeyRequest,
        may_reach: MayReach<'_>,
        address: IpAddr,
    ) -> Result<NewKey> {
        let me = self.me(caller).await?;
        let (mut new, text) = wanted.generate(&me.roles, may_reach, &*self.random)?;
        self.need_proof(caller, &me).await?;
        let _counted = self.attempts.change(&me.name, address).await?;
        new.mail = self.notice(&me, Purpose::KeyAdded).await?;
        let event = Event::own(me.id, address, CREATED, detail(&new));
        let key = self.revoker.add_api_key(me.id, caller.generation, &new, &event).await?;
        self.mails_are_queued();
        Ok(NewKey { key: key.ok_or(AccountError::Refused(Kind::Unauthenticated))?, text })
    }

    /// Lists up to `limit` keys of the caller, behind those of the page that said `after`.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn api_keys(&self, caller: &SignedIn, limit: u32, after: Option<&str>) -> Result<ListedKeys> {
        self.me(caller).await?;
        list_keys(&*self.store, caller.user, limit, after).await
    }

    /// Ends a key of the caller's.
    ///
    /// # Errors
    /// 404 if the caller has no such key, 401 without a recent proof of who they are.
    pub async fn end_api_key(&self, caller: &SignedIn, id: &str, address: IpAddr) -> Result<()> {
        let me = self.me(caller).await?;
        let id = ApiKeyId::parse(id).ok_or(AccountError::Refused(Kind::NotFound))?;
        self.need_proof(caller, &me).await?;
        let _counted = self.attempts.change(&me.name, address).await?;
        let event = Event::own(me.id, address, ENDED, format!("api key: {}", id.prefix()));
        match self.revoker.end_api_key(me.id, id, &event).await? {
            true => Ok(()),
            false => Err(AccountError::Refused(Kind::NotFound)),
        }
    }
}

impl Operator {
    /// Makes a key of an account's.
    ///
    /// # Errors
    /// 403 for more than the account may.
    pub async fn add_api_key(
        &self,
        by: &Actor,
        owner: &User,
        wanted: ApiKeyRequest,
        may_reach: MayReach<'_>,
    ) -> Result<NewKey> {
        let (mut new, text) = wanted.generate(&owner.roles, may_reach, &*self.random)?;
        new.mail = self.notice(owner, Purpose::KeyAdded);
        let event = by.event(CREATED, detail(&new));
        let key = self.revoker.add_api_key(owner.id, owner.generation, &new, &event).await?;
        Ok(NewKey { key: key.ok_or(AccountError::Refused(Kind::NotFound))?, text })
    }

    /// Ends a key of an account's.
    ///
    /// # Errors
    /// `Not found`, or the store's.
    pub async fn end_api_key(&self, by: &Actor, owner: UserId, id: &str) -> Result<()> {
        let id = ApiKeyId::parse(id).ok_or(AccountError::Refused(Kind::NotFound))?;
        let event = by.event(ENDED, format!("api key: {}", id.prefix()));
        match self.revoker.end_api_key(owner, id, &event).await? {
            true => Ok(()),
            false => Err(AccountError::Refused(Kind::NotFound)),
        }
    }
}

/// Lists up to `limit` keys of an account, behind those of the page that said `after`.
///
/// # Errors
/// `Missing parameters` for an `after` that no page has said.
pub async fn list_keys(
    store: &dyn Store,
    owner: UserId,
    limit: u32,
    after: Option<&str>,
) -> Result<ListedKeys> {
    let no_cursor = || AccountError::Refused(Kind::MissingParameters);
    let after = after.map(|after| ApiKeyPage::parse(after).ok_or_else(no_cursor)).transpose()?;
    let mut keys = store.api_keys(owner, ApiKeyPage { limit: limit + 1, after }).await?;
    let has_more = keys.len() > limit as usize;
    keys.truncate(limit as usize);
    let next = keys.last().filter(|_| has_more).map(ApiKeyPage::cursor);
    Ok(ListedKeys { keys, next })
}

/// Has this gateway's keys of an owner follow a change of the account, before the caller hears of it.
pub(super) async fn follow_owner(mirror: &Mirror, store: &dyn Store, owner: UserId, generation: i64) {
    mirror.apply(&LogEntry { revoked: Revoked::KeyOwner(owner), generation, expires_at: 0 });
    if let Err(error) = mirror.refresh_api_keys(store, true).await {
        tracing::debug!(%error, "the API keys of an account could not be read again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_in_the_form_in_which_addresses_come() {
        let read = |text: &str| network(text).map(|network| network.to_string());
        for (text, network) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("2001:db8::1", "2001:db8::1/128"),
        ] {
            assert_eq!(read(text).as_deref(), Some(network), "{text}");
        }
        assert_eq!(read("10.1.2"), None);
    }
}
