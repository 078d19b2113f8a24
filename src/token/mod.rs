//! Tokens: access tokens (JWT), refresh tokens, and the keys behind both.
//!
//! A token is what this program made: one issuer, one audience, the algorithms that its own keys have, and every claim of the type
//! that it was issued with. Or it is of another issuer that the config names, and then of that issuer alone.

mod api_key;
mod claims;
mod client;
mod cookie;
mod device;
mod external;
mod factor;
mod fresh_sessions;
mod header_text;
mod issuer;
mod jws;
mod keyring;
mod mail;
mod master;
mod opaque;
mod principal;
mod refresh;
mod root;
mod ticket;
mod verifier;

pub use api_key::{AboutOwner, KeyCaller, KeyOwner, KeyPrincipals, KeyScope, Standing};
pub use client::{AssertionError, ClientAssertion, ClientKeys};
pub use cookie::{CookieChange, SessionCookies};
pub use device::{Device, DeviceTokens};
pub use external::{Claims, ExternalIssuer, KeySet, KeySetError, Logout, Verified};
pub use factor::FactorKeys;
pub use fresh_sessions::{FreshSession, FreshSessions, WantedSession};
pub use issuer::{AccessClaims, AccessToken, ClientClaims, Issuer};
pub use jws::{Payload, TokenError, VerifyingKey, verify_signature};
pub use keyring::{CurrentKeyring, KeyError, Keyring, NewKey, PublicKey, SigningKey};
pub use mail::{MailToken, MailTokens};
pub use master::{MasterError, MasterKey, MasterKeys, Wrapped};
pub use opaque::OpaqueToken;
pub use principal::{Principal, SignedIn};
pub use refresh::{Presented, RefreshToken, RefreshTokens};
pub use root::RootSecret;
pub use ticket::{Ticket, TicketPurpose, Tickets, is_state};
pub use verifier::{Checked, Verifier};
