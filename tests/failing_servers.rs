//! What a failure of a server is to its clients: each way to fail, in both protocols, alone and beside a server that is well.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::harness::{Gateway, Settings, Upstream, ok};

/// What becomes of the connection after a failure.
#[derive(Clone, Copy)]
enum End {
    Close,
    Reset,
    Hold,
}

/// What a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gets {
    Status(u16),
    /// A response that breaks off in its body.
    Cut,
}

use Gets::{Cut, Status};

/// A way to fail.
struct Way {
    name: &'static str,
    sends: Vec<u8>,
    end: End,
    /// What becomes of any request where the server is alone, and of a POST also where it is not.
    alone: Gets,
    /// What becomes of a GET where another server is well.
    beside: Gets,
}

/// Serves a connection: it asks for the way to fail at each request, and tells whether that is the first one.
type Serve = fn(TcpStream, &dyn Fn(bool) -> Option<usize>, &[Way]);

/// A server that fails in one of these ways at each request, until it is well.
struct Failing {
    address: SocketAddr,
    way: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

/// The number of no way.
const WELL: usize = usize::MAX;

impl Failing {
    fn start(ways: &Arc<Vec<Way>>, serve: Serve) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (way, requests) = (Arc::new(AtomicUsize::new(WELL)), Arc::<AtomicUsize>::default());
        let (own, counted, ways) = (way.clone(), requests.clone(), ways.clone());
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (own, counted, ways) = (own.clone(), counted.clone(), ways.clone());
                thread::spawn(move || {
                    let asked = |is_first: bool| {
                        let way = own.load(SeqCst);
                        counted.fetch_add((is_first || way == WELL).into(), SeqCst);
                        (way != WELL).then_some(way)
                    };
                    serve(socket, &asked, &ways);
                });
            }
        });
        Self { address, way, requests }
    }

    fn fails(&self, way: usize) {
        self.way.store(way, SeqCst);
    }

    /// How many requests have reached it since it was asked.
    fn takes(&self) -> usize {
        self.requests.swap(0, SeqCst)
    }
}

/// Ends a connection as a way says.
fn end(mut socket: TcpStream, way: &Way) {
    let _ = socket.write_all(&way.sends);
    match way.end {
        End::Close => {}
        End::Reset => socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap(),
        // Until the gateway has given up.
        End::Hold => drop(socket.read_to_end(&mut Vec::new())),
    }
}

fn serve_http1(mut socket: TcpStream, asked: &dyn Fn(bool) -> Option<usize>, ways: &[Way]) {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4_096];
        match socket.read(&mut chunk) {
            Ok(1..) => {}
            _ => return,
        }
        bytes.extend(chunk.iter().take_while(|byte| **byte != 0));
        // The only body has four bytes, which may come alone.
        let whole = if bytes.starts_with(b"POST") { "\r\n\r\nbody" } else { "\r\n\r\n" };
        if !bytes.ends_with(whole.as_bytes()) {
            continue;
        }
        bytes.clear();
        match asked(true) {
            Some(way) => return end(socket, &ways[way]),
            None => {
                if socket.write_all(&ok("failing")).is_err() {
                    return;
                }
            }
        }
    }
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200` in the table of HPACK (RFC 7541, appendix A).
const OK: &[u8] = &[0x88];

/// The stream of the first request on a connection.
const FIRST: u32 = 1;

fn serve_http2(mut socket: TcpStream, asked: &dyn Fn(bool) -> Option<usize>, ways: &[Way]) {
    let mut preface = [0; 24];
    if socket.read_exact(&mut preface).is_err() || socket.write_all(&frame(SETTINGS, 0, 0, &[])).is_err() {
        return;
    }
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if socket.read_exact(&mut payload).is_err() {
            return;
        }
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if !matches!(kind, DATA | HEADERS) || flags & END_STREAM == 0 {
            continue;
        }
        // What the ways send is for the first stream; others are sent to a connection where they are that.
        let sends = match asked(stream == FIRST) {
            Some(way) if stream == FIRST => match ways[way].end {
                End::Hold => ways[way].sends.clone(),
                End::Close | End::Reset => return end(socket, &ways[way]),
            },
            Some(_) => [frame(RST_STREAM, 0, stream, &[0, 0, 0, 7]), frame(GOAWAY, 0, 0, &[0; 8])].concat(),
            None => [
                frame(HEADERS, END_HEADERS, stream, &[OK, &[0, 14], b"content-length", &[1], b"7"].concat()),
                frame(DATA, END_STREAM, stream, b"failing"),
            ]
            .concat(),
        };
        if socket.write_all(&sends).is_err() {
            return;
        }
    }
}

fn of_http1() -> Vec<Way> {
    let way =
        |name, sends: &[u8], end, alone, beside| Way { name, sends: sends.to_vec(), end, alone, beside };
    let reset = |name, sends: &[u8], alone, beside| way(name, sends, End::Reset, alone, beside);
    let close = |name, sends: &[u8], alone, beside| way(name, sends, End::Close, alone, beside);
    let flood = [b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100), ok("late")].concat();
    vec![
        reset("a reset before the head", b"", Status(502), Status(200)),
        close("an end before the head", b"", Status(502), Status(200)),
        close("an end within the head", b"HTTP/1.1 200 OK\r\nContent-Len", Status(502), Status(200)),
        close("an end within the body", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody", Cut, Cut),
        close(
            "an end within the chunks",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
            Cut,
            Cut,
        ),
        way("silence", b"", End::Hold, Status(504), Status(504)),
        way("silence within the head", b"HTTP/1.1 200 OK\r\n", End::Hold, Status(504), Status(504)),
        close("what is no HTTP", &[b'\x16', 3, 1, 0, 13, 10, 13, 10], Status(502), Status(502)),
        way("a flood of interim responses", &flood, End::Hold, Status(502), Status(502)),
        way(
            "bytes beyond the response",
            &[ok("well"), ok("another client's")].concat(),
            End::Hold,
            Status(200),
            Status(200),
        ),
    ]
}

fn of_http2() -> Vec<Way> {
    let way =
        |name, sends: &[Vec<u8>], end, alone, beside| Way { name, sends: sends.concat(), end, alone, beside };
    let close = |name, sends: &[Vec<u8>], alone, beside| way(name, sends, End::Close, alone, beside);
    let hold = |name, sends: &[Vec<u8>], alone, beside| way(name, sends, End::Hold, alone, beside);
    let length = [OK, &[0, 14], b"content-length", &[1], b"4"].concat();
    let head = |flags| frame(HEADERS, flags, FIRST, &length);
    let hints = frame(HEADERS, END_HEADERS, FIRST, &[&[8, 3][..], b"103"].concat());
    vec![
        way("a reset before the head", &[], End::Reset, Status(502), Status(200)),
        close("an end before the head", &[], Status(502), Status(200)),
        close("an end within the head", &[head(0)], Status(502), Status(200)),
        hold(
            "an error of the stream",
            &[frame(RST_STREAM, 0, FIRST, &[0, 0, 0, 2])],
            Status(502),
            Status(200),
        ),
        close("an end within the body", &[head(END_HEADERS), frame(DATA, 0, FIRST, b"bod")], Cut, Cut),
        hold(
            "an error within the body",
            &[head(END_HEADERS), frame(DATA, 0, FIRST, b"bod"), frame(RST_STREAM, 0, FIRST, &[0, 0, 0, 2])],
            Cut,
            Cut,
        ),
        hold("silence", &[], Status(504), Status(504)),
        hold("silence within the head", &[head(0)], Status(504), Status(504)),
        hold(
            "what is no HTTP/2",
            &[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()],
            Status(502),
            Status(200),
        ),
        hold("a flood of interim responses", &[hints.repeat(100)], Status(502), Status(502)),
        hold("a body before its head", &[frame(DATA, END_STREAM, FIRST, b"body")], Status(502), Status(200)),
        hold(
            "a body longer than its length",
            &[frame(HEADERS, END_HEADERS, FIRST, &length), frame(DATA, END_STREAM, FIRST, b"body and more")],
            Cut,
            Cut,
        ),
        hold(
            "a body behind its end",
            &[
                head(END_HEADERS),
                frame(DATA, END_STREAM, FIRST, b"well"),
                frame(DATA, END_STREAM, FIRST, b"another client's"),
            ],
            Status(200),
            Status(200),
        ),
        hold(
            "a goodbye before the head",
            &[frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), frame(RST_STREAM, 0, FIRST, &[0, 0, 0, 2])],
            Status(502),
            Status(200),
        ),
    ]
}

/// What becomes of a request, and the text of the response.
fn ask(gateway: &Gateway, method: &str) -> (Gets, String) {
    let mut socket = TcpStream::connect(gateway.address).unwrap();
    let body = if method == "POST" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
    write!(socket, "{method} /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{body}").unwrap();
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes);
    let response = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {response}"));
    let length = head.to_lowercase();
    let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    let is_whole = length.map_or(body.ends_with("0\r\n\r\n"), |length: usize| length == body.len());
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (if is_whole { Status(status) } else { Cut }, body.to_owned())
}

fn fails_as_expected(scheme: &str, ways: Vec<Way>, serve: Serve) {
    let ways = Arc::new(ways);
    let url = |address: SocketAddr| format!("{{url: \"{scheme}://{address}\"}}");
    let rules = ", response_timeout: 400ms, ejection: {failures: 10000}, balance: round_robin, retries: {budget: 100%}";
    let start = |servers: String| {
        let settings = Settings { servers, upstream: rules.to_owned(), workers: 1, ..Settings::default() };
        Gateway::start(&Upstream::start(), settings)
    };
    let (failing, beside) = (Failing::start(&ways, serve), Failing::start(&ways, serve));
    let well = Failing::start(&ways, serve);
    let alone = start(url(failing.address));
    let several = start(format!("{}, {}", url(beside.address), url(well.address)));
    for (number, way) in ways.iter().enumerate() {
        for method in ["GET", "POST"] {
            let what = format!("{} after a {method}", way.name);
            failing.fails(number);
            failing.takes();
            let (gets, text) = ask(&alone, method);
            assert_eq!(gets, way.alone, "{what}: {text}");
            // The only server is the other server, too, and a connection that rested is no reason for another try.
            let is_retried = method == "GET" && way.beside != way.alone;
            assert_eq!(failing.takes(), 1 + usize::from(is_retried), "{what}");
            failing.fails(WELL);
            // Whatever is left of the connection is of no harm to whoever comes next.
            for _ in 0..2 {
                assert_eq!(ask(&alone, "GET"), from_the_well_one(), "{what}");
            }
            beside.fails(number);
            beside.takes();
            well.takes();
            let expected = if method == "GET" { way.beside } else { way.alone };
            let results: Vec<_> = (0..4).map(|_| ask(&several, method)).collect();
            let (failed, served) = (beside.takes(), well.takes());
            assert!((1..=4).contains(&failed), "{what}: {failed} of four");
            let as_expected = results.iter().filter(|(gets, _)| *gets == expected).count();
            if expected == Status(200) {
                assert_eq!(as_expected, 4, "{what}: {results:?}");
            } else {
                assert_eq!((as_expected, served), (failed, 4 - failed), "{what}: {results:?}");
            }
            assert!(
                results.iter().all(|(gets, _)| [expected, Status(200)].contains(gets)),
                "{what}: {results:?}"
            );
            assert!(results.iter().all(|(_, text)| !text.contains("another")), "{what}: {results:?}");
            beside.fails(WELL);
            for _ in 0..4 {
                assert_eq!(ask(&several, "GET"), from_the_well_one(), "{what}");
            }
        }
    }
}

#[test]
fn whatever_a_server_of_http_1_1_does_its_client_gets_an_answer_and_the_next_one_its_own() {
    fails_as_expected("http", of_http1(), serve_http1);
}

#[test]
fn whatever_a_server_of_http_2_does_its_client_gets_an_answer_and_the_next_one_its_own() {
    fails_as_expected("h2c", of_http2(), serve_http2);
}

/// What a server that is well answers.
fn from_the_well_one() -> (Gets, String) {
    (Status(200), "failing".to_owned())
}

/// A server that closes connections that rest, and says so too late: at the second request of each.
fn late() -> (SocketAddr, Arc<AtomicUsize>) {
    let requests = Arc::<AtomicUsize>::default();
    let counted = requests.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let counted = counted.clone();
            thread::spawn(move || {
                let late = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
                for response in [&ok("well")[..], late] {
                    if !matches!(socket.read(&mut [0; 4_096]), Ok(1..)) {
                        return;
                    }
                    counted.fetch_add(1, SeqCst);
                    socket.write_all(response).unwrap();
                }
            });
        }
    });
    (address, requests)
}

#[test]
fn a_timeout_that_a_server_tells_of_when_a_request_is_on_its_way_is_not_the_clients() {
    // Beside one by TLS, which nobody answers for, so that requests go the way of mixed clusters.
    for other in ["", ", {url: \"https://127.0.0.1:9\", weight: 0}"] {
        let (address, requests) = late();
        let servers = format!("{{url: \"http://{address}\"}}{other}");
        let start = |upstream: &str| {
            let upstream = upstream.to_owned();
            let settings = Settings { servers: servers.clone(), upstream, workers: 1, ..Settings::default() };
            Gateway::start(&Upstream::start(), settings)
        };
        let gateway = start("");
        let mut client = gateway.client();
        for _ in 0..5 {
            let response = client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response();
            assert_eq!((response.status, response.text().as_str()), (200, "well"));
        }
        // Each but the first was sent twice.
        assert_eq!(requests.load(SeqCst), 9);
        // What may not be sent twice is not, and where no retries are wanted there are none.
        let post = "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(client.send(post).response().status, 408);
        let gateway = start(", retries: 0");
        let mut client = gateway.client();
        let mut get = || client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status;
        assert_eq!((get(), get(), get()), (200, 408, 200));
    }
}
