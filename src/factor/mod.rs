//! Second factors: codes of authenticator apps, passkeys, recovery codes. Nothing here depends on accounts.

mod cose;
mod passkey;
mod recovery;
mod totp;

pub use passkey::{Asserted, Assertion, Attestation, PasskeyError, Registered, RelyingParty};
pub use recovery::{normalized, recovery_code};
pub use totp::{Totp, qr_code};
