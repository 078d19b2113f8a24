//! Decides when signing keys start to sign and stop to verify, and what their revocation logs.

use std::time::Duration;

use crate::{
    clock::{UnixMillis, millis},
    store::{KeyRevocation, LOG_MARGIN, LogEntry, StoredKey},
    types::KeyId,
};

/// The longest time for the response to a poll, in milliseconds.
pub(in crate::store) const ROUND_TRIP_MILLIS: i64 = 1_000;

/// Returns the key to be stored. It signs after `delay`, and not before every running gateway has read it or denies.
/// `longest` is the greatest `max_staleness` of the gateways, in milliseconds.
pub(in crate::store) fn begun(
    key: &StoredKey,
    now: UnixMillis,
    delay: Duration,
    longest: Option<i64>,
) -> StoredKey {
    let read_by_all = longest.map_or(0, |longest| longest + ROUND_TRIP_MILLIS);
    StoredKey { created_at: now, signs_at: now + millis(delay).max(read_by_all), ..key.clone() }
}

/// Returns when the keys that `successor` replaces stop verifying: after the last token that they can sign has expired.
/// `issued` is the latest expiry of any issued token.
pub(in crate::store) fn predecessors_end(
    successor: &StoredKey,
    access_ttl: Duration,
    issued: Option<UnixMillis>,
) -> UnixMillis {
    (successor.signs_at + millis(access_ttl)).max(issued.unwrap_or(0)) + millis(LOG_MARGIN)
}

/// Returns the log entries for revoked keys.
pub(in crate::store) fn entries(
    revocation: &KeyRevocation,
    kids: &[String],
    now: UnixMillis,
    issued: Option<UnixMillis>,
) -> Vec<LogEntry> {
    let last = (now + millis(revocation.access_ttl)).max(issued.unwrap_or(0));
    // Revoking all keys ends every session that was opened before now.
    let sessions_until = revocation.kid.is_none().then_some(now);
    kids.iter().map(|kid| LogEntry::of_key(KeyId::of(kid), sessions_until, last)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(900);

    fn key() -> StoredKey {
        StoredKey {
            kid: "a".to_owned(),
            algorithm: "EdDSA".to_owned(),
            public_key: Vec::new(),
            wrapped_key: Vec::new(),
            created_at: 0,
            signs_at: 0,
            expires_at: None,
        }
    }

    #[test]
    fn a_key_signs_when_the_gateway_with_the_greatest_bound_must_have_read_it() {
        let signs_at = |delay, longest| begun(&key(), 10, Duration::from_millis(delay), longest).signs_at;
        assert_eq!(signs_at(6_000, None), 6_010);
        assert_eq!(signs_at(6_000, Some(5_000)), 6_010);
        assert_eq!(signs_at(6_000, Some(60_000)), 61_010);
    }

    #[test]
    fn a_key_verifies_until_the_last_token_that_it_can_have_signed_has_expired() {
        let successor = begun(&key(), 0, Duration::from_secs(6), None);
        assert_eq!(predecessors_end(&successor, TTL, None), 906_000 + millis(LOG_MARGIN));
        // A token that was issued when the configured lifetime was longer.
        assert_eq!(predecessors_end(&successor, TTL, Some(5_000_000)), 5_000_000 + millis(LOG_MARGIN));
    }

    #[test]
    fn revoking_all_keys_says_up_to_when_sessions_ended_and_revoking_one_that_none_did() {
        let revocation =
            KeyRevocation { kid: None, successor: None, delay: TTL, access_ttl: TTL, event: None };
        let kids = ["a".to_owned(), "b".to_owned()];
        let all = entries(&revocation, &kids, 7, None);
        assert!(all.len() == 2 && all.iter().all(|entry| entry.generation == 7));
        let one = KeyRevocation { kid: Some("a".to_owned()), ..revocation };
        assert_eq!(entries(&one, &kids[..1], 7, None)[0].generation, LogEntry::ALL);
    }
}
