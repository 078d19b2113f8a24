//! Tokens by which a device is known again: whoever has logged in from it before is no stranger to the throttle.
//!
//! `base64url(account ‖ device ‖ time ‖ tag)`, the tag an HMAC of that and the account's generation under a key outside
//! the database. It opens nothing: a password is needed as before. Whatever ends all sessions of an account ends its
//! devices, too: whoever had the password for a day has no part in the throttle's patience afterwards.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::{
    clock::{UnixMillis, millis},
    types::{Random, UserId},
};

const ACCOUNT: usize = 16;
const DEVICE: usize = ACCOUNT + 16;
const TIME: usize = DEVICE + 8;
const LENGTH: usize = TIME + 16;

/// A device of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Whose it is: to other accounts it is a stranger's.
    pub user: UserId,
    /// Which one.
    pub id: Uuid,
}

/// Makes and reads the tokens.
pub struct DeviceTokens {
    key: hmac::Key,
    ttl: Duration,
    random: Arc<dyn Random>,
}

impl DeviceTokens {
    /// How long a device is known after its last login.
    pub const TTL: Duration = Duration::from_secs(90 * 86_400);

    pub(super) fn new(key: hmac::Key, ttl: Duration, random: Arc<dyn Random>) -> Self {
        Self { key, ttl, random }
    }

    /// How long a device is known after its token was made.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A device that was not known so far.
    pub fn new_device(&self, user: UserId) -> Device {
        Device { user, id: uuid::Builder::from_random_bytes(self.random.bytes()).into_uuid() }
    }

    fn tag(&self, body: &[u8], generation: i64) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(body);
        context.update(&generation.to_be_bytes());
        context.sign()
    }

    /// The token of a device that somebody has logged in from at `now`, to the account in this generation.
    pub fn token(&self, device: Device, generation: i64, now: UnixMillis) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(device.user.uuid().as_bytes());
        bytes.extend_from_slice(device.id.as_bytes());
        bytes.extend_from_slice(&now.to_be_bytes());
        let tag = self.tag(&bytes, generation);
        bytes.extend_from_slice(&tag.as_ref()[..LENGTH - TIME]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The device of a token that was made here for this account in this generation, and is not too old.
    pub fn read(&self, text: &str, user: UserId, generation: i64, now: UnixMillis) -> Option<Device> {
        if text.len() != (LENGTH * 4).div_ceil(3) {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, tag) = bytes.split_at_checked(TIME)?;
        let genuine = self.tag(body, generation);
        constant_time::verify_slices_are_equal(genuine.as_ref().get(..LENGTH - TIME)?, tag).ok()?;
        let made_at = i64::from_be_bytes(body[DEVICE..].try_into().ok()?);
        if now.saturating_sub(made_at) > millis(self.ttl) {
            return None;
        }
        let id = Uuid::from_slice(&body[ACCOUNT..DEVICE]).ok()?;
        (body[..ACCOUNT] == *user.uuid().as_bytes()).then_some(Device { user, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{token::RootSecret, types::OsRandom};

    fn tokens(secret: &[u8]) -> DeviceTokens {
        RootSecret::new(secret, Arc::new(OsRandom)).device_tokens()
    }

    #[test]
    fn a_device_is_known_again_until_its_token_is_too_old_or_the_account_has_changed() {
        let (tokens, user) = (tokens(b"a"), UserId::generate(1, &OsRandom));
        let device = tokens.new_device(user);
        let text = tokens.token(device, 7, 1_000);
        let last = 1_000 + millis(DeviceTokens::TTL);
        assert_eq!(tokens.read(&text, user, 7, last), Some(device));
        assert_eq!(tokens.read(&text, user, 7, last + 1), None);
        assert_eq!(tokens.read(&text, user, 8, last), None);
        assert_eq!(tokens.read(&text, UserId::generate(2, &OsRandom), 7, last), None);
    }

    #[test]
    fn what_was_not_made_here_is_no_token() {
        let user = UserId::generate(1, &OsRandom);
        let foreign = tokens(b"b").token(tokens(b"b").new_device(user), 1, 0);
        assert_eq!(tokens(b"a").read(&foreign, user, 1, 0), None);
        for text in ["", "AAAA", &"A".repeat(75), &"~".repeat(75)] {
            assert_eq!(tokens(b"a").read(text, user, 1, 0), None, "{text}");
        }
    }
}
