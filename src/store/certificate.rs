//! Certificates that an authority issues (RFC 8555), and the orders by which they are obtained, shared by all gateways.

use async_trait::async_trait;

use super::Result;
use crate::clock::UnixMillis;

/// A certificate that was obtained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCertificate {
    /// The name that it is for.
    pub name: String,
    /// How many were obtained for that name, this one included.
    pub version: i64,
    /// The chain in PEM, leaf first.
    pub chain: String,
    /// The private key (PKCS #8), wrapped.
    pub wrapped_key: Vec<u8>,
    /// The directory of the authority that has issued it.
    pub directory: String,
}

/// An order that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunOrder {
    /// Its URL.
    pub url: String,
    /// Its private key (PKCS #8), wrapped.
    pub wrapped_key: Vec<u8>,
    /// The directory of the authority.
    pub directory: String,
}

/// The lease of a name's order: while it lasts, no other gateway works on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLease {
    /// The name.
    pub name: String,
    /// Counts the leases of this name. What is written under an earlier one is refused.
    pub fence: i64,
    /// How many orders failed in a row.
    pub failures: u32,
    /// The order that another gateway, or this one, has begun.
    pub begun: Option<BegunOrder>,
    /// The certificate that there is.
    pub current: Option<StoredCertificate>,
}

/// How an order ended, or a look at whether one is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEnd {
    /// A certificate was obtained: the chain in PEM, and the private key, wrapped.
    Obtained {
        /// The chain in PEM, leaf first.
        chain: String,
        /// The private key (PKCS #8), wrapped.
        wrapped_key: Vec<u8>,
        /// The directory of the authority.
        directory: String,
        /// Whether it counts as a failure all the same, since it is to be renewed at once.
        is_short: bool,
    },
    /// It failed. `keeps_order` if it may go on later.
    Failed {
        /// Whether the order goes on at the next attempt.
        keeps_order: bool,
    },
    /// The certificate that there is need not be renewed yet.
    NotDue,
}

/// What proves to an authority that a name is served here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The name.
    pub name: String,
    /// The token, by which an authority asks (RFC 8555, section 8.3).
    pub token: String,
    /// What it expects to be told (section 8.1).
    pub key_authorization: String,
}

/// A time further ahead than this, in milliseconds, was written while a clock was wrong: the name is due.
pub(super) const FURTHEST_DUE_MILLIS: i64 = 25 * 3_600_000;

/// How long after its lease a challenge is still answered, in milliseconds.
pub(super) const CHALLENGE_MARGIN_MILLIS: i64 = 60_000;

/// Certificates and orders.
#[async_trait]
pub trait Certificates: Send + Sync {
    /// Returns the account at a directory, wrapped.
    async fn acme_account(&self, directory: &str) -> Result<Option<Vec<u8>>>;

    /// Stores the account at a directory, in place of the one that it `replaces`, unless another gateway has stored one since.
    /// Returns the one that is stored in the end.
    async fn add_acme_account(
        &self,
        directory: &str,
        wrapped: &[u8],
        replaces: Option<&[u8]>,
    ) -> Result<Vec<u8>>;

    /// Returns the names that certificates were obtained for, and their versions.
    async fn certificate_versions(&self) -> Result<Vec<(String, i64)>>;

    /// Returns the certificate of a name.
    async fn certificate(&self, name: &str) -> Result<Option<StoredCertificate>>;

    /// Makes the names due now whose certificates are another authority's than that of `directory`.
    async fn expect_directory(&self, directory: &str) -> Result<()>;

    /// Returns all challenges whose orders are leased, or were until a minute ago.
    async fn challenges(&self) -> Result<Vec<Challenge>>;

    /// Leases the order of a name among `names` that is due and not leased, for `hold` milliseconds. A name that is not known is due
    /// at once.
    async fn lease_order(&self, names: &[String], hold: i64) -> Result<Option<OrderLease>>;

    /// Extends a lease for `hold` milliseconds from now. False if it is another gateway's by now.
    async fn extend_lease(&self, lease: &OrderLease, hold: i64) -> Result<bool>;

    /// Stores the order that was begun under a lease. False if the lease is another gateway's by now.
    async fn order_begun(&self, lease: &OrderLease, begun: &BegunOrder) -> Result<bool>;

    /// Stores the challenge of a lease's name, in place of an earlier one. False if the lease is another gateway's by now.
    async fn add_challenge(&self, lease: &OrderLease, challenge: &Challenge) -> Result<bool>;

    /// Ends a lease, and with it the challenges of its name. The name is due again at `due_at`. False if the lease is another
    /// gateway's by now; nothing has changed then.
    async fn end_order(&self, lease: &OrderLease, end: &OrderEnd, due_at: UnixMillis) -> Result<bool>;
}
