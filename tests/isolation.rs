//! What one client or upstream does takes nothing from the others.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crate::harness::{Gateway, Settings, Upstream, eventually, ok};

const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// An upstream that sends a body where there is none, `late` after the head.
fn sends_bodies_late(late: Duration) -> Upstream {
    Upstream::with(move |seen, socket| {
        let length = POISON.len();
        let head = match seen.target.rsplit('/').next().unwrap_or_default() {
            "head" => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"),
            "head-chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "head-plain" => "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
            "304" => format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {length}\r\n\r\n"),
            "204" => format!("HTTP/1.1 204 No Content\r\nContent-Length: {length}\r\n\r\n"),
            _ => return socket.write_all(&ok(&seen.target)).is_ok(),
        };
        if socket.write_all(head.as_bytes()).is_err() {
            return false;
        }
        let mut later = socket.try_clone().unwrap();
        thread::spawn(move || {
            thread::sleep(late);
            let _ = later.write_all(POISON.as_bytes());
        });
        true
    })
}

#[test]
fn a_body_that_comes_late_where_there_is_none_reaches_nobody() {
    for late in
        [Duration::ZERO, Duration::from_micros(200), Duration::from_millis(2), Duration::from_millis(50)]
    {
        let upstream = sends_bodies_late(late);
        let gateway = Gateway::start(&upstream, Settings { workers: 1, ..Settings::default() });
        let stop = Arc::new(AtomicBool::new(false));
        let others: Vec<_> = (0..2)
            .map(|index| {
                let (mut client, stop) = (gateway.client(), stop.clone());
                thread::spawn(move || {
                    for count in 0.. {
                        if stop.load(Relaxed) {
                            return count;
                        }
                        let path = format!("/public/own-{index}-{count}");
                        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                        assert_eq!(client.send(request).response().text(), path, "{late:?}");
                    }
                    0
                })
            })
            .collect();
        let mut client = gateway.client();
        for _ in 0..20 {
            for (method, path) in [
                ("HEAD", "head"),
                ("HEAD", "head-chunked"),
                ("HEAD", "head-plain"),
                ("GET", "304"),
                ("GET", "204"),
            ] {
                client
                    .send(format!("{method} /public/{path} HTTP/1.1\r\nHost: a\r\n\r\n"))
                    .response_to_head();
            }
        }
        thread::sleep(late);
        stop.store(true, Relaxed);
        for other in others {
            assert!(other.join().expect("every response is the client's own") > 0);
        }
    }
}

#[test]
fn connections_of_responses_that_announce_no_body_are_used_again() {
    let upstream = Upstream::answering(|seen| match seen.target.as_str() {
        "/public/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/public/304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    for (method, path) in [("GET", "204"), ("GET", "304"), ("HEAD", "empty"), ("HEAD", "304"), ("GET", "x")] {
        client.send(format!("{method} /public/{path} HTTP/1.1\r\nHost: a\r\n\r\n")).response_to_head();
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn an_interim_response_with_a_body_is_502() {
    let upstream = Upstream::answering(|_| {
        format!("HTTP/1.1 103 Early Hints\r\nContent-Length: {}\r\n\r\n{POISON}", POISON.len()).into_bytes()
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    assert_eq!(gateway.get("/public/x", None).status, 502);
}

#[test]
fn a_body_in_tiny_chunks_reaches_the_upstream_in_few_pieces() {
    const COUNT: usize = 50_000;
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("1\r\nx\r\n".repeat(COUNT) + "0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let seen = upstream.last();
    assert_eq!(seen.body.len(), COUNT);
    assert!(seen.chunks < COUNT / 100, "{} chunks", seen.chunks);
}

#[test]
fn a_head_and_a_small_body_leave_in_one_piece() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let first = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut all_at_once = 0;
        for _ in 0..20 {
            let mut bytes = [0; 4_096];
            let mut length = socket.read(&mut bytes).unwrap();
            all_at_once += usize::from(bytes[..length].ends_with(b"hello"));
            while !bytes[..length].ends_with(b"hello") {
                length += socket.read(&mut bytes[length..]).unwrap();
            }
            socket.write_all(&ok("")).unwrap();
        }
        all_at_once
    });
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let gateway = Gateway::start_in(folder, address, Settings::default());
    let mut client = gateway.client();
    for _ in 0..20 {
        let request = "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(client.send(request).response().status, 200);
    }
    assert_eq!(first.join().unwrap(), 20);
}

#[test]
fn a_body_that_waits_for_its_invitation_arrives() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.head().0, 100);
    assert_eq!(client.send("hello").response().status, 200);
    assert_eq!(upstream.last().body, b"hello");
}

#[test]
fn an_address_has_so_many_connections_and_no_more() {
    let upstream = Upstream::start();
    let settings = Settings::default().extra("limits: {connections_per_address: 3}\n");
    let gateway = Gateway::start(&upstream, settings);
    let request = "GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut open: Vec<_> = (0..3).map(|_| gateway.client()).collect();
    for client in &mut open {
        assert_eq!(client.send(request).response().status, 200);
    }
    assert_eq!(gateway.metric("authgate_open_connections"), Some(3.0));
    assert!(gateway.client().is_closed_silently());
    assert!(gateway.metric("authgate_connections_refused_total{reason=\"address\"}") >= Some(1.0));
    open.pop();
    eventually("the place is free again", || {
        gateway.client().send(request).try_response().filter(|response| response.status == 200)
    });
}

#[test]
fn a_listener_has_so_many_connections_and_further_ones_wait() {
    let upstream = Upstream::start();
    let settings = Settings { listener: ", max_connections: 2".to_owned(), ..Settings::default() };
    let gateway = Gateway::start(&upstream, settings);
    let request = "GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut open: Vec<_> = (0..2).map(|_| gateway.client()).collect();
    for client in &mut open {
        assert_eq!(client.send(request).response().status, 200);
    }
    let mut third = gateway.client();
    third.send(request);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(gateway.metric("authgate_open_connections"), Some(2.0));
    open.pop();
    assert_eq!(third.response().status, 200);
}

/// An upstream that answers after a while, or at once.
fn slow_upstream() -> Upstream {
    Upstream::with(|seen, socket| {
        if seen.target.contains("slow") {
            thread::sleep(Duration::from_millis(700));
        }
        socket.write_all(&ok(&seen.target)).is_ok()
    })
}

#[test]
fn an_upstream_has_so_many_connections_and_requests_wait_in_turn() {
    let upstream = slow_upstream();
    let settings =
        Settings { upstream: ", max_connections: 2, max_wait: 5s".to_owned(), ..Settings::default() };
    let gateway = Gateway::start(&upstream, settings);
    let clients: Vec<_> = (0..6)
        .map(|index| {
            let mut client = gateway.client();
            client.send(format!("GET /public/slow-{index} HTTP/1.1\r\nHost: a\r\n\r\n"));
            client
        })
        .collect();
    let state = |state: &str| {
        gateway.metric(&format!("authgate_upstream_connections{{state=\"{state}\",upstream=\"backend\"}}"))
    };
    eventually("two are served and four wait", || {
        (state("active") == Some(2.0) && state("waiting") == Some(4.0)).then_some(())
    });
    for (index, mut client) in clients.into_iter().enumerate() {
        assert_eq!(client.response().text(), format!("/public/slow-{index}"));
    }
    // Both workers had their turn, with two connections at a time.
    assert_eq!(state("active"), Some(0.0));
    assert!(state("idle") <= Some(2.0));
}

#[test]
fn a_request_that_waits_in_vain_is_503() {
    let upstream = slow_upstream();
    let limits = ", max_connections: 1, max_waiting: 1, max_wait: 200ms";
    let gateway = Gateway::start(&upstream, Settings { upstream: limits.to_owned(), ..Settings::default() });
    let mut first = gateway.client();
    first.send("GET /public/slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || (upstream.seen().len() == 1).then_some(()));
    for _ in 0..2 {
        let response = gateway.get("/public/x", None);
        assert_eq!((response.status, response.message().as_str()), (503, "Service unavailable"));
        assert_eq!(response.header("Retry-After"), Some("1"));
    }
    assert_eq!(first.response().status, 200);
    assert_eq!(gateway.get("/public/x", None).status, 200);
}

#[test]
fn upstream_connections_rest_and_age_only_so_long() {
    for limits in [", idle_timeout: 300ms", ", max_age: 300ms"] {
        let upstream = Upstream::start();
        let gateway =
            Gateway::start(&upstream, Settings { upstream: limits.to_owned(), ..Settings::default() });
        let mut client = gateway.client();
        let mut get = || client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status;
        assert_eq!((get(), get()), (200, 200));
        assert_eq!(upstream.connections(), 1, "{limits}");
        thread::sleep(Duration::from_millis(400));
        assert_eq!(get(), 200);
        assert_eq!(upstream.connections(), 2, "{limits}");
    }
}

/// How often the threads of a process have gone to sleep of their own accord.
fn sleeps(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map_while(Result::ok);
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok())
    };
    statuses.filter_map(count).sum()
}

#[test]
fn a_head_that_comes_byte_by_byte_costs_no_wakeup_for_each_and_is_served() {
    const BYTES: usize = 3_000;
    let gateway = Gateway::start(&Upstream::start(), Settings { workers: 1, ..Settings::default() });
    let mut client = gateway.client();
    let head = "GET /public/x HTTP/1.1\r\nHost: a\r\nX-Long: ";
    for byte in head.bytes() {
        client.send([byte]);
    }
    let before = sleeps(gateway.pid().unwrap());
    for _ in 0..BYTES {
        client.send("x");
        thread::sleep(Duration::from_micros(200));
    }
    let during = sleeps(gateway.pid().unwrap()) - before;
    let response = client.send("\r\n\r\n").response();
    assert_eq!(response.status, 200);
    assert!(during < BYTES as u64 / 2, "{during} sleeps for {BYTES} bytes");
    // And what comes next on the connection comes at once.
    for _ in 0..3 {
        assert_eq!(client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
    }
}

#[test]
fn what_follows_a_head_that_came_byte_by_byte_is_read_as_it_comes() {
    let upstream = Upstream::answering(|seen| ok(&String::from_utf8_lossy(&seen.body)));
    let gateway = Gateway::start(&upstream, Settings { workers: 1, ..Settings::default() });
    let mut client = gateway.client();
    for byte in "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n".bytes() {
        client.send([byte]);
        thread::sleep(Duration::from_millis(12));
    }
    client.send("bo");
    thread::sleep(Duration::from_millis(50));
    assert_eq!(client.send("dy").response().text(), "body");
}

/// Reads so slowly that it is never done.
fn read_slowly(mut socket: TcpStream) {
    while matches!(socket.read(&mut [0; 64]), Ok(1..)) {
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_that_reads_slowly_has_only_so_long_in_all() {
    let upstream = Upstream::with(|seen, socket| {
        if seen.target.contains("events") {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
            for _ in 0..8 {
                thread::sleep(Duration::from_millis(500));
                if socket.write_all(b"data: x\n\n").is_err() {
                    return false;
                }
            }
            return false;
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 28);
        let _ = socket.write_all(head.as_bytes());
        let part = vec![b'x'; 1 << 16];
        for _ in 0..1 << 12 {
            if socket.write_all(&part).is_err() {
                return false;
            }
        }
        true
    });
    let settings = Settings::default().extra("limits: {response_drain_timeout: 1500ms}\n");
    let gateway = Gateway::start(&upstream, settings);
    let mut slow = TcpStream::connect(gateway.address).unwrap();
    slow.write_all(b"GET /public/large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut events = gateway.client();
    events.send("GET /public/events HTTP/1.1\r\nHost: a\r\n\r\n");
    let reading = slow.try_clone().unwrap();
    thread::spawn(move || read_slowly(reading));
    // A stream that its client keeps up with goes on for longer.
    assert_eq!(events.response().text().matches("data").count(), 8);
    eventually("the slow client's connection is closed", || {
        (gateway.metric("authgate_upstream_connections{state=\"active\",upstream=\"backend\"}") == Some(0.0))
            .then_some(())
    });
    slow.shutdown(std::net::Shutdown::Both).unwrap();
}

#[test]
fn whoever_downloads_at_full_speed_gives_the_others_their_turn() {
    const PIECE: usize = 1 << 20;
    let upstream = Upstream::with(|seen, socket| {
        if !seen.target.ends_with("/large") {
            return socket.write_all(&ok(&seen.target)).is_ok();
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n";
        let piece = vec![b'x'; PIECE];
        let mut written = socket.write_all(head.as_bytes());
        while written.is_ok() {
            written = socket.write_all(&piece);
        }
        false
    });
    let gateway = Gateway::start(&upstream, Settings { workers: 1, ..Settings::default() });
    let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let downloads: Vec<_> = (0..4)
        .map(|_| {
            let (mut socket, stop) = (TcpStream::connect(gateway.address).unwrap(), stop.clone());
            let received = received.clone();
            thread::spawn(move || {
                socket.write_all(b"GET /public/large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                let mut piece = vec![0; PIECE];
                while !stop.load(Relaxed) {
                    received.fetch_add(socket.read(&mut piece).unwrap() as u64, Relaxed);
                }
            })
        })
        .collect();
    eventually("all is under way", || (received.load(Relaxed) > 64 << 20).then_some(()));
    let mut client = gateway.client();
    // What the downloads took while a small request waited, in bytes. It waits a few times: to be read, for its upstream.
    let mut taken: Vec<u64> = (0..50)
        .map(|_| {
            let before = received.load(Relaxed);
            assert_eq!(client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
            received.load(Relaxed) - before
        })
        .collect();
    stop.store(true, Relaxed);
    downloads.into_iter().for_each(|download| download.join().unwrap());
    taken.sort_unstable();
    let median = taken[taken.len() / 2];
    assert!(median < 4 << 20, "{median} of {taken:?}");
}

#[test]
fn whoever_makes_calls_or_signs_in_gives_way_to_those_who_have() {
    let gateway = Gateway::alone(Settings::default());
    let own = gateway.threads();
    let niceness = |name: &str| {
        let of: Vec<i32> =
            own.iter().filter(|(thread, _)| thread.starts_with(name)).map(|(_, nice)| *nice).collect();
        assert!(!of.is_empty(), "no thread is called {name}: {own:?}");
        assert!(of.iter().all(|nice| *nice == of[0]), "{own:?}");
        of[0]
    };
    let (worker, vital) = (niceness("worker-"), niceness("vital"));
    assert_eq!(vital, worker, "what keeps revocations true waits for nobody");
    assert!(niceness("password-") > worker, "{own:?}");
    assert!(niceness("calls") > worker, "{own:?}");
}

#[test]
fn every_worker_has_its_share_of_the_connections() {
    for workers in [2, 4] {
        let upstream = Upstream::start();
        let gateway = Gateway::start(&upstream, Settings { workers, ..Settings::default() });
        let clients: Vec<_> = (0..64)
            .map(|_| {
                let mut client = gateway.client();
                client.send("GET /auth/jwks.json HTTP/1.1\r\nHost: a\r\n\r\n").response();
                client
            })
            .collect();
        // A worker watches a few files besides.
        let most = gateway.watched_files().into_iter().max().unwrap();
        assert!((64 / workers..64 / workers + 6).contains(&most), "{most} of 64 by one of {workers}");
        drop(clients);
    }
}
