//! Secrets of second factors, derived from a key outside the database: what lies there is of no use without it, and nothing of it is.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::types::{FactorId, Random, Secret, UserId, hash::sha256};

/// Digits of a code in a mail.
const MAIL_CODE_DIGITS: usize = 8;

/// Makes the secrets of factors.
#[derive(Clone)]
pub struct FactorKeys(hmac::Key);

/// A token that stands for a challenge.
pub struct ChallengeToken {
    /// The token.
    pub text: Secret,
    /// What the store keeps of it: its SHA-256.
    pub hash: [u8; 32],
}

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

    /// What an app makes codes with.
    pub fn totp_secret(&self, factor: FactorId) -> [u8; 20] {
        let mut secret = [0; 20];
        secret.copy_from_slice(&self.derive(b"totp", &[factor.uuid().as_bytes()])[..20]);
        secret
    }

    /// What a passkey is made for.
    pub fn creation_challenge(&self, factor: FactorId) -> [u8; 32] {
        self.derive(b"creation", &[factor.uuid().as_bytes()])
    }

    /// What a passkey signs to meet a challenge, by the hash of its token.
    pub fn assertion_challenge(&self, token_hash: &[u8; 32]) -> [u8; 32] {
        self.derive(b"assertion", &[token_hash])
    }

    /// The code in a mail.
    pub fn mail_code(&self, mail: Uuid) -> String {
        let derived = self.derive(b"mail code", &[mail.as_bytes()]);
        let number = derived[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        format!("{:0MAIL_CODE_DIGITS$}", number % 10_u64.pow(MAIL_CODE_DIGITS as u32))
    }

    /// What the store keeps of a recovery code of an account.
    pub fn recovery_hash(&self, user: UserId, code: &str) -> [u8; 32] {
        self.derive(b"recovery", &[user.uuid().as_bytes(), code.as_bytes()])
    }
}

impl ChallengeToken {
    /// A new one.
    pub fn generate(random: &dyn Random) -> Self {
        let text = URL_SAFE_NO_PAD.encode(random.bytes::<32>());
        Self { hash: Self::hash_of(&text), text: Secret::new(text) }
    }

    /// What the store keeps of a token.
    pub fn hash_of(text: &str) -> [u8; 32] {
        sha256(text.as_bytes())
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
        let token = ChallengeToken::generate(&OsRandom);
        assert_eq!(ChallengeToken::hash_of(token.text.expose()), token.hash);
    }
}
