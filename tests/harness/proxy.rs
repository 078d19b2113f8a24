//! A road to the database that a test can cut, slow down, and lose messages on.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    Open,
    /// Connections break, and no new ones are made.
    Cut,
    /// Connections stay, and nothing moves on them.
    Blocked,
}

struct State {
    target: Mutex<SocketAddr>,
    road: Mutex<Road>,
    connections: Mutex<Vec<TcpStream>>,
    delay: AtomicU64,
    lose_notifications: AtomicBool,
    notifications: AtomicUsize,
    lose_rows: AtomicUsize,
    trap: Mutex<Option<Trap>>,
    accepted: AtomicUsize,
}

/// Blocks the road in the midst of one transaction, whatever else is under way at that time.
struct Trap {
    /// What the transaction is known by, among the values of its statements.
    marker: Vec<u8>,
    connection: Option<usize>,
    /// Statements that still go through, the one with the marker included.
    left: usize,
    executes: bool,
}

impl Trap {
    /// Whether a client's message completes the last statement that goes through. Preparing one is no step:
    /// it depends on what the connection was used for before.
    fn shuts_behind(&mut self, connection: usize, message: &[u8]) -> bool {
        if self.connection.is_none() && message.windows(self.marker.len()).any(|part| part == self.marker) {
            self.connection = Some(connection);
        }
        if self.connection != Some(connection) {
            return false;
        }
        let complete = match message[0] {
            b'Q' => true,
            b'S' => self.executes,
            _ => false,
        };
        self.executes = message[0] == b'E' || (self.executes && !complete);
        self.left = self.left.saturating_sub(usize::from(complete));
        complete && self.left == 0
    }
}

/// Speaks PostgreSQL's protocol just enough to tell its messages apart.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// Before the database of a connection string.
    pub fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = Arc::new(State {
            target: Mutex::new(host_of(url)),
            road: Mutex::new(Road::Open),
            connections: Mutex::default(),
            delay: AtomicU64::new(0),
            lose_notifications: AtomicBool::new(false),
            notifications: AtomicUsize::new(0),
            lose_rows: AtomicUsize::new(0),
            trap: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        let address = listener.local_addr().unwrap();
        let kept = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                kept.carry(client);
            }
        });
        Self { address, state }
    }

    /// The connection string that leads through here.
    pub fn url(&self, url: &str) -> String {
        url.replacen(&host_of(url).to_string(), &self.address.to_string(), 1)
    }

    fn set(&self, road: Road) {
        *self.state.road.lock().unwrap() = road;
    }

    pub fn cut(&self) {
        self.set(Road::Cut);
        self.state.break_all();
    }

    pub fn block(&self) {
        self.set(Road::Blocked);
    }

    /// Everything goes through again. What was blocked meanwhile is lost with its connection.
    pub fn open(&self) {
        self.state.break_all();
        *self.state.trap.lock().unwrap() = None;
        self.set(Road::Open);
    }

    /// Another server from now on.
    pub fn lead_to(&self, url: &str) {
        *self.state.target.lock().unwrap() = host_of(url);
        self.state.break_all();
    }

    /// Each way takes so much longer.
    pub fn delay(&self, by: Duration) {
        self.state.delay.store(by.as_millis() as u64, SeqCst);
    }

    pub fn lose_notifications(&self, lose: bool) {
        self.state.lose_notifications.store(lose, SeqCst);
    }

    /// How many notifications came by, lost ones included.
    pub fn notifications(&self) -> usize {
        self.state.notifications.load(SeqCst)
    }

    /// Loses the next rows of the log that a poll reads.
    pub fn lose_rows(&self, count: usize) {
        self.state.lose_rows.store(count, SeqCst);
    }

    pub fn rows_to_lose(&self) -> usize {
        self.state.lose_rows.load(SeqCst)
    }

    /// Blocks the road behind so many statements of a transaction, of which the last gets no answer. They
    /// count from the first one with an id among its values; COMMIT is one, too.
    pub fn block_after(&self, id: &str, statements: usize) {
        let marker = uuid::Uuid::parse_str(id).unwrap().into_bytes().to_vec();
        let trap = Trap { marker, connection: None, left: statements, executes: false };
        *self.state.trap.lock().unwrap() = Some(trap);
    }

    pub fn is_blocked(&self) -> bool {
        *self.state.road.lock().unwrap() == Road::Blocked
    }
}

impl State {
    fn carry(self: &Arc<Self>, client: TcpStream) {
        let target = *self.target.lock().unwrap();
        if *self.road.lock().unwrap() == Road::Cut {
            return;
        }
        let Ok(server) = TcpStream::connect(target) else { return };
        let connection = self.accepted.fetch_add(1, SeqCst);
        let mut connections = self.connections.lock().unwrap();
        for (from, to, of_client) in [(&client, &server, true), (&server, &client, false)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let _ = to.set_nodelay(true);
            connections.push(to.try_clone().unwrap());
            let state = self.clone();
            thread::spawn(move || state.pump(from, to, of_client.then_some(connection)));
        }
    }

    fn break_all(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Carries what comes from the client of a connection, or from its server.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, of_client: Option<usize>) {
        let mut held = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        // The first message of a client has no type.
        let mut untyped = of_client.is_some();
        while let Ok(length) = from.read(&mut chunk)
            && length > 0
        {
            held.extend_from_slice(&chunk[..length]);
            thread::sleep(Duration::from_millis(self.delay.load(SeqCst)));
            let mut out = Vec::new();
            while let Some(message) = next_message(&held, untyped) {
                if of_client.is_some() || !self.is_lost(&held[..message]) {
                    out.extend_from_slice(&held[..message]);
                }
                let last = !untyped
                    && of_client.is_some_and(|connection| {
                        let mut trap = self.trap.lock().unwrap();
                        trap.as_mut().is_some_and(|trap| trap.shuts_behind(connection, &held[..message]))
                    });
                held.drain(..message);
                if last {
                    // The answer is lost, whatever it is.
                    *self.road.lock().unwrap() = Road::Blocked;
                    let _ = to.write_all(&out);
                    out.clear();
                }
                untyped = false;
            }
            while *self.road.lock().unwrap() == Road::Blocked {
                thread::sleep(Duration::from_millis(2));
            }
            if to.write_all(&out).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }

    fn is_lost(&self, message: &[u8]) -> bool {
        match message[0] {
            b'A' => {
                self.notifications.fetch_add(1, SeqCst);
                self.lose_notifications.load(SeqCst)
            }
            // A row of four columns, the first of two bytes: how polls read the log.
            b'D' if message.len() > 13 && message[5..11] == [0, 4, 0, 0, 0, 2] => {
                self.lose_rows.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
            }
            _ => false,
        }
    }
}

/// The length of the first message, if it is whole.
fn next_message(bytes: &[u8], untyped: bool) -> Option<usize> {
    let at = usize::from(!untyped);
    let length = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().unwrap()) as usize + at;
    (bytes.len() >= length).then_some(length)
}

fn host_of(url: &str) -> SocketAddr {
    let rest = url.split('@').nth(1).unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}
