//! Traces: how requests carry them on, and what is told of those that are sampled.

use std::{collections::HashSet, io::Write};

use serde_json::Value;

use crate::harness::{Gateway, PythonProcess, Settings, Upstream, errors_of, eventually, ok};

const CLIENTS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CLIENTS_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENTS_SPAN: &str = "00f067aa0ba902b7";

/// A receiver, and the key `telemetry` for it.
struct Collector {
    process: PythonProcess,
}

impl Collector {
    fn start() -> Self {
        Self { process: PythonProcess::start("collector.py", &[]) }
    }

    fn telemetry(&self, protocol: &str, more: &str) -> String {
        let port = self.process.port(&format!("{protocol} "));
        format!(
            "telemetry: {{otlp: {{endpoint: \"http://127.0.0.1:{port}\", protocol: {protocol}{more}}}}}\n"
        )
    }

    fn behave(&mut self, behaviour: &str) {
        writeln!(self.process.stdin, "{behaviour}").unwrap();
        eventually("it behaves", || self.process.said(&format!("now {behaviour}")).then_some(()));
    }

    fn exports(&self) -> Vec<Value> {
        let lines = self.process.lines();
        let exports =
            lines.iter().filter_map(|line| serde_json::from_str(line.strip_prefix("export ")?).ok());
        exports.collect()
    }

    fn spans(&self) -> Vec<Value> {
        self.exports().iter().flat_map(|export| export["spans"].as_array().unwrap().clone()).collect()
    }

    /// The spans of the request whose path is this, the request's first.
    #[track_caller]
    fn of(&self, path: &str) -> Vec<Value> {
        eventually("the request is exported", || {
            let spans = self.spans();
            let request = spans.iter().find(|span| span["attributes"]["url.path"] == path)?.clone();
            let children = spans.iter().filter(|span| span["parent"] == request["id"]).cloned();
            let children: Vec<_> = children.collect();
            Some([request].into_iter().chain(children).collect())
        })
    }
}

fn with_headers(gateway: &Gateway, path: &str, more: &[(&str, &str)]) -> u16 {
    let lines: String = more.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut client = gateway.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    client.response().status
}

#[test]
fn a_trace_is_made_or_carried_on() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let response = gateway.get("/public/x", None);
    let seen = upstream.last();
    let made = seen.header("traceparent").unwrap();
    let parts: Vec<&str> = made.split('-').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{made}");
    assert_eq!((parts[0], parts[3]), ("00", "01"));
    // It can be found by the id that the client and the log have.
    assert_eq!(response.header("x-request-id"), Some(parts[1]));
    assert_eq!(seen.header("x-request-id"), Some(parts[1]));

    let told = [("traceparent", CLIENTS), ("tracestate", "rojo=1")];
    assert_eq!(with_headers(&gateway, "/public/x", &told), 200);
    assert_eq!(upstream.last().header("traceparent"), Some(CLIENTS));
    assert_eq!(upstream.last().header("tracestate"), Some("rojo=1"));

    for wrong in [
        vec![("traceparent", "00-0-0-01"), ("tracestate", "rojo=1")],
        vec![("traceparent", CLIENTS), ("traceparent", CLIENTS), ("tracestate", "rojo=1")],
        vec![("tracestate", "rojo=1")],
    ] {
        assert_eq!(with_headers(&gateway, "/public/x", &wrong), 200);
        let seen = upstream.last();
        let made = seen.header("traceparent").unwrap();
        assert!(made.len() == 55 && !made.contains(CLIENTS_TRACE), "{made}");
        assert_eq!(seen.header("tracestate"), None, "it belongs to a parent that is gone");
    }
    // Nobody takes it away.
    assert_eq!(with_headers(&gateway, "/public/x", &[("Connection", "close, traceparent")]), 200);
    assert!(upstream.last().header("traceparent").is_some());
    let told = [("Connection", "TraceParent, tracestate"), told[0], told[1]];
    assert_eq!(with_headers(&gateway, "/public/x", &told), 200);
    assert_eq!(upstream.last().header("traceparent"), Some(CLIENTS));
    let all: HashSet<String> = (0..200)
        .map(|_| {
            gateway.get("/public/x", None);
            upstream.last().header("traceparent").unwrap().to_owned()
        })
        .collect();
    assert_eq!(all.len(), 200);
}

#[test]
fn requests_pass_on_what_they_came_with_where_traces_are_left_alone() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default().extra("telemetry: {traceparent: false}\n"));
    gateway.get("/public/x", None);
    assert_eq!(upstream.last().header("traceparent"), None);
    let told = [("traceparent", "00-0-0-01"), ("tracestate", "rojo=1")];
    with_headers(&gateway, "/public/x", &told);
    assert_eq!(upstream.last().header("traceparent"), Some("00-0-0-01"));
    assert_eq!(upstream.last().header("tracestate"), Some("rojo=1"));
}

#[test]
fn a_sampled_request_is_exported_with_its_decision_and_its_try() {
    for protocol in ["grpc", "http"] {
        let collector = Collector::start();
        let upstream = Upstream::start();
        let telemetry =
            collector.telemetry(protocol, ", sample: 1, headers: {X-Tenant: t-1}, service_name: edge");
        let gateway = Gateway::start(&upstream, Settings::default().extra(&telemetry));
        let token = gateway.token("alice");
        let told = [
            ("traceparent", CLIENTS),
            ("tracestate", "rojo=1"),
            ("authorization", &format!("Bearer {token}")),
            ("user-agent", "test/1"),
        ];
        assert_eq!(with_headers(&gateway, "/api/traced?secret=1", &told), 200);
        let below = upstream.last().header("traceparent").unwrap().to_owned();

        let spans = collector.of("/api/traced");
        let [request, decision, sent] = &spans[..] else { panic!("{spans:#?}") };
        assert_eq!(request["kind"], "SERVER");
        assert_eq!(request["name"], "GET /api/**");
        assert_eq!((&request["trace"], &request["parent"]), (&CLIENTS_TRACE.into(), &CLIENTS_SPAN.into()));
        assert_eq!(request["state"], "rojo=1");
        assert_eq!(request["status"], "UNSET");
        let attributes = &request["attributes"];
        for (name, value) in [
            ("http.request.method", "GET".into()),
            ("http.route", "/api/**".into()),
            ("http.response.status_code", 200.into()),
            ("client.address", "127.0.0.1".into()),
            ("user_agent.original", "test/1".into()),
            ("authgate.upstream", Value::from("backend")),
        ] {
            assert_eq!(attributes[name], value, "{attributes:#}");
        }
        assert_eq!(attributes["user.id"], upstream.last().header("x-user-id").unwrap());
        assert_eq!(attributes["authgate.request.id"], upstream.last().header("x-request-id").unwrap());
        // The upstream continues from the span of the request, which it is told.
        let expected = format!("00-{CLIENTS_TRACE}-{}-01", request["id"].as_str().unwrap());
        assert_eq!(below, expected);

        assert_eq!((&decision["kind"], &decision["name"]), (&"INTERNAL".into(), &"decide".into()));
        assert_eq!(decision["attributes"]["authgate.decision"], "allowed");
        assert_eq!(sent["kind"], "CLIENT");
        assert_eq!(sent["attributes"]["server.address"], upstream.address.to_string());
        assert_eq!(sent["attributes"]["http.response.status_code"], 200);
        for span in &spans {
            assert_eq!(span["trace"], CLIENTS_TRACE);
            let times = |span: &Value| (span["begun"].as_u64().unwrap(), span["ended"].as_u64().unwrap());
            let ((begun, ended), (first, last)) = (times(span), times(request));
            assert!(first <= begun && begun <= ended && ended <= last, "{span:#}");
        }
        let export = &collector.exports()[0];
        assert_eq!(export["protocol"], protocol);
        assert_eq!(export["headers"]["x-tenant"], "t-1");
        assert_eq!(export["resource"]["service.name"], "edge");
        assert!(!export.to_string().contains("secret"), "{export:#}");
        assert_eq!(gateway.metric("authgate_traces_total{result=\"lost\"}").unwrap_or(0.0), 0.0);
    }
}

#[test]
fn what_is_denied_and_what_fails_is_told() {
    let collector = Collector::start();
    let upstream = Upstream::answering(|seen| match seen.target.as_str() {
        "/public/fails" => b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok("x"),
    });
    let telemetry = collector.telemetry("grpc", ", sample: 1");
    let servers = format!(
        "{{url: \"http://127.0.0.1:{}\", weight: 1}}, {{url: \"http://{}\", weight: 1}}",
        crate::harness::port_to_keep(),
        upstream.address
    );
    let settings = Settings { servers, upstream: ", balance: round_robin".to_owned(), ..Settings::default() };
    let gateway = Gateway::start(&upstream, settings.extra(&telemetry));
    assert_eq!(gateway.get("/api/denied", None).status, 401);
    let spans = collector.of("/api/denied");
    assert_eq!(spans.len(), 2, "{spans:#?}");
    assert_eq!(spans[1]["attributes"]["authgate.decision"], "no_token");
    assert_eq!(spans[0]["attributes"]["http.response.status_code"], 401);

    assert_eq!(gateway.get("/public/fails", None).status, 500);
    let spans = collector.of("/public/fails");
    assert_eq!(
        (&spans[0]["status"], &spans[0]["attributes"]["error.type"]),
        (&"ERROR".into(), &"500".into())
    );

    // One of two requests begins at the server that is not there, and ends at the other one.
    for number in 0..2 {
        assert_eq!(gateway.get(&format!("/public/retried{number}"), None).status, 200);
    }
    let all = (0..2).flat_map(|number| collector.of(&format!("/public/retried{number}")));
    let tries: Vec<Value> = all.filter(|span| span["kind"] == "CLIENT").collect();
    let failed: Vec<&Value> = tries.iter().filter(|span| span["status"] == "ERROR").collect();
    if let [failed] = &failed[..] {
        assert_eq!(failed["attributes"]["error.type"], "connect");
        let next = tries.iter().find(|span| span["attributes"]["http.request.resend_count"] == 1).unwrap();
        assert_eq!(next["parent"], failed["parent"]);
        assert!(next["begun"].as_u64() >= failed["ended"].as_u64());
    } else {
        panic!("{tries:#?}");
    }
}

#[test]
fn a_share_is_sampled_and_only_a_trusted_proxy_can_ask_for_more() {
    let collector = Collector::start();
    let upstream = Upstream::start();
    let telemetry = collector.telemetry("http", ", sample: 0");
    let gateway = Gateway::start(&upstream, Settings::default().extra(&telemetry));
    for _ in 0..20 {
        with_headers(&gateway, "/public/a", &[("traceparent", CLIENTS)]);
        // Who comes after does not record it, either.
        let unsampled = CLIENTS.replace("-01", "-00");
        assert_eq!(upstream.last().header("traceparent"), Some(&*unsampled));
    }
    gateway.get("/public/a", None);
    assert!(upstream.last().header("traceparent").unwrap().ends_with("-00"));

    let telemetry = telemetry + "trusted_proxies: [127.0.0.1]\n";
    let trusting = Gateway::start(&upstream, Settings::default().extra(&telemetry));
    with_headers(&trusting, "/public/b", &[("traceparent", &CLIENTS.replace("-01", "-00"))]);
    with_headers(&trusting, "/public/c", &[("traceparent", CLIENTS)]);
    assert_eq!(collector.of("/public/c")[0]["trace"], CLIENTS_TRACE);
    assert_eq!(collector.spans().iter().filter(|span| span["kind"] == "SERVER").count(), 1);
}

#[test]
fn a_receiver_that_is_away_costs_no_request_and_gets_what_waited() {
    for protocol in ["grpc", "http"] {
        let mut collector = Collector::start();
        collector.behave("refuse");
        let upstream = Upstream::start();
        let telemetry = collector.telemetry(protocol, ", sample: 1");
        let mut gateway = Gateway::start(&upstream, Settings::default().extra(&telemetry));
        assert_eq!(gateway.get("/public/waits", None).status, 200);
        eventually("it is refused", || collector.process.said("refused").then_some(()));
        let logs = |gateway: &Gateway, text: &str| {
            eventually(text, || gateway.log().contains(text).then_some(()));
        };
        logs(&gateway, "traces cannot be exported");
        collector.behave("accept");
        collector.of("/public/waits");
        logs(&gateway, "traces are exported again");
        // What is there at the end is exported at once.
        assert_eq!(gateway.get("/public/last", None).status, 200);
        assert!(gateway.stop().success());
        let path = |span: &Value| span["attributes"]["url.path"] == "/public/last";
        assert!(collector.spans().iter().any(path));
    }
}

#[test]
fn what_exports_is_exchanged_by_a_reload() {
    let (one, other) = (Collector::start(), Collector::start());
    let upstream = Upstream::start();
    let text = |collector: &Collector| Settings::default().extra(&collector.telemetry("grpc", ", sample: 1"));
    let gateway = Gateway::start(&upstream, text(&one));
    let admin = gateway.admin_token("root");
    gateway.get("/public/first", None);
    assert_eq!(gateway.reload(&admin, &text(&other)).status, 200);
    gateway.get("/public/second", None);
    other.of("/public/second");
    one.of("/public/first");
    let second = |span: &Value| span["attributes"]["url.path"] == "/public/second";
    assert!(!one.spans().iter().any(second));
}

#[test]
fn what_makes_no_sense_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (telemetry, expected) in [
        ("{otlp: {endpoint: \"collector:4317\"}}", "telemetry.otlp.endpoint"),
        ("{otlp: {endpoint: \"http://c\", sample: 1.5}}", "a share from 0 to 1"),
        ("{otlp: {endpoint: \"http://c\", protocol: thrift}}", "telemetry.otlp.protocol"),
        ("{otlp: {endpoint: \"http://c\", headers: {\"a b\": x}}}", "expected a header name"),
        ("{otlp: {endpoint: \"http://c\", headers: {Host: x}}}", "belongs to the export itself"),
        ("{otlp: {endpoint: \"https://c\", ca: gone.pem}}", "gone.pem"),
        ("{traceparent: false, otlp: {endpoint: \"http://c\"}}", "telemetry.traceparent"),
    ] {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\nauth: {{issuer: https://a.example, audience: a}}\ntelemetry: {telemetry}\n"
        );
        let errors = errors_of(folder.path(), &text);
        assert!(errors.contains(expected), "{telemetry}: {errors}");
    }
}
