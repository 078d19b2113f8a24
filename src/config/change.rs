//! How one config differs from another, as far as a running gateway has to know.

use super::{Config, Listener, ListenerTls, MasterKeySource, Password, Signing, Store, StoreLocation};

impl Config {
    /// Returns the keys in which `next` differs from this config that a running gateway cannot take up.
    pub fn needs_restart(&self, next: &Self) -> Vec<&'static str> {
        let same_master = |one: &Option<MasterKeySource>, other: &Option<MasterKeySource>| match (one, other)
        {
            (Some(one), Some(other)) => one.is(other),
            (None, None) => true,
            _ => false,
        };
        let (auth, to) = (&self.auth, &next.auth);
        let admin = self.admin.is_like(&next.admin) && self.admin_hosts == next.admin_hosts;
        let keys = [
            ("store", self.store_is_like(next)),
            ("auth.master_key", auth.master_key.is(&to.master_key)),
            ("auth.previous_master_key", same_master(&auth.previous_master_key, &to.previous_master_key)),
            ("auth.signing.algorithm", auth.signing.is_of_kind(&to.signing)),
            ("workers", self.workers == next.workers),
            ("admin", admin),
            ("log.format", self.log.format == next.log.format),
            ("log.access", self.log.access == next.log.access),
        ];
        keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }

    fn store_is_like(&self, other: &Self) -> bool {
        let (one, other) = (&self.store, &other.store);
        let same_place = match (&one.location, &other.location) {
            (StoreLocation::Sqlite(one), StoreLocation::Sqlite(other)) => one == other,
            (StoreLocation::Postgres(one), StoreLocation::Postgres(other)) => {
                one.url.expose() == other.url.expose() && one.tls == other.tls
            }
            _ => false,
        };
        let numbers = |store: &Store| (store.pool_size, store.timeout, store.migrate);
        same_place && numbers(one) == numbers(other)
    }
}

impl Signing {
    /// Returns whether both sign by the same algorithm.
    fn is_of_kind(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::KeyPair(one), Self::KeyPair(other)) => one == other,
            (Self::Shared { .. }, Self::Shared { .. }) => true,
            _ => false,
        }
    }
}

impl Password {
    /// Returns whether both hash alike, as much at once, and refuse common passwords or not.
    pub fn hashes_like(&self, other: &Self) -> bool {
        let costs = |password: &Self| {
            let Self { memory_kib, iterations, parallelism, workers, queue, queue_timeout, .. } = password;
            (*memory_kib, *iterations, *parallelism, *workers, *queue, *queue_timeout)
        };
        costs(self) == costs(other) && self.reject_common == other.reject_common
    }
}

impl Listener {
    /// Returns whether another config defines the same listener, perhaps in another place.
    pub fn is_like(&self, other: &Self) -> bool {
        self.tls_is_like(other) && *self == Self { tls: self.tls.clone(), ..other.clone() }
    }

    /// Returns whether TLS is the same.
    pub fn tls_is_like(&self, other: &Self) -> bool {
        match (&self.tls, &other.tls) {
            (Some(one), Some(other)) => one.is_like(other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl ListenerTls {
    fn is_like(&self, other: &Self) -> bool {
        let files = |tls: &Self| -> Vec<_> {
            tls.certificates.iter().map(|files| (files.certificate.clone(), files.key.clone())).collect()
        };
        let clients = |tls: &Self| {
            tls.client_certificates.as_ref().map(|own| (own.ca.clone(), own.required, own.forward))
        };
        self.min_version == other.min_version
            && self.acme == other.acme
            && files(self) == files(other)
            && clients(self) == clients(other)
    }
}
