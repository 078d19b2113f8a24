//! What a changed config does to requests that are under way: nothing. Workers are run in the test's own process here,
//! since that is where snapshots can be exchanged.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr, TcpListener},
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use authgate::{
    access::Access,
    app,
    clock::{SystemClock, TimeKeeper},
    config,
    gateway::{
        BuiltinCall, BuiltinCalls, Drain, Inbox, Listener, Listening, Placement, Services, Snapshot, Worker,
    },
    limit::AddressCounts,
    revocation::Mirror,
    telemetry::Metrics,
    token::{AccessClaims, CurrentKeyring, Issuer, Keyring, Verifier},
    types::{ClaimValues, OsRandom, Proofs, Roles, Secret, SessionId, UserId},
};
use bytes::Bytes;
use http::Response;
use tokio::sync::watch;

use crate::harness::{Client, SECRET, Upstream, eventually, ok};

const WORKERS: usize = 2;
const CLIENTS: usize = 4;
const EXCHANGES: usize = 200;

/// The first config: `/x` is for people who are signed in, and goes to `first`.
const SIGNED_IN: &str = "
upstreams:
  first: {servers: [{url: 'http://FIRST'}]}
  both: {servers: [{url: 'http://BOTH'}]}
routes:
  - {path: /x/**, upstream: first}
  - {path: /both/**, upstream: both, auth: none}
";

/// The other one: `/x` is open and goes to `second`, whoever speaks is believed, and every number has changed.
const OPEN: &str = "
trusted_proxies: [127.0.0.0/8]
upstreams:
  both: {servers: [{url: 'http://BOTH'}]}
  second: {servers: [{url: 'http://SECOND'}]}
routes:
  - {path: /a/**, upstream: both}
  - {path: /both/**, upstream: both, auth: none}
  - {path: /x/**, upstream: second, auth: none}
";

struct NoCalls;

impl BuiltinCalls for NoCalls {
    fn max_body(&self) -> u64 {
        0
    }

    fn call(&self, _: BuiltinCall) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send>> {
        Box::pin(async { Response::new(Bytes::new()) })
    }
}

/// What snapshots are made of here.
struct Parts {
    access: Arc<Access>,
    services: Services,
    token: String,
}

impl Parts {
    fn new() -> Self {
        let now = authgate::clock::log_micros() / 1_000;
        let keyring = CurrentKeyring::new(Keyring::of_secrets(&Secret::new(SECRET), None, None).unwrap());
        let random = Arc::new(OsRandom);
        const CONFIG: &str =
            "listeners: [{address: \"127.0.0.1:0\"}]\nauth: {issuer: tests, audience: tests}\n";
        let loaded = config::load("tests", CONFIG, Path::new("."), &|_| None, &|_| Vec::new());
        let auth = loaded.unwrap().config.auth;
        let issuer = Issuer::new(&auth, keyring.clone(), random);
        let claims = AccessClaims {
            user: UserId::generate(now, &OsRandom),
            session: SessionId::generate(&OsRandom),
            generation: 1,
            name: "alice",
            roles: &Roles::parse_joined("user").unwrap(),
            external_id: None,
            issued_at: now,
            session_ends_at: i64::MAX,
            authenticated_at: 0,
            proofs: Proofs::PASSWORD,
            claims: &ClaimValues::default(),
        };
        let token = issuer.issue(&claims, &issuer.key(now).unwrap()).unwrap().text;
        let time = Arc::new(TimeKeeper::new(Arc::new(SystemClock)));
        let mirror = Arc::new(Mirror::new(Duration::from_secs(600)));
        mirror.confirm(time.now());
        let metrics = Arc::new(Metrics::new().unwrap());
        let verifier = Arc::new(Verifier::new(&auth, keyring, Vec::new(), None));
        let access = Arc::new(Access::new(verifier, mirror, time, metrics.clone(), None, &auth, None));
        let services = Services {
            traces: None,
            refusal_pages: None,
            challenges: Arc::default(),
            metrics,
            access_log: None,
            address_counts: AddressCounts::new(),
            rates: Arc::default(),
        };
        Self { access, services, token }
    }

    fn snapshot(&self, config: &Path, before: Option<&Snapshot>) -> Arc<Snapshot> {
        let loaded = app::load(config).unwrap_or_else(|errors| panic!("{errors}"));
        let (access, services) = (self.access.clone(), self.services.clone());
        let calls = Arc::new(NoCalls);
        Arc::new(Snapshot::new(&loaded.config, Arc::new(loaded.routes), access, calls, services, &[], before))
    }

    /// The sum of a metric's series whose labels contain `label`.
    fn sum(&self, metric: &str, label: &str) -> usize {
        let text = String::from_utf8(self.services.metrics.render()).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(metric) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
    }
}

fn run_worker(worker: Worker, inbox: Inbox) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(worker.run(inbox)).unwrap();
    })
}

fn listening(socket: TcpListener) -> Listening {
    let config = authgate::config::Listener {
        address: authgate::config::ListenAddress::Ip(socket.local_addr().unwrap()),
        max_connections: None,
        redirect: None,
        tls: None,
        http2: false,
        proxy_protocol: None,
        ext_authz: false,
    };
    Listening { socket: Arc::new(socket), listener: Arc::new(Listener::new(config, None)) }
}

/// Requests one after the other, some of them with a body that comes late, until told to stop; how many there were for
/// each route.
fn ask(address: SocketAddr, token: &str, stop: &AtomicBool, done: &AtomicUsize) -> [usize; 2] {
    let mut client = Client::connect(address);
    let mut asked = [0; 2];
    let headers =
        format!("Host: a.example\r\nAuthorization: Bearer {token}\r\nX-Forwarded-For: 198.51.100.1");
    while !stop.load(Relaxed) {
        for (count, path) in asked.iter_mut().zip(["/x/y", "/both/y"]) {
            *count += 1;
            if *count % 3 == 0 {
                client.send(format!("POST {path} HTTP/1.1\r\n{headers}\r\nContent-Length: 4\r\n\r\nla"));
                thread::sleep(Duration::from_millis(2));
                client.send("te");
            } else {
                client.send(format!("GET {path} HTTP/1.1\r\n{headers}\r\n\r\n"));
            }
            assert_eq!(client.response().status, 200);
            done.fetch_add(1, Relaxed);
        }
    }
    asked
}

#[test]
#[ignore = "slow"]
fn each_request_is_judged_and_served_by_one_snapshot_and_none_is_lost_by_an_exchange() {
    let [first, second, both] = [(); 3].map(|()| Upstream::answering(|_| ok("there")));
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, rules: &str| {
        let rules = rules
            .replace("FIRST", &first.address.to_string())
            .replace("SECOND", &second.address.to_string())
            .replace("BOTH", &both.address.to_string());
        let path = folder.path().join(name);
        let rest = "listeners: [{address: '127.0.0.1:0'}]\nworkers: 2\nstore: {url: 'sqlite:authgate.db'}\n\
                    auth: {issuer: 'https://login.example', audience: tests}\n";
        std::fs::write(&path, format!("{rest}{rules}")).unwrap();
        path
    };
    let configs = [write("signed-in.yaml", SIGNED_IN), write("open.yaml", OPEN)];
    let parts = Parts::new();
    let snapshots = watch::Sender::new(parts.snapshot(&configs[0], None));
    let drain = Drain::default();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let sockets = watch::Sender::new(vec![listening(socket)]);
    let (placement, inboxes) = Placement::new(WORKERS, 1_000);
    let start = |(index, inbox)| {
        let (snapshots, sockets) = (snapshots.subscribe(), sockets.subscribe());
        run_worker(Worker::new(index, snapshots, sockets, drain.clone(), placement.clone()), inbox)
    };
    let workers: Vec<_> = inboxes.into_iter().enumerate().map(start).collect();
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let asked = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| ask(address, &parts.token, &stop, &done))).collect();
        for exchange in 1..=EXCHANGES {
            let before = snapshots.borrow().clone();
            snapshots.send_replace(parts.snapshot(&configs[exchange % 2], Some(&before)));
            let so_far = done.load(Relaxed);
            eventually("requests between two exchanges", || {
                (done.load(Relaxed) > so_far || clients.iter().any(|client| client.is_finished()))
                    .then_some(())
            });
        }
        stop.store(true, Relaxed);
        let asked = clients.into_iter().map(|client| client.join().expect("no request failed"));
        asked.fold([0, 0], |all, of_one| [all[0] + of_one[0], all[1] + of_one[1]])
    });
    let loopback = IpAddr::from([127, 0, 0, 1]).to_string();
    for seen in first.seen() {
        assert!(seen.header("x-user-id").is_some(), "open, and sent to the first: {seen:?}");
        assert_eq!(seen.header("x-forwarded-for"), Some(loopback.as_str()));
    }
    for seen in second.seen() {
        assert_eq!(seen.header("x-user-id"), None, "signed in, and sent to the second");
        assert_eq!(seen.header("x-forwarded-for"), Some(format!("198.51.100.1, {loopback}").as_str()));
    }
    let (at_first, at_second) = (first.seen().len(), second.seen().len());
    assert!(at_first > EXCHANGES / 4 && at_second > EXCHANGES / 4, "{at_first} and {at_second}");
    assert_eq!(at_first + at_second, asked[0]);
    assert_eq!(both.seen().len(), asked[1]);
    assert!(both.connections() <= CLIENTS, "{} connections to the upstream that stayed", both.connections());
    // What is counted is counted under its own name, whichever number it had.
    let upstream = "authgate_upstream_duration_seconds_count";
    for (name, count) in [("first", at_first), ("second", at_second), ("both", asked[1])] {
        assert_eq!(parts.sum(upstream, &format!("\"{name}\"")), count, "{name}");
    }
    for (route, count) in [("/x/**", asked[0]), ("/both/**", asked[1])] {
        assert_eq!(parts.sum("authgate_requests_total", &format!("\"{route}\"")), count, "{route}");
    }
    drain.begin();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}
