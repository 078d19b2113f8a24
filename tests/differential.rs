//! Generated requests, compared with a plain model of the policy: what is decided, and what reaches the upstream, by HTTP/1.1, by
//! HTTP/2, and at `/auth/verify`.
//!
//! The model has a list of routes and no parser: a request is generated from its meaning (a host, segments, a method, a caller), and then
//! spelled in one of many ways of which it is known what becomes of them.
//!
//! `AUTHGATE_DIFFERENTIAL_SEED` and `AUTHGATE_DIFFERENTIAL_REQUESTS` repeat a run or make a longer one.

use std::{collections::HashSet, fmt::Write};

use crate::harness::{Client, Dice, Gateway, Protocol, Seen, Settings, Upstream};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Open,
    Optional,
    SignedIn,
    Any(&'static [&'static str]),
    All(&'static [&'static str]),
}

struct Route {
    host: Option<&'static str>,
    path: &'static str,
    methods: &'static [&'static str],
    access: Access,
}

const fn route(
    host: Option<&'static str>,
    path: &'static str,
    methods: &'static [&'static str],
    access: Access,
) -> Route {
    Route { host, path, methods, access }
}

const ALL: &[&str] = &[];

/// The policy. Routes overlap in hosts, paths and methods, and what overlaps differs in who may use it.
const ROUTES: &[Route] = &[
    route(None, "/**", &["GET"], Access::SignedIn),
    route(None, "/public/**", ALL, Access::Open),
    route(None, "/public/admin/**", ALL, Access::Any(&["admin"])),
    route(None, "/public/{x}/secret", ALL, Access::Any(&["staff", "admin"])),
    route(None, "/a", &["GET", "POST"], Access::Optional),
    route(None, "/a/{x}", &["GET"], Access::Open),
    route(None, "/a/{x}", &["DELETE", "PUT"], Access::All(&["staff", "user"])),
    route(None, "/a/{x}/**", ALL, Access::SignedIn),
    route(None, "/a/b", &["POST"], Access::Any(&["admin"])),
    route(None, "/a@b/**", ALL, Access::Open),
    route(Some("a.example"), "/**", ALL, Access::Any(&["staff"])),
    route(Some("a.example"), "/public/**", &["GET"], Access::Optional),
    route(Some("*.example"), "/public/**", ALL, Access::SignedIn),
    route(Some("*.b.example"), "/public/**", &["POST"], Access::Open),
    route(Some("x.b.example"), "/a/**", ALL, Access::Any(&["admin"])),
];

const HOSTS: &[&str] = &["a.example", "b.example", "x.b.example", "y.x.b.example", "other.test", "localhost"];
const SEGMENTS: &[&str] = &["a", "b", "public", "admin", "secret", "a@b", "x-1", "A"];
const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "PATCH", "QUERY"];

/// Who asks: the name of a caller, the roles, and the token.
struct Caller {
    name: Option<&'static str>,
    roles: &'static [&'static str],
    token: Option<String>,
}

/// How a path that has one reading is spelled; and whether it still has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Plain,
    /// A character that may be encoded or not.
    Encoded,
    Query,
    Dots,
    DotsBack,
    EncodedDots,
    Doubled,
    EncodedSlash,
    Parameter,
    Backslash,
    NeedlesslyEncoded,
    DoublyEncoded,
    Null,
}

/// Spellings that a backend could read as another path.
const AMBIGUOUS: &[Spelling] = &[
    Spelling::Dots,
    Spelling::DotsBack,
    Spelling::EncodedDots,
    Spelling::Doubled,
    Spelling::EncodedSlash,
    Spelling::Parameter,
    Spelling::Backslash,
    Spelling::NeedlesslyEncoded,
    Spelling::DoublyEncoded,
    Spelling::Null,
];

struct Asked {
    host: &'static str,
    spelled_host: String,
    method: &'static str,
    segments: Vec<&'static str>,
    slash: bool,
    spelling: Spelling,
    target: String,
    caller: usize,
}

/// What must become of a request.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Verdict {
    /// With the caller's identity, or without.
    Forwarded(bool),
    Refused(u16),
}

impl Asked {
    fn generate(dice: &mut Dice, callers: usize) -> Self {
        let host = *dice.one(HOSTS);
        let spelled_host = match dice.below(4) {
            0 => host.to_ascii_uppercase(),
            1 => format!("{host}:8443"),
            _ => host.to_owned(),
        };
        let segments: Vec<&str> = (0..dice.below(4)).map(|_| *dice.one(SEGMENTS)).collect();
        let slash = segments.is_empty() || dice.below(5) == 0;
        let mut path: String = segments.iter().fold(String::new(), |path, segment| path + "/" + segment);
        if slash {
            path.push('/');
        }
        // A third has no single reading: what is refused for its spelling alone shows nothing of routes and roles.
        let spelling = match dice.below(9) {
            0..=3 => Spelling::Plain,
            4 => Spelling::Encoded,
            5 => Spelling::Query,
            _ => *dice.one(AMBIGUOUS),
        };
        let target = match spelling {
            Spelling::Plain => path,
            Spelling::Encoded => path.replace('@', "%40"),
            Spelling::Query => path + "?x=/../admin&y=%2e%2e;z",
            Spelling::Dots => format!("{path}/./b").replace("//", "/"),
            Spelling::DotsBack => format!("/public/..{path}"),
            Spelling::EncodedDots => format!("/public/%2e%2E{path}"),
            Spelling::Doubled => format!("/{path}"),
            Spelling::EncodedSlash => format!("{path}b%2Fadmin"),
            Spelling::Parameter => format!("{path};v=1"),
            Spelling::Backslash => format!("{path}\\admin"),
            Spelling::NeedlesslyEncoded => format!("{path}%61"),
            Spelling::DoublyEncoded => format!("{path}%2561"),
            Spelling::Null => format!("{path}%00"),
        };
        Self {
            host,
            spelled_host,
            method: dice.one::<&str>(METHODS),
            segments,
            slash,
            spelling,
            target,
            caller: dice.below(callers),
        }
    }

    fn has_one_reading(&self) -> bool {
        matches!(self.spelling, Spelling::Plain | Spelling::Encoded | Spelling::Query)
    }

    /// Whether the library of the tests can write the target in HTTP/2.
    fn is_sent_by_http2(&self) -> bool {
        !self.target.starts_with("//") && !self.target.contains('\\')
    }

    /// The text of the request, in HTTP/1.1.
    fn head(&self, callers: &[Caller], number: usize) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.spelled_host);
        let _ = write!(head, "X-Number: {number}\r\n{SPOOFED}");
        if let Some(token) = &callers[self.caller].token {
            let _ = write!(head, "Authorization: Bearer {token}\r\n");
        }
        head + "\r\n"
    }
}

/// What a client says of itself.
const SPOOFED: &str = "X-User-Id: 1\r\nX-User-Name: root\r\nX-User-Roles: admin\r\nX_User_Roles: admin\r\nRemote-User: root\r\n";

/// How well a pattern takes a path: nothing if it does not, else the greater the better.
fn rank(pattern: &str, segments: &[&str], slash: bool) -> Option<Vec<u8>> {
    let (fixed, below) = match pattern.strip_suffix("/**") {
        Some(fixed) => (fixed, true),
        None => (pattern, false),
    };
    let wanted: Vec<&str> = fixed.split('/').skip(1).collect();
    let mut rank = Vec::new();
    for (index, wanted) in wanted.iter().enumerate() {
        match segments.get(index) {
            Some(_) if wanted.starts_with('{') => rank.push(1),
            Some(segment) if segment == wanted => rank.push(2),
            _ => return None,
        }
    }
    if below {
        rank.push(0);
        return Some(rank);
    }
    rank.push(9);
    (segments.len() == wanted.len() && !slash).then_some(rank)
}

/// How well a host is named: nothing if it is not.
fn host_rank(pattern: Option<&str>, host: &str) -> Option<usize> {
    match pattern {
        None => Some(0),
        Some(exact) if exact == host => Some(1_000),
        Some(pattern) => {
            let rest = pattern.strip_prefix('*')?;
            host.ends_with(rest).then_some(rest.len())
        }
    }
}

fn verdict(asked: &Asked, callers: &[Caller]) -> Verdict {
    if !asked.has_one_reading() {
        return Verdict::Refused(400);
    }
    let taking: Vec<(usize, Vec<u8>, &Route)> = ROUTES
        .iter()
        .filter_map(|route| {
            let host = host_rank(route.host, asked.host)?;
            Some((host, rank(route.path, &asked.segments, asked.slash)?, route))
        })
        .collect();
    let by_method = taking
        .iter()
        .filter(|(.., route)| route.methods.is_empty() || route.methods.contains(&asked.method))
        .max_by_key(|(host, path, _)| (*host, path.clone()));
    let Some((.., route)) = by_method else {
        return Verdict::Refused(if taking.is_empty() { 404 } else { 405 });
    };
    let caller = &callers[asked.caller];
    let has = |role: &&str| caller.roles.contains(role);
    let is_known = caller.name.is_some();
    match route.access {
        Access::Open => Verdict::Forwarded(false),
        // A token that does not hold is told, where one is looked at.
        Access::Optional if caller.token.is_some() && !is_known => Verdict::Refused(401),
        Access::Optional => Verdict::Forwarded(is_known),
        _ if !is_known => Verdict::Refused(401),
        Access::SignedIn => Verdict::Forwarded(true),
        Access::Any(roles) if roles.iter().any(has) => Verdict::Forwarded(true),
        Access::All(roles) if roles.iter().all(has) => Verdict::Forwarded(true),
        Access::Any(_) | Access::All(_) => Verdict::Refused(403),
    }
}

fn config() -> String {
    let mut lines = String::new();
    for Route { host, path, methods, access } in ROUTES {
        let host = host.map(|host| format!("host: \"{host}\", ")).unwrap_or_default();
        let methods = match methods {
            [] => String::new(),
            methods => format!("methods: [{}], ", methods.join(", ")),
        };
        let access = match access {
            Access::Open => "auth: none, ".to_owned(),
            Access::Optional => "auth: optional, ".to_owned(),
            Access::SignedIn => String::new(),
            Access::Any(roles) => format!("roles: {{any: [{}]}}, ", roles.join(", ")),
            Access::All(roles) => format!("roles: {{all: [{}]}}, ", roles.join(", ")),
        };
        let _ = writeln!(lines, "  - {{{host}path: \"{path}\", {methods}{access}upstream: backend}}");
    }
    lines
}

/// Requires that the headers of a request or response tell of a caller, or, where they do not, of none.
#[track_caller]
fn tell_of<'a>(header: impl Fn(&str) -> Option<&'a str>, caller: Option<&Caller>) {
    let list = |name| header(name).unwrap_or_default();
    assert_eq!(list("x-user-name"), caller.and_then(|caller| caller.name).unwrap_or_default());
    let found: HashSet<&str> = list("x-user-roles").split(',').filter(|role| !role.is_empty()).collect();
    let expected = caller.map_or(&[][..], |caller| caller.roles);
    assert_eq!(found, expected.iter().copied().collect());
    assert_eq!(list("x-user-id").is_empty(), caller.is_none(), "{:?}", header("x-user-id"));
}

/// Requires that the upstream has seen a request as the model says it must.
#[track_caller]
fn is_as_asked(seen: &Seen, asked: &Asked, caller: &Caller, tells: bool) {
    assert_eq!((seen.method.as_str(), seen.target.as_str()), (asked.method, asked.target.as_str()));
    assert_eq!(seen.header("host"), Some(asked.spelled_host.as_str()));
    assert_eq!((seen.header("authorization"), seen.header("x_user_roles")), (None, None));
    assert_eq!(seen.header("remote-user"), None);
    assert!(tells || seen.header("x-user-name").is_none(), "{seen:?}");
    tell_of(|name| seen.header(name), tells.then_some(caller));
}

#[test]
#[ignore = "slow"]
fn what_is_decided_and_what_is_forwarded_is_what_a_plain_model_says() {
    let number = |name: &str, default| std::env::var(name).ok().map_or(default, |text| text.parse().unwrap());
    let seed = number("AUTHGATE_DIFFERENTIAL_SEED", u64::from(std::process::id()));
    let count = number("AUTHGATE_DIFFERENTIAL_REQUESTS", 1_500);
    eprintln!("AUTHGATE_DIFFERENTIAL_SEED={seed}");

    let upstream = Upstream::start();
    let settings = Settings {
        listener: ", http2: true".to_owned(),
        protocol: Protocol::Http1,
        ..Settings::routes(&config()).extra("trusted_proxies: [127.0.0.1]\n")
    };
    let gateway = Gateway::start(&upstream, settings);
    let with_role = |name: &str, roles: &[&str]| {
        let roles: Vec<&str> = roles.iter().flat_map(|role| ["--role", role]).collect();
        let args = [&["user", "add", name, "--password-stdin"], &roles[..]].concat();
        gateway.run(&args, crate::harness::PASSWORD);
        gateway.login(name)["access_token"].as_str().unwrap().to_owned()
    };
    let gone = with_role("gone", &["admin"]);
    assert_eq!(gateway.logout(&gone).status, 200);
    let user = |name, roles: &'static [&'static str]| Caller {
        name: Some(name),
        roles,
        token: Some(with_role(name, roles)),
    };
    let callers = [
        user("alice", &["user"]),
        user("bob", &["staff"]),
        user("carol", &["staff", "user"]),
        user("root", &["admin"]),
        Caller { name: None, roles: &[], token: None },
        Caller { name: None, roles: &[], token: Some("no.such.token".to_owned()) },
        Caller { name: None, roles: &[], token: Some(gone) },
    ];

    let mut dice = Dice::new(seed);
    let mut http1 = gateway.client();
    let mut http2 = Client::connect_http2(gateway.address, None);
    let (mut forwarded, mut statuses) = (0, HashSet::new());
    for number in 0..count as usize {
        let asked = Asked::generate(&mut dice, callers.len());
        let caller = &callers[asked.caller];
        let expected = verdict(&asked, &callers);
        let what = || {
            let (method, host, target) = (asked.method, &asked.spelled_host, &asked.target);
            format!("seed {seed}, request {number}: {method} {host} {target} by {:?}", caller.name)
        };
        let before = upstream.seen().len();
        let mut clients = vec![&mut http1];
        clients.extend(asked.is_sent_by_http2().then_some(&mut http2));
        let sent = clients.len();
        for client in clients {
            let response = client.send(asked.head(&callers, number)).try_response();
            let status = response.unwrap_or_else(|| panic!("{}: no response", what())).status;
            let wanted = if let Verdict::Refused(status) = expected { status } else { 200 };
            assert_eq!(status, wanted, "{}", what());
            statuses.insert(status);
            if status == 400 {
                // The connection ends with it.
                http1_again(&gateway, client);
            }
        }
        let seen = upstream.seen();
        if let Verdict::Forwarded(tells) = expected {
            forwarded += 1;
            assert_eq!(seen.len(), before + sent, "{}", what());
            for seen in &seen[before..] {
                assert_eq!(seen.header("x-number"), Some(number.to_string().as_str()));
                is_as_asked(seen, &asked, caller, tells);
            }
        } else {
            assert_eq!(seen.len(), before, "{}: it was forwarded", what());
        }
        // Whoever asks on behalf of another is told the same, by the statuses that proxies know.
        let bearer = caller.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let response = http1
            .send(format!(
                "GET /auth/verify HTTP/1.1\r\nHost: gateway\r\nX-Forwarded-Method: {}\r\nX-Forwarded-Proto: http\r\n\
                 X-Forwarded-Host: {}\r\nX-Forwarded-Uri: {}\r\n{}\r\n",
                asked.method,
                asked.spelled_host,
                asked.target,
                bearer.unwrap_or_default()
            ))
            .response();
        let wanted = match expected {
            Verdict::Forwarded(_) => 200,
            Verdict::Refused(401) => 401,
            Verdict::Refused(_) => 403,
        };
        assert_eq!(response.status, wanted, "at /auth/verify: {}", what());
        let told = if expected == Verdict::Forwarded(true) { Some(caller) } else { None };
        tell_of(|name| response.header(name), told);
    }
    assert!(forwarded > count as usize / 10, "{forwarded} of {count}: too few to tell anything");
    assert_eq!(statuses, [200, 400, 401, 403, 405].into_iter().collect());
}

/// Connects anew where a connection of HTTP/1.1 has ended.
fn http1_again(gateway: &Gateway, client: &mut Client) {
    if !client.is_http2() {
        *client = gateway.client();
    }
}
