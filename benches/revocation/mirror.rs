//! The mirror with a million entries and more: memory an entry, CPU time a lookup with readers on two cores
//! and a writer, what readers notice of a map that grows, and what whoever begins a stream waits for.
//!
//!     ./run bench-revocation mirror

use std::{
    hint::black_box,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use authgate::{
    clock::{SystemClock, TimeKeeper},
    revocation::{Mirror, Token},
    store::{LogEntry, Revoked},
    types::{KeyId, OsRandom, SessionId, Subject, UserId},
};

#[global_allocator]
static ALLOCATOR: authgate::memory::Mimalloc = authgate::memory::Mimalloc;

const LIVE: i64 = i64::MAX / 2;
const READERS: usize = 2;
const READ_FOR: Duration = Duration::from_secs(5);
const WRITES_A_SECOND: u32 = 1_000;

/// Bytes that the process holds.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("smaps_rollup");
    let line = text.lines().find(|line| line.starts_with("Rss:")).expect("Rss");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("KiB") * 1_024
}

/// CPU time of the calling thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the duration of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn entry() -> LogEntry {
    let revoked = Revoked::Session(SessionId::generate(&OsRandom));
    LogEntry { revoked, generation: LogEntry::ALL, expires_at: LIVE }
}

/// Lookups by `READERS` threads until `done`: CPU time of one, and the time at the 99.99th and the last
/// of all ranks, of those that were timed one by one.
fn read(mirror: &Arc<Mirror>, done: &Arc<AtomicBool>) -> (f64, Duration, Duration) {
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (mirror, done) = (mirror.clone(), done.clone());
            thread::spawn(move || {
                let callers: Vec<_> = (0..1 << 16)
                    .map(|_| (SessionId::generate(&OsRandom), UserId::generate(1, &OsRandom)))
                    .collect();
                let (mut looked, mut spent, mut timed) = (0_u64, Duration::ZERO, Vec::new());
                while !done.load(Relaxed) {
                    let before = thread_time();
                    for (session, user) in &callers {
                        black_box(mirror.is_revoked(Some(*session), Subject::User(*user), 1));
                    }
                    spent += thread_time() - before;
                    looked += callers.len() as u64;
                    for (session, user) in callers.iter().take(4_096) {
                        let begun = Instant::now();
                        black_box(mirror.is_revoked(Some(*session), Subject::User(*user), 1));
                        timed.push(begun.elapsed());
                    }
                }
                (spent.as_nanos() as f64 / looked as f64, timed)
            })
        })
        .collect();
    let results: Vec<_> = readers.into_iter().map(|reader| reader.join().expect("a reader")).collect();
    let cpu = results.iter().map(|(cpu, _)| cpu).sum::<f64>() / READERS as f64;
    let mut timed: Vec<Duration> = results.into_iter().flat_map(|(_, timed)| timed).collect();
    timed.sort();
    (cpu, timed[timed.len() - 1 - timed.len() / 10_000], timed[timed.len() - 1])
}

/// What is asked of a million entries.
fn judged(entries: usize, held: bool, bound: &str) -> String {
    match (entries, held) {
        (1_000_000, true) => format!(" (within {bound})"),
        (1_000_000, false) => format!(" (OVER {bound})"),
        _ => String::new(),
    }
}

/// What the process holds for so many entries, once it has come to rest.
fn memory(entries: usize) {
    let mirror = Mirror::new(Duration::from_secs(5));
    mirror.apply(&entry());
    let before = resident();
    for _ in 0..entries {
        mirror.apply(&entry());
    }
    thread::sleep(Duration::from_secs(1));
    // Whatever grew left something behind for a later turn.
    mirror.apply(&entry());
    let bytes = (resident() - before) as f64 / entries as f64;
    println!("{entries} entries: {bytes:.1} bytes each{}", judged(entries, bytes <= 64.0, "64"));
    drop(mirror);
}

/// What readers notice of a map that grows.
fn fill(mirror: &Arc<Mirror>, entries: usize) {
    let done = Arc::new(AtomicBool::new(false));
    let filling = {
        let (mirror, done) = (mirror.clone(), done.clone());
        thread::spawn(move || {
            let begun = Instant::now();
            for _ in 0..entries {
                mirror.apply(&entry());
            }
            done.store(true, Relaxed);
            begun.elapsed()
        })
    };
    let (_, slow, slowest) = read(mirror, &done);
    let filled = filling.join().expect("a writer").as_secs_f64();
    println!(
        "  taken in by one writer in {filled:.2} s beside two readers: 99.99 % of look-ups within {slow:?}, the slowest {slowest:?}"
    );
}

fn measure(entries: usize) {
    let mirror = Arc::new(Mirror::new(Duration::from_secs(5)));
    if entries == 0 {
        println!("no entries but those that are written meanwhile:");
    } else {
        fill(&mirror, entries);
    }
    let done = Arc::new(AtomicBool::new(false));
    let writing = {
        let (mirror, done) = (mirror.clone(), done.clone());
        thread::spawn(move || {
            let begun = Instant::now();
            for count in 1_u32.. {
                if done.load(Relaxed) {
                    return f64::from(count) / begun.elapsed().as_secs_f64();
                }
                mirror.apply(&entry());
                let next = Duration::from_secs(1) * count / WRITES_A_SECOND;
                thread::sleep(next.saturating_sub(begun.elapsed()));
            }
            0.0
        })
    };
    let timer = {
        let done = done.clone();
        thread::spawn(move || {
            thread::sleep(READ_FOR);
            done.store(true, Relaxed);
        })
    };
    let (cpu, slow, slowest) = read(&mirror, &done);
    let rate = writing.join().expect("a writer");
    timer.join().expect("a timer");
    println!(
        "  {cpu:.0} ns of CPU a look-up of session and user{}, two readers, a writer at {rate:.0} a second; 99.99 % within {slow:?}, the slowest {slowest:?}",
        judged(entries, cpu <= 150.0, "150")
    );
}

/// What it takes to enter the index of live streams and to leave it, alone and beside a sweep and a writer that
/// never rest: the only locks on the way of a request, and only of one that turns out to be a long one.
fn streams(count: usize) {
    let mirror = Mirror::new(Duration::from_secs(5));
    let watch = || {
        let token = Token {
            session: Some(SessionId::generate(&OsRandom)),
            subject: Subject::User(UserId::generate(1, &OsRandom)),
            generation: 1,
            others: [None; 3],
            api_key: None,
            key: KeyId::of("bench"),
            key_in_use: Arc::new(AtomicBool::new(true)),
            expires_at: LIVE,
        };
        mirror.watch(token, true, Waker::noop().clone())
    };
    let _live: Vec<_> = (0..count).map(|_| watch()).collect();
    let time = TimeKeeper::new(Arc::new(SystemClock));
    for busy in [false, true] {
        let done = AtomicBool::new(false);
        let mut timed = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                while busy && !done.load(Relaxed) {
                    mirror.sweep(time.now());
                    mirror.apply(&entry());
                }
            });
            for _ in 0..200_000 {
                let begun = Instant::now();
                let registration = watch();
                timed.push(begun.elapsed());
                drop(registration);
            }
            done.store(true, Relaxed);
        });
        timed.sort();
        let at = |share: f64| timed[(timed.len() as f64 * share) as usize];
        println!(
            "  {count} streams, {}: entering takes {:?}, 99 % within {:?}, 99.9 % within {:?}",
            if busy { "beside sweeps without a pause" } else { "alone" },
            at(0.5),
            at(0.99),
            at(0.999)
        );
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let numbers =
        |args: &[String]| args.iter().filter_map(|count| count.parse().ok()).collect::<Vec<usize>>();
    match args.first().map(String::as_str) {
        // Each in a process of its own: what one leaves behind would be memory of the next.
        Some("memory") => numbers(&args[1..]).into_iter().for_each(memory),
        Some("time") => numbers(&args[1..]).into_iter().for_each(measure),
        Some("streams") => numbers(&args[1..]).into_iter().for_each(streams),
        _ => {
            let counts = if args.is_empty() { vec![0, 1_000_000, 10_000_000] } else { numbers(&args) };
            let own = std::env::current_exe().expect("a path");
            for count in counts {
                for part in ["memory", "time"].iter().skip(usize::from(count == 0)) {
                    let done = Command::new(&own).arg(part).arg(count.to_string()).status();
                    assert!(done.is_ok_and(|status| status.success()), "{part} {count}");
                }
            }
            streams(100_000);
        }
    }
}
