//! Values that are checked once, where they enter, and cannot be wrong afterwards.

mod api_key;
mod attributes;
pub mod chunked;
mod claim;
mod controls;
pub mod cookies;
pub mod fields;
pub mod framing;
pub mod grpc_message;
pub mod hash;
pub mod hop_by_hop;
pub mod host;
mod id;
pub mod path;
pub mod precis;
mod proof;
mod pseudonym;
mod random;
mod role;
mod secret;
pub mod trace_context;
pub mod trailers;
mod username;

pub use api_key::{API_KEY_LENGTH, ApiKeyId, NewApiKeyText, looks_like_api_key, read_api_key};
pub use attributes::{AttributeChanges, Attributes};
pub use claim::{ClaimValue, ClaimValues, Profile};
pub use id::{ClientId, ExternalId, FactorId, KeyId, SessionId, Subject, UserId};
pub use proof::{Proof, Proofs};
pub use pseudonym::Pseudonyms;
pub use random::{OsRandom, Random};
pub use role::{Role, RoleError, Roles, RolesError};
pub use secret::Secret;
pub use username::{Username, UsernameError};
