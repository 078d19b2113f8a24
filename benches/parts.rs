//! The parts of a request that authgate adds: `cargo bench`.

use std::{
    fmt::Write,
    hint::black_box,
    io::{BufReader, Read},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use authgate::{
    clock::{ManualClock, TimeKeeper},
    config::{self, Pattern},
    limit::{Left, Rate, Rates},
    password::{Breached, Hasher, Origin, build},
    revocation::Mirror,
    route::{Builtin, Table},
    store::{LogEntry, Revoked},
    telemetry::Metrics,
    token::{AccessClaims, CurrentKeyring, Issuer, Keyring, Verifier},
    types::{ClaimValues, OsRandom, Proofs, Roles, Secret, SessionId, Subject, UserId},
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::Method;

const NOW: i64 = 1_800_000_000_000;

struct Parts {
    verifier: Arc<Verifier>,
    issuer: Issuer,
    mirror: Mirror,
    time: TimeKeeper,
}

fn parts() -> Parts {
    let keyring = Keyring::of_secrets(&Secret::new("a-secret-for-benchmarks-only-0123456789"), None, None);
    let keyring = CurrentKeyring::new(keyring.expect("a secret"));
    const CONFIG: &str = "listeners: [{address: \"127.0.0.1:0\"}]\nauth: {issuer: bench, audience: bench}\n";
    let loaded = config::load("bench", CONFIG, Path::new("."), &|_| None, &|_| Vec::new());
    let auth = loaded.expect("a config").config.auth;
    let verifier = Arc::new(Verifier::new(&auth, keyring.clone(), Vec::new(), None));
    let issuer = Issuer::new(&auth, keyring, Arc::new(OsRandom));
    let time = TimeKeeper::new(ManualClock::at(NOW));
    let mirror = Mirror::new(Duration::from_secs(5));
    mirror.confirm(time.now());
    Parts { verifier, issuer, mirror, time }
}

impl Parts {
    fn tokens(&self, count: usize) -> Vec<String> {
        let name = "somebody";
        let roles = Roles::parse_joined("staff,user").expect("roles");
        (0..count)
            .map(|_| {
                let claims = AccessClaims {
                    user: UserId::generate(NOW, &OsRandom),
                    session: SessionId::generate(&OsRandom),
                    generation: 1,
                    name,
                    roles: &roles,
                    external_id: None,
                    issued_at: NOW,
                    session_ends_at: i64::MAX,
                    authenticated_at: 0,
                    proofs: Proofs::PASSWORD,
                    claims: &ClaimValues::default(),
                };
                let key = self.issuer.key(NOW).expect("a key signs");
                self.issuer.issue(&claims, &key).expect("a key signs").text
            })
            .collect()
    }

    /// Everything that a request with a token passes: lookup, expiry, key, revocation, staleness.
    fn check(&self, token: &str) -> bool {
        let now = self.time.now();
        let Ok(checked) = self.verifier.verify(token.as_bytes(), now) else { return false };
        let principal = checked.principal;
        !self.mirror.is_revoked(principal.session, principal.subject, principal.generation)
            && self.mirror.staleness(now) == authgate::revocation::Staleness::Fresh
    }
}

fn tokens(c: &mut Criterion) {
    for count in [64, 10_000] {
        let parts = parts();
        let tokens = parts.tokens(count);
        assert!(tokens.iter().all(|token| parts.check(token)));
        let mut next = 0;
        c.bench_function(&format!("verified-token hit, all checks, {count} live tokens"), |b| {
            b.iter(|| {
                // A stride that visits all of them in no helpful order.
                next = (next + 4_657) % tokens.len();
                black_box(parts.check(black_box(&tokens[next])))
            });
        });
    }
    let fresh = parts();
    c.bench_function("verified-token miss, HS256", |b| {
        b.iter_batched(
            || fresh.tokens(1).remove(0),
            |token| black_box(fresh.check(&token)),
            BatchSize::SmallInput,
        );
    });
}

fn routes(c: &mut Criterion) {
    for count in [10, 1_000, 10_000] {
        let mut yaml = "listeners: [{address: \"127.0.0.1:0\"}]\nauth: {issuer: i, audience: a}\n\
             upstreams: {u: {servers: [{url: \"http://127.0.0.1:1\"}]}}\nroutes:\n"
            .to_owned();
        for index in 0..count {
            let path = match index % 4 {
                0 => format!("/service-{index}/**"),
                1 => format!("/api/v1/resource-{index}/{{id}}"),
                2 => format!("/api/{{version}}/thing-{index}"),
                _ => format!("/static/{index}/page"),
            };
            yaml.push_str(&format!("  - {{path: \"{path}\", upstream: u}}\n"));
        }
        let loaded = config::load("bench.yaml", &yaml, std::path::Path::new("."), &|_| None, &|_| Vec::new())
            .expect("a config");
        let own = Builtin { method: Method::POST, pattern: Pattern::parse("/auth/login").expect("a path") };
        let table = Table::compile(&loaded.config.routes, "/auth", vec![own]).expect("routes");
        let paths: Vec<String> = (0..count)
            .map(|index| match index % 4 {
                0 => format!("/service-{index}/a/b/c"),
                1 => format!("/api/v1/resource-{index}/42"),
                2 => format!("/api/v7/thing-{index}"),
                _ => format!("/static/{index}/page"),
            })
            .collect();
        let mut next = 0;
        c.bench_function(&format!("route match among {count}"), |b| {
            b.iter(|| {
                next = (next + 4_657) % paths.len();
                black_box(table.find(None, &Method::GET, black_box(&paths[next])))
            });
        });
    }
}

fn revocations(c: &mut Criterion) {
    let mirror = Mirror::new(Duration::from_secs(5));
    for _ in 0..1_000_000 {
        let revoked = Revoked::Session(SessionId::generate(&OsRandom));
        mirror.apply(&LogEntry { revoked, generation: LogEntry::ALL, expires_at: NOW });
    }
    let callers: Vec<_> =
        (0..10_000).map(|_| (SessionId::generate(&OsRandom), UserId::generate(NOW, &OsRandom))).collect();
    let mut next = 0;
    c.bench_function("revocation look-up of session and user among a million", |b| {
        b.iter(|| {
            next = (next + 4_657) % callers.len();
            let (session, user) = callers[next];
            black_box(mirror.is_revoked(Some(session), Subject::User(user), 1))
        });
    });
}

fn rates(c: &mut Criterion) {
    let rates = Rates::default();
    let rate = Rate::new(1_000_000, Duration::from_secs(1), 1_000_000);
    for count in [1, 100_000] {
        let mut next = 0_u64;
        let mut left = [Left::default()];
        c.bench_function(&format!("rate of one key among {count}, with its clock"), |b| {
            b.iter(|| {
                next = (next + 4_657) % count;
                let key = rates.key(black_box((7_u64, next.to_le_bytes())));
                black_box(rates.take(&[(key, rate)], Instant::now(), &mut left))
            });
        });
    }
}

fn passwords(c: &mut Criterion) {
    let settings = config::Password {
        min_length: 15,
        reject_common: true,
        breached: None,
        breached_service: None,
        memory_kib: 19 << 10,
        iterations: 2,
        parallelism: 1,
        workers: 1,
        queue: 4,
        queue_timeout: Duration::from_secs(10),
    };
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let hasher = Hasher::start(&settings, None, Arc::new(OsRandom), metrics).expect("a pool");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = c.benchmark_group("passwords");
    group.sample_size(30);
    group.bench_function("one hash through the pool", |b| {
        b.iter(|| {
            runtime
                .block_on(hasher.hash_again(Secret::new("the password of somebody"), Origin::default()))
                .expect("a hash")
        });
    });
    group.finish();
}

/// A sorted list of hashes that are spread evenly, as text.
struct Hashes {
    next: u64,
    count: u64,
    text: String,
    read: usize,
}

impl Hashes {
    fn new(count: u64) -> Self {
        Self { next: 0, count, text: String::new(), read: 0 }
    }
}

impl Read for Hashes {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.read == self.text.len() {
            self.text.clear();
            self.read = 0;
            let until = (self.next + 10_000).min(self.count);
            for number in self.next..until {
                let start = u64::MAX / self.count * number;
                writeln!(self.text, "{start:016X}000000000000000000000000:10").expect("room");
            }
            self.next = until;
        }
        let length = into.len().min(self.text.len() - self.read);
        into[..length].copy_from_slice(&self.text.as_bytes()[self.read..self.read + length]);
        self.read += length;
        Ok(length)
    }
}

fn stolen_passwords(c: &mut Criterion) {
    for count in [1_000_000_u64, 100_000_000] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let begun = Instant::now();
        let out = std::io::BufWriter::with_capacity(1 << 20, file.as_file());
        let built = build(BufReader::with_capacity(1 << 20, Hashes::new(count)), 0, out).expect("a list");
        let built_after = begun.elapsed();
        let list = Breached::load(file.path()).expect("a list");
        let read_after = begun.elapsed() - built_after;
        println!("{} hashes: built in {built_after:.1?}, read in {read_after:.1?}", built.taken);
        let mut number = 0_u64;
        let false_positives = (0..10_000_000)
            .filter(|number| list.contains(&Secret::new(format!("not in the list {number}"))))
            .count();
        println!("{false_positives} of 10,000,000 others are taken for one");
        c.bench_function(&format!("a password among {count} stolen ones"), |b| {
            b.iter_batched(
                || {
                    number += 1;
                    Secret::new(format!("a password of somebody {number}"))
                },
                |password| black_box(list.contains(&password)),
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, tokens, routes, revocations, rates, passwords, stolen_passwords);
criterion_main!(benches);
