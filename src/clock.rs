//! Time as a parameter, and the rule by which tokens age.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

/// Milliseconds since the Unix epoch.
pub type UnixMillis = i64;

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

/// Reads the clocks so that no step back, of this machine or of the database, extends a token's
/// life: time is the greatest of the wall clock, the database's clock projected by the boot
/// clock, and what was read before.
pub struct TimeKeeper {
    clock: Arc<dyn Clock>,
    last_seen: AtomicI64,
    /// Database time less boot time at the last poll; `i64::MIN` when there is no such clock.
    database_offset: AtomicI64,
}

impl TimeKeeper {
    /// The largest difference between this machine and the database that is still called ready.
    pub const MAX_SKEW_MILLIS: i64 = 30_000;

    /// Keeps time by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last_seen: AtomicI64::new(i64::MIN), database_offset: AtomicI64::new(i64::MIN) }
    }

    /// Reads the clocks.
    pub fn now(&self) -> Now {
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        let offset = self.database_offset.load(Relaxed);
        let projected = if offset == i64::MIN { i64::MIN } else { boot + offset };
        let seen = self.last_seen.load(Relaxed);
        let time = wall.max(projected);
        if time > seen {
            // A racing smaller store only lowers the mark by the width of the race.
            self.last_seen.fetch_max(time, Relaxed);
        }
        Now { time: time.max(seen), wall, boot }
    }

    /// Takes note of the database's clock, read when the boot clock stood at `boot`.
    pub fn observe_database(&self, database: UnixMillis, boot: i64) {
        self.database_offset.store(database - boot, Relaxed);
    }

    /// How far this machine's wall clock is from the database's, in milliseconds; 0 without one.
    pub fn skew(&self) -> i64 {
        let offset = self.database_offset.load(Relaxed);
        if offset == i64::MIN { 0 } else { (self.clock.wall() - (self.clock.boot() + offset)).abs() }
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

    /// Somebody sets the wall clock.
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
