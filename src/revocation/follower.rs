//! Keeping the mirror true.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use uuid::Uuid;

use super::Mirror;
use crate::{
    clock::{Now, TimeKeeper},
    store::{self, Beat, Cursor, History, LogEntry, LogRead, RevocationLog, Revoked},
};

/// How many entries are written back at once.
const RESTORED_AT_ONCE: usize = 1_000;

/// The result of reading the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Followed {
    /// A key was revoked.
    pub key: bool,
    /// The store had lost a part of its past, and was given back what this gateway knew of it.
    pub restored: bool,
}

/// Reads the log from where it was last read.
pub struct Follower {
    store: Arc<dyn RevocationLog>,
    mirror: Arc<Mirror>,
    time: Arc<TimeKeeper>,
    /// Names this gateway to the store.
    gateway: Uuid,
    beat: i64,
    /// Where the last poll that counted ended: nothing before it is ever lost.
    confirmed: Option<Confirmed>,
    /// Where the last look ended. After a crash of the database it may lead past a row, which the next
    /// poll finds from `confirmed`.
    glanced: Option<Cursor>,
    /// The store has lost a part of its past, and was not given it back yet.
    lost: bool,
    /// Polls that failed one after the other.
    failed: u32,
}

/// After so many failed polls the whole log is read, as often again: what has come together meanwhile may be
/// more than one response brings in time, and the whole is taken as it comes.
const FAILURES_BEFORE_ALL: u32 = 3;

struct Confirmed {
    cursor: Cursor,
    /// The one before: each row is read by two polls, so that one that got lost on its way is found.
    previous: Option<Cursor>,
    /// The number of the beat, and the lineage of the store, where one can be told from another.
    history: Option<(i64, String)>,
}

impl Confirmed {
    /// Whether a store that shows `history` still is the one that was confirmed: it remembers a beat of
    /// this gateway that is not older, and counts on from where it was.
    fn goes_on_as(&self, history: &History) -> bool {
        let Some((beat, lineage)) = &self.history else { return true };
        history.found.is_some_and(|found| found >= *beat) && history.lineage == *lineage && !history.rewound
    }
}

impl Follower {
    /// A follower that has read nothing; `gateway` names it to the store.
    pub fn new(
        store: Arc<dyn RevocationLog>,
        mirror: Arc<Mirror>,
        time: Arc<TimeKeeper>,
        gateway: Uuid,
    ) -> Self {
        Self { store, mirror, time, gateway, beat: 0, confirmed: None, glanced: None, lost: false, failed: 0 }
    }

    /// Reads the new entries, or all at the first time, and confirms the mirror; unless
    /// `others_hold` is false, when something else that tokens rest on could not be read.
    ///
    /// # Errors
    /// When the store cannot be read. The mirror then stays as old as it was.
    pub async fn poll(&mut self, others_hold: bool) -> store::Result<Followed> {
        let polled = self.try_poll(others_hold).await;
        self.failed = if polled.is_ok() { 0 } else { self.failed + 1 };
        polled
    }

    async fn try_poll(&mut self, others_hold: bool) -> store::Result<Followed> {
        if self.lost {
            return self.recover(others_hold).await;
        }
        // Read before the question is sent: what commits while it is under way is not in the response.
        let asked = self.time.now();
        let mut followed = Followed::default();
        let mirror = self.mirror.clone();
        let beat = self.next_beat();
        let all = self.failed > 0 && self.failed.is_multiple_of(FAILURES_BEFORE_ALL);
        let confirmed = self.confirmed.as_ref().filter(|_| !all);
        let from = confirmed.map(|confirmed| confirmed.previous.as_ref().unwrap_or(&confirmed.cursor));
        let read = self
            .store
            .read_log(from, &beat, &mut |entry| {
                followed.key |= matches!(entry.revoked, Revoked::Key(_));
                mirror.apply(&entry);
            })
            .await?;
        let goes_on = match (&self.confirmed, &read.history) {
            (Some(confirmed), Some(history)) => confirmed.goes_on_as(history),
            _ => true,
        };
        if !goes_on {
            self.lost = true;
            return self.recover(others_hold).await;
        }
        let previous = self.confirmed.take().map(|confirmed| confirmed.cursor);
        self.confirm(read, asked, previous, others_hold);
        Ok(followed)
    }

    /// The mirror holds what the store held when it was `asked`.
    fn confirm(&mut self, read: LogRead, asked: Now, previous: Option<Cursor>, others_hold: bool) {
        if let Some(database_now) = read.database_now {
            self.time.observe_database(database_now, asked.boot);
        }
        self.glanced = Some(read.cursor.clone());
        let history = read.history.map(|history| (self.beat, history.lineage));
        self.confirmed = Some(Confirmed { cursor: read.cursor, previous, history });
        if others_hold {
            self.mirror.confirm(asked);
        }
    }

    fn next_beat(&mut self) -> Beat {
        self.beat += 1;
        Beat {
            gateway: self.gateway,
            number: self.beat,
            furthest: self.glanced.clone(),
            max_staleness: self.mirror.max_staleness(),
        }
    }

    /// Reads the new entries after a hint, without confirming the mirror.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn glance(&mut self) -> store::Result<Followed> {
        let Some(cursor) = &self.glanced else { return Ok(Followed::default()) };
        let mut followed = Followed::default();
        let mirror = self.mirror.clone();
        let read = self
            .store
            .glance_at_log(cursor, &mut |entry| {
                followed.key |= matches!(entry.revoked, Revoked::Key(_));
                mirror.apply(&entry);
            })
            .await?;
        self.glanced = Some(read.cursor);
        Ok(followed)
    }

    /// Reads the whole log into the mirror, from which nothing is removed, and writes back what the log
    /// has lost.
    async fn recover(&mut self, others_hold: bool) -> store::Result<Followed> {
        tracing::warn!(
            "the store has lost a part of its past; it is read anew and given back what is known here"
        );
        let asked = self.time.now();
        let mut there: HashMap<Revoked, LogEntry, RandomState> = HashMap::default();
        let mirror = self.mirror.clone();
        let beat = self.next_beat();
        let read = self
            .store
            .read_log(None, &beat, &mut |entry| {
                mirror.apply(&entry);
                let known = there.entry(entry.revoked).or_insert(entry);
                known.generation = known.generation.max(entry.generation);
                known.expires_at = known.expires_at.max(entry.expires_at);
            })
            .await?;
        let covers = |known: &LogEntry, entry: &LogEntry| {
            known.generation >= entry.generation && known.expires_at >= entry.expires_at
        };
        let mut lost = self.mirror.entries(self.time.now());
        lost.retain(|entry| !there.get(&entry.revoked).is_some_and(|known| covers(known, entry)));
        for entries in lost.chunks(RESTORED_AT_ONCE) {
            self.store.restore_log(entries).await?;
        }
        tracing::warn!(entries = lost.len(), "revocations that the store had lost are in it again");
        if !lost.is_empty() {
            self.store.hint().await?;
        }
        self.lost = false;
        self.confirm(read, asked, None, others_hold);
        Ok(Followed { key: true, restored: true })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    use async_trait::async_trait;

    use super::*;
    use crate::{
        clock::ManualClock,
        store::{Cursor, Result, Sink, StoreError},
        types::{OsRandom, SessionId},
    };

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn a_store_goes_on_only_as_itself() {
        let confirmed = |history| Confirmed { cursor: Cursor::of("1:1:"), previous: None, history };
        let known = confirmed(Some((7, "system 00000001".to_owned())));
        let shown = |found, lineage: &str, rewound| History { found, lineage: lineage.to_owned(), rewound };
        // Its last response got lost on the way: it remembers a later beat than the last that was confirmed.
        for found in [7, 8, 9] {
            assert!(known.goes_on_as(&shown(Some(found), "system 00000001", false)), "{found}");
        }
        for (found, lineage, rewound) in [
            (Some(6), "system 00000001", false),
            (None, "system 00000001", false),
            (Some(7), "system 00000002", false),
            (Some(7), "another 00000001", false),
            (Some(7), "system 00000001", true),
        ] {
            assert!(!known.goes_on_as(&shown(found, lineage, rewound)), "{found:?} {lineage} {rewound}");
        }
        assert!(confirmed(None).goes_on_as(&shown(None, "", false)));
    }

    /// A response to a reading: the rows, and where it ends; or none.
    type Reply = Option<(Vec<LogEntry>, &'static str)>;

    /// A log with prepared responses and delays in milliseconds, which records its calls.
    struct Scripted {
        clock: Arc<ManualClock>,
        replies: Mutex<VecDeque<(i64, Reply)>>,
        asked: Mutex<Vec<Option<String>>>,
        lineage: Mutex<&'static str>,
        written: Mutex<Vec<LogEntry>>,
    }

    fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    impl Scripted {
        fn reply(&self, cursor: Option<&Cursor>, sink: Sink<'_>) -> Result<LogRead> {
            lock(&self.asked).push(cursor.map(|cursor| format!("{cursor:?}")));
            let (millis, reply) = lock(&self.replies).pop_front().unwrap();
            self.clock.advance(millis);
            let (entries, end) = reply.ok_or_else(|| StoreError::Away("tests".to_owned()))?;
            entries.into_iter().for_each(sink);
            Ok(LogRead { cursor: Cursor::of(end), database_now: None, history: None })
        }
    }

    #[async_trait]
    impl RevocationLog for Scripted {
        async fn read_log(&self, cursor: Option<&Cursor>, beat: &Beat, sink: Sink<'_>) -> Result<LogRead> {
            assert_eq!(beat.max_staleness, 5_000);
            let read = self.reply(cursor, sink)?;
            let history = History {
                found: Some(beat.number - 1),
                lineage: lock(&self.lineage).to_string(),
                rewound: false,
            };
            Ok(LogRead { history: Some(history), ..read })
        }

        async fn glance_at_log(&self, cursor: &Cursor, sink: Sink<'_>) -> Result<LogRead> {
            self.reply(Some(cursor), sink)
        }

        async fn restore_log(&self, entries: &[LogEntry]) -> Result<()> {
            lock(&self.written).extend(entries);
            Ok(())
        }

        async fn settle(&self, _: &LogEntry) -> Result<()> {
            Ok(())
        }

        async fn hint(&self) -> Result<()> {
            Ok(())
        }
    }

    struct Parts {
        log: Arc<Scripted>,
        mirror: Arc<Mirror>,
        time: Arc<TimeKeeper>,
        clock: Arc<ManualClock>,
        follower: Follower,
    }

    impl Parts {
        fn new() -> Self {
            let clock = ManualClock::at(NOW);
            let time = Arc::new(TimeKeeper::new(clock.clone()));
            let mirror = Arc::new(Mirror::new(Duration::from_secs(5)));
            let log = Arc::new(Scripted {
                clock: clock.clone(),
                replies: Mutex::default(),
                asked: Mutex::default(),
                lineage: Mutex::new("system 00000001"),
                written: Mutex::default(),
            });
            let follower = Follower::new(log.clone(), mirror.clone(), time.clone(), Uuid::nil());
            Self { log, mirror, time, clock, follower }
        }

        fn replies(&self, millis: i64, reply: Reply) {
            lock(&self.log.replies).push_back((millis, reply));
        }

        async fn polls(&mut self, end: &'static str) {
            self.replies(0, Some((Vec::new(), end)));
            self.follower.poll(true).await.unwrap();
        }

        fn asked(&self) -> Vec<Option<String>> {
            std::mem::take(&mut lock(&self.log.asked))
        }

        fn lag(&self) -> Option<i64> {
            self.mirror.lag(self.time.now())
        }
    }

    fn from(cursor: &str) -> Option<String> {
        Some(format!("{:?}", Cursor::of(cursor)))
    }

    fn entry() -> LogEntry {
        let revoked = Revoked::Session(SessionId::generate(&OsRandom));
        LogEntry { revoked, generation: LogEntry::ALL, expires_at: NOW + 60_000 }
    }

    fn is_dead(mirror: &Mirror, entry: &LogEntry) -> bool {
        let Revoked::Session(session) = entry.revoked else { return false };
        mirror.is_session_revoked(session)
    }

    #[tokio::test]
    async fn the_mirror_is_as_old_as_the_question_and_not_as_the_answer() {
        let mut parts = Parts::new();
        assert_eq!(parts.lag(), None);
        parts.replies(3_000, Some((Vec::new(), "a")));
        parts.follower.poll(true).await.unwrap();
        assert_eq!(parts.lag(), Some(3_000));
        // Nor does a poll count beside which something else could not be read.
        parts.replies(0, Some((Vec::new(), "b")));
        parts.follower.poll(false).await.unwrap();
        assert_eq!(parts.lag(), Some(3_000));
    }

    #[tokio::test]
    async fn a_hint_neither_confirms_nor_moves_what_polls_go_by() {
        let mut parts = Parts::new();
        parts.polls("a").await;
        parts.polls("b").await;
        parts.clock.advance(1_000);
        let told = entry();
        for end in ["hint-1", "hint-2", "hint-3"] {
            parts.replies(0, Some((vec![told], end)));
            parts.follower.glance().await.unwrap();
        }
        assert!(is_dead(&parts.mirror, &told));
        assert_eq!(parts.lag(), Some(1_000));
        parts.polls("c").await;
        parts.polls("d").await;
        assert_eq!(
            parts.asked(),
            [None, from("a"), from("b"), from("hint-1"), from("hint-2"), from("a"), from("b")]
        );
    }

    #[tokio::test]
    async fn each_row_is_read_by_two_polls() {
        let mut parts = Parts::new();
        for end in ["a", "b", "c", "d"] {
            parts.polls(end).await;
        }
        assert_eq!(parts.asked(), [None, from("a"), from("a"), from("b")]);
    }

    #[tokio::test]
    async fn what_came_before_a_poll_failed_stands_and_after_three_all_is_read() {
        let mut parts = Parts::new();
        parts.polls("a").await;
        for _ in 0..3 {
            parts.replies(1_000, None);
            assert!(parts.follower.poll(true).await.is_err());
        }
        assert_eq!(parts.lag(), Some(3_000));
        let told = entry();
        parts.replies(0, Some((vec![told], "b")));
        parts.follower.poll(true).await.unwrap();
        assert_eq!((parts.lag(), is_dead(&parts.mirror, &told)), (Some(0), true));
        assert_eq!(parts.asked(), [None, from("a"), from("a"), from("a"), None]);
    }

    #[tokio::test]
    async fn a_store_that_has_lost_its_past_is_given_it_back_before_it_confirms() {
        let mut parts = Parts::new();
        let (lost, kept) = (entry(), entry());
        parts.replies(0, Some((vec![lost, kept], "a")));
        parts.follower.poll(true).await.unwrap();
        *lock(&parts.log.lineage) = "system 00000002";
        parts.replies(1_000, Some((Vec::new(), "b")));
        parts.replies(1_000, None);
        assert!(parts.follower.poll(true).await.is_err());
        assert_eq!(parts.lag(), Some(2_000));
        parts.replies(500, Some((vec![kept], "c")));
        let followed = parts.follower.poll(true).await.unwrap();
        assert!(followed.restored && is_dead(&parts.mirror, &lost));
        assert_eq!((lock(&parts.log.written).as_slice(), parts.lag()), ([lost].as_slice(), Some(500)));
        parts.polls("d").await;
        assert_eq!(parts.asked(), [None, from("a"), None, None, from("c")]);
    }
}
