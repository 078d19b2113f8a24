//! Somebody sets the machine's clock: no token and no bound lives longer for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::harness::{Cluster, Faketime, Gateway, Settings, Upstream, eventually, shared_database};

/// A gateway whose wall clock is set by a file.
struct Clock {
    gateway: Gateway,
    time: Faketime,
}

impl Clock {
    fn start(mut settings: Settings) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let time = Faketime::new(folder.path());
        settings.env.extend(time.env());
        let upstream = Upstream::start();
        Self { gateway: Gateway::start_in(folder, upstream.address, settings), time }
    }

    fn set(&self, offset: &str) {
        self.time.set(offset);
    }

    fn status(&self, token: &str) -> u16 {
        self.gateway.get("/api/x", Some(token)).status
    }
}

fn short(settings: Settings) -> Settings {
    settings.auth("  access_token_ttl: 4s\n")
}

#[test]
fn a_clock_set_back_extends_no_token() {
    for settings in [Settings::default(), Settings::postgres(&shared_database())] {
        let clock = Clock::start(short(settings));
        let begun = Instant::now();
        let token = clock.gateway.token("alice");
        assert_eq!(clock.status(&token), 200);
        clock.set("-3600");
        eventually("it expires", || (clock.status(&token) == 401).then_some(()));
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(2_900) && took < Duration::from_secs(6), "{took:?}");
        // And those made now are as good as ever.
        let response = clock.gateway.login("alice");
        assert_eq!(clock.status(response["access_token"].as_str().unwrap()), 200);
    }
}

#[test]
fn a_clock_set_forward_ends_tokens_and_set_right_does_not_revive_them() {
    let clock = Clock::start(Settings::default());
    let token = clock.gateway.token("alice");
    clock.set("+3600");
    assert_eq!(clock.status(&token), 401);
    let ahead = clock.gateway.login("alice");
    let ahead = ahead["access_token"].as_str().unwrap();
    // Until the next poll it looks as if the last one lay an hour back.
    eventually("it is fresh", || (clock.status(ahead) == 200).then_some(()));
    clock.set("+0");
    assert_eq!((clock.status(&token), clock.status(ahead)), (401, 200));
    assert_eq!(clock.status(clock.gateway.login("alice")["access_token"].as_str().unwrap()), 200);
}

#[test]
fn a_clock_apart_from_the_databases_is_said_and_trusted_no_longer_than_either() {
    let clock = Clock::start(Settings::postgres(&shared_database()));
    let token = clock.gateway.token("alice");
    clock.set("+3600");
    assert_eq!(clock.status(&token), 401);
    eventually("it is said", || {
        let ready = clock.gateway.admin_get("/readyz");
        assert_eq!(ready.status, 503);
        (ready.text() == "the clock is apart from the store's\n").then_some(())
    });
    let clock = Clock::start(Settings::postgres(&shared_database()));
    clock.set("-3600");
    assert_eq!(clock.gateway.admin_get("/readyz").status, 503);
}

#[test]
fn a_clock_set_back_hides_no_staleness() {
    let cluster = Cluster::start();
    let settings = Settings {
        store: format!("{{url: \"{}\", timeout: 2s}}", cluster.database()),
        ..Settings::default()
    };
    let clock = Clock::start(settings.extra("revocation: {max_staleness: 2s}\n"));
    let token = clock.gateway.token("alice");
    assert_eq!(clock.status(&token), 200);
    cluster.freeze();
    clock.set("-3600");
    let begun = Instant::now();
    eventually("it is stale", || (clock.status(&token) == 503).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    cluster.thaw();
    eventually("it is fresh", || (clock.status(&token) == 200).then_some(()));
}
