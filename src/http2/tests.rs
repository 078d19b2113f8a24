//! Connections, each beside another side that writes and reads frames.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    Config, Connection, Failure, Flood, Opener, PREFACE, RequestLine, Stream,
    frame::{self, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE},
};
use crate::{config, types::framing::HeadLimits};

const CONFIG: Config = Config {
    stream_window: 65_535,
    max_stream_window: 65_535,
    connection_window: 1 << 20,
    silence: 60,
    header_limits: HeadLimits { bytes: 1_000, count: 10 },
};

const LIMITS: config::Http2Limits = config::Http2Limits {
    streams: 100,
    header_list: 1_000,
    resets: config::Rate { count: 100, per: Duration::from_secs(10) },
};

/// A GET of `/` by https, in the static table.
const GET: &[u8] = &[0x82, 0x84, 0x87, 0x01, 1, b'a'];

/// A POST to it.
const POST: &[u8] = &[0x83, 0x84, 0x87, 0x01, 1, b'a'];

/// The status 200.
const OK: &[u8] = &[0x88];

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (connected.unwrap(), accepted.unwrap().0)
}

fn frames(frames: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, flags, stream, payload) in frames {
        frame::write(&mut bytes, *kind, *flags, *stream, payload);
    }
    bytes
}

fn open(opener: &Opener, ends: bool) -> Stream {
    let request = RequestLine { method: "POST", is_tls: false, authority: b"a", path: "/" };
    opener.open(&request, std::iter::empty(), ends).unwrap()
}

/// Drives a connection until it ends, or nothing comes for a while. Returns whether it has ended.
async fn drive(connection: &mut Connection) -> bool {
    timeout(
        Duration::from_millis(300),
        poll_fn(|cx| {
            connection.turn_begins();
            connection.poll_next(cx).map(|_| ())
        }),
    )
    .await
    .is_ok()
}

/// Takes a client's requests and drops them, until the connection ends or nothing comes for a while. Returns the requests.
async fn refuse_all(connection: &mut Connection, answer: bool) -> usize {
    let mut requests = 0;
    let serving = poll_fn(|cx| {
        loop {
            match connection.poll_next(cx) {
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Ready(Some((_, stream))) => {
                    requests += 1;
                    if answer {
                        let _ = stream.send_head(http::StatusCode::OK, std::iter::empty(), true);
                    }
                }
                Poll::Pending if connection.is_spent() => connection.turn_begins(),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    let _ = timeout(Duration::from_secs(1), serving).await;
    requests
}

/// Writes what a client says, and reads what comes until the end of the connection.
fn says(socket: TcpStream, bytes: Vec<u8>) -> tokio::task::JoinHandle<Vec<u8>> {
    let (mut reading, mut writing) = socket.into_split();
    tokio::spawn(async move {
        let _ = writing.write_all(&bytes).await;
        // Held until the other side ends the connection.
        tokio::time::sleep(Duration::from_secs(3)).await;
    });
    tokio::spawn(async move {
        let mut read = Vec::new();
        let _ = timeout(Duration::from_secs(2), reading.read_to_end(&mut read)).await;
        read
    })
}

/// What a client begins with.
fn greeting() -> Vec<u8> {
    [PREFACE, &frames(&[(SETTINGS, 0, 0, &[])])].concat()
}

/// Asks a server that answers PINGs or nothing, and drives the connection for a while. Returns whether the request still waits,
/// whether the server gets no more of them, and how often it was asked.
async fn asked(answers: bool) -> (bool, bool, u32) {
    let (socket, mut server) = pair().await;
    let asks = Arc::<AtomicU32>::default();
    let counted = asks.clone();
    tokio::spawn(async move {
        let mut received = [0; 1_024];
        while let Ok(length) = server.read(&mut received).await
            && length > 0
        {
            if received[..length].ends_with(b"authgate") {
                counted.fetch_add(1, Relaxed);
                if answers {
                    let answer = frames(&[(SETTINGS, 0, 0, &[]), (PING, frame::ACK, 0, b"authgate")]);
                    server.write_all(&answer).await.unwrap();
                }
            }
        }
    });
    let (mut connection, opener) = Connection::client(socket.into(), CONFIG);
    let stream = open(&opener, true);
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let driven = poll_fn(|cx| {
        while connection.poll_next(cx).is_pending() {
            ready!(ticks.poll_tick(cx));
            connection.checks_silence();
        }
        Poll::Ready(())
    });
    let has_ended = timeout(Duration::from_secs(1), driven).await.is_ok();
    let cx = Context::from_waker(Waker::noop());
    let waits = stream.poll_head(&cx).is_pending() && !has_ended;
    (waits, opener.has_ended(), asks.load(Relaxed))
}

#[tokio::test]
async fn a_server_that_says_nothing_gets_no_more_requests_and_one_that_is_slow_does() {
    let (silent, slow) = tokio::join!(asked(false), asked(true));
    assert_eq!(silent, (true, true, 1));
    // More questions would be a flood to it.
    assert_eq!(slow, (true, false, 2));
}

#[tokio::test]
async fn what_a_server_sends_on_for_a_request_that_was_given_up_costs_the_others_nothing() {
    let (socket, server) = pair().await;
    let (mut connection, opener) = Connection::client(socket.into(), CONFIG);
    let (gone, other) = (open(&opener, true), open(&opener, true));
    let mut said =
        frames(&[(SETTINGS, 0, 0, &[]), (HEADERS, END_HEADERS, 1, OK), (HEADERS, END_HEADERS, 3, OK)]);
    said.extend(frames(&[(DATA, 0, 1, b"x")]).repeat(20_000));
    // Nothing yet, and nothing yet.
    said.extend(frames(&[(DATA, 0, 3, b"")]).repeat(20_000));
    let _read = says(server, said);
    drop(gone);
    assert!(!drive(&mut connection).await);
    let cx = Context::from_waker(Waker::noop());
    assert!(matches!(other.poll_head(&cx), Poll::Ready(Ok(_))));
    assert!(!opener.has_ended() && !other.has_failed());
}

#[tokio::test]
async fn uploads_that_are_answered_early_are_no_flood() {
    let (socket, client) = pair().await;
    let mut connection = Connection::server(socket.into(), BytesMut::new(), CONFIG, LIMITS);
    let mut said = greeting();
    let ids = (0..90).map(|index| 1 + 2 * index);
    for stream in ids.clone() {
        said.extend(frames(&[(HEADERS, END_HEADERS, stream, POST)]));
    }
    // The server has answered by then, and the client does not know.
    for stream in ids {
        said.extend(frames(&[(DATA, 0, stream, &[b'x'; 100])]).repeat(299));
        said.extend(frames(&[(DATA, END_STREAM, stream, b"x")]));
    }
    let _read = says(client, said);
    assert_eq!(refuse_all(&mut connection, true).await, 90);
    assert_eq!(connection.flood(), None);
}

#[tokio::test]
async fn more_than_a_window_behind_an_answer_is_one() {
    let (socket, client) = pair().await;
    let mut connection = Connection::server(socket.into(), BytesMut::new(), CONFIG, LIMITS);
    let mut said = greeting();
    said.extend(frames(&[(HEADERS, END_HEADERS, 1, POST)]));
    said.extend(frames(&[(DATA, 0, 1, &[b'x'; 10])]).repeat(20_000));
    let _read = says(client, said);
    assert_eq!(refuse_all(&mut connection, true).await, 1);
    assert_eq!(connection.flood(), Some(Flood::Others));
}

#[tokio::test]
async fn room_for_responses_that_are_over_is_no_flood_and_more_of_it_is() {
    for (each, flood) in [(1, None), (5, Some(Flood::Others))] {
        let (socket, client) = pair().await;
        let limits = config::Http2Limits { streams: 20_000, ..LIMITS };
        let mut connection = Connection::server(socket.into(), BytesMut::new(), CONFIG, limits);
        let mut said = greeting();
        for index in 0..16_000 {
            let stream = 1 + 2 * index;
            said.extend(frames(&[(HEADERS, END_HEADERS | END_STREAM, stream, GET)]));
            // So far behind that it is over when this is read.
            if index > 5_000 {
                let over = stream - 10_000;
                said.extend(frames(&[(WINDOW_UPDATE, 0, over, &[0, 0, 0, 9])]).repeat(each));
            }
        }
        let _read = says(client, said);
        refuse_all(&mut connection, true).await;
        assert_eq!(connection.flood(), flood);
    }
}

#[tokio::test]
async fn a_request_that_was_given_up_before_the_preface_left_never_leaves() {
    let (socket, server) = pair().await;
    let (mut connection, opener) = Connection::client(socket.into(), CONFIG);
    drop(open(&opener, false));
    let kept = open(&opener, true);
    let read = says(server, frames(&[(SETTINGS, 0, 0, &[]), (HEADERS, END_HEADERS | END_STREAM, 3, OK)]));
    drive(&mut connection).await;
    drop(kept);
    drop((connection, opener));
    let read = read.await.unwrap();
    let rest = read.strip_prefix(PREFACE).unwrap();
    let mut seen = Vec::new();
    let mut at = 0;
    while let Some(head) = rest.get(at..at + frame::HEAD) {
        seen.push((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])));
        at += frame::HEAD + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    }
    assert!(seen.contains(&(HEADERS, 3)), "{seen:?}");
    assert!(!seen.contains(&(HEADERS, 1)) && !seen.contains(&(RST_STREAM, 1)), "{seen:?}");
}

#[tokio::test]
async fn room_that_a_request_leaves_is_for_those_who_wait() {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }
    let (socket, _server) = pair().await;
    let (mut connection, opener) = Connection::client(socket.into(), CONFIG);
    let waits = open(&opener, false);
    drive(&mut connection).await;
    let large = open(&opener, false);
    let nobody = Context::from_waker(Waker::noop());
    let mut part = Bytes::from(vec![b'x'; 70_000]);
    assert!(large.poll_send(&nobody, &mut part, false).is_pending());
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(woken.clone());
    let mut part = Bytes::from(vec![b'x'; 60_000]);
    assert!(waits.poll_send(&Context::from_waker(&waker), &mut part, false).is_pending());
    assert_eq!(part.len(), 60_000);
    // Nothing of it was sent, and nothing is.
    drop(large);
    drive(&mut connection).await;
    assert!(woken.0.load(Relaxed));
    assert!(waits.poll_send(&nobody, &mut part, false).is_ready());
}

#[tokio::test]
async fn a_server_gets_few_requests_before_it_has_told_how_many_it_takes() {
    let (socket, mut server) = pair().await;
    let (mut connection, opener) = Connection::client(socket.into(), CONFIG);
    let streams: Vec<_> = std::iter::from_fn(|| opener.has_room(256).then(|| open(&opener, true))).collect();
    assert!(streams.len() < 10 && !opener.is_settled());
    // Nothing is told of streams: there is no limit.
    server.write_all(&frames(&[(SETTINGS, 0, 0, &[])])).await.unwrap();
    drive(&mut connection).await;
    let more: Vec<_> = std::iter::from_fn(|| opener.has_room(256).then(|| open(&opener, true))).collect();
    assert_eq!(streams.len() + more.len(), 256);
    assert!(matches!(more[0].poll_failure(&Context::from_waker(Waker::noop())), Poll::Pending::<Failure>));
}

#[tokio::test]
async fn a_client_that_takes_no_heads_gets_no_more_of_them_and_loses_none() {
    const REQUESTS: u32 = 2_000;
    let (socket, client) = pair().await;
    let limits = config::Http2Limits { streams: 1_000, ..LIMITS };
    let mut connection = Connection::server(socket.into(), BytesMut::new(), CONFIG, limits);
    let (mut reading, mut writing) = client.into_split();
    let writes = tokio::spawn(async move {
        writing.write_all(&greeting()).await.unwrap();
        // So long that few of them are read at once.
        let long = [GET, &[0, 1, b'x', 0x7f, 0xf5, 2], &[b'x'; 500]].concat();
        for index in 0..REQUESTS {
            let request = frames(&[(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * index, &long)]);
            writing.write_all(&request).await.unwrap();
        }
        writing
    });
    // Heads of 60 KB, of which the kernel takes a few MiB.
    let value = [b'x'; 10_000];
    let answered = Arc::<AtomicU32>::default();
    let counted = answered.clone();
    let serving = tokio::spawn(async move {
        poll_fn(|cx| {
            loop {
                connection.turn_begins();
                match ready!(connection.poll_next(cx)) {
                    None => return Poll::Ready(()),
                    Some((_, stream)) => {
                        counted.fetch_add(1, Relaxed);
                        let lines = (0..6).map(|_| ("x-large", &value[..]));
                        let _ = stream.send_head(http::StatusCode::NO_CONTENT, lines, true);
                    }
                }
            }
        })
        .await;
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = answered.load(Relaxed);
    assert!(before < REQUESTS / 2, "{before} heads are here or on their way");
    // Once it takes them, it gets all of them.
    let mut read = 0;
    let mut buffer = vec![0; 64 << 10];
    while read < REQUESTS as usize * 60_000 {
        let length = timeout(Duration::from_secs(5), reading.read(&mut buffer)).await.unwrap().unwrap();
        assert!(length > 0, "it ended after {read} bytes");
        read += length;
    }
    assert_eq!(answered.load(Relaxed), REQUESTS);
    drop((writes.await.unwrap(), reading));
    let _ = timeout(Duration::from_secs(5), serving).await;
}

#[tokio::test]
async fn a_server_that_takes_slowly_is_not_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    socket2::SockRef::from(&listener).set_recv_buffer_size(4_096).unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (socket, (mut server, _)) = (connected.unwrap(), accepted.unwrap());
    tokio::spawn(async move {
        let wide = 0x2000_0000_u32.to_be_bytes();
        let settings = [&[0, 4][..], &wide].concat();
        let greeting = frames(&[(SETTINGS, 0, 0, &settings), (WINDOW_UPDATE, 0, 0, &wide)]);
        server.write_all(&greeting).await.unwrap();
        let mut buffer = [0; 4_096];
        while server.read(&mut buffer).await.is_ok_and(|length| length > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let (mut connection, opener) = Connection::client(socket.into(), CONFIG);
    drive(&mut connection).await;
    let stream = open(&opener, false);
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let sending = poll_fn(|cx| {
        loop {
            let mut part = Bytes::from_static(&[b'x'; 16 << 10]);
            while stream.poll_send(cx, &mut part, false).is_ready() {
                part = Bytes::from_static(&[b'x'; 16 << 10]);
            }
            if connection.poll_next(cx).is_ready() {
                return Poll::Ready(());
            }
            ready!(ticks.poll_tick(cx));
            connection.checks_silence();
        }
    });
    let _ = timeout(Duration::from_secs(2), sending).await;
    assert!(!opener.has_ended());
}

#[tokio::test]
async fn empty_ends_behind_an_answer_are_a_flood() {
    let (socket, client) = pair().await;
    let mut connection = Connection::server(socket.into(), BytesMut::new(), CONFIG, LIMITS);
    let mut said = greeting();
    said.extend(frames(&[(HEADERS, END_HEADERS, 1, POST)]));
    said.extend(frames(&[(DATA, 0, 1, &[b'x'; 100])]).repeat(600));
    said.extend(frames(&[(DATA, END_STREAM, 1, b"")]).repeat(20_000));
    let _read = says(client, said);
    refuse_all(&mut connection, true).await;
    assert_eq!(connection.flood(), Some(Flood::Others));
}
