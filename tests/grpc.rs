//! gRPC from end to end, with the programs that others use.

use std::{
    fs,
    io::Write,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::harness::{
    Gateway, Protocol, PythonProcess, Settings, Upstream, eventually, protocol::USUAL, python,
};

const ROUTES: &str = "  - {path: /api.Calls/**, upstream: backend}\n  - {path: /api.Admin/**, roles: {any: [admin]}, upstream: backend}\n  - {path: /api.Short/**, auth: none, timeout: 300ms, rewrite: {strip_prefix: /api.Short, add_prefix: /api.Calls}, upstream: backend}\n";

/// A gateway before the server, by a protocol.
fn start(protocol: Protocol) -> (Gateway, PythonProcess) {
    let server = PythonProcess::start("grpc_server.py", &[]);
    let port = server.port("port ");
    let servers = format!("{{url: \"h2c://127.0.0.1:{port}\"}}");
    let settings = Settings { protocol, servers, ..Settings::routes(ROUTES) };
    let gateway = Gateway::start(&Upstream::start(), settings);
    fs::write(gateway.folder.path().join("ca.pem"), USUAL.0.pem()).unwrap();
    (gateway, server)
}

/// What a script prints that has a `channel` to the gateway, and `bearer` as metadata.
#[track_caller]
fn call(gateway: &Gateway, protocol: Protocol, token: &str, script: &str) -> String {
    let begin = "import sys, grpc, time\naddress, ca, token = sys.argv[1:]\n\
        if ca:\n    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(open(ca, 'rb').read()))\n\
        else:\n    channel = grpc.insecure_channel(address)\n\
        bearer = (('authorization', 'Bearer ' + token),)\n\
        unary = channel.unary_unary('/api.Calls/Unary')\n\
        def refused(call):\n    try:\n        call()\n    except grpc.RpcError as error:\n        return error.code().name\n    return 'OK'\n";
    let address = format!("localhost:{}", gateway.address.port());
    let ca = gateway.folder.path().join("ca.pem").display().to_string();
    let ca = if protocol.is_tls() { ca.as_str() } else { "" };
    python(&format!("{begin}{script}"), &[&address, ca, token])
}

#[test]
fn calls_of_every_kind_go_through() {
    for protocol in [Protocol::Http2, Protocol::H2c] {
        let (gateway, server) = start(protocol);
        let token = gateway.token("alice");
        let said = call(
            &gateway,
            protocol,
            &token,
            "answer, call = unary.with_call(b'abc', metadata=bearer + (('x-own', 'mine'),))\n\
             print(answer, dict(call.initial_metadata())['x-first'], dict(call.trailing_metadata())['x-last'])\n\
             print([number for number in channel.unary_stream('/api.Calls/Counts')(b'5', metadata=bearer)])\n\
             print(channel.stream_unary('/api.Calls/Sums')(iter([b'x' * 1000] * 50), metadata=bearer))\n\
             def asks():\n    for word in (b'one', b'two', b'three'):\n        yield word\n        time.sleep(0.05)\n\
             print([word for word in channel.stream_stream('/api.Calls/Echoes')(asks(), metadata=bearer)])\n\
             print(len(unary(b'x' * 3000000, metadata=bearer)))\n\
             for number in range(200): assert unary(str(number).encode(), metadata=bearer) == str(number).encode()[::-1]\n\
             try:\n    channel.unary_unary('/api.Calls/Fails')(b'', metadata=bearer)\n\
             except grpc.RpcError as error:\n    print(error.code().name, error.details(), dict(error.trailing_metadata())['x-last'])\n",
        );
        let expected = [
            "b'cba' 1 2",
            "[b'0', b'1', b'2', b'3', b'4']",
            "b'50000'",
            "[b'ONE', b'TWO', b'THREE']",
            "3000000",
            "FAILED_PRECONDITION not now 3",
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{protocol:?}");
        assert!(server.said("unary alice mine False"), "{:?}", server.lines());
        // All of them share a connection, or one of each worker.
        let active = r#"authgate_upstream_connections{state="active",upstream="backend"}"#;
        assert!(gateway.metric(active) <= Some(2.0));
    }
}

#[test]
fn refusals_have_the_status_of_grpc() {
    let (gateway, server) = start(Protocol::H2c);
    let token = gateway.token("alice");
    let said = call(
        &gateway,
        Protocol::H2c,
        &token,
        "print(refused(lambda: unary(b'')))\n\
         print(refused(lambda: unary(b'', metadata=(('authorization', 'Bearer x'),))))\n\
         print(refused(lambda: channel.unary_unary('/api.Admin/X')(b'', metadata=bearer)))\n\
         print(refused(lambda: channel.unary_unary('/api.None/X')(b'', metadata=bearer)))\n\
         print(refused(lambda: channel.unary_unary('/api.Short/Sleeps')(b'')))\n\
         print(refused(lambda: unary(b'x' * 20000000, metadata=bearer)))\n",
    );
    let expected = [
        "UNAUTHENTICATED",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "UNIMPLEMENTED",
        "DEADLINE_EXCEEDED",
        "RESOURCE_EXHAUSTED",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    drop(server);
    let said = call(&gateway, Protocol::H2c, &token, "print(refused(lambda: unary(b'', metadata=bearer)))");
    assert_eq!(said, "UNAVAILABLE");
}

#[test]
fn deadlines_and_cancelled_calls_end_at_the_server() {
    let (gateway, server) = start(Protocol::H2c);
    let token = gateway.token("alice");
    let begun = Instant::now();
    let script =
        "print(refused(lambda: channel.unary_unary('/api.Calls/Sleeps')(b'', metadata=bearer, timeout=0.4)))";
    assert_eq!(call(&gateway, Protocol::H2c, &token, script), "DEADLINE_EXCEEDED");
    assert!(begun.elapsed() < Duration::from_secs(10));
    eventually("the server is told", || server.said("sleep ended").then_some(()));
    server.forget();
    let script = "future = channel.unary_unary('/api.Calls/Sleeps').future(b'', metadata=bearer)\ntime.sleep(0.3)\nfuture.cancel()\nprint(future.cancelled())";
    assert_eq!(call(&gateway, Protocol::H2c, &token, script), "True");
    eventually("the server is told", || server.said("sleep ended").then_some(()));
}

/// A server that knows of no deadlines, whose response has no end.
fn endless_upstream(media: &'static str, framing: &'static str) -> Upstream {
    Upstream::with(move |_, socket| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {media}\r\n{framing}\r\n\r\n");
        let mut sent = socket.write_all(head.as_bytes());
        while sent.is_ok() {
            sent = socket.write_all(b"7\r\n\0\0\0\0\x02hi\r\n");
            thread::sleep(Duration::from_millis(20));
        }
        false
    })
}

#[test]
fn the_deadline_of_a_stream_ends_it_whatever_its_server_does() {
    // A call is told its status; anything else is reset (CURLE_HTTP2_STREAM), and not given up. So is a call of a length that was told,
    // which would be cut short.
    let chunked = "Transfer-Encoding: chunked";
    for (media, framing, exit) in [
        ("application/grpc+proto", chunked, 0),
        ("application/grpc+proto", "Content-Length: 1000000", 92),
        ("text/plain", chunked, 92),
    ] {
        let upstream = endless_upstream(media, framing);
        let gateway = Gateway::start(&upstream, Settings { protocol: Protocol::H2c, ..Settings::default() });
        let begun = Instant::now();
        let output = Command::new("curl")
            .args(["--silent", "--http2-prior-knowledge", "--max-time", "30", "--dump-header", "-"])
            .args(["--header", "Content-Type: application/grpc", "--header", "TE: trailers"])
            .args(["--header", "grpc-timeout: 700m"])
            .arg(format!("http://localhost:{}/public/events", gateway.address.port()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with("HTTP/2 200") && said.contains("hi"), "{said}");
        assert_eq!(said.contains("grpc-status: 4\r\n"), exit == 0, "{said}");
        assert_eq!(output.status.code(), Some(exit), "{output:?}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn grpc_web_passes_as_any_request_does() {
    let upstream = Upstream::answering(|seen| {
        let begin = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: ";
        [format!("{begin}{}\r\n\r\n", seen.body.len()).as_bytes(), &seen.body].concat()
    });
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let gateway = Gateway::start(&upstream, Settings { protocol, ..Settings::default() });
        let token = gateway.token("alice");
        let ask = |token: &str| {
            let mut client = gateway.client();
            client.send(format!(
                "POST /api/a.B/C HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\nAuthorization: Bearer {token}\r\nContent-Length: 7\r\n\r\n"
            ));
            client.send(b"\0\0\0\0\x02hi");
            client.response()
        };
        let response = ask(&token);
        assert_eq!((response.status, response.body.as_slice()), (200, &b"\0\0\0\0\x02hi"[..]));
        assert_eq!(response.header("content-type"), Some("application/grpc-web+proto"));
        assert_eq!(upstream.last().header("x-grpc-web"), Some("1"));
        let refused = ask("no.such.token");
        assert_eq!((refused.status, refused.header("grpc-status")), (401, None), "{refused:?}");
    }
}

#[test]
fn a_stream_ends_with_its_token() {
    let (gateway, _server) = start(Protocol::H2c);
    let token = gateway.token("alice");
    let logout = format!(
        "import urllib.request\n\
         stream = channel.unary_stream('/api.Calls/Counts')(b'100000', metadata=bearer)\n\
         for count, number in enumerate(stream):\n    if count == 20: break\n\
         end = unary.future(b'', metadata=bearer).result()\n\
         channel.unary_unary('/auth/logout')\n\
         import subprocess\n\
         print(subprocess.run(['curl', '-s', '-o', '/dev/null', '-w', '%{{http_code}}', '--http2-prior-knowledge', '-X', 'POST', '-H', 'Authorization: Bearer ' + token, 'http://localhost:{}/auth/logout'], capture_output=True, text=True).stdout)\n\
         def drain():\n    for number in stream: pass\n\
         print(refused(drain))\n",
        gateway.address.port()
    );
    let said = call(&gateway, Protocol::H2c, &token, &logout);
    assert_eq!(said, "200\nCANCELLED");
}
