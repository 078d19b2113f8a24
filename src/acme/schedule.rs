//! When a certificate is looked at next: to be renewed, or to be tried again.

use std::time::Duration;

use crate::clock::{UnixMillis, millis};

/// The longest time between two questions to the authority when a certificate is to be renewed.
const LONGEST_LOOK: Duration = Duration::from_secs(6 * 3_600);

/// The wait after a first failure: of the way to the authority, and of the authority's own, which counts failures and refuses those
/// who have too many.
const FIRST_WAIT_ON_THE_WAY: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_secs(120);

/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// The window in which an authority wants a certificate to be renewed (RFC 9773, section 4.2), in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: UnixMillis,
    pub(super) end: UnixMillis,
}

/// Returns when a certificate is to be renewed that is valid from `begins` to `expires`, in seconds: at two thirds of its life, or where
/// the authority wants it; `draw` is the same number for the same certificate on all gateways.
pub(super) fn renewal(begins: u64, expires: u64, window: Option<Window>, draw: u32) -> UnixMillis {
    let at = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX / 1_000).saturating_mul(1_000);
    match window {
        Some(Window { start, end }) if start <= end => {
            let length = i128::from(end) - i128::from(start);
            let part = length * i128::from(draw) / i128::from(u32::MAX);
            // Before the last tenth of its life, whatever the authority says: an order takes a while, and may fail.
            let last = expires - expires.saturating_sub(begins) / 10;
            start.saturating_add(i64::try_from(part).unwrap_or_default()).min(at(last))
        }
        _ => at(begins + expires.saturating_sub(begins) / 3 * 2),
    }
}

/// Returns when to look again at a certificate that is to be renewed at `renewal`, which has not come.
pub(super) fn next_look(now: UnixMillis, renewal: UnixMillis) -> UnixMillis {
    renewal.min(now + millis(LONGEST_LOOK))
}

/// Returns how long to wait after so many failures in a row, this one included; `draw` is random.
pub(super) fn wait(failures: u32, is_on_the_way: bool, draw: u32) -> Duration {
    let first = if is_on_the_way { FIRST_WAIT_ON_THE_WAY } else { FIRST_WAIT };
    let doubled = first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(20)));
    // Up to a fifth less, so that those who failed together do not come back together.
    let longest = doubled.min(LONGEST_WAIT);
    longest - longest.mul_f64(f64::from(draw) / f64::from(u32::MAX) / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_or_when_the_authority_says() {
        assert_eq!(renewal(0, 90 * 86_400, None, 7), 60 * 86_400_000);
        let window = |start, end| Some(Window { start, end });
        assert_eq!(renewal(0, 1_000, window(100_000, 200_000), 0), 100_000);
        assert_eq!(renewal(0, 1_000, window(100_000, 200_000), u32::MAX), 200_000);
        assert_eq!(renewal(0, 1_000, window(100_000, 9_000_000), u32::MAX), 900_000);
        assert_eq!(renewal(0, 900, window(200_000, 100_000), 0), 600_000, "that is no window");
        assert!(renewal(0, 900, window(i64::MIN, i64::MAX), u32::MAX) <= 810_000, "no longer than it lives");
    }

    #[test]
    fn waits_grow_up_to_a_day_and_differ() {
        assert_eq!(wait(1, false, 0), Duration::from_secs(120));
        assert_eq!(wait(1, false, u32::MAX), Duration::from_secs(96));
        assert_eq!(wait(3, true, 0), Duration::from_secs(40));
        for failures in [11, 40, u32::MAX] {
            assert_eq!(wait(failures, false, 0), LONGEST_WAIT);
            assert!(wait(failures, true, u32::MAX) < LONGEST_WAIT);
        }
        assert_eq!(next_look(0, 1), 1);
        assert_eq!(next_look(0, i64::MAX), 6 * 3_600_000);
    }
}
