//! What second factors are made of: codes of authenticator apps, passkeys, codes for when both are lost. Nothing here knows of accounts.

mod cose;
mod passkey;
mod recovery;
mod totp;

pub use passkey::{Asserted, Assertion, Attestation, PasskeyError, Registered, RelyingParty};
pub use recovery::{normalized, recovery_code};
pub use totp::{Totp, qr_code};
