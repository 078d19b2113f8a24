//! A million live API keys: memory a key, the time to read them, and CPU time a key that is accepted. The argument is how many keys an
//! owner has; owners are kept beside their keys.
//!
//!     ./run bench-revocation keys

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use authgate::{
    clock::{Now, UnixMillis},
    revocation::Mirror,
    store::{
        ApiKey, ApiKeyAdded, ApiKeyLimits, ApiKeyPage, ApiKeySelection, ApiKeySink, ApiKeys, Event,
        LiveApiKey, LogEntry, NewApiKey, Result,
    },
    types::{ApiKeyId, Attributes, NewApiKeyText, OsRandom, Roles, UserId},
};

#[global_allocator]
static ALLOCATOR: authgate::memory::Mimalloc = authgate::memory::Mimalloc;

const KEYS: usize = 1_000_000;

/// The most bytes a key.
const BOUND: f64 = 150.0;

/// Keys that are looked up, over and over.
const LOOKED_UP: usize = 1 << 16;

const NOW: Now = Now { time: 1, wall: 1, boot: 1 };

/// A store of so many keys, which are made as they are read.
struct Stored {
    owned: usize,
    shown: std::sync::Mutex<Vec<String>>,
}

#[async_trait]
impl ApiKeys for Stored {
    async fn read_api_keys(&self, _: Option<&ApiKeySelection>, sink: ApiKeySink<'_>) -> Result<()> {
        let mut owner = UserId::generate(1, &OsRandom);
        for number in 0..KEYS {
            if number % self.owned == 0 {
                owner = UserId::generate(1, &OsRandom);
            }
            let NewApiKeyText { id, text, hash } = NewApiKeyText::generate(&OsRandom);
            if number % (KEYS / LOOKED_UP) == 0 {
                self.shown.lock().expect("a lock").push(text.expose().to_owned());
            }
            sink(LiveApiKey {
                id,
                hash,
                limits: ApiKeyLimits::default(),
                expires_at: None,
                owner,
                name: "somebody".to_owned(),
                roles: Roles::parse_joined("user").expect("a role"),
                external_id: None,
                generation: 1,
                email: None,
                email_verified: false,
                attributes: Attributes::default(),
            });
        }
        Ok(())
    }

    async fn add_api_key(&self, _: UserId, _: i64, _: &NewApiKey, _: &Event) -> Result<ApiKeyAdded> {
        Ok(ApiKeyAdded::Gone)
    }

    async fn api_keys(&self, _: UserId, _: ApiKeyPage) -> Result<Vec<ApiKey>> {
        Ok(Vec::new())
    }

    async fn end_api_key(&self, _: UserId, _: ApiKeyId, _: &Event) -> Result<Option<LogEntry>> {
        Ok(None)
    }

    async fn note_api_keys_used(&self, _: &[(ApiKeyId, UnixMillis)]) -> Result<()> {
        Ok(())
    }
}

/// Bytes that the process holds.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("smaps_rollup");
    let line = text.lines().find(|line| line.starts_with("Rss:")).expect("Rss");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("KiB") * 1_024
}

fn main() {
    let owned = std::env::args().nth(1).and_then(|owned| owned.parse().ok()).unwrap_or(100);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mirror = Mirror::new(Duration::from_secs(5));
    let stored = Stored { owned, shown: std::sync::Mutex::default() };
    let (before, begun) = (resident(), Instant::now());
    runtime.block_on(mirror.refresh_api_keys(&stored, true)).expect("a store of this program");
    let took = begun.elapsed();
    let shown = stored.shown.into_inner().expect("a lock");
    // As the gateway's workers do when they have nothing else to do.
    authgate::memory::give_back();
    std::thread::sleep(Duration::from_secs(1));
    authgate::memory::give_back();
    let bytes = (resident().saturating_sub(before + shown.len() * 80)) as f64 / KEYS as f64;
    let is_within = bytes <= BOUND;
    let verdict = if is_within { "ok  " } else { "OVER" };
    println!("{verdict} {KEYS} keys, {owned} an owner: {bytes:.1} bytes each (at most {BOUND})");
    println!("     made and read in {took:.2?}");
    let begun = Instant::now();
    for text in &shown {
        black_box(mirror.api_keys().accept(text.as_bytes(), NOW).is_ok());
    }
    println!("     accepted in {:.0} ns each", begun.elapsed().as_nanos() as f64 / shown.len() as f64);
    std::process::exit(i32::from(!is_within));
}
