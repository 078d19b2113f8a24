//! An upstream that records what reaches it and answers as it is told.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

/// A request as the upstream saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// In how many chunks it came, if it did.
    pub chunks: usize,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl Seen {
    /// The values of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of the only header of that name.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands {} times in {self:?}", all.len());
        all.first().copied()
    }
}

type Responder = dyn Fn(&Seen, &mut TcpStream) -> bool + Send + Sync;

#[derive(Default)]
struct Record {
    seen: Vec<Seen>,
    connections: usize,
    bytes: usize,
}

/// The upstream. It ends with the test's process.
pub struct Upstream {
    pub address: SocketAddr,
    record: Arc<Mutex<Record>>,
    stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// A plain 200 with a length.
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Upstream {
    /// Answers every request with its own target.
    pub fn start() -> Self {
        Self::answering(|seen| ok(&seen.target))
    }

    /// Answers with the bytes that `respond` gives.
    pub fn answering(respond: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::with(move |seen, socket| socket.write_all(&respond(seen)).is_ok())
    }

    /// Lets `respond` write to the socket; when it gives false the connection closes.
    pub fn with(respond: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        Self::listening(TcpListener::bind("127.0.0.1:0").unwrap(), respond)
    }

    /// Answers at a listener of the test's own.
    pub fn on(listener: TcpListener, respond: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::listening(listener, move |seen, socket| socket.write_all(&respond(seen)).is_ok())
    }

    fn listening(
        listener: TcpListener,
        respond: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (record, stopped): (Arc<Mutex<Record>>, Arc<AtomicBool>) = Default::default();
        let (kept, ends) = (record.clone(), stopped.clone());
        let respond: Arc<Responder> =
            Arc::new(move |seen, socket| !ends.load(SeqCst) && respond(seen, socket));
        let ends = stopped.clone();
        let accepting = thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if ends.load(SeqCst) {
                    return;
                }
                let (record, respond) = (kept.clone(), respond.clone());
                thread::spawn(move || serve(socket, &record, &*respond));
            }
        });
        Self { address, record, stopped, accepting: Some(accepting) }
    }

    /// Listens no more, and answers nothing that has come already.
    pub fn stop(mut self) {
        self.stopped.store(true, SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
    }

    /// Lets `respond` response when only the head of a request is there; it reads the body by the function that it is
    /// given.
    pub fn with_head(
        respond: impl Fn(&mut TcpStream, &mut dyn FnMut() -> String) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                let (mut buffer, mut reading) = (Vec::new(), socket.try_clone().unwrap());
                let mut more = move |buffer: &mut Vec<u8>| {
                    let mut chunk = [0; 16 << 10];
                    let length = reading.read(&mut chunk).unwrap_or(0);
                    buffer.extend_from_slice(&chunk[..length]);
                    length > 0
                };
                while let Some(mut seen) = read_request(&mut buffer, &mut more) {
                    let mut read = || {
                        read_body(&mut seen, &mut buffer, &mut more);
                        String::from_utf8_lossy(&seen.body).into_owned()
                    };
                    if !respond(&mut socket, &mut read) {
                        break;
                    }
                }
            }
        });
        Self { address, record: Arc::default(), stopped: Arc::default(), accepting: None }
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.record.lock().unwrap().seen.clone()
    }

    /// The only request so far.
    #[track_caller]
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.into_iter().next().unwrap()
    }

    #[track_caller]
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request reached the upstream")
    }

    /// How many bytes have reached it.
    pub fn bytes(&self) -> usize {
        self.record.lock().unwrap().bytes
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.record.lock().unwrap().connections
    }
}

fn serve(mut socket: TcpStream, record: &Mutex<Record>, respond: &Responder) {
    record.lock().unwrap().connections += 1;
    let mut buffer = Vec::new();
    loop {
        let mut more = |buffer: &mut Vec<u8>| {
            let mut chunk = [0; 16 << 10];
            let length = socket.read(&mut chunk).unwrap_or(0);
            record.lock().unwrap().bytes += length;
            buffer.extend_from_slice(&chunk[..length]);
            length > 0
        };
        let Some(mut seen) = read_request(&mut buffer, &mut more) else { return };
        seen.complete = read_body(&mut seen, &mut buffer, &mut more);
        let complete = seen.complete;
        record.lock().unwrap().seen.push(seen.clone());
        if !complete || !respond(&seen, &mut socket) {
            return;
        }
    }
}

fn read_request(buffer: &mut Vec<u8>, more: &mut impl FnMut(&mut Vec<u8>) -> bool) -> Option<Seen> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if !more(buffer) {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut start = lines.next()?.split(' ');
    let header =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    Some(Seen {
        method: start.next()?.to_owned(),
        target: start.next()?.to_owned(),
        headers: lines.filter_map(header).collect(),
        body: Vec::new(),
        chunks: 0,
        complete: false,
    })
}

fn read_body(seen: &mut Seen, buffer: &mut Vec<u8>, more: &mut impl FnMut(&mut Vec<u8>) -> bool) -> bool {
    if seen.header("transfer-encoding").is_some() {
        loop {
            let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") else {
                if more(buffer) {
                    continue;
                }
                return false;
            };
            let size =
                usize::from_str_radix(&String::from_utf8_lossy(&buffer[..end]), 16).expect("a chunk's size");
            while buffer.len() < end + 2 + size + 2 {
                if !more(buffer) {
                    seen.body.extend_from_slice(&buffer[(end + 2).min(buffer.len())..]);
                    return false;
                }
            }
            seen.body.extend_from_slice(&buffer[end + 2..end + 2 + size]);
            buffer.drain(..end + 2 + size + 2);
            seen.chunks += 1;
            if size == 0 {
                return true;
            }
        }
    }
    let length = seen.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    while buffer.len() < length {
        if !more(buffer) {
            seen.body = std::mem::take(buffer);
            return false;
        }
    }
    seen.body = buffer.drain(..length).collect();
    true
}
