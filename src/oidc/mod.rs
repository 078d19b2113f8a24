//! What is asked of other issuers: their keys, ahead of need, and their word on tokens that only they can read.
//!
//! Addresses come from the config, or from the OpenID configuration of an issuer that the config names, never from a token. No
//! redirect is followed.

mod discovery;
mod fetch;
mod identity;
mod introspection;
mod keys;
mod provider;

pub use fetch::{FetchError, Fetcher};
pub use identity::Identity;
pub use introspection::Introspector;
pub use keys::{KeyFollower, read_key_file};
pub use provider::{AuthorizationRequest, ProviderClient, ProviderError};
