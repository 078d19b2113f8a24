//! Time as a parameter, and the rule by which tokens age.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Milliseconds since the Unix epoch.
pub type UnixMillis = i64;

/// RFC 3339 in UTC, to the millisecond; empty for a time that no calendar has.
pub fn rfc3339(at: UnixMillis) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Reads a time as RFC 3339 has it; none for anything else.
pub fn parse_rfc3339(text: &str) -> Option<UnixMillis> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// A span as the clocks count, in milliseconds.
pub fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4)
}

/// The two clocks that expiry and staleness are read from.
pub trait Clock: Send + Sync {
    /// Wall-clock time. An operator or NTP may step it in either direction.
    fn wall(&self) -> UnixMillis;
    /// Milliseconds since boot, time asleep included; never steps.
    fn boot(&self) -> i64;
}

/// The machine's clocks.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

/// Milliseconds of a clock that never steps. Coarse, to 4 ms, because it is read several times a
/// request and compared with seconds.
pub fn coarse_millis() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the duration of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    time.tv_sec as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000
}

/// Microseconds since the Unix epoch, for the time in a log line; no decision goes by it.
pub fn log_micros() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the duration of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

impl SystemClock {
    fn read(clock: libc::clockid_t) -> i64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid timespec for the duration of the call.
        let result = unsafe { libc::clock_gettime(clock, &mut time) };
        debug_assert_eq!(result, 0, "both clocks exist on every Linux since 2.6.39");
        time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> UnixMillis {
        Self::read(libc::CLOCK_REALTIME)
    }

    fn boot(&self) -> i64 {
        Self::read(libc::CLOCK_BOOTTIME)
    }
}

/// One reading, taken at the start of a decision and used throughout it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The time that expiry is compared with; never goes back.
    pub time: UnixMillis,
    /// The wall clock as it was.
    pub wall: UnixMillis,
    /// The boot clock as it was.
    pub boot: i64,
}

impl Now {
    /// `time` in whole seconds, as tokens carry it (RFC 7519, section 2, NumericDate).
    pub fn seconds(&self) -> i64 {
        self.time.div_euclid(1_000)
    }
}

/// For how long at least a clock that was behind is remembered.
const LEAST_WINDOW_MILLIS: i64 = 24 * 3_600 * 1_000;

struct Least {
    /// When the window began, by the boot clock.
    begun: i64,
    offset: i64,
    /// The window before.
    before: i64,
}

/// Reads the clocks so that no step back, of this machine or of the database, extends a token's life:
/// time never goes back, and never stands still either, for it goes on with the boot clock from the
/// greatest that was ever read. A clock that was ahead and is set right leaves it ahead until a restart.
pub struct TimeKeeper {
    clock: Arc<dyn Clock>,
    last_seen: AtomicI64,
    /// The greatest difference to the boot clock that any clock has shown.
    offset: AtomicI64,
    /// The least differences to the boot clock that the wall clock has shown, in this window and in the one before.
    least: Mutex<Least>,
    /// Database time less boot time at the last poll; `i64::MIN` when there is no such clock.
    database_offset: AtomicI64,
}

impl TimeKeeper {
    /// The largest difference between this machine and the database that is still called ready.
    pub const MAX_SKEW_MILLIS: i64 = 30_000;

    /// Keeps time by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let unknown = || AtomicI64::new(i64::MIN);
        let offset = clock.wall() - clock.boot();
        let least = Mutex::new(Least { begun: clock.boot(), offset, before: offset });
        Self { clock, last_seen: unknown(), offset: unknown(), least, database_offset: unknown() }
    }

    /// Reads the clocks.
    pub fn now(&self) -> Now {
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        raise(&self.offset, wall - boot);
        // The last response of the database may have taken its time, so this may be a little ahead.
        let offset = self.offset.load(Relaxed).max(self.database_offset.load(Relaxed));
        let time = boot + offset;
        raise(&self.last_seen, time);
        Now { time: time.max(self.last_seen.load(Relaxed)), wall, boot }
    }

    /// The time by the wall clock as it was when it was behind the most, within a day or two: what is removed
    /// for ever goes by this, so that a clock that runs ahead for a while removes nothing that is needed when it
    /// is set right; and one that was far behind when the machine started is forgotten in the end.
    pub fn earliest(&self) -> UnixMillis {
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        let offset = wall - boot;
        let mut least = self.least.lock().unwrap_or_else(PoisonError::into_inner);
        if boot - least.begun >= LEAST_WINDOW_MILLIS {
            *least = Least { begun: boot, offset, before: least.offset };
        }
        least.offset = least.offset.min(offset);
        boot + least.offset.min(least.before)
    }

    /// Takes note of the database's clock, read while the boot clock went on from `asked` to now.
    pub fn observe_database(&self, database: UnixMillis, asked: i64) {
        self.database_offset.store(database - asked, Relaxed);
        raise(&self.offset, database - self.clock.boot());
    }

    /// The database's time as it was last read, going on with the boot clock; and the time that decisions go
    /// by without one.
    pub fn database_time(&self) -> UnixMillis {
        match self.database_offset.load(Relaxed) {
            i64::MIN => self.now().time,
            offset => self.clock.boot() + offset,
        }
    }

    /// How far this machine is from the database's clock, in milliseconds, by its wall clock or by the time
    /// that decisions go by; 0 without one.
    pub fn skew(&self) -> i64 {
        let offset = self.database_offset.load(Relaxed);
        if offset == i64::MIN {
            return 0;
        }
        let now = self.now();
        let database = now.boot + offset;
        (now.wall - database).abs().max(now.time - database)
    }
}

/// Raises a mark, and leaves it alone where it is high enough: readers share it.
fn raise(mark: &AtomicI64, value: i64) {
    if value > mark.load(Relaxed) {
        mark.fetch_max(value, Relaxed);
    }
}

/// The time that decisions go by, for what must agree with them.
impl Clock for TimeKeeper {
    fn wall(&self) -> UnixMillis {
        let Now { time, .. } = self.now();
        time
    }

    fn boot(&self) -> i64 {
        self.clock.boot()
    }
}

/// Clocks that a test moves by hand.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall: AtomicI64,
    boot: AtomicI64,
}

impl ManualClock {
    /// Both clocks at `millis`.
    pub fn at(millis: i64) -> Arc<Self> {
        Arc::new(Self { wall: AtomicI64::new(millis), boot: AtomicI64::new(millis) })
    }

    /// Time passes.
    pub fn advance(&self, millis: i64) {
        self.wall.fetch_add(millis, Relaxed);
        self.boot.fetch_add(millis, Relaxed);
    }

    /// Sets the wall clock.
    pub fn step_wall(&self, millis: i64) {
        self.wall.fetch_add(millis, Relaxed);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> UnixMillis {
        self.wall.load(Relaxed)
    }

    fn boot(&self) -> i64 {
        self.boot.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_set_back_does_not_turn_time_back() {
        let clock = ManualClock::at(1_000_000);
        let keeper = TimeKeeper::new(clock.clone());
        assert_eq!(keeper.now().time, 1_000_000);
        clock.step_wall(-500_000);
        assert_eq!(keeper.now().time, 1_000_000);
        // Nor does it stand still until the clock has caught up.
        clock.advance(1_000);
        assert_eq!(keeper.now().time, 1_001_000);
    }

    #[test]
    fn a_clock_that_was_ahead_leaves_time_ahead() {
        let clock = ManualClock::at(1_000_000);
        let keeper = TimeKeeper::new(clock.clone());
        keeper.observe_database(1_000_000, clock.boot());
        clock.step_wall(100_000);
        assert_eq!(keeper.now().time, 1_100_000);
        clock.step_wall(-100_000);
        clock.advance(10);
        assert_eq!(keeper.now().time, 1_100_010);
        // The tokens that the database dates would be dead on arrival: somebody should know.
        assert_eq!(keeper.skew(), 100_000);
    }

    #[test]
    fn what_is_removed_for_ever_goes_by_the_clock_that_was_behind_the_most() {
        let clock = ManualClock::at(1_000_000);
        let keeper = TimeKeeper::new(clock.clone());
        clock.advance(1_000);
        clock.step_wall(100_000);
        assert_eq!((keeper.earliest(), keeper.now().time), (1_001_000, 1_101_000));
        clock.step_wall(-200_000);
        assert_eq!(keeper.earliest(), 901_000);
        clock.step_wall(100_000);
        assert_eq!(keeper.earliest(), 901_000);
        // A lag of two days ago is forgotten.
        clock.advance(LEAST_WINDOW_MILLIS);
        assert_eq!(keeper.earliest(), LEAST_WINDOW_MILLIS + 901_000);
        clock.advance(LEAST_WINDOW_MILLIS);
        assert_eq!(keeper.earliest(), 2 * LEAST_WINDOW_MILLIS + 1_001_000);
    }

    #[test]
    fn a_database_that_answers_late_moves_time_ahead_for_no_longer_than_that() {
        let clock = ManualClock::at(1_000_000);
        let keeper = TimeKeeper::new(clock.clone());
        let asked = clock.boot();
        clock.advance(2_000);
        keeper.observe_database(1_002_000, asked);
        assert_eq!(keeper.now().time, 1_004_000);
        clock.advance(3_000);
        keeper.observe_database(1_005_000, clock.boot());
        assert_eq!(keeper.now().time, 1_005_000);
    }

    #[test]
    fn the_database_clock_moves_on_with_the_boot_clock() {
        let clock = ManualClock::at(1_000_000);
        let keeper = TimeKeeper::new(clock.clone());
        keeper.observe_database(1_040_000, clock.boot());
        clock.advance(1_000);
        assert_eq!(keeper.now().time, 1_041_000);
        assert_eq!(keeper.skew(), 40_000);
    }
}
