//! Races between a logout and requests on the same gateway: none that begins after the logout's response may
//! succeed.
//!
//!     ./run bench-revocation races

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

const RACERS: usize = 2;

struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn connect(address: SocketAddr) -> TcpStream {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect(address) {
            Ok(socket) => {
                socket.set_nodelay(true).expect("a socket");
                return socket;
            }
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a request on a connection that stays; its response's status and body.
fn call(socket: &mut TcpStream, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).expect("a request is sent");
    let mut answer = Vec::new();
    loop {
        let mut chunk = [0; 8_192];
        let length = socket.read(&mut chunk).expect("an answer");
        assert!(length > 0, "closed");
        answer.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length =
                head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
                return (status, body.to_owned());
            }
        }
    }
}

/// What the racers work on: the number of the round, its token, and whether its logout was answered.
#[derive(Default)]
struct Round {
    number: AtomicU64,
    token: Mutex<String>,
    answered: AtomicBool,
    finished: AtomicU64,
}

fn main() {
    let rounds: u64 = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(10_000);
    let store = std::env::args().nth(2).unwrap_or_else(|| "sqlite:authgate.db".to_owned());
    let folder = std::env::temp_dir().join(format!("authgate-races-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let port = free_port();
    let config = format!(
        "listeners: [{{address: \"127.0.0.1:{port}\"}}]\nadmin: {{address: \"127.0.0.1:{}\"}}\nworkers: 2\n\
         store: {{url: \"{store}\"}}\nauth:\n  issuer: https://login.example.com\n  audience: races\n  \
         password: {{argon2: {{memory: 64KiB, iterations: 1}}}}\n  \
         throttle: {{registrations: {{requests: 1000000, per: 1s}}, account: {{failures: 1000000, per: 1s}}}}\n\
         routes: [{{path: /api/**, respond: {{json: {{ok: true}}}}}}]\nlog: {{level: error, access: false}}\n",
        free_port()
    );
    let file = folder.join("gateway.yaml");
    std::fs::write(&file, config).expect("a config");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/authgate");
    let gateway = Gateway(
        Command::new(program).args(["serve", "--config"]).arg(&file).spawn().expect("a release build"),
    );
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut socket = connect(address);
    let account = r#"{"username": "racer", "password": "a password for the races"}"#;
    assert_eq!(call(&mut socket, "POST", "/auth/register", "", account).0, 201);
    let round = Arc::new(Round::default());
    let (late, before) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let asked = Arc::new(AtomicU64::new(0));
    let racers: Vec<_> = (0..RACERS)
        .map(|_| {
            let (round, late, before, asked) = (round.clone(), late.clone(), before.clone(), asked.clone());
            thread::spawn(move || {
                let mut socket = connect(address);
                for number in 1..=rounds {
                    while round.number.load(SeqCst) < number {
                        std::hint::spin_loop();
                    }
                    let token = round.token.lock().expect("a token").clone();
                    loop {
                        let begun_after = round.answered.load(SeqCst);
                        let (status, _) = call(&mut socket, "GET", "/api/x", &token, "");
                        asked.fetch_add(1, SeqCst);
                        match (begun_after, status) {
                            (true, 401) => break,
                            (true, _) => {
                                late.fetch_add(1, SeqCst);
                                break;
                            }
                            (false, 200) => {
                                before.fetch_add(1, SeqCst);
                            }
                            (false, _) => {}
                        }
                    }
                    round.finished.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let begun = Instant::now();
    for number in 1..=rounds {
        let (status, body) = call(&mut socket, "POST", "/auth/login", "", account);
        assert_eq!(status, 200);
        let token = body.split("\"access_token\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let token = token.expect("a token").to_owned();
        round.answered.store(false, SeqCst);
        round.token.lock().expect("a token").clone_from(&token);
        round.number.store(number, SeqCst);
        // A few requests are under way by then, more or less.
        thread::sleep(Duration::from_micros(200 * (number % 5)));
        assert_eq!(call(&mut socket, "POST", "/auth/logout", &token, "").0, 200);
        round.answered.store(true, SeqCst);
        while round.finished.load(SeqCst) < number * RACERS as u64 {
            thread::yield_now();
        }
    }
    racers.into_iter().for_each(|racer| racer.join().expect("a racer"));
    drop(gateway);
    let _ = std::fs::remove_dir_all(folder);
    println!(
        "{rounds} logouts in {:.0} s beside {RACERS} connections that asked {} times: {} successes before the answer, {} after it",
        begun.elapsed().as_secs_f64(),
        asked.load(SeqCst),
        before.load(SeqCst),
        late.load(SeqCst)
    );
    assert_eq!(late.load(SeqCst), 0);
}
