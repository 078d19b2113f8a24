//! The part of the config that is about accounts and tokens, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::units::{Number, Size, Span, Switch};
use crate::types::Secret;

/// Whether strangers may register.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Anyone may register.
    #[default]
    Open,
    /// Only an operator makes accounts: by the command line or the admin API.
    Closed,
}

/// What a person may give as `username` to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoginName {
    /// The account's name.
    Username,
    /// An e-mail address that was verified, where one account alone has it.
    Email,
}

/// How people log in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// What is taken as `username`: username, email, or both. Default: [username].
    pub by: Option<Vec<LoginName>>,
}

/// Accounts and tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The path below which authgate answers itself; empty for the root. Default: /auth.
    pub path: Option<String>,
    /// The `iss` of tokens.
    pub issuer: String,
    /// The `aud` of tokens.
    pub audience: String,
    /// open or closed. Default: open.
    #[serde(default)]
    pub registration: Registration,
    /// How people log in.
    #[serde(default)]
    pub login: Login,
    /// The roles of a new account. Default: [user].
    pub default_roles: Option<Vec<String>>,
    /// The roles that a caller may ask for at registration. Default: none.
    #[serde(default)]
    pub self_assignable_roles: Vec<String>,
    /// How long an access token lives. Default: 15m.
    pub access_token_ttl: Option<Span>,
    /// How long a refresh token lives, from each rotation on. Default: 30d.
    pub refresh_token_ttl: Option<Span>,
    /// For how long the replay of the token that was just replaced gives the same successor. Default: 30s.
    pub refresh_grace: Option<Span>,
    /// How long a session lives, whatever is refreshed. Default: 30d.
    pub session_max_ttl: Option<Span>,
    /// How many sessions an account has at most; for a further one the one that was used longest ago ends.
    /// Default: 100.
    pub max_sessions: Option<Number>,
    /// 32 bytes or more that wrap the private keys in the store. Default: the file master.key beside the
    /// SQLite database, or beside this file.
    pub master_key: Option<Secret>,
    /// The file with the master key, in place of `master_key`.
    pub master_key_file: Option<String>,
    /// The master key before this one, until `authgate key rewrap` has run and every gateway has the new one.
    /// Default: none.
    pub previous_master_key: Option<Secret>,
    /// The file with it, in place of `previous_master_key`.
    pub previous_master_key_file: Option<String>,
    /// How recent a login must be to change credentials without the current password. Default: 5m.
    pub reauth_window: Option<Span>,
    /// How access tokens are signed.
    #[serde(default)]
    pub signing: Signing,
    /// Rules for names that people choose; an operator may give others.
    #[serde(default)]
    pub username: Username,
    /// Second factors.
    #[serde(default)]
    pub mfa: Mfa,
    /// By what API keys are taken beside `Authorization: Bearer`.
    #[serde(default)]
    pub keys: ApiKeys,
    /// Rules for passwords, and what hashing may cost.
    #[serde(default)]
    pub password: Password,
    /// How many attempts are taken before 429.
    #[serde(default)]
    pub throttle: Throttle,
    /// Which pages of other origins may call authgate from a browser. Default: none.
    pub cors: Option<Cors>,
    /// For clients of older services.
    #[serde(default)]
    pub compat: Compat,
    /// Mails to verify addresses and to reset passwords. Default: none are sent.
    pub email: Option<Email>,
}

/// Second factors: codes of authenticator apps, and passkeys where there is a public_url.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mfa {
    /// Whoever has one of these roles must have a factor: until then a login leads to getting one. Default: none.
    #[serde(default)]
    pub required_for: Vec<String>,
    /// For how long a device is not asked again, if its user wants that; 0s for never. Default: 30d.
    pub remember_device: Option<Span>,
    /// Whether who has a factor may get a code by mail in its place, the weakest way. Never after a password that was reset by mail.
    /// Default: true.
    pub mail_codes: Option<Switch>,
}

/// By what API keys are taken beside `Authorization: Bearer`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeys {
    /// As the password of `Authorization: Basic`, whose user is the owner's name or the key's id. Default: false.
    pub basic: Option<Switch>,
    /// As `X-Api-Key`, which no upstream gets then. Default: false.
    pub header: Option<Switch>,
}

/// Which pages of other origins may call from a browser (Fetch standard, CORS protocol).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins such as https://app.example.com; or `*` alone for any.
    pub origins: Vec<String>,
    /// Whether they may send cookies and the like. Default: false.
    pub credentials: Option<Switch>,
    /// How long a browser may remember the response to its question. Default: 10m.
    pub max_age: Option<Span>,
}

/// What older clients expect otherwise.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compat {
    /// The status when a name is taken: 409, 400 or 422. Default: 409.
    pub duplicate_username: Option<Number>,
    /// The status for a missing, bad or expired token: 401 or 403. Default: 401.
    pub unauthenticated: Option<Number>,
    /// The members that carry the access token in responses; access_token always does. Default: [access_token].
    pub token_fields: Option<Vec<String>>,
    /// Whether login also answers `Authorization: Bearer …`. Default: false.
    pub token_in_header: Option<Switch>,
}

/// Mails.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// The server that takes them.
    pub smtp: Smtp,
    /// The sender, such as `Example <no-reply@example.com>`.
    pub from: String,
    /// What links begin with, such as https://app.example.com. Default: public_url.
    pub base_url: Option<String>,
    /// The page for a token that verifies an address. Default: /verify-email?token={token}, or with `pages` theirs.
    pub verify_path: Option<String>,
    /// The page for a token that resets a password. Default: /reset-password?token={token}, or with `pages` theirs.
    pub reset_path: Option<String>,
    /// How long a link to verify an address lives. Default: 1d.
    pub verify_ttl: Option<Span>,
    /// How long a link to reset a password lives. Default: 30m.
    pub reset_ttl: Option<Span>,
    /// For how long an undelivered mail is tried again. Default: 3d.
    pub retry_for: Option<Span>,
    /// How many mails an hour go out to all accounts together. Default: 1000.
    pub max_per_hour: Option<Number>,
    /// How many mails an hour go out to one account. Default: 20.
    pub max_per_hour_of_account: Option<Number>,
    /// A folder with verify, reset, password-changed or address-changed, each as .txt or .html, in place of the
    /// built-in texts.
    pub templates: Option<String>,
}

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// STARTTLS, required.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// None; for a server on loopback.
    None,
}

/// A mail server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// Its name, which its certificate must show.
    pub host: String,
    /// Default: 587; 465 with tls, 25 with none.
    pub port: Option<Number>,
    /// starttls, tls or none. Default: starttls.
    #[serde(default)]
    pub encryption: Encryption,
    /// The user name, if it wants one.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// A file of certificates (PEM) to trust beside the system's.
    pub ca: Option<String>,
    /// For one mail. Default: 20s.
    pub timeout: Option<Span>,
}

/// The algorithm of access tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// Ed25519.
    #[default]
    EdDSA,
    /// ECDSA on P-256.
    ES256,
    /// HMAC with a shared secret: every holder of it can make tokens.
    HS256,
}

/// How access tokens are signed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signing {
    /// EdDSA, ES256 or HS256. Default: EdDSA.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// HS256 only: the shared secret, 32 bytes or more.
    pub secret: Option<Secret>,
    /// HS256 only: the secret before this one; its tokens verify until they expire.
    pub previous_secret: Option<Secret>,
}

/// Rules for names that people choose.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Username {
    /// A regular expression that the whole name must match. Default: letters, digits, `.`, `_` and `-`.
    pub pattern: Option<String>,
    /// The least number of characters. Default: 1.
    pub min_length: Option<Number>,
    /// The greatest number of characters. Default: 64.
    pub max_length: Option<Number>,
    /// Names that only an operator gives out. Default: admin, root, system and the like.
    pub reserved: Option<Vec<String>>,
}

/// A service that says which stolen passwords have a hash that begins with the same five digits, as that of Have I Been Pwned does.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreachedService {
    /// The address that the five digits are appended to: https, or http on this machine.
    pub url: String,
    /// How long it is waited for. What it does not say in time is taken for no. Default: 2s.
    pub timeout: Option<Span>,
    /// A PEM file with the authorities that its certificate may be of. Default: those of the system.
    pub ca: Option<String>,
}

/// Rules for passwords.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Password {
    /// The least number of characters. Default: 15 (NIST SP 800-63B-4 for a password alone).
    pub min_length: Option<Number>,
    /// Whether well-known passwords are refused. Default: true.
    pub reject_common: Option<Switch>,
    /// A file of `authgate password-filter build`: passwords in it are refused. Default: none.
    pub breached: Option<String>,
    /// A service that is asked about passwords that people choose, by the begin of their hashes. Default: none.
    pub breached_service: Option<BreachedService>,
    /// The cost of one hash.
    #[serde(default)]
    pub argon2: Argon2,
    /// How many threads hash. Default: the number of cores.
    pub workers: Option<Number>,
    /// How many hashes may wait. Default: 64.
    pub queue: Option<Number>,
    /// How long one may wait before it is refused with 503. Default: 2s.
    pub queue_timeout: Option<Span>,
}

/// The cost of one Argon2id hash (RFC 9106).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Argon2 {
    /// Memory. Default: 19MiB.
    pub memory: Option<Size>,
    /// Passes. Default: 2.
    pub iterations: Option<Number>,
    /// Lanes. Default: 1.
    pub parallelism: Option<Number>,
}

/// How many attempts are taken.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Failed logins of one account from addresses it does not know. Default: 10 per 5m.
    pub account: Option<Failures>,
    /// Failed logins from one address (IPv6: one /64). Default: 100 per 5m.
    pub address: Option<Failures>,
    /// Registrations from one address (IPv6: one /64). Default: 20 per 1m.
    pub registrations: Option<Requests>,
    /// Requests for mails from one address (IPv6: one /64). Default: 10 per 10m.
    pub mails: Option<Requests>,
}

/// A number of failures in a span of time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failures {
    /// How many.
    pub failures: Number,
    /// In how long.
    pub per: Span,
}

/// A number of requests in a span of time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// How many.
    pub requests: Number,
    /// In how long.
    pub per: Span,
}
