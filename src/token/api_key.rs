//! What an API key stands for.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use foldhash::fast::RandomState;
use ipnet::IpNet;
use moka::sync::Cache;

use super::Principal;
use crate::{
    config::{Claims, Pattern},
    types::{ApiKeyId, Attributes, Profile, Role, Roles, ShortText, UserId, Username},
};

/// The owner of API keys, as they were read once. All of their keys share it, and there may be as many owners as keys, so it is small: what
/// few have, or many have in common, lies elsewhere.
#[derive(Debug)]
pub struct KeyOwner {
    /// The account.
    pub id: UserId,
    /// Its canonical name.
    pub name: ShortText,
    /// What else is known of them, which accounts of which the same is known may share.
    pub about: Arc<AboutOwner>,
    state: OwnerState,
}

/// What is known of owners of API keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AboutOwner {
    /// The roles.
    pub roles: Roles,
    /// The id in the program that the account was imported from.
    pub external_id: Option<String>,
    /// The e-mail address, if there are claims.
    pub email: Option<String>,
    /// Whether that is verified.
    pub email_verified: bool,
    /// The attributes, if there are claims.
    pub attributes: Attributes,
}

/// The account's generation when it was read, and in the two lowest bits whether that still holds.
#[derive(Debug)]
struct OwnerState(AtomicU64);

const STANDING: u64 = 3;

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

impl KeyOwner {
    /// An owner who holds, as far as is known.
    pub fn new(id: UserId, name: ShortText, about: Arc<AboutOwner>, generation: i64) -> Self {
        // Generations count from 1.
        let state = u64::try_from(generation).unwrap_or_default() << STANDING.count_ones();
        Self { id, name, about, state: OwnerState(AtomicU64::new(state)) }
    }

    /// Returns the account's generation when it was read.
    pub fn generation(&self) -> i64 {
        (self.state.0.load(Acquire) >> STANDING.count_ones()) as i64
    }

    /// Returns whether what was read still holds.
    pub fn standing(&self) -> Standing {
        match self.state.0.load(Acquire) & STANDING {
            0 => Standing::Current,
            1 => Standing::Outdated,
            _ => Standing::Replaced,
        }
    }

    /// Sets it for all of their keys.
    pub fn set_standing(&self, standing: Standing) {
        let generation = self.state.0.load(Relaxed) & !STANDING;
        self.state.0.store(generation | standing as u64, Release);
    }

    /// Returns whether both say the same of a caller.
    pub fn is_like(&self, other: &Self) -> bool {
        self.has_rights_of(other) && self.about == other.about
    }

    /// Returns the id in the program that the account was imported from.
    pub fn external_id(&self) -> Option<&str> {
        self.about.external_id.as_deref()
    }

    /// Returns the fields that claims come from.
    pub(super) fn profile(&self) -> Profile<'_> {
        let AboutOwner { email, email_verified, external_id, attributes, .. } = &*self.about;
        Profile {
            id: self.id,
            name: &self.name,
            email: email.as_deref(),
            email_verified: *email_verified,
            external_id: external_id.as_deref(),
            attributes,
        }
    }

    /// Returns whether both are the same caller with the same rights.
    pub fn has_rights_of(&self, other: &Self) -> bool {
        self.id == other.id
            && self.name == other.name
            && self.about.roles == other.about.roles
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
        self.owner.about.roles.iter().filter(is_given).cloned().collect()
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
        let about = AboutOwner { roles, ..AboutOwner::default() };
        let owner = KeyOwner::new(UserId::generate(1, &OsRandom), "ann".into(), Arc::new(about), 1);
        let id = NewApiKeyText::generate(&OsRandom).id;
        KeyCaller { id, owner: Arc::new(owner), scope: Some(Arc::new(scope)) }
    }

    #[test]
    fn an_owner_keeps_the_generation_whatever_becomes_of_them() {
        let owner = KeyOwner::new(UserId::generate(1, &OsRandom), "ann".into(), Arc::default(), 1 << 40);
        for standing in [Standing::Outdated, Standing::Replaced, Standing::Current] {
            owner.set_standing(standing);
            assert_eq!((owner.standing(), owner.generation()), (standing, 1 << 40));
        }
        // The bound for a million keys, each of its own owner, counts on it.
        assert_eq!(size_of::<KeyOwner>(), 48);
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
