//! Other proxies ask whether they may forward a request.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Client, Faketime, Gateway, Protocol, PythonProcess, Response, Seen, Settings, Upstream,
    browser::{Browser, with_pages},
    eventually,
    issuer::Issuer,
    ok, peer, port_to_keep, python,
};

const ROUTES: &str = "  - {path: /public/**, auth: none, upstream: backend}\n  - {path: /optional/**, auth: optional, upstream: backend}\n  - {path: /api/**, methods: [GET, POST], upstream: backend}\n  - {path: /admin/**, roles: {any: [admin]}, upstream: backend}\n  - {path: /named/**, host: shop.example, auth: none, upstream: backend}\n  - {path: /safe, mfa: true, upstream: backend}\n  - {path: /few, auth: none, rate_limit: {requests: 1, per: 1h, by: address}, upstream: backend}\n";

fn start(more: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let trusted = format!("trusted_proxies: [127.0.0.1/32]\n{more}");
    (Gateway::start(&upstream, Settings::routes(ROUTES).extra(&trusted)), upstream)
}

/// What Caddy sends, and Traefik by its documentation (`forwardAuth`, forward-request headers).
fn told(method: &str, target: &str) -> Vec<String> {
    vec![
        format!("X-Forwarded-Method: {method}"),
        "X-Forwarded-Proto: https".to_owned(),
        "X-Forwarded-Host: shop.example".to_owned(),
        format!("X-Forwarded-Uri: {target}"),
    ]
}

fn ask(client: &mut Client, method: &str, lines: &[String], token: Option<&str>) -> Response {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    client.send(format!("{method} /auth/verify HTTP/1.1\r\nHost: gateway\r\n{lines}{bearer}\r\n")).response()
}

#[test]
fn people_are_led_to_the_sign_in_page_of_the_public_address_and_known_by_its_cookie() {
    let pages = "public_url: https://shop.example\npages: {name: Shop}\n";
    let (gateway, _upstream) = start(&format!("{pages}forward_auth: {{login_redirect: true}}\n"));
    let mut client = gateway.client();
    let navigation =
        |target: &str| [told("GET", target), vec!["Sec-Fetch-Mode: navigate".to_owned()]].concat();
    let led = ask(&mut client, "GET", &navigation("/api/x?y=1"), None);
    assert_eq!(led.status, 303, "{led:?}");
    assert_eq!(gateway.metric("authgate_denied_total{reason=\"no_token\"}"), Some(1.0));
    let led_by_another_spelling = ask(&mut client, "GET", &navigation("/api/%c3%bc"), None);
    let back = led_by_another_spelling.header("location").unwrap().to_owned();
    assert!(back.ends_with("return_to=%2Fapi%2F%25C3%25BC"), "{back}");
    // A program's token stays what it is, so it would come back in vain.
    assert_eq!(ask(&mut client, "GET", &navigation("/api/x?y=1"), Some("no.such.token")).status, 401);
    let login = "https://shop.example/auth/ui/login?return_to=%2Fapi%2Fx%3Fy%3D1";
    assert_eq!(led.header("location"), Some(login));
    assert_eq!(led.header("cache-control"), Some("no-store"));
    // A program is told; so is whoever may not, and of another host nobody is led back.
    assert_eq!(ask(&mut client, "GET", &told("GET", "/api/x"), None).status, 401);
    assert_eq!(ask(&mut client, "GET", &navigation("/nowhere"), None).status, 403);
    let posts = [told("POST", "/api/x"), vec!["Sec-Fetch-Mode: navigate".to_owned()]].concat();
    assert_eq!(ask(&mut client, "GET", &posts, None).status, 401);
    let elsewhere: Vec<String> = navigation("/api/x")
        .iter()
        .map(|line| line.replace("Host: shop.example", "Host: other.example"))
        .collect();
    let led = ask(&mut client, "GET", &elsewhere, None);
    assert_eq!(led.header("location"), Some("https://shop.example/auth/ui/login"));
    // The cookie of the pages says who it is, and by another method where the request comes from.
    let browser = Browser::register(&gateway, "alice");
    let cookie = format!("Cookie: __Host-authgate={}", browser.session().unwrap());
    let with = |lines: Vec<String>| [lines, vec![cookie.clone()]].concat();
    let allowed = ask(&mut client, "GET", &with(told("GET", "/api/x")), None);
    assert_eq!((allowed.status, allowed.header("x-user-name")), (200, Some("alice")));
    // Whoever must show more is led to where that is done.
    let proof = ask(&mut client, "GET", &with(navigation("/safe")), None);
    let prove = "https://shop.example/auth/ui/prove?return_to=%2Fsafe&mfa=yes";
    assert_eq!((proof.status, proof.header("location")), (303, Some(prove)));
    assert_eq!(ask(&mut client, "GET", &with(told("GET", "/safe")), None).status, 401);
    // A dead cookie is nobody's where nobody has to be, and is taken away.
    let with_cookie = |cookie: &str, path: &str| {
        let more = vec![format!("Cookie: __Host-authgate={cookie}")];
        ask(&mut gateway.client(), "GET", &[told("GET", path), more].concat(), None)
    };
    let dead = with_cookie("dead", "/optional/x");
    assert_eq!((dead.status, dead.header("x-user-name")), (200, Some("")));
    assert!(dead.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")), "{dead:?}");
    assert_eq!(with_cookie("dead", "/public/x").header("set-cookie"), None);
    // What browsers are to be careful about is said where one reads it.
    let refused = ask(&mut client, "GET", &told("GET", "/api/x"), None);
    let policy = |response: &Response| response.header("content-security-policy").map(str::to_owned);
    assert_eq!((policy(&allowed), policy(&refused)), (None, Some("frame-ancestors 'none'".to_owned())));
    assert_eq!(ask(&mut client, "GET", &with(told("POST", "/api/x")), None).status, 403);
    let ours = [told("POST", "/api/x"), vec!["Sec-Fetch-Site: same-origin".to_owned()]].concat();
    assert_eq!(ask(&mut client, "GET", &with(ours), None).status, 200);
    // A WebSocket's handshake, of which the other proxy has taken out Upgrade.
    let sibling =
        ["Sec-Fetch-Site: same-site", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="].map(str::to_owned);
    let handshake = [told("GET", "/api/x"), sibling.to_vec()].concat();
    assert_eq!(ask(&mut client, "GET", &with(handshake), None).status, 403);
    assert_eq!(ask(&mut client, "GET", &with(navigation("/admin/x")), None).status, 403);
    // Unless the config says so, the proxy is told 401 and nothing else.
    let (gateway, _upstream) = start(pages);
    let refused = ask(&mut gateway.client(), "GET", &navigation("/api/x"), None);
    assert_eq!((refused.status, refused.header("content-type")), (401, Some("application/problem+json")));
}

#[test]
fn the_routes_decide_and_the_answer_says_who_it_is() {
    let (gateway, upstream) = start("");
    let alice = gateway.token("alice");
    let me = gateway.get("/auth/me", Some(&alice)).json();
    let mut client = gateway.client();
    let mut status = |method: &str, target: &str, token: Option<&str>| {
        ask(&mut client, "GET", &told(method, target), token).status
    };
    assert_eq!(status("GET", "/api/x?q=1", Some(&alice)), 200);
    assert_eq!(status("POST", "/api/x", Some(&alice)), 200);
    assert_eq!(status("DELETE", "/api/x", Some(&alice)), 403);
    assert_eq!(status("GET", "/api/x", None), 401);
    assert_eq!(status("GET", "/api/x", Some("no.such.token")), 401);
    assert_eq!(status("GET", "/admin/x", Some(&alice)), 403);
    assert_eq!(status("GET", "/nowhere", Some(&alice)), 403);
    assert_eq!(status("GET", "/auth/me", Some(&alice)), 403);
    assert_eq!(status("GET", "/public/x", None), 200);
    assert_eq!(status("GET", "/public/x", Some("no.such.token")), 200);
    assert_eq!(status("GET", "/named/x", None), 200);
    let allowed = ask(&mut client, "GET", &told("GET", "/api/x"), Some(&alice));
    assert_eq!(allowed.header("x-user-id"), me["user_id"].as_str());
    assert_eq!(
        (allowed.header("x-user-name"), allowed.header("x-user-roles")),
        (Some("alice"), Some("user"))
    );
    assert_eq!((allowed.header("cache-control"), allowed.text().as_str()), (Some("no-store"), ""));
    // Whoever copies them overwrites what a client said.
    let anonymous = ask(&mut client, "GET", &told("GET", "/optional/x"), None);
    for name in ["x-user-id", "x-user-name", "x-user-roles"] {
        assert_eq!(anonymous.header(name), Some(""), "{name}");
    }
    let refused = ask(&mut client, "GET", &told("GET", "/api/x"), None);
    assert!(refused.header("www-authenticate").is_some() && refused.header("x-user-id").is_none());
    // A logout is one here, too.
    assert_eq!(gateway.logout(&alice).status, 200);
    assert_eq!(ask(&mut client, "GET", &told("GET", "/api/x"), Some(&alice)).status, 401);
    assert!(upstream.seen().is_empty(), "nothing is forwarded");
}

#[test]
fn what_is_asked_about_is_told_once_and_in_one_reading_or_refused() {
    let (gateway, _upstream) = start("");
    let alice = gateway.token("alice");
    let mut client = gateway.client();
    let whole = told("GET", "/api/x");
    for index in 0..whole.len() {
        let mut fewer = whole.clone();
        let line = fewer.remove(index);
        assert_eq!(ask(&mut client, "GET", &fewer, Some(&alice)).status, 403, "without {line}");
        let twice = [&whole[..], std::slice::from_ref(&line)].concat();
        assert_eq!(ask(&mut client, "GET", &twice, Some(&alice)).status, 403, "{line} twice");
        let (name, value) = line.split_once(": ").unwrap();
        for value in [String::new(), format!("{value}, {value}"), format!("{value} x")] {
            let mut other = whole.clone();
            other[index] = format!("{name}: {value}");
            assert_eq!(ask(&mut client, "GET", &other, Some(&alice)).status, 403, "{}", other[index]);
        }
    }
    for target in [
        "/api/../admin/x",
        "/api/%2e%2e/x",
        "/api//x",
        "/api/%2Fx",
        "/api/x;a=1",
        "/api/%00",
        "/api/x#y",
        "api/x",
        "https://shop.example/api/x",
        "*",
        "/api/%zz",
        "//api/x",
        "/api/\\x",
        "/api/x%",
    ] {
        let status = ask(&mut client, "GET", &told("GET", target), Some(&alice)).status;
        assert_eq!(status, 403, "{target}");
    }
    assert_eq!(ask(&mut client, "GET", &told("CONNECT", "/api/x"), Some(&alice)).status, 403);
    let mut other = whole.clone();
    other[1] = "X-Forwarded-Proto: ftp".to_owned();
    assert_eq!(ask(&mut client, "GET", &other, Some(&alice)).status, 403);
    // A method that the backend may believe in place of the first has to be allowed, too.
    let overriding = |method: &str| [&whole[..], &[format!("X-HTTP-Method-Override: {method}")]].concat();
    assert_eq!(ask(&mut client, "GET", &overriding("POST"), Some(&alice)).status, 200);
    assert_eq!(ask(&mut client, "GET", &overriding("DELETE"), Some(&alice)).status, 403);
    let spelt = [&whole[..], &["X_HTTP_Method_Override: POST".to_owned()]].concat();
    assert_eq!(ask(&mut client, "GET", &spelt, Some(&alice)).status, 403);
    // What some take for DELETE is none that a route names.
    assert_eq!(ask(&mut client, "GET", &told("delete", "/public/x"), None).status, 403);
    // Nothing is a success that nobody has decided.
    for line in ["Max-Forwards: 0", "Origin: https://a\r\nAccess-Control-Request-Method: GET"] {
        client.send(format!(
            "OPTIONS /auth/verify HTTP/1.1\r\nHost: a\r\n{line}\r\n{}\r\n\r\n",
            whole.join("\r\n")
        ));
        assert_eq!(client.response().status, 401, "{line}");
    }
    // Some ask by the method of the request itself.
    for method in ["POST", "DELETE", "HEAD"] {
        client.send(format!(
            "{method} /auth/verify?/api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {alice}\r\nContent-Length: 0\r\n{}\r\n\r\n",
            whole.join("\r\n")
        ));
        let response = if method == "HEAD" { client.response_to_head() } else { client.response() };
        assert_eq!(response.status, 200, "{method}");
    }
}

#[test]
fn only_a_trusted_proxy_is_told_anything() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::routes(ROUTES));
    let alice = gateway.token("alice");
    let mut client = gateway.client();
    let refused = ask(&mut client, "GET", &told("GET", "/api/x"), Some(&alice));
    assert_eq!((refused.status, refused.header("x-user-id")), (403, None));
    assert_eq!(ask(&mut client, "GET", &told("GET", "/public/x"), None).status, 403);
    assert_eq!(ask(&mut client, "POST", &told("GET", "/public/x"), None).status, 405);
}

#[test]
fn the_rates_of_routes_count_what_is_asked_about() {
    let (gateway, _upstream) = start("");
    let mut client = gateway.client();
    let from = |address: &str| [&told("GET", "/few")[..], &[format!("X-Forwarded-For: {address}")]].concat();
    assert_eq!(ask(&mut client, "GET", &from("192.0.2.1"), None).status, 200);
    let refused = ask(&mut client, "GET", &from("192.0.2.1"), None);
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").is_some() && refused.header("ratelimit").is_some());
    assert_eq!(ask(&mut client, "GET", &from("192.0.2.2"), None).status, 200);
}

#[test]
fn it_is_the_same_over_http_2() {
    let upstream = Upstream::start();
    let settings = Settings { protocol: Protocol::H2c, ..Settings::routes(ROUTES) };
    let gateway = Gateway::start(&upstream, settings.extra("trusted_proxies: [127.0.0.1/32]\n"));
    let alice = gateway.token("alice");
    let mut client = gateway.client();
    assert_eq!(ask(&mut client, "GET", &told("GET", "/api/x"), Some(&alice)).status, 200);
    assert_eq!(ask(&mut client, "GET", &told("GET", "/api/x"), None).status, 401);
    assert_eq!(ask(&mut client, "GET", &told("GET", "/nowhere"), None).status, 403);
    // By the status also where the client speaks gRPC, which has its own.
    let grpc = [&told("GET", "/api/x")[..], &["Content-Type: application/grpc".to_owned()]].concat();
    assert_eq!(ask(&mut client, "GET", &grpc, None).status, 401);
    assert_eq!(ask(&mut client, "GET", &grpc[1..], Some(&alice)).status, 403);
    client.send(format!("GET /auth/%76erify HTTP/1.1\r\nHost: gateway\r\n{}\r\n\r\n", grpc.join("\r\n")));
    assert!(client.response().status >= 400);
}

#[test]
fn nginx_has_headers_of_its_own() {
    let (gateway, _upstream) = start("forward_auth: {headers: x-original}\n");
    let alice = gateway.token("alice");
    let mut client = gateway.client();
    let told = |method: &str, url: &str| {
        vec![format!("X-Original-Method: {method}"), format!("X-Original-URL: {url}")]
    };
    for (method, url, status) in [
        ("GET", "http://shop.example/api/x?q=1", 200),
        ("GET", "https://shop.example:8443/named/x", 200),
        ("GET", "https://other.example/named/x", 403),
        ("DELETE", "http://shop.example/api/x", 403),
        ("GET", "http://shop.example", 403),
        ("GET", "http://shop.example/api/../admin", 403),
        ("GET", "http://a@shop.example/api/x", 403),
        ("GET", "http://shop.example?/api/x", 403),
        ("GET", "http:///api/x", 403),
        ("GET", "/api/x", 403),
        ("GET", "ftp://shop.example/api/x", 403),
    ] {
        assert_eq!(
            ask(&mut client, "GET", &told(method, url), Some(&alice)).status,
            status,
            "{method} {url}"
        );
    }
    let twice = [told("GET", "http://a/api/x"), told("GET", "http://a/api/x")].concat();
    assert_eq!(ask(&mut client, "GET", &twice, Some(&alice)).status, 403);
    // The other headers are nothing here.
    assert_eq!(
        ask(&mut client, "GET", &super::forward_auth::told("GET", "/api/x"), Some(&alice)).status,
        403
    );
}

/// A proxy that runs until it is dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts what `command` makes of a file of `deploy/forward-auth`, with its addresses put in place.
    fn start(
        name: &str,
        gateway: &Gateway,
        application: &Upstream,
        finish: impl Fn(String, SocketAddr, &Path) -> String,
        command: impl Fn(&Path, &Path) -> Command,
    ) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/forward-auth");
        let folder = tempfile::tempdir().unwrap();
        fs::copy(from.join("authgate.lua"), folder.path().join("authgate.lua")).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port_to_keep()));
        let text = fs::read_to_string(from.join(name)).unwrap();
        let text = text
            .replace("127.0.0.1:8080", &gateway.address.to_string())
            .replace("127.0.0.1:9000", &application.address.to_string())
            .replace("127.0.0.1:8000", &address.to_string())
            .replace("http://:8000", &format!("http://:{}", address.port()));
        let file = folder.path().join(name);
        fs::write(&file, finish(text, address, folder.path())).unwrap();
        let mut command = command(&file, folder.path());
        let child = command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name}: {error}; `./run setup` installs it"));
        let proxy = Self { child, address, _folder: folder };
        eventually(&format!("{name} listens"), || std::net::TcpStream::connect(address).ok());
        proxy
    }
}

fn program(name: &str) -> Command {
    let beside = Path::new("/usr/sbin").join(name);
    Command::new(if beside.exists() { beside } else { name.into() })
}

/// A gateway that decides, an application that it does not know, and a proxy between.
fn behind(headers: &str, proxy: impl Fn(&Gateway, &Upstream) -> Proxy) {
    let extra = format!("trusted_proxies: [127.0.0.1/32]\nforward_auth: {{headers: {headers}}}\n");
    decides_for(Settings::routes(ROUTES).extra(&extra), proxy);
}

fn decides_for(settings: Settings, proxy: impl Fn(&Gateway, &Upstream) -> Proxy) {
    let application = Upstream::start();
    let gateway = Gateway::start(&Upstream::start(), settings.extra(&with_pages("")));
    let proxy = proxy(&gateway, &application);
    let ask = |method: &str, target: &str, token: Option<&str>, more: &str| {
        let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let mut client = Client::connect(proxy.address);
        client.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{bearer}{more}Connection: close\r\n\r\n"
        ));
        client.response()
    };
    let alice = gateway.token("alice");
    let spoofed = "X-User-Id: 1\r\nX-User-Name: root\r\nX-User-Roles: admin\r\nX_User_Id: 1\r\nX_User-Roles: admin\r\nX.User.Name: root\r\nX-User_Roles: admin\r\nRemote-User: root\r\nX-Forwarded-User: root\r\nX-Forwarded-Email: root@example.com\r\nX-Forwarded-Groups: admin\r\nForwarded: for=1.2.3.4\r\n";
    let response = ask("GET", "/api/x?q=%20a", Some(&alice), spoofed);
    assert_eq!((response.status, response.text().as_str()), (200, "/api/x?q=%20a"));
    let seen = application.last();
    assert_eq!((seen.header("x-user-name"), seen.header("x-user-roles")), (Some("alice"), Some("user")));
    assert_eq!(seen.header("authorization"), None);
    // Nor can it have taken out what is said of it.
    let response = ask("GET", "/api/x", Some(&alice), "Connection: X-User-Id, X-User-Roles\r\n");
    if response.status == 200 {
        let seen = application.last();
        assert!(seen.header("x-user-id").is_some() && seen.header("x-user-roles").is_some(), "{seen:?}");
    }
    // What a client says of itself reaches nobody, signed in or not.
    assert_eq!(ask("GET", "/public/x", None, spoofed).status, 200);
    let seen = application.last();
    for (name, value) in &seen.headers {
        let folded = name.to_lowercase().replace(['_', '.'], "-");
        let is_of_identity = [
            "x-user-",
            "remote-",
            "x-forwarded-user",
            "x-forwarded-email",
            "x-forwarded-groups",
            "forwarded",
        ]
        .iter()
        .any(|own| folded.starts_with(own));
        assert!(!is_of_identity || value.is_empty(), "{name}: {value}");
    }
    let count = application.seen().len();
    for (method, target, token, status) in [
        ("GET", "/api/x", None, 401),
        ("GET", "/api/x", Some("no.such.token"), 401),
        ("DELETE", "/api/x", Some(&*alice), 403),
        ("GET", "/admin/x", Some(&*alice), 403),
        ("GET", "/nowhere", Some(&*alice), 403),
        ("GET", "/auth/verify", Some(&*alice), 404),
        ("delete", "/public/x", None, 403),
        // What one reads in another way than the other.
        ("GET", "/public/..%2fadmin/x", Some(&*alice), 403),
        ("GET", "/public/%2e%2e/admin/x", Some(&*alice), 403),
    ] {
        // None of them can ask about another request than it has.
        for more in [
            "",
            "X-Forwarded-Uri: /public/x\r\nX-Forwarded-Method: GET\r\nX-Original-URL: http://a/public/x\r\n",
        ] {
            let found = ask(method, target, token, more).status;
            // Some refuse by themselves what cannot be read.
            let refuses_itself = target.contains("%2") || method == "delete";
            assert!(found == status || (refuses_itself && found == 400), "{method} {target}: {found}");
        }
    }
    assert_eq!(application.seen().len(), count, "none of them was forwarded");
    // Another method in a header is decided, or taken out.
    for name in ["X-HTTP-Method-Override", "X_HTTP_Method_Override", "X-HTTP_Method"] {
        for more in [format!("{name}: DELETE\r\n"), format!("{name}: GET\r\n{name}: DELETE\r\n")] {
            if ask("POST", "/api/x", Some(&alice), &format!("{more}Content-Length: 0\r\n")).status == 200 {
                let folded = |name: &str| name.to_lowercase().replace(['_', '.'], "-");
                let seen = application.last();
                assert!(seen.headers.iter().all(|(own, _)| folded(own) != folded(name)), "{seen:?}");
            }
        }
    }
    // A browser's cookie is as good where the request is of the site itself, and is not the application's.
    let browser = Browser::register(&gateway, "bob");
    let own = format!("__Host-authgate={}", browser.session().unwrap());
    let with_cookies = |method: &str, more: &str| {
        let mut client = Client::connect(proxy.address);
        let cookies = format!("theirs=1; {own}; __Host-authgate-device=x; more=2");
        client.send(format!(
            "{method} /api/x HTTP/1.1\r\nHost: app.example.com\r\nCookie: {cookies}\r\nContent-Length: 0\r\n{more}\r\n"
        ));
        client.response().status
    };
    for (method, more, status) in [
        ("GET", "", 200),
        ("POST", "Sec-Fetch-Site: same-origin\r\n", 200),
        ("POST", "Sec-Fetch-Site: cross-site\r\n", 403),
        ("POST", "", 403),
    ] {
        let count = application.seen().len();
        assert_eq!(with_cookies(method, more), status, "{method} {more}");
        assert_eq!(application.seen().len(), count + usize::from(status == 200), "{method} {more}");
    }
    let seen = application.last();
    assert_eq!((seen.header("cookie"), seen.header("x-user-name")), (Some("theirs=1; more=2"), Some("bob")));
    // The calls go through, and a logout counts at once.
    assert_eq!(ask("POST", "/auth/logout", Some(&alice), "Content-Length: 0\r\n").status, 200);
    assert_eq!(ask("GET", "/api/x", Some(&alice), "").status, 401);
}

fn nginx(gateway: &Gateway, application: &Upstream) -> Proxy {
    let finish = |text: String, address: SocketAddr, root: &Path| {
        let (root, text) = (root.display(), text.replace("listen 8000", &format!("listen {address}")));
        format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\nevents {{}}\nhttp {{ access_log off;\nclient_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n{text}\n}}\n"
        )
    };
    Proxy::start("nginx.conf", gateway, application, finish, |file, root| {
        let mut command = program("nginx");
        command.arg("-c").arg(file).arg("-p").arg(root).arg("-e").arg(root.join("error.log"));
        command
    })
}

fn caddy(gateway: &Gateway, application: &Upstream) -> Proxy {
    Proxy::start(
        "Caddyfile",
        gateway,
        application,
        |text, _, _| text,
        |file, root| {
            let mut command = program("caddy");
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file).env("HOME", root);
            command
        },
    )
}

fn haproxy(gateway: &Gateway, application: &Upstream) -> Proxy {
    Proxy::start(
        "haproxy.cfg",
        gateway,
        application,
        |text, _, _| text,
        |file, _| {
            let mut command = program("haproxy");
            command.arg("-db").arg("-f").arg(file);
            command
        },
    )
}

#[test]
fn nginx_asks_as_its_config_says() {
    behind("x-original", nginx);
}

#[test]
fn caddy_asks_as_its_config_says() {
    behind("x-forwarded", caddy);
}

#[test]
fn haproxy_asks_as_its_config_says() {
    behind("x-forwarded", haproxy);
}

/// Each proxy with a gateway that has pages, as people with browsers meet them.
fn with_browsers(
    more: &str,
    respond: impl Fn(&Seen) -> Vec<u8> + Send + Sync + Clone + 'static,
    meet: impl Fn(&str, &Gateway, &Upstream, SocketAddr),
) {
    type Start = fn(&Gateway, &Upstream) -> Proxy;
    let proxies: [(&str, &str, Start); 3] = [
        ("nginx", "x-original", nginx),
        ("caddy", "x-forwarded", caddy),
        ("haproxy", "x-forwarded", haproxy),
    ];
    for (name, headers, start) in proxies {
        let extra = format!(
            "trusted_proxies: [127.0.0.1/32]\nforward_auth: {{headers: {headers}, login_redirect: true}}\n"
        );
        let settings = Settings::routes(ROUTES).extra(&extra).extra(&with_pages(more));
        let application = Upstream::answering(respond.clone());
        let gateway = Gateway::start(&Upstream::start(), settings);
        let proxy = start(&gateway, &application);
        meet(name, &gateway, &application, proxy.address);
    }
}

fn browse(proxy: SocketAddr, path: &str, cookies: &str) -> Response {
    let mut client = Client::connect(proxy);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: app.example.com\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nAccept: text/html\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n"));
    client.response()
}

#[test]
fn however_many_cookies_of_ours_there_are_no_application_gets_one() {
    with_browsers(
        "",
        |seen| ok(&seen.target),
        |name, gateway, application, proxy| {
            let browser = Browser::register(gateway, "alice");
            let own = browser.session().unwrap();
            let others: Vec<String> =
                (0..20).map(|number| format!("__Secure-authgate-ticket-{number}=x")).collect();
            for few in [0, 1, 4, 20] {
                let cookies =
                    format!("first=1; __Host-authgate={own}; {}; last=\"2\"", others[..few].join("; "));
                assert_eq!(browse(proxy, "/api/x", &cookies).status, 200, "{name}");
                let seen = application.last();
                assert_eq!(seen.header("x-user-name"), Some("alice"), "{name}");
                let left = seen.header("cookie").unwrap_or_default();
                assert!(!left.contains("authgate"), "{name}: {left}");
                // nginx takes out a few, and all where there are more.
                assert!((name == "nginx" && few > 4) || left.contains("first=1"), "{name}: {left}");
            }
        },
    );
}

#[test]
fn a_cookie_that_is_signed_anew_reaches_the_browser_and_no_cache() {
    let respond = |seen: &Seen| {
        let cache =
            if seen.target.ends_with("/cached") { "Cache-Control: public, max-age=60\r\n" } else { "" };
        format!("HTTP/1.1 200 OK\r\n{cache}Content-Length: 0\r\n\r\n").into_bytes()
    };
    with_browsers("cookies: {idle: 4s}\n", respond, |name, gateway, _, proxy| {
        if name == "caddy" {
            return;
        }
        let browser = Browser::register(gateway, "alice");
        let cookies = format!("__Host-authgate={}", browser.session().unwrap());
        let renewed = |path: &str| {
            let response = browse(proxy, path, &cookies);
            assert_eq!(response.status, 200, "{name}: {response:?}");
            let cookie = response.header("set-cookie").map(str::to_owned);
            let is_private = |(name, value): &(String, String)| {
                name.eq_ignore_ascii_case("cache-control") && value == "private"
            };
            assert_eq!(response.headers.iter().any(is_private), cookie.is_some(), "{name}: {response:?}");
            cookie
        };
        assert_eq!(renewed("/api/x"), None, "{name}");
        let cookie = eventually("half of its life is over", || renewed("/api/x"));
        assert!(cookie.starts_with("__Host-authgate="), "{name}: {cookie}");
        assert_eq!(renewed("/api/cached"), None, "{name}");
    });
}

#[test]
fn whoever_is_not_signed_in_is_led_to_that_or_told() {
    with_browsers(
        "",
        |seen| ok(&seen.target),
        |name, _, application, proxy| {
            let response = browse(proxy, "/api/x?y=1", "a=b");
            // nginx takes nothing else.
            if name == "nginx" {
                assert!([401, 500].contains(&response.status), "{name}: {response:?}");
            } else {
                assert_eq!(response.status, 303, "{name}: {response:?}");
                let location = response.header("location").unwrap();
                assert!(
                    location.starts_with("https://app.example.com/auth/ui/login?return_to="),
                    "{name}: {location}"
                );
            }
            assert!(application.seen().is_empty());
        },
    );
}

fn envoy(file: &'static str, asked: u16) -> impl Fn(&Gateway, &Upstream) -> Proxy {
    move |gateway, application| {
        let finish = |text: String, address: SocketAddr, _: &Path| {
            text.replace("port_value: 8000", &format!("port_value: {}", address.port()))
                .replace("port_value: 8080", &format!("port_value: {}", gateway.address.port()))
                .replace("port_value: 8081", &format!("port_value: {asked}"))
                .replace("port_value: 9000", &format!("port_value: {}", application.address.port()))
        };
        Proxy::start(file, gateway, application, finish, |file, _| {
            let mut command = peer("venv/bin/envoy");
            command.args(["--concurrency", "1", "--use-dynamic-base-id", "-c"]).arg(file);
            command
        })
    }
}

#[test]
fn envoy_asks_as_its_config_says() {
    let port = port_to_keep();
    // Spoken to as whoever asks at the usual listener is not trusted: only that for Envoy is.
    decides_for(for_envoy(port, Settings::routes(ROUTES)), envoy("envoy.yaml", port));
}

#[test]
fn envoy_asks_over_http_as_its_config_says() {
    behind("x-forwarded", envoy("envoy-http.yaml", 0));
}

/// A second listener, for Envoy.
fn for_envoy(port: u16, settings: Settings) -> Settings {
    let listener = format!("}}\n  - {{address: \"127.0.0.1:{port}\", ext_authz: true");
    Settings { listener, ..settings }
}

/// Asks as Envoy does.
struct Envoy(PythonProcess);

impl Envoy {
    fn start(port: u16) -> Self {
        Self(PythonProcess::start("ext_authz.py", &[&format!("127.0.0.1:{port}")]))
    }

    fn ask(&mut self, question: &Value) -> Value {
        self.0.forget();
        writeln!(self.0.stdin, "{question}").unwrap();
        let line = eventually("it is answered", || self.0.lines().first().cloned());
        serde_json::from_str(&line).unwrap()
    }
}

fn question(method: &str, path: &str, headers: &Value) -> Value {
    json!({"method": method, "path": path, "host": "shop.example", "scheme": "https", "headers": headers})
}

#[test]
fn envoy_is_told_whose_a_cookie_is_and_passes_none_of_ours_on() {
    let port = port_to_keep();
    let upstream = Upstream::start();
    let settings = Settings::routes(ROUTES).extra("public_url: https://shop.example\npages: {name: Shop}\n");
    let gateway = Gateway::start(&upstream, for_envoy(port, settings));
    let mut envoy = Envoy::start(port);
    let browser = Browser::register(&gateway, "alice");
    let own = format!("__Host-authgate={}", browser.session().unwrap());
    let beside = json!({"cookie": format!("theirs=1; {own}; __Secure-authgate-device=x; more=2")});
    let allowed = envoy.ask(&question("GET", "/api/x", &beside));
    assert_eq!((&allowed["code"], &allowed["set"]["x-user-name"]), (&json!(0), &json!("alice")), "{allowed}");
    assert_eq!(allowed["set"]["cookie"], "theirs=1; more=2");
    let alone = envoy.ask(&question("GET", "/api/x", &json!({"cookie": own})));
    assert_eq!((&alone["code"], &alone["removed"]), (&json!(0), &json!(["cookie"])), "{alone}");
    let cross = json!({"cookie": own, "sec-fetch-site": "cross-site"});
    assert_eq!(envoy.ask(&question("POST", "/api/x", &cross))["status"], 403);
    let ours = json!({"cookie": own, "sec-fetch-site": "same-origin"});
    assert_eq!(envoy.ask(&question("POST", "/api/x", &ours))["code"], 0);
}

#[test]
fn envoy_gets_the_cookie_that_is_signed_anew_by_what_is_known_of_its_session() {
    let (port, folder) = (port_to_keep(), Arc::new(tempfile::tempdir().unwrap()));
    let (time, upstream) = (Faketime::new(folder.path()), Upstream::start());
    let claims = "claims: {mail: {from: email, token: email}}\n";
    let pages = "public_url: https://shop.example\npages: {name: Shop}\ncookies: {idle: 1h, ttl: 1d}\n";
    let mut settings = for_envoy(port, Settings::routes(ROUTES).extra(&format!("{pages}{claims}")));
    settings.env.extend(time.env());
    let gateway = Gateway::start_in(folder, upstream.address, settings);
    let mut envoy = Envoy::start(port);
    let browser = Browser::register(&gateway, "alice");
    let own = json!({"cookie": format!("__Host-authgate={}", browser.session().unwrap())});
    assert_eq!(envoy.ask(&question("GET", "/api/x", &own))["response"], json!({}));
    time.set("+35m");
    eventually("it is ready", || (gateway.admin_get("/readyz").status == 200).then_some(()));
    let allowed = envoy.ask(&question("GET", "/api/x", &own));
    let set = allowed["response"]["set-cookie"].as_str().unwrap_or_else(|| panic!("{allowed}"));
    assert!(set.starts_with("__Host-authgate="), "{set}");
}

#[test]
fn envoys_questions_are_answered_by_the_routes() {
    let port = port_to_keep();
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, for_envoy(port, Settings::routes(ROUTES)));
    let mut envoy = Envoy::start(port);
    let alice = gateway.token("alice");
    let bearer = format!("Bearer {alice}");
    let me = gateway.get("/auth/me", Some(&alice)).json();

    let spoofed = json!({
        "authorization": bearer, "accept": "*/*", "x-user-roles": "admin", "x_user_id": "1", "remote-user": "root",
        "x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https", "x-request-id": "1", "x-envoy-attempt-count": "1",
        "x-forwarded-user": "root", "forwarded": "for=1", "te": "trailers",
    });
    let allowed = envoy.ask(&question("GET", "/api/x?q=1", &spoofed));
    assert_eq!(allowed["code"], 0, "{allowed}");
    assert_eq!(
        allowed["set"],
        json!({"x-user-id": me["user_id"], "x-user-name": "alice", "x-user-roles": "user"})
    );
    // Envoy removes after it has set.
    assert_eq!(
        allowed["removed"],
        json!(["authorization", "forwarded", "remote-user", "x-forwarded-user", "x_user_id"])
    );
    let anonymous = envoy.ask(&question("GET", "/optional/x", &json!({"x-user-id": "1"})));
    assert_eq!(anonymous["set"], json!({}));
    assert_eq!(anonymous["removed"], json!(["x-user-id", "x-user-name", "x-user-roles"]));

    for (method, path, headers, status) in [
        ("GET", "/api/x", json!({}), 401),
        ("GET", "/api/x", json!({"authorization": "Bearer no.such.token"}), 401),
        ("GET", "/api/x", json!({"authorization": format!("{bearer},{bearer}")}), 401),
        ("DELETE", "/api/x", json!({"authorization": bearer}), 403),
        ("GET", "/admin/x", json!({"authorization": bearer}), 403),
        ("GET", "/nowhere", json!({"authorization": bearer}), 403),
        ("GET", "/auth/me", json!({"authorization": bearer}), 403),
        ("GET", "/public/../admin/x", json!({"authorization": bearer}), 403),
        ("GET", "/public/%2e%2e/admin/x", json!({"authorization": bearer}), 403),
        ("GET", "/public/x#y", json!({}), 403),
        ("GET", "public/x", json!({}), 403),
        ("GET", "", json!({}), 403),
        ("get", "/public/x", json!({}), 403),
        ("CONNECT", "/public/x", json!({}), 403),
        ("POST", "/api/x", json!({"authorization": bearer, "x-http-method-override": "DELETE"}), 403),
        ("POST", "/api/x", json!({"authorization": bearer, "x_http_method_override": "POST"}), 403),
    ] {
        let denied = envoy.ask(&question(method, path, &headers));
        assert_eq!(
            (&denied["code"], &denied["status"]),
            (&7.into(), &status.into()),
            "{method} {path}: {denied}"
        );
        let body: Value = serde_json::from_str(denied["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["status"], status);
        assert_eq!(denied["headers"]["www-authenticate"].is_string(), status == 401, "{denied}");
    }
    // Told line by line, a second credential is seen as one.
    let mut raw = question("GET", "/api/x", &json!({}));
    raw["raw"] = json!([[":path", "/api/x"], ["authorization", bearer]]);
    assert_eq!(envoy.ask(&raw)["code"], 0);
    raw["raw"] = json!([["authorization", bearer], ["authorization", bearer]]);
    assert_eq!(envoy.ask(&raw)["status"], 401);
    // The client's address is the one that Envoy knows.
    let few = |client: &str| {
        let mut few = question("GET", "/few", &json!({}));
        few["client"] = client.into();
        few
    };
    let first = envoy.ask(&few("192.0.2.1"));
    assert_eq!((&first["code"], first["response"]["ratelimit"].is_string()), (&0.into(), true), "{first}");
    let second = envoy.ask(&few("192.0.2.1"));
    assert_eq!((&second["status"], second["headers"]["retry-after"].is_string()), (&429.into(), true));
    assert_eq!(envoy.ask(&few("192.0.2.2"))["code"], 0);
    // A logout is one here, too.
    assert_eq!(gateway.logout(&alice).status, 200);
    assert_eq!(envoy.ask(&question("GET", "/api/x", &json!({"authorization": bearer})))["status"], 401);
    assert!(upstream.seen().is_empty(), "nothing is forwarded");
    assert_eq!(gateway.metric("authgate_denied_total{reason=\"revoked\"}"), Some(1.0));
}

#[test]
fn a_token_whose_issuer_has_to_be_asked_is_decided_for_envoy_too() {
    let issuer = Issuer::start(&[]);
    let port = port_to_keep();
    let url = &issuer.url;
    let issuers = format!(
        "issuers:\n  - {{name: corp, issuer: \"{url}\", audiences: [orders], introspection: {{url: \"{url}/introspect\", client_id: g, client_secret: s}}}}\n"
    );
    let settings = for_envoy(port, Settings::routes(ROUTES)).extra(&issuers);
    let _gateway = Gateway::start(&Upstream::start(), settings);
    let mut envoy = Envoy::start(port);
    let mut said = issuer.claims("anna");
    said["active"] = json!(true);
    issuer.say(said);
    let allowed = envoy.ask(&question("GET", "/api/x", &json!({"authorization": "Bearer opaque-1"})));
    assert_eq!(allowed["set"]["x-user-id"], "corp:anna", "{allowed}");
    issuer.say(json!({"active": false}));
    let denied = envoy.ask(&question("GET", "/api/x", &json!({"authorization": "Bearer opaque-2"})));
    assert_eq!(denied["status"], 401, "{denied}");
}

#[test]
fn a_listener_for_envoy_serves_nothing_else() {
    let port = port_to_keep();
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, for_envoy(port, Settings::routes(ROUTES)));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for path in ["/public/x", "/auth/login", "/auth/verify", "/envoy.service.auth.v3.Authorization/Check"] {
        let mut client = Client::connect(address);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response().status, 404, "{path}");
    }
    let call = "import sys, grpc\n\
        def code(path, message):\n    \
            call = grpc.insecure_channel(sys.argv[1]).unary_unary(path)\n    \
            try:\n        call(message, timeout=5)\n    \
            except grpc.RpcError as error:\n        return error.code().name\n    \
            return 'OK'\n\
        check = '/envoy.service.auth.v3.Authorization/Check'\n\
        print(code('/api.Calls/Unary', b''), code(check, b''), code(check, b'\\xff' * 9), code(check, b'\\x0a\\x00'), code(check, bytes(5 << 20)))";
    // What is a message and asks about nothing is denied in so many words.
    assert_eq!(
        python(call, &[&address.to_string()]),
        "UNIMPLEMENTED OK INVALID_ARGUMENT OK RESOURCE_EXHAUSTED"
    );
    assert_eq!(gateway.metric("authgate_denied_total{reason=\"insufficient_role\"}").unwrap_or(0.0), 2.0);
    // And Envoy's questions are nothing elsewhere.
    let usual = python(&call.replace("api.Calls/Unary", "public/x"), &[&gateway.address.to_string()]);
    assert!(!usual.contains("OK"), "{usual}");
    assert!(upstream.seen().is_empty());
    let folder = tempfile::tempdir().unwrap();
    for more in ["redirect: https", "http2: false"] {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:0\", ext_authz: true, {more}}}]\nauth: {{issuer: a, audience: b}}\n"
        );
        let errors = crate::harness::errors_of(folder.path(), &text);
        assert!(errors.contains("gateway.yaml:1: listeners[0].ext_authz"), "{errors}");
    }
}

#[test]
fn how_proxies_tell_is_one_of_two() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let errors = crate::harness::errors_of(
        folder.path(),
        "listeners: [{address: \"127.0.0.1:0\"}]\nauth: {issuer: a, audience: b}\nforward_auth: {headers: x-other}\nroutes: [{path: /x, respond: {json: {}}}]\n",
    );
    assert!(
        errors.contains("gateway.yaml:3: forward_auth.headers: expected x-forwarded or x-original"),
        "{errors}"
    );
}
