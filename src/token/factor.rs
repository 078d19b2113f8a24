//! Secrets of second factors, derived from a key outside the database. A copy of the database reveals none of them.

use aws_lc_rs::hmac;
use uuid::Uuid;

use crate::types::{FactorId, UserId};

/// Digits of a code in a mail.
const MAIL_CODE_DIGITS: usize = 8;

/// Derives the secrets of factors.
#[derive(Clone)]
pub struct FactorKeys(hmac::Key);

impl FactorKeys {
    pub(super) fn new(key: hmac::Key) -> Self {
        Self(key)
    }

    fn derive(&self, purpose: &[u8], of: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose);
        context.update(&[0]);
        of.iter().for_each(|part| context.update(part));
        let mut derived = [0; 32];
        derived.copy_from_slice(context.sign().as_ref());
        derived
    }

    /// Returns the secret of an authenticator app.
    pub fn totp_secret(&self, factor: FactorId) -> [u8; 20] {
        let mut secret = [0; 20];
        secret.copy_from_slice(&self.derive(b"totp", &[factor.uuid().as_bytes()])[..20]);
        secret
    }

    /// Returns the challenge of a registration.
    pub fn creation_challenge(&self, factor: FactorId) -> [u8; 32] {
        self.derive(b"creation", &[factor.uuid().as_bytes()])
    }

    /// Returns the challenge of an authentication, by the hash of its token.
    pub fn assertion_challenge(&self, token_hash: &[u8; 32]) -> [u8; 32] {
        self.derive(b"assertion", &[token_hash])
    }

    /// Returns the code in a mail.
    pub fn mail_code(&self, mail: Uuid) -> String {
        let derived = self.derive(b"mail code", &[mail.as_bytes()]);
        let number = derived[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        format!("{:0MAIL_CODE_DIGITS$}", number % 10_u64.pow(MAIL_CODE_DIGITS as u32))
    }

    /// Returns the hash of a recovery code of an account.
    pub fn recovery_hash(&self, user: UserId, code: &str) -> [u8; 32] {
        self.derive(b"recovery", &[user.uuid().as_bytes(), code.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{token::RootSecret, types::OsRandom};

    #[test]
    fn each_secret_is_its_own_and_the_same_again() {
        let keys = |root: &[u8]| RootSecret::new(root, Arc::new(OsRandom)).factor_keys();
        let (one, other) = (FactorId::generate(&OsRandom), FactorId::generate(&OsRandom));
        let user = UserId::generate(1, &OsRandom);
        let mail = Uuid::from_bytes([1; 16]);
        let ours = keys(b"a");
        assert_eq!(ours.totp_secret(one), keys(b"a").totp_secret(one));
        assert_ne!(ours.totp_secret(one), ours.totp_secret(other));
        assert_ne!(ours.totp_secret(one), keys(b"b").totp_secret(one));
        assert_ne!(ours.creation_challenge(one)[..20], ours.totp_secret(one));
        assert_ne!(ours.recovery_hash(user, "a"), ours.recovery_hash(UserId::generate(2, &OsRandom), "a"));
        let code = ours.mail_code(mail);
        assert!(code.len() == MAIL_CODE_DIGITS && code.bytes().all(|byte| byte.is_ascii_digit()), "{code}");
    }
}
