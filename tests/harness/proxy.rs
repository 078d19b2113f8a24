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
    silence: AtomicUsize,
    accepted: AtomicUsize,
}

/// Blocks the road in the midst of one transaction, whatever else is under way at that time.
struct Trap {
    /// What the transaction is known by, among the values of its statements.
    marker: Vec<u8>,
    connection: Option<usize>,
    place: Place,
    executes: bool,
}

/// Where a trap shuts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind so many statements, the one with the marker included.
    Behind(usize),
    BeforeCommit,
    BehindCommit,
}

/// What a trap does with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shut {
    No,
    Before,
    Behind,
}

impl Trap {
    /// Whether it shuts at a client's message, which may complete a statement. Preparing one is no step: it
    /// depends on what the connection was used for before.
    fn shuts(&mut self, connection: usize, message: &[u8]) -> Shut {
        // It may have been read before, on another connection.
        let open = self.connection.is_none() || !matches!(self.place, Place::Behind(_));
        if open && message.windows(self.marker.len()).any(|part| part == self.marker) {
            self.connection = Some(connection);
        }
        if self.connection != Some(connection) {
            return Shut::No;
        }
        let commits = message[0] == b'Q' && message.windows(6).any(|part| part == b"COMMIT");
        let complete = match message[0] {
            b'Q' => true,
            b'S' => self.executes,
            _ => false,
        };
        self.executes = message[0] == b'E' || (self.executes && !complete);
        match &mut self.place {
            Place::Behind(left) if complete => {
                *left -= 1;
                if *left == 0 { Shut::Behind } else { Shut::No }
            }
            Place::BeforeCommit if commits => Shut::Before,
            Place::BehindCommit if commits => Shut::Behind,
            _ => Shut::No,
        }
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
            silence: AtomicUsize::new(0),
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

    /// Blocks the road behind so many statements of a transaction, of which the last gets no response. They
    /// count from the first one with an id among its values; COMMIT is one, too.
    pub fn block_after(&self, id: &str, statements: usize) {
        self.set_trap(id, Place::Behind(statements));
    }

    /// Blocks the road at the COMMIT of a transaction with an id, or another text, among its values: before it
    /// arrives, or `arrives` and gets no response.
    pub fn block_at_commit(&self, id: &str, arrives: bool) {
        self.set_trap(id, if arrives { Place::BehindCommit } else { Place::BeforeCommit });
    }

    fn set_trap(&self, id: &str, place: Place) {
        let marker = match uuid::Uuid::parse_str(id) {
            Ok(id) => id.into_bytes().to_vec(),
            Err(_) => id.as_bytes().to_vec(),
        };
        let trap = Trap { marker, connection: None, place, executes: false };
        *self.state.trap.lock().unwrap() = Some(trap);
    }

    /// The next connections fall silent when they are made, and stay.
    pub fn silence(&self, connections: usize) {
        self.state.silence.store(connections, SeqCst);
    }

    pub fn connections_to_silence(&self) -> usize {
        self.state.silence.load(SeqCst)
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
        let silenced =
            self.silence.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok().then(Arc::default);
        let mut connections = self.connections.lock().unwrap();
        for (from, to, of_client) in [(&client, &server, true), (&server, &client, false)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let _ = to.set_nodelay(true);
            connections.push(to.try_clone().unwrap());
            let (state, silenced) = (self.clone(), silenced.clone());
            thread::spawn(move || state.pump(from, to, of_client.then_some(connection), silenced));
        }
    }

    fn break_all(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Carries what comes from the client of a connection, or from its server. What a client says is not heard
    /// any more once `silenced` is set, behind the server's first word that it is ready.
    fn pump(
        &self,
        mut from: TcpStream,
        mut to: TcpStream,
        of_client: Option<usize>,
        silenced: Option<Arc<AtomicBool>>,
    ) {
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
            if of_client.is_some() && silenced.as_ref().is_some_and(|silenced| silenced.load(SeqCst)) {
                held.clear();
                continue;
            }
            while let Some(message) = next_message(&held, untyped) {
                if let (None, Some(silenced), b'Z') = (of_client, &silenced, held[0]) {
                    silenced.store(true, SeqCst);
                }
                let mut shut = Shut::No;
                if let (false, Some(connection), Some(trap)) =
                    (untyped, of_client, self.trap.lock().unwrap().as_mut())
                {
                    shut = trap.shuts(connection, &held[..message]);
                }
                if shut == Shut::Before {
                    *self.road.lock().unwrap() = Road::Blocked;
                }
                if of_client.is_some() || !self.is_lost(&held[..message]) {
                    out.extend_from_slice(&held[..message]);
                }
                held.drain(..message);
                if shut == Shut::Behind {
                    // The response is lost, whatever it is.
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
            // A row of four columns, the first of two bytes: how polls read the log. With five, of which the
            // second is such a one: how hints have it read.
            b'D' if message.len() > 13 && (message[5..11] == [0, 4, 0, 0, 0, 2] || is_glanced(message)) => {
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

fn is_glanced(message: &[u8]) -> bool {
    let length = |at: usize| Some(u32::from_be_bytes(message.get(at..at + 4)?.try_into().ok()?) as usize);
    message[5..7] == [0, 5] && length(7).and_then(|cursor| length(11 + cursor)) == Some(2)
}

fn host_of(url: &str) -> SocketAddr {
    let rest = url.split('@').nth(1).unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}
