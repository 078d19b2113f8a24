//! Accounts, passwords, tokens, mails: what the config says of them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::HeaderValue;

use super::{
    Algorithm, AttributeRules, Claims, Encryption, HttpUrl, Registration, Source, UpstreamTls, UsernameRules,
};
use crate::{
    error::Statuses,
    types::{Roles, Secret},
};

/// Accounts and tokens.
#[derive(Debug, Clone)]
pub struct Auth {
    /// The mount, without a final slash; empty for the root.
    pub path: String,
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// Whether strangers may register.
    pub registration: Registration,
    /// What people log in by.
    pub login_by: LoginBy,
    /// The roles of a new account.
    pub default_roles: Roles,
    /// The roles that a caller may ask for.
    pub self_assignable_roles: Roles,
    /// Life of an access token.
    pub access_token_ttl: Duration,
    /// Life of a refresh token since it was made.
    pub refresh_token_ttl: Duration,
    /// For how long a replay gives the same successor.
    pub refresh_grace: Duration,
    /// Life of a session.
    pub session_max_ttl: Duration,
    /// Sessions of one account.
    pub max_sessions: u32,
    /// Where the master key comes from.
    pub master_key: MasterKeySource,
    /// Where the one before comes from, while it is being replaced.
    pub previous_master_key: Option<MasterKeySource>,
    /// How recent a login counts as proof.
    pub reauth_window: Duration,
    /// How tokens are signed.
    pub signing: Signing,
    /// Names that people choose.
    pub username: UsernameRules,
    /// Second factors.
    pub mfa: Mfa,
    /// By what API keys are taken.
    pub keys: ApiKeys,
    /// Passwords.
    pub password: Password,
    /// Throttling.
    pub throttle: Throttle,
    /// Calls from pages of other origins.
    pub cors: Option<Cors>,
    /// For clients of older services.
    pub compat: Compat,
    /// Mails.
    pub email: Option<Email>,
    /// What accounts may have beside their names and roles.
    pub attributes: AttributeRules,
    /// What tokens and headers say of accounts beside their names and roles.
    pub claims: Arc<Claims>,
}

impl Auth {
    /// Returns the path of the issuer, if it is a URL with one. It stands behind the path of the metadata (RFC 8414, section 3).
    pub fn issuer_path(&self) -> &str {
        let authority = self.issuer.split_once("://").map(|(_, rest)| rest);
        let path = authority.and_then(|rest| rest.find('/').map(|start| &rest[start..]));
        path.filter(|path| !path.contains(['?', '#'])).unwrap_or_default().trim_end_matches('/')
    }
}

/// Second factors.
#[derive(Debug, Clone)]
pub struct Mfa {
    /// Whoever has one of these roles must have one.
    pub required_for: Roles,
    /// For how long a device is not asked again; zero for never.
    pub remember_device: Duration,
    /// Whether a code by mail is taken where there is another factor.
    pub mail_codes: bool,
}

impl Mfa {
    /// Returns whether a holder of these roles must have a second factor.
    pub fn binds(&self, roles: &Roles) -> bool {
        roles.iter().any(|role| self.required_for.contains(role.as_str()))
    }
}

/// By what API keys are taken beside `Authorization: Bearer`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApiKeys {
    /// As the password of `Authorization: Basic`.
    pub basic: bool,
    /// As `X-Api-Key`.
    pub header: bool,
}

/// What people may give as `username` to log in; one of them at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginBy {
    /// The account's name.
    pub username: bool,
    /// A verified e-mail address.
    pub email: bool,
}

/// Which pages of other origins may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// The origins; `None` for any.
    pub origins: Option<Vec<HeaderValue>>,
    /// Whether with credentials.
    pub credentials: bool,
    /// How long a response may be remembered, in seconds.
    pub max_age: HeaderValue,
}

/// What older clients expect otherwise.
#[derive(Debug, Clone)]
pub struct Compat {
    /// The statuses that they expect.
    pub statuses: Statuses,
    /// Further members that carry the access token.
    pub token_fields: Vec<String>,
    /// Whether login answers it in a header, too.
    pub token_in_header: bool,
}

/// Mails.
#[derive(Debug, Clone)]
pub struct Email {
    /// The server.
    pub smtp: Smtp,
    /// The sender.
    pub from: String,
    /// The link to verify an address, with `{token}` in it.
    pub verify_link: String,
    /// The link to reset a password, with `{token}` in it.
    pub reset_link: String,
    /// Life of a link to verify an address.
    pub verify_ttl: Duration,
    /// Life of a link to reset a password.
    pub reset_ttl: Duration,
    /// For how long a mail is tried again.
    pub retry_for: Duration,
    /// How many are queued.
    pub per_hour: MailsPerHour,
    /// The folder of the operator's own texts.
    pub templates: Option<PathBuf>,
    /// Where it stands in the config.
    pub source: Source,
}

/// How many mails are queued in an hour.
#[derive(Debug, Clone, Copy)]
pub struct MailsPerHour {
    /// To all accounts together.
    pub all: u32,
    /// To one account.
    pub account: u32,
}

/// A mail server.
#[derive(Debug, Clone)]
pub struct Smtp {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub encryption: Encryption,
    /// User name and password.
    pub credentials: Option<(String, Secret)>,
    /// Certificates to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// For one mail.
    pub timeout: Duration,
}

/// Where a master key comes from.
#[derive(Debug, Clone)]
pub enum MasterKeySource {
    /// Written in the config.
    Given(Secret),
    /// A file, made at first start.
    File(PathBuf),
}

impl MasterKeySource {
    /// Returns whether both are certainly the same.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Given(one), Self::Given(other)) => one.expose() == other.expose(),
            (Self::File(one), Self::File(other)) => one == other,
            _ => false,
        }
    }
}

/// How access tokens are signed.
#[derive(Debug, Clone)]
pub enum Signing {
    /// A key pair from the store.
    KeyPair(Algorithm),
    /// A shared secret from the config.
    Shared {
        /// Signs and verifies.
        secret: Secret,
        /// Verifies only.
        previous: Option<Secret>,
    },
}

/// A service that knows stolen passwords by their hashes.
#[derive(Debug, Clone)]
pub struct BreachedService {
    /// The address that the begin of a hash is appended to.
    pub url: HttpUrl,
    /// How long it is waited for.
    pub timeout: Duration,
    /// TLS to it.
    pub tls: UpstreamTls,
}

/// Rules for passwords, and what hashing may cost.
#[derive(Debug, Clone)]
pub struct Password {
    /// Least number of characters.
    pub min_length: usize,
    /// Whether well-known ones are refused.
    pub reject_common: bool,
    /// The list of stolen ones, which are refused.
    pub breached: Option<BreachedList>,
    /// The service that is asked about those that people choose.
    pub breached_service: Option<BreachedService>,
    /// Argon2 memory in KiB.
    pub memory_kib: u32,
    /// Argon2 passes.
    pub iterations: u32,
    /// Argon2 lanes.
    pub parallelism: u32,
    /// Hashing threads.
    pub workers: usize,
    /// Hashes that may wait.
    pub queue: usize,
    /// How long one may wait.
    pub queue_timeout: Duration,
}

/// A file of `authgate password-filter build`.
#[derive(Debug, Clone)]
pub struct BreachedList {
    /// Where it lies.
    pub path: PathBuf,
    /// Where it is declared.
    pub source: Source,
}

/// A rate: `count` in `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// Attempts that are taken before 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// Failures of one account.
    pub account: Rate,
    /// Failures from one address.
    pub address: Rate,
    /// Registrations from one address.
    pub registrations: Rate,
    /// Requests for mails from one address.
    pub mails: Rate,
}
