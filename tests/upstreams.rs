//! Upstreams that are slow, broken or hostile.

use std::{io::Write, net::TcpListener, thread, time::Duration};

use crate::harness::{Gateway, Settings, Upstream, eventually, ok};

#[track_caller]
fn refused(gateway: &Gateway, path: &str, status: u16, message: &str) {
    let response = gateway.get(path, None);
    assert_eq!((response.status, response.message().as_str()), (status, message), "{path}");
}

#[test]
fn bytes_beyond_a_response_never_reach_the_next_client() {
    let upstream = Upstream::with(|seen, socket| {
        let mut bytes = ok(&seen.target);
        if seen.target.contains("evil") {
            bytes.extend(ok("poison"));
        }
        socket.write_all(&bytes).is_ok()
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    for index in 0..10 {
        let path = format!("/public/evil-{index}");
        assert_eq!(client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).response().text(), path);
    }
    assert_eq!(upstream.connections(), 10);
}

#[test]
fn bytes_that_arrive_on_an_idle_connection_end_it() {
    let upstream = Upstream::with(|seen, socket| {
        let sent = socket.write_all(&ok(&seen.target)).is_ok();
        let mut later = socket.try_clone().unwrap();
        if seen.target.contains("evil") {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                let _ = later.write_all(&ok("poison"));
            });
        }
        sent
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    assert_eq!(client.send("GET /public/evil HTTP/1.1\r\nHost: a\r\n\r\n").response().text(), "/public/evil");
    thread::sleep(Duration::from_millis(150));
    assert_eq!(client.send("GET /public/next HTTP/1.1\r\nHost: a\r\n\r\n").response().text(), "/public/next");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn answers_with_two_readings_are_502() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\r\n",
        "",
    ] {
        let upstream = Upstream::with(move |_, socket| {
            let _ = socket.write_all(response.as_bytes());
            false
        });
        let gateway = Gateway::start(&upstream, Settings::default());
        refused(&gateway, "/public/x", 502, "Upstream failed");
    }
}

#[test]
fn a_few_interim_responses_are_skipped_and_a_flood_is_502() {
    let upstream = Upstream::with(|seen, socket| {
        let count = if seen.target.contains("flood") { 100_000 } else { 3 };
        for _ in 0..count {
            if socket.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n").is_err() {
                return false;
            }
        }
        socket.write_all(&ok("done")).is_ok()
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    assert_eq!(gateway.get("/public/hints", None).text(), "done");
    refused(&gateway, "/public/flood", 502, "Upstream failed");
}

#[test]
fn a_response_that_is_cut_off_is_cut_off_for_the_client() {
    let upstream = Upstream::with(|_, socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        false
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    let all = String::from_utf8(client.rest()).unwrap();
    assert!(all.starts_with("HTTP/1.1 200 OK\r\n") && all.ends_with("half"), "{all}");
}

#[test]
fn an_upstream_that_is_away_or_silent_is_said_so() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = dead.local_addr().unwrap();
    drop(dead);
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let gateway = Gateway::start_in(folder, address, Settings::default());
    refused(&gateway, "/public/x", 502, "Upstream failed");

    let upstream = Upstream::with(|_, _| {
        thread::sleep(Duration::from_secs(3));
        false
    });
    let settings = Settings { upstream: ", response_timeout: 300ms".to_owned(), ..Settings::default() };
    let gateway = Gateway::start(&upstream, settings);
    refused(&gateway, "/public/x", 504, "Upstream timeout");
    // The body has arrived, so it is the upstream that is late.
    for body in
        ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
    {
        let response =
            gateway.client().send(format!("POST /public/x HTTP/1.1\r\nHost: a\r\n{body}")).response();
        assert_eq!(response.status, 504, "{body}");
    }
    let routes = "  - {path: /public/**, auth: none, timeout: 300ms, upstream: backend}\n";
    let gateway = Gateway::start(&upstream, Settings::routes(routes));
    refused(&gateway, "/public/x", 504, "Upstream timeout");
}

#[test]
fn connections_that_the_upstream_closed_are_not_used_again() {
    let upstream = Upstream::with(|seen, socket| {
        let _ = socket.write_all(&ok(&seen.target));
        false
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    for index in 0..30 {
        let path = format!("/public/{index}");
        assert_eq!(client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).response().text(), path);
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_repeatable_request_survives_a_pooled_connection_that_closes_under_it() {
    // Each connection answers once, and closes when it hears of a second request.
    let upstream = Upstream::with(|seen, socket| {
        let first = !seen.target.contains("second");
        if first {
            let _ = socket.write_all(&ok(&seen.target));
        }
        first
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    assert_eq!(client.send("GET /public/first HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
    // Sent again on a fresh connection, because the first had rested, and not once more: a server may have read it twice.
    assert_eq!(client.send("GET /public/second HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 502);
    assert_eq!(upstream.connections(), 2);
    let sent = |target: &str| upstream.seen().iter().filter(|seen| seen.target == target).count();
    assert_eq!(sent("/public/second"), 2);
    assert_eq!(client.send("GET /public/first HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
    let post = "POST /public/second HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(client.send(post).response().status, 502);
    assert_eq!(sent("/public/second"), 3);
}

#[test]
fn an_early_response_does_not_leave_half_a_request_in_the_pool() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            thread::spawn(move || {
                let mut head = [0; 4_096];
                // One response a read: to a second request on this connection it would be the wrong one.
                while std::io::Read::read(&mut socket, &mut head).is_ok_and(|length| length > 0) {
                    let first = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                    let _ = socket.write_all(&ok(&first));
                    head = [0; 4_096];
                }
            });
        }
    });
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let gateway = Gateway::start_in(folder, address, Settings::default());
    let mut upload = gateway.client();
    upload.send("POST /public/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc");
    let response = upload.response();
    assert_eq!(response.text(), "POST /public/upload HTTP/1.1");
    assert_eq!(response.header("Connection"), Some("close"));
    for index in 0..5 {
        let expected = format!("GET /public/{index} HTTP/1.1");
        assert_eq!(gateway.get(&format!("/public/{index}"), None).text(), expected);
    }
}

#[test]
fn a_response_until_close_passes() {
    let upstream = Upstream::with(|_, socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end");
        false
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    assert_eq!(gateway.get("/public/x", None).text(), "until the end");
}

#[test]
fn an_early_response_to_an_upload_reaches_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut head = [0; 4_096];
            let _ = std::io::Read::read(&mut socket, &mut head);
            let _ = socket
                .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
            thread::sleep(Duration::from_millis(500));
        }
    });
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let gateway = Gateway::start_in(folder, address, Settings::default());
    let mut client = gateway.client();
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc");
    let response = eventually("the early response", || client.try_response());
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
}
