//! What an API key stands for.

use std::{
    net::IpAddr,
    sync::{
        Arc, LazyLock,
        atomic::{
            AtomicBool, AtomicU8,
            Ordering::{Acquire, Release},
        },
    },
};

use foldhash::fast::RandomState;
use ipnet::IpNet;
use moka::sync::Cache;

use super::Principal;
use crate::{
    config::{Claims, Pattern},
    types::{ApiKeyId, Attributes, Profile, Role, Roles, UserId, Username},
};

/// The owner of API keys, as they were read once. All of their keys share it, and there may be as many owners as keys: what few have lies
/// elsewhere.
#[derive(Debug)]
pub struct KeyOwner {
    /// The account.
    pub id: UserId,
    /// Its canonical name.
    pub name: Box<str>,
    /// Its roles, which accounts that have the same may share.
    pub roles: Arc<Roles>,
    /// The account's generation when it was read.
    pub generation: i64,
    /// What else is known of them.
    pub further: Option<Box<OwnerFurther>>,
    /// Whether this still holds.
    pub standing: OwnerStanding,
}

/// What few owners of API keys have, and what claims may say of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerFurther {
    /// The id in the program that the account was imported from.
    pub external_id: Option<String>,
    /// The e-mail address, if there are claims.
    pub email: Option<String>,
    /// Whether that is verified.
    pub email_verified: bool,
    /// The attributes, if there are claims.
    pub attributes: Attributes,
}

/// Whether what was read of an owner still holds.
#[derive(Debug, Default)]
pub struct OwnerStanding(AtomicU8);

/// What can be said of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// It does, as far as is known.
    Current,
    /// They have changed since.
    Outdated,
    /// They were read again; keys that are still of these have ended.
    Replaced,
}

impl OwnerStanding {
    /// Returns what was set last.
    pub fn get(&self) -> Standing {
        match self.0.load(Acquire) {
            0 => Standing::Current,
            1 => Standing::Outdated,
            _ => Standing::Replaced,
        }
    }

    /// Sets it for all of their keys.
    pub fn set(&self, standing: Standing) {
        self.0.store(standing as u8, Release);
    }
}

impl KeyOwner {
    /// Returns whether both say the same of a caller.
    pub fn is_like(&self, other: &Self) -> bool {
        self.has_rights_of(other) && self.further == other.further
    }

    /// Returns the id in the program that the account was imported from.
    pub fn external_id(&self) -> Option<&str> {
        self.further.as_ref()?.external_id.as_deref()
    }

    /// Returns the fields that claims come from.
    pub(super) fn profile(&self) -> Profile<'_> {
        static NONE: LazyLock<OwnerFurther> = LazyLock::new(OwnerFurther::default);
        let further = self.further.as_deref().unwrap_or(&NONE);
        Profile {
            id: self.id,
            name: &self.name,
            email: further.email.as_deref(),
            email_verified: further.email_verified,
            external_id: further.external_id.as_deref(),
            attributes: &further.attributes,
        }
    }

    /// Returns whether both are the same caller with the same rights.
    pub fn has_rights_of(&self, other: &Self) -> bool {
        self.id == other.id
            && self.name == other.name
            && self.roles == other.roles
            && self.external_id() == other.external_id()
    }
}

/// The limits of an API key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeyScope {
    /// Of the owner's roles those that it has; all of them without.
    pub roles: Option<Roles>,
    /// The paths that it opens; all without.
    pub routes: Vec<Pattern>,
    /// The networks that it is accepted from; all without.
    pub networks: Vec<IpNet>,
}

/// A caller who has shown an API key.
#[derive(Debug, Clone)]
pub struct KeyCaller {
    /// The key.
    pub id: ApiKeyId,
    /// Its owner.
    pub owner: Arc<KeyOwner>,
    /// Its limits, if it has any.
    pub scope: Option<Arc<KeyScope>>,
}

impl KeyCaller {
    /// Returns whether both are one key, as it was read at one time.
    fn is(&self, other: &Self) -> bool {
        let is_scope = match (&self.scope, &other.scope) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            _ => false,
        };
        self.id == other.id && Arc::ptr_eq(&self.owner, &other.owner) && is_scope
    }

    /// Returns whether a name that came with the key is its owner's, or the key's.
    pub fn is_user(&self, name: &str) -> bool {
        name == &*self.owner.name
            || name == self.id.to_string()
            || name == self.id.prefix()
            || Username::new(name).is_ok_and(|name| name.as_str() == &*self.owner.name)
    }

    /// Returns the roles of the key: those of its owner that it was given.
    pub(super) fn roles(&self) -> Roles {
        let given = self.scope.as_ref().and_then(|scope| scope.roles.as_ref());
        let is_given = |role: &&Role| given.is_none_or(|given| given.contains(role.as_str()));
        self.owner.roles.iter().filter(is_given).cloned().collect()
    }

    /// Returns whether the key is good for a path, which is canonical and decoded, and from an address. Of one that is not known the path
    /// alone counts.
    pub fn is_good_for(&self, path: &str, client: Option<IpAddr>) -> bool {
        let Some(scope) = &self.scope else { return true };
        let is_on_route = scope.routes.is_empty() || scope.routes.iter().any(|route| route.matches(path));
        let is_from = |client: IpAddr| {
            let client = client.to_canonical();
            scope.networks.is_empty() || scope.networks.iter().any(|network| network.contains(&client))
        };
        is_on_route && client.is_none_or(is_from)
    }
}

/// The most callers that are kept ready.
const MOST_CALLERS: u64 = 100_000;

/// The callers of keys that were used of late, with their headers for an upstream.
pub struct KeyPrincipals {
    ready: Cache<ApiKeyId, Arc<Principal>, RandomState>,
    claims: Arc<Claims>,
}

impl KeyPrincipals {
    /// An empty set, for upstreams that are told these claims.
    pub fn new(claims: Arc<Claims>) -> Self {
        let ready = Cache::builder().max_capacity(MOST_CALLERS).build_with_hasher(RandomState::default());
        Self { ready, claims }
    }

    /// Returns the principal of a key that was accepted. Returns `None` if a header value would be illegal.
    pub fn of(&self, caller: KeyCaller, expires_at: i64) -> Option<Arc<Principal>> {
        let is_same = |principal: &Arc<Principal>| {
            principal.expires_at == expires_at && principal.api_key().is_some_and(|known| known.is(&caller))
        };
        if let Some(known) = self.ready.get(&caller.id).filter(is_same) {
            return Some(known);
        }
        let id = caller.id;
        let in_use = Arc::new(AtomicBool::new(true));
        let principal = Arc::new(Principal::of_api_key(caller, expires_at, in_use, &self.claims)?);
        self.ready.insert(id, principal.clone());
        Some(principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NewApiKeyText, OsRandom};

    fn caller(scope: KeyScope) -> KeyCaller {
        let roles = Roles::parse_joined("a,b").unwrap();
        let owner = KeyOwner {
            id: UserId::generate(1, &OsRandom),
            name: "ann".into(),
            roles: Arc::new(roles),
            generation: 1,
            further: None,
            standing: OwnerStanding::default(),
        };
        let id = NewApiKeyText::generate(&OsRandom).id;
        KeyCaller { id, owner: Arc::new(owner), scope: Some(Arc::new(scope)) }
    }

    #[test]
    fn a_key_has_of_its_owners_roles_those_that_it_was_given() {
        let of = |given: &str| {
            let roles = Some(Roles::parse_joined(given).unwrap());
            caller(KeyScope { roles, ..KeyScope::default() }).roles().to_string()
        };
        assert_eq!(caller(KeyScope::default()).roles().to_string(), "a,b");
        assert_eq!((of("b,c").as_str(), of("c").as_str(), of("").as_str()), ("b", "", ""));
    }

    #[test]
    fn a_key_is_good_on_its_routes_and_from_its_networks() {
        let routes = vec![Pattern::parse("/a/**").unwrap(), Pattern::parse("/b").unwrap()];
        let networks = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let key = caller(KeyScope { roles: None, routes, networks });
        let from = |address: &str| Some(address.parse().unwrap());
        assert!(key.is_good_for("/a/x", from("10.1.2.3")) && key.is_good_for("/b", from("::ffff:10.1.2.3")));
        assert!(key.is_good_for("/b", from("2001:db8::1")) && key.is_good_for("/b", None));
        assert!(!key.is_good_for("/c", from("10.1.2.3")) && !key.is_good_for("/c", None));
        assert!(!key.is_good_for("/b", from("11.0.0.1")) && !key.is_good_for("/b", from("2001:db9::1")));
    }
}
