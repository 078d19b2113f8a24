//! Upstreams that speak HTTP/2.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::harness::{
    Authority, Client, Gateway, Issued, Protocol, Settings, Upstream, eventually, ok,
    streaming::{UPGRADE, begin},
};

/// A request as the server saw it.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    uri: String,
    headers: HeaderMap,
    trailers: HeaderMap,
}

/// What a server speaks on.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// A server, which does what the path of a request says.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(name: &'static str) -> Self {
        Self::with(name, None)
    }

    /// One that speaks TLS, with these protocols.
    fn start_tls(name: &'static str, issued: &Issued, protocols: &[&str]) -> Self {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self::with(name, Some(Arc::new(config)))
    }

    /// One that takes so many streams of a connection at once.
    fn narrow(name: &'static str, streams: u32) -> Self {
        Self::of(name, None, streams)
    }

    fn with(name: &'static str, tls: Option<Arc<ServerConfig>>) -> Self {
        Self::of(name, tls, 200)
    }

    fn of(name: &'static str, tls: Option<Arc<ServerConfig>>, streams: u32) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections = Arc::<AtomicUsize>::default();
        let (kept, counted) = (seen.clone(), connections.clone());
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    counted.fetch_add(1, SeqCst);
                    let (seen, tls) = (kept.clone(), tls.clone());
                    tokio::spawn(async move {
                        let socket: Box<dyn Socket> = match tls {
                            None => Box::new(socket),
                            Some(tls) => match TlsAcceptor::from(tls).accept(socket).await {
                                Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"http/1.1") => {
                                    return echo(stream).await;
                                }
                                Ok(stream) => Box::new(stream),
                                Err(_) => return,
                            },
                        };
                        let mut server = h2::server::Builder::new();
                        server.max_concurrent_streams(streams);
                        let Ok(mut connection) = server.handshake(socket).await else { return };
                        while let Some(Ok((request, respond))) = connection.accept().await {
                            if request.uri().path().ends_with("/goodbye") {
                                connection.graceful_shutdown();
                            }
                            tokio::spawn(handle(name, request, respond, seen.clone()));
                        }
                    });
                }
            });
        });
        Self { address: told.recv().unwrap(), seen, connections }
    }

    fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.uri.ends_with(path)).count()
    }
}

/// What a server of HTTP/1.1 does: it takes a WebSocket, and sends back what comes.
async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let (mut stream, mut head) = (stream, Vec::new());
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(head.contains("upgrade: websocket"), "{head}");
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let _ = stream.write_all(switching.as_bytes()).await;
    let (mut read, mut write) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

async fn handle(
    name: &'static str,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    let (head, mut stream) = request.into_parts();
    let path = head.uri.path().to_owned();
    let last = path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut begun = None;
    if last == "duplex" {
        // The response begins before the request has ended, and is more than there is room for.
        begun = respond.send_response(Response::new(()), false).ok();
        let all = Bytes::from(vec![b'x'; 1 << 20]);
        let _ = begun.as_mut().map(|sending| sending.send_data(all, true));
    }
    let mut body = 0;
    while let Some(Ok(data)) = stream.data().await {
        body += data.len();
        let _ = stream.flow_control().release_capacity(data.len());
    }
    let trailers = stream.trailers().await.ok().flatten().unwrap_or_default();
    let times = {
        let mut seen = seen.lock().unwrap();
        let uri = head.uri.to_string();
        seen.push(Seen { method: head.method.to_string(), uri, headers: head.headers, trailers });
        seen.iter().filter(|seen| seen.uri.ends_with(&path)).count()
    };
    if begun.is_some() {
        // Until the client has it.
        return tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let mut response = Response::builder();
    match last.as_str() {
        "refused" if times == 1 => return respond.send_reset(Reason::REFUSED_STREAM),
        "broken" if times == 1 => return respond.send_reset(Reason::INTERNAL_ERROR),
        "busy" => response = response.status(503),
        "refuses" => return respond.send_reset(Reason::REFUSED_STREAM),
        "hops" => response = response.header("x-kept", "1"),
        "none" => response = response.header("content-length", "0"),
        // A length for each of two readers.
        "lengths" => response = response.header("content-length", "3").header("content-length", "50"),
        "slow" => tokio::time::sleep(Duration::from_millis(300)).await,
        _ => {}
    }
    let length = last.strip_prefix("big").and_then(|length| length.parse::<usize>().ok());
    let text = match length {
        Some(length) => vec![b'x'; length],
        None if last == "none" => Vec::new(),
        None => format!("{name} {body}").into_bytes(),
    };
    let Ok(mut sending) = respond.send_response(response.body(()).unwrap(), false) else { return };
    if last == "cut" {
        let _ = sending.send_data(Bytes::from_static(b"half"), false);
        tokio::time::sleep(Duration::from_millis(50)).await;
        return sending.send_reset(Reason::INTERNAL_ERROR);
    }
    let has_trailers = ["trailers", "none"].contains(&last.as_str());
    if sending.send_data(text.into(), !has_trailers).is_ok() && has_trailers {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-last", "1".parse().unwrap());
        let _ = sending.send_trailers(trailers);
    }
    // Until the client has it, or has gone.
    let _ = std::future::poll_fn(|cx| sending.poll_reset(cx)).await;
}

fn gateway(servers: &[String], upstream: &str) -> Gateway {
    speaking(Protocol::Http1, servers, upstream)
}

/// A gateway whose clients speak a protocol.
fn speaking(protocol: Protocol, servers: &[String], upstream: &str) -> Gateway {
    let servers: Vec<_> = servers.iter().map(|url| format!("{{url: \"{url}\"}}")).collect();
    let settings = Settings {
        servers: servers.join(", "),
        upstream: upstream.to_owned(),
        workers: 1,
        protocol,
        ..Settings::routes(
            "  - {path: /public/**, auth: none, body: 64MiB, upstream: backend}\n  - {path: /api/**, upstream: backend}\n",
        )
    };
    Gateway::start(&Upstream::start(), settings)
}

fn send(client: &mut Client, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{method} /public/{path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = client.send(request).response();
    (response.status, response.text())
}

#[test]
fn trailers_of_requests_go_on_without_what_no_client_may_say() {
    let server = Server::start("a");
    let gateway = speaking(Protocol::H2c, &[server.url()], "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let status = runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://a/public/x").header("content-length", "4").body(()).unwrap();
        let (response, mut body) = sender.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"body"), false).unwrap();
        let mut trailers = HeaderMap::new();
        let own = [
            "x-user-id",
            "x_user_id",
            "authorization",
            "x-forwarded-for",
            "host",
            "content-length",
            "cookie",
        ];
        for name in own.into_iter().chain(["x-checksum", "x-other"]) {
            trailers.insert(http::HeaderName::try_from(name).unwrap(), "1".parse().unwrap());
        }
        body.send_trailers(trailers).unwrap();
        response.await.unwrap().status()
    });
    assert_eq!(status, 200);
    let seen = server.seen();
    let names: Vec<_> = seen[0].trailers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["x-checksum", "x-other"]);
}

#[test]
fn requests_share_a_connection_and_carry_what_they_carry_on_http_1_1() {
    let server = Server::start("a");
    let gateway = gateway(&[server.url()], "");
    let token = gateway.token("alice");
    let clients: Vec<_> = (0..30)
        .map(|index| {
            let mut client = gateway.client();
            thread::spawn(move || {
                for _ in 0..5 {
                    assert_eq!(send(&mut client, "GET", "slow", ""), (200, "a 0".to_owned()));
                    let body = "x".repeat(index * 5_000);
                    assert_eq!(send(&mut client, "POST", "x", &body), (200, format!("a {}", body.len())));
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(server.connections.load(SeqCst), 1);
    let mut client = gateway.client();
    client.send(format!(
        "GET /api/x?q=1 HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer {token}\r\nConnection: X-Gone\r\nX-Gone: 1\r\nX-User-Id: 1\r\nTE: trailers\r\n\r\n"
    ));
    assert_eq!(client.response().status, 200);
    let seen = server.seen().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("GET", "http://shop.example/api/x?q=1"));
    let values = |name: &str| seen.headers.get_all(name).iter().count();
    assert_eq!(
        (values("x-user-id"), values("x-gone"), values("authorization"), values("host")),
        (1, 0, 0, 0)
    );
    assert_eq!(seen.headers["x-user-name"], "alice");
    assert_eq!(seen.headers["x-forwarded-host"], "shop.example");
}

#[test]
fn streams_that_were_not_processed_are_sent_again() {
    let server = Server::start("a");
    let gateway = gateway(&[server.url()], ", retries: {attempts: 1, budget: 100%}");
    let mut client = gateway.client();
    assert_eq!(send(&mut client, "GET", "1/refused", "").0, 200);
    // Not idempotent, and yet nothing has happened.
    assert_eq!(send(&mut client, "POST", "2/refused", "").0, 200);
    // A short body is kept, a long one is gone.
    assert_eq!(send(&mut client, "POST", "3/refused", "hi"), (200, "a 2".to_owned()));
    assert_eq!(send(&mut client, "POST", "4/refused", &"x".repeat(100_000)).0, 502);
    assert_eq!(send(&mut client, "GET", "1/broken", "").0, 200);
    assert_eq!(send(&mut client, "POST", "2/broken", "").0, 502);
    let counts = ["1/refused", "2/refused", "3/refused", "4/refused", "1/broken", "2/broken"]
        .map(|path| server.count(path));
    assert_eq!(counts, [2, 2, 2, 1, 2, 1]);
    assert_eq!(server.connections.load(SeqCst), 1, "no stream costs the others their connection");
}

#[test]
fn refusals_are_no_failures_whatever_the_retries_are() {
    let server = Server::start("a");
    let gateway = gateway(&[server.url()], ", retries: {attempts: 0}");
    let clients: Vec<_> = (0..40)
        .map(|index| {
            let mut client = gateway.client();
            thread::spawn(move || send(&mut client, "POST", &format!("{index}/refused"), "body"))
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), (200, "a 4".to_owned()));
    }
    // One that refuses on and on is asked a few times.
    assert_eq!(send(&mut gateway.client(), "POST", "refuses", "body").0, 502);
    assert_eq!(server.count("refuses"), 6);
}

#[test]
fn a_fresh_connection_is_not_asked_for_more_than_it_takes() {
    let server = Server::narrow("a", 5);
    let gateway = gateway(&[server.url()], ", max_connections: 1, max_wait: 20s");
    let clients: Vec<_> = (0..60)
        .map(|_| {
            let mut client = gateway.client();
            thread::spawn(move || send(&mut client, "GET", "slow", "").0)
        })
        .collect();
    let statuses: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!((server.connections.load(SeqCst), server.count("slow")), (1, 60));
}

#[test]
fn goodbyes_at_the_most_connections_leave_nobody_waiting() {
    let server = Server::narrow("a", 10);
    let gateway = gateway(&[server.url()], ", max_connections: 1, max_wait: 20s");
    let clients: Vec<_> = (0..30)
        .map(|index| {
            let mut client = gateway.client();
            thread::spawn(move || {
                for round in 0..20 {
                    let path = if (index + round) % 30 == 0 { "goodbye" } else { "x" };
                    assert_eq!(send(&mut client, "GET", path, "").0, 200);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(server.connections.load(SeqCst) > 3);
}

#[test]
fn room_that_a_server_has_is_told_although_a_client_still_reads() {
    let server = Server::narrow("a", 1);
    let rules = ", max_connections: 1, max_wait: 10s, buffer: {request: 0B, response: 0B}";
    let gateway = speaking(Protocol::H2c, &[server.url()], rules);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let (mut sender, connection) =
            builder.initial_window_size(0).handshake::<_, Bytes>(socket).await.unwrap();
        tokio::spawn(connection);
        let request = |path: &str| Request::get(format!("http://a/public/{path}")).body(()).unwrap();
        // It is asked for, and the second one waits before the server has ended the first.
        let (slow, _) = sender.send_request(request("slow"), true).unwrap();
        let (waits, _) = sender.send_request(request("x"), true).unwrap();
        let slow = slow.await.unwrap();
        // Nothing of the first one is read meanwhile.
        let answered = tokio::time::timeout(Duration::from_secs(5), waits).await;
        assert_eq!(answered.expect("it need not wait for the first").unwrap().status(), 200);
        drop(slow);
    });
}

#[test]
fn a_body_that_is_gone_does_not_make_a_refusal_a_failure() {
    let server = Server::start("a");
    let gateway = gateway(&[server.url()], ", ejection: {failures: 2, for: 60s}");
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(send(&mut client, "POST", "refuses", &"x".repeat(100_000)).0, 502);
    }
    assert_eq!(send(&mut client, "POST", "x", "body"), (200, "a 4".to_owned()));
}

#[test]
fn a_body_that_a_server_has_refused_goes_to_one_of_http_1_1() {
    let refusing = Server::start("h2");
    let h1 = Upstream::answering(|seen| ok(&String::from_utf8_lossy(&seen.body)));
    let servers = [refusing.url(), format!("http://{}", h1.address)];
    let gateway = gateway(&servers, ", balance: round_robin");
    let mut client = gateway.client();
    for body in ["", "a body", &"x".repeat(50_000)] {
        for _ in 0..4 {
            assert_eq!(send(&mut client, "POST", "refuses", body), (200, body.to_owned()));
        }
    }
    assert!(refusing.count("refuses") > 5);
}

#[test]
fn a_client_that_reads_nothing_may_go_on_to_write() {
    let server = Server::start("a");
    let gateway = speaking(Protocol::H2c, &[server.url()], "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let (mut sender, connection) =
            builder.initial_window_size(0).handshake::<_, Bytes>(socket).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://a/public/duplex").body(()).unwrap();
        let (response, mut body) = sender.send_request(request, false).unwrap();
        let _response = response.await.unwrap();
        let mut left = Bytes::from(vec![b'x'; 2 << 20]);
        while !left.is_empty() {
            body.reserve_capacity(left.len());
            let room = tokio::time::timeout(
                Duration::from_secs(5),
                std::future::poll_fn(|cx| body.poll_capacity(cx)),
            );
            let room = room.await.expect("room for the request").unwrap().unwrap();
            body.send_data(left.split_to(room.min(left.len())), left.is_empty()).unwrap();
        }
        body.send_data(Bytes::new(), true).ok();
        let begun = std::time::Instant::now();
        while server.count("duplex") == 0 && begun.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(server.count("duplex"), 1);
}

#[test]
fn trailers_may_follow_a_body_without_a_byte() {
    let server = Server::start("a");
    let gateway = speaking(Protocol::H2c, &[server.url()], "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (length, trailers) = runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://a/public/none").header("content-length", "0").body(()).unwrap();
        let (response, mut body) = sender.send_request(request, false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "1".parse().unwrap());
        body.send_trailers(trailers).unwrap();
        let mut response = response.await.unwrap();
        let trailers = response.body_mut().trailers().await.unwrap();
        (response.headers().get("content-length").cloned(), trailers)
    });
    assert_eq!(length.unwrap(), "0");
    assert_eq!(trailers.unwrap()["x-last"], "1");
    let seen = server.seen();
    assert_eq!(seen[0].headers["content-length"], "0");
    assert_eq!(seen[0].trailers["x-checksum"], "1");
}

#[test]
fn a_response_with_two_lengths_is_none() {
    let server = Server::start("a");
    let gateway = gateway(&[server.url()], "");
    let mut client = gateway.client();
    assert_eq!(send(&mut client, "GET", "lengths", "").0, 502);
    assert_eq!(send(&mut client, "GET", "x", ""), (200, "a 0".to_owned()));
}

#[test]
fn requests_beyond_what_a_server_takes_at_once_wait_for_each_other() {
    let server = Server::narrow("a", 2);
    for (waiting, failed) in [(100, 0), (3, 5)] {
        let rules = format!(", max_connections: 1, max_waiting: {waiting}, max_wait: 10s");
        let gateway = gateway(&[server.url()], &rules);
        // What the server takes is known once it has answered.
        assert_eq!(send(&mut gateway.client(), "GET", "x", "").0, 200);
        let clients: Vec<_> = (0..10)
            .map(|_| {
                let mut client = gateway.client();
                thread::spawn(move || send(&mut client, "GET", "slow", "").0)
            })
            .collect();
        let statuses: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 503).count(), failed, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10 - failed, "{statuses:?}");
    }
    assert_eq!(server.connections.load(SeqCst), 2);
}

#[test]
fn a_goodbye_costs_no_request() {
    let server = Server::start("a");
    let gateway = gateway(&[server.url()], "");
    let mut clients: Vec<_> = (0..4).map(|_| gateway.client()).collect();
    for round in 0..10 {
        for client in &mut clients {
            assert_eq!(send(client, "GET", "x", "").0, 200, "{round}");
        }
        assert_eq!(send(&mut clients[0], "GET", "goodbye", "").0, 200, "{round}");
        assert_eq!(send(&mut clients[1], "POST", "x", "body").0, 200, "{round}");
    }
    assert!(server.connections.load(SeqCst) > 5);
}

#[test]
fn a_client_that_reads_nothing_holds_up_no_neighbour() {
    let server = Server::start("a");
    let gateway = gateway(&[server.url()], "");
    let memory = gateway.memory();
    let mut stuck: Vec<_> = (0..20).map(|_| gateway.client()).collect();
    for client in &mut stuck {
        client.send("GET /public/big20000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("all of them are under way", || (server.count("big20000000") == 20).then_some(()));
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(send(&mut client, "GET", "big3000000", "").1.len(), 3_000_000);
    }
    assert_eq!(server.connections.load(SeqCst), 1);
    assert!(gateway.memory() < memory + (64 << 20), "{}", gateway.memory() - memory);
}

#[test]
fn what_breaks_off_breaks_off_and_trailers_go_to_those_who_take_them() {
    let server = Server::start("a");
    let gateway = gateway(&[server.url()], "");
    let mut client = gateway.client();
    client.send("GET /public/cut HTTP/1.1\r\nHost: a\r\n\r\n");
    let all = String::from_utf8(client.rest()).unwrap();
    assert!(all.contains("half") && !all.ends_with("0\r\n\r\n"), "{all}");
    let mut client = gateway.client();
    client.send("GET /public/trailers HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str(), response.header("x-last")), (200, "a 0", None));
    assert_eq!(send(&mut client, "GET", "x", "").0, 200);
}

#[test]
fn servers_of_several_protocols_are_one_upstream() {
    let h2 = Server::start("h2");
    let h1 = Upstream::answering(|seen| {
        if seen.target.ends_with("busy") {
            return b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n".to_vec();
        }
        ok(&format!("h1 {}", seen.body.len()))
    });
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let servers = [h2.url(), format!("http://{}", h1.address), format!("h2c://{away}")];
    let gateway = gateway(&servers, ", balance: round_robin");
    let mut client = gateway.client();
    let mut counts = HashMap::new();
    for _ in 0..60 {
        let (status, text) = send(&mut client, "POST", "x", "hi");
        assert_eq!(status, 200);
        *counts.entry(text).or_insert(0) += 1;
    }
    assert!(counts["h2 2"] >= 20 && counts["h1 2"] >= 20, "{counts:?}");
    // Each of them says so once, and the client is told.
    assert_eq!(send(&mut client, "GET", "busy", "").0, 503);
    let first = h2.count("busy");
    let at_h1 = h1.seen().iter().filter(|seen| seen.target.ends_with("busy")).count();
    assert_eq!((first, at_h1), (1, 1));
}

#[test]
fn http_2_on_both_sides_carries_large_bodies() {
    let server = Server::start("a");
    let servers = format!("{{url: \"{}\"}}", server.url());
    let settings = Settings {
        servers,
        protocol: Protocol::Http2,
        ..Settings::routes("  - {path: /public/**, auth: none, body: 64MiB, upstream: backend}\n")
    };
    let gateway = Gateway::start(&Upstream::start(), settings);
    let mut client = gateway.client();
    let mut send = |method: &str, path: &str, body: &str| {
        let length = body.len();
        client
            .send(format!(
                "{method} /public/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .response()
    };
    assert_eq!(send("POST", "x", &"x".repeat(8 << 20)).text(), format!("a {}", 8 << 20));
    assert_eq!(send("GET", "big9000000", "").body.len(), 9_000_000);
}

#[test]
fn a_server_by_tls_chooses_its_protocol() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let server = Server::start_tls("tls", &issued, &["h2"]);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let settings = Settings {
        servers: format!("{{url: \"https://localhost:{}\"}}", server.address.port()),
        upstream: ", tls: {ca: ca.pem}, health: {path: /healthz, interval: 50ms, unhealthy_after: 1}"
            .to_owned(),
        workers: 1,
        ..Settings::default()
    };
    let gateway = Gateway::start_in(folder, Upstream::start().address, settings);
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let mut client = gateway.client();
            thread::spawn(move || {
                for _ in 0..10 {
                    assert_eq!(send(&mut client, "POST", "x", "hi"), (200, "tls 2".to_owned()));
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(server.seen().iter().all(|seen| seen.uri.starts_with("https://")), "{:?}", server.seen()[0]);
    eventually("it is probed", || (server.count("/healthz") > 2).then_some(()));
    assert_eq!(gateway.get("/public/x", None).status, 200);
}

#[test]
fn a_websocket_to_a_server_that_prefers_http_2_goes_by_http_1_1() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let server = Server::start_tls("tls", &issued, &["h2", "http/1.1"]);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let settings = Settings {
        servers: format!("{{url: \"https://localhost:{}\"}}", server.address.port()),
        upstream: ", tls: {ca: ca.pem}".to_owned(),
        ..Settings::default()
    };
    let gateway = Gateway::start_in(folder, Upstream::start().address, settings);
    let token = gateway.token("alice");
    // Before and after the server has chosen HTTP/2.
    for _ in 0..2 {
        let mut tunnel = begin(&gateway, "/api/ws", Some(&token), UPGRADE);
        assert_eq!(tunnel.head().0, 101);
        tunnel.send("ping");
        assert_eq!(tunnel.read_some(4), b"ping");
        assert_eq!(send(&mut gateway.client(), "POST", "x", "hi"), (200, "tls 2".to_owned()));
    }
    // One that speaks nothing else takes none, and is as well as before.
    let server = Server::start_tls("only", &issued, &["h2"]);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let settings = Settings {
        servers: format!("{{url: \"https://localhost:{}\"}}", server.address.port()),
        upstream: ", tls: {ca: ca.pem}, ejection: {failures: 2, for: 1h}".to_owned(),
        workers: 1,
        ..Settings::default()
    };
    let gateway = Gateway::start_in(folder, Upstream::start().address, settings);
    let (token, mut client) = (gateway.token("alice"), gateway.client());
    assert_eq!(send(&mut client, "POST", "x", "hi"), (200, "only 2".to_owned()));
    for _ in 0..5 {
        assert_eq!(begin(&gateway, "/api/ws", Some(&token), UPGRADE).head().0, 502);
        assert_eq!(send(&mut client, "POST", "x", "hi"), (200, "only 2".to_owned()));
    }
    // Each of the five was a connection of its own; the requests share the first one.
    assert_eq!(server.connections.load(SeqCst), 6);
}

#[test]
fn probes_are_in_the_protocol_of_the_server() {
    let server = Server::start("a");
    let health = ", health: {path: /healthz, interval: 50ms, unhealthy_after: 1, host: probed.test}";
    let gateway = gateway(&[server.url()], health);
    eventually("it is probed", || (server.count("/healthz") > 2).then_some(()));
    assert_eq!(gateway.get("/public/x", None).status, 200);
    assert_eq!(server.seen()[0].uri, "http://probed.test/healthz");
}
