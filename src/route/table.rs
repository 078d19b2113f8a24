//! The compiled routes.

use std::{collections::HashMap, ops::ControlFlow};

use http::Method;

use super::{
    compiled::{Builtin, Route, takes},
    conflict,
    trie::Node,
};
use crate::config::{self, ConfigErrors, Encoded, Pattern};

/// What the paths of our calls begin with that are not below the mount (RFC 8615).
const WELL_KNOWN: &str = "/.well-known/";

/// The `Allow` of a route without `methods`.
const ORDINARY: &[Method] =
    &[Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// The result of a lookup.
#[derive(Debug)]
pub enum Match<'a> {
    /// A call of the gateway's own.
    Builtin,
    /// A route.
    Route(&'a Route),
    /// The path exists, with these methods only: the value of `Allow`.
    WrongMethod(String),
    /// Nothing.
    None,
}

/// All routes.
#[derive(Debug)]
pub struct Table {
    routes: Vec<Route>,
    builtins: Vec<Builtin>,
    builtin_calls: Node<usize>,
    /// What every builtin call's path begins with.
    mount: String,
    hosts: Hosts,
    /// The routes of `*.` and these names.
    below_hosts: Hosts,
    every_host: Node<usize>,
}

type Hosts = HashMap<String, Node<usize>, foldhash::fast::RandomState>;

impl Table {
    /// Compiles the routes of a config, beside the calls below `mount` that the gateway answers itself.
    ///
    /// # Errors
    /// Every pair of routes that could both win, every route that cannot be reached, and every
    /// route in the place of an builtin call.
    pub fn compile(
        routes: &[config::Route],
        mount: &str,
        builtins: Vec<Builtin>,
    ) -> Result<Self, ConfigErrors> {
        let routes: Vec<Route> = routes
            .iter()
            .zip(0..)
            .map(|(config, index)| {
                let label = match &config.host {
                    Some(host) => format!("{host}{}", config.pattern),
                    None => config.pattern.to_string(),
                };
                Route { config: config.clone(), index, label }
            })
            .collect();
        let mut builtin_calls = Node::default();
        for (index, call) in builtins.iter().enumerate() {
            builtin_calls.insert(&call.pattern, index);
        }
        let (mut hosts, mut below_hosts) = (Hosts::default(), Hosts::default());
        let mut every_host = Node::default();
        for (index, route) in routes.iter().enumerate() {
            let node = match route.config.host.as_deref().map(|host| host.strip_prefix("*.").ok_or(host)) {
                Some(Ok(name)) => below_hosts.entry(name.to_owned()).or_default(),
                Some(Err(host)) => hosts.entry(host.to_owned()).or_default(),
                None => &mut every_host,
            };
            node.insert(&route.config.pattern, index);
        }
        let mut errors = conflict::with_builtin_calls(&routes, &builtins);
        for node in hosts.values().chain(below_hosts.values()).chain([&every_host]) {
            conflict::within(node, &routes, &mut errors);
        }
        if errors.is_empty() {
            Ok(Self {
                routes,
                builtins,
                builtin_calls,
                mount: mount.to_owned(),
                hosts,
                below_hosts,
                every_host,
            })
        } else {
            errors.sort_by_key(|error| error.line);
            Err(ConfigErrors(errors))
        }
    }

    /// What every builtin call's path begins with.
    pub fn mount(&self) -> &str {
        &self.mount
    }

    /// Finds what takes a request. `host` is in lower case and without a port; `path` is decoded.
    pub fn find(&self, host: Option<&str>, method: &Method, path: &str) -> Match<'_> {
        let mut met: Vec<&Method> = Vec::new();
        let is_own = path.starts_with(self.mount.as_str()) || path.starts_with(WELL_KNOWN);
        let below = if is_own { path } else { "" };
        let mut at: Option<&Pattern> = None;
        let own = self.builtin_calls.walk(below, &mut |index| {
            let Builtin { method: call, pattern } = &self.builtins[index];
            // A path with a name of its own is no parameter of another.
            if *at.get_or_insert(pattern) != pattern {
                return ControlFlow::Continue(());
            }
            if takes(Some(std::slice::from_ref(call)), method) {
                return ControlFlow::Break(());
            }
            met.push(call);
            ControlFlow::Continue(())
        });
        if own.is_break() {
            return Match::Builtin;
        }
        let mut visit = |index: usize| {
            let route = &self.routes[index];
            if route.takes(method) {
                return ControlFlow::Break(route);
            }
            met.extend(route.config.methods.as_deref().unwrap_or(ORDINARY));
            ControlFlow::Continue(())
        };
        let exact = host.and_then(|host| self.hosts.get(host));
        for node in exact.into_iter().chain(self.patterns_of(host)).chain([&self.every_host]) {
            if let ControlFlow::Break(route) = node.walk(path, &mut visit) {
                return Match::Route(route);
            }
        }
        if met.is_empty() { Match::None } else { Match::WrongMethod(allow(&met)) }
    }

    /// Finds what takes a request whose path can be read in several ways. None unless all readings belong to one route that
    /// keeps what is encoded.
    pub fn find_kept(&self, host: Option<&str>, method: &Method, readings: &[String]) -> Option<&Route> {
        let mut found = readings.iter().map(|path| match self.find(host, method, path) {
            Match::Route(route) if route.config.encoded == Encoded::Keep => Some(route),
            _ => None,
        });
        let first = found.next()??;
        found.all(|route| route.is_some_and(|route| route.index == first.index)).then_some(first)
    }

    /// Whether any route keeps what is encoded.
    pub fn keeps_encoded(&self) -> bool {
        self.routes.iter().any(|route| route.config.encoded == Encoded::Keep)
    }

    /// The routes of the patterns that cover a host, the longest first. A pattern stands for at least one label more.
    fn patterns_of<'a>(&'a self, host: Option<&'a str>) -> impl Iterator<Item = &'a Node<usize>> {
        let known = host.filter(|_| !self.below_hosts.is_empty());
        let dots =
            known.into_iter().flat_map(|host| host.match_indices('.').map(move |(dot, _)| (host, dot)));
        dots.filter_map(|(host, dot)| self.below_hosts.get(&host[dot + 1..]))
    }

    /// Whether any route names a host.
    pub fn knows_hosts(&self) -> bool {
        !self.hosts.is_empty() || !self.below_hosts.is_empty()
    }

    /// Returns whether a method is a standard one, or one that a route names, in other letters: methods are case-sensitive (RFC 9110,
    /// section 9.1).
    pub fn is_misspelt(&self, method: &str) -> bool {
        const STANDARD: &[&str] =
            &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
        let named = self.routes.iter().flat_map(|route| route.config.methods.iter().flatten());
        let mut known = STANDARD.iter().copied().chain(named.map(Method::as_str));
        known.any(|known| method.eq_ignore_ascii_case(known) && method != known)
    }

    /// The label of a route, by its number.
    pub fn label(&self, index: u32) -> Option<&str> {
        self.routes.get(index as usize).map(|route| route.label.as_str())
    }

    /// The routes in the order of the file.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

/// The value of `Allow` (RFC 9110, section 10.2.1).
fn allow(methods: &[&Method]) -> String {
    let mut names: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn table(routes: &str) -> Result<Table, Vec<String>> {
        let yaml = format!(
            "listeners: [{{address: 127.0.0.1:0}}]\nauth: {{issuer: i, audience: a}}\n\
             upstreams: {{u: {{servers: [{{url: \"http://127.0.0.1:1\"}}]}}}}\nroutes:\n{routes}"
        );
        let loaded = load("t.yaml", &yaml, std::path::Path::new("."), &|_| None, &|_| Vec::new())
            .map_err(|errors| vec![errors.to_string()])?;
        let builtins = [("POST", "/auth/login"), ("DELETE", "/auth/sessions/{id}"), ("GET", "/auth/me")].map(
            |(method, path)| Builtin {
                method: method.parse().unwrap(),
                pattern: Pattern::parse(path).unwrap(),
            },
        );
        Table::compile(&loaded.config.routes, "/auth", builtins.to_vec())
            .map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
    }

    fn route(path: &str, rest: &str) -> String {
        format!("  - {{path: \"{path}\", upstream: u{rest}}}\n")
    }

    fn found(table: &Table, host: Option<&str>, method: &str, path: &str) -> String {
        match table.find(host, &method.parse().unwrap(), path) {
            Match::Builtin => "own".into(),
            Match::Route(route) => route.label.clone(),
            Match::WrongMethod(allow) => format!("405 {allow}"),
            Match::None => "404".into(),
        }
    }

    #[test]
    fn an_exact_host_wins_then_the_longer_pattern_then_any() {
        let hosts = ["a.example.com", "*.b.example.com", "*.example.com", "*.com"];
        let rest = |host: &str| format!(", host: \"{host}\"");
        let yaml: String =
            hosts.iter().map(|host| route("/**", &rest(host))).chain([route("/**", "")]).collect();
        let table = table(&yaml).unwrap();
        for (host, winner) in [
            ("a.example.com", "a.example.com/**"),
            ("x.b.example.com", "*.b.example.com/**"),
            ("x.y.b.example.com", "*.b.example.com/**"),
            ("b.example.com", "*.example.com/**"),
            ("z.a.example.com", "*.example.com/**"),
            ("example.com", "*.com/**"),
            ("com", "/**"),
        ] {
            assert_eq!(found(&table, Some(host), "GET", "/"), winner, "{host}");
        }
    }

    #[test]
    fn the_most_specific_route_wins_whatever_the_order() {
        let paths = ["/**", "/a/**", "/a/{x}", "/a/b", "/a/{x}/c", "/a/b/**", "/a/"];
        for rotation in 0..paths.len() {
            let mut order = paths.to_vec();
            order.rotate_left(rotation);
            let yaml: String = order.iter().map(|path| route(path, "")).collect();
            let table = table(&yaml).unwrap();
            for (path, winner) in [
                ("/", "/**"),
                ("/z", "/**"),
                ("/a", "/a/**"),
                ("/a/", "/a/"),
                ("/a/b", "/a/b"),
                ("/a/b/", "/a/b/**"),
                ("/a/b/c", "/a/b/**"),
                ("/a/x", "/a/{x}"),
                ("/a/x/c", "/a/{x}/c"),
                ("/a/x/", "/a/**"),
                ("/a/x/d", "/a/**"),
                ("/ab", "/**"),
            ] {
                assert_eq!(found(&table, None, "GET", path), winner, "{path} in {order:?}");
            }
        }
    }

    #[test]
    fn a_prefix_covers_whole_segments_only() {
        let table = table(&route("/public/**", "")).unwrap();
        assert_eq!(found(&table, None, "GET", "/publicity"), "404");
        assert_eq!(found(&table, None, "GET", "/public"), "/public/**");
        assert_eq!(found(&table, None, "GET", "/public/"), "/public/**");
    }

    #[test]
    fn hosts_come_before_paths() {
        let yaml = route("/**", ", host: A.example.com") + &route("/a/b", "");
        let table = table(&yaml).unwrap();
        assert_eq!(found(&table, Some("a.example.com"), "GET", "/a/b"), "a.example.com/**");
        assert_eq!(found(&table, Some("b.example.com"), "GET", "/a/b"), "/a/b");
        assert_eq!(found(&table, None, "GET", "/z"), "404");
    }

    #[test]
    fn a_method_that_none_takes_is_told_what_is_allowed() {
        let yaml = route("/a", ", methods: [GET]") + &route("/{x}", ", methods: [POST]");
        let table = table(&yaml).unwrap();
        assert_eq!(found(&table, None, "HEAD", "/a"), "/a");
        assert_eq!(found(&table, None, "POST", "/a"), "/{x}");
        assert_eq!(found(&table, None, "PUT", "/a"), "405 GET, HEAD, POST");
    }

    #[test]
    fn builtin_calls_win_over_prefixes_and_only_with_their_method() {
        let table = table(&(route("/**", "") + &route("/auth/{x}", ", methods: [GET]"))).unwrap();
        assert_eq!(found(&table, None, "POST", "/auth/login"), "own");
        assert_eq!(found(&table, None, "DELETE", "/auth/sessions/1"), "own");
        assert_eq!(found(&table, None, "GET", "/auth/login"), "/auth/{x}");
        assert_eq!(found(&table, None, "PUT", "/auth/other/x"), "/**");
    }

    #[test]
    fn an_own_call_asked_with_another_method_is_405() {
        let table = table(&route("/a", "")).unwrap();
        assert_eq!(found(&table, None, "GET", "/auth/login"), "405 POST");
        assert_eq!(found(&table, None, "HEAD", "/auth/me"), "own");
    }

    #[test]
    fn two_routes_that_could_both_win_are_refused() {
        for (one, two) in [
            (route("/a/{x}", ""), route("/a/{y}", "")),
            (route("/a", ", methods: [GET]"), route("/a", ", methods: [GET, POST]")),
            (route("/a", ", methods: [GET]"), route("/a", ", methods: [HEAD]")),
            (route("/a", ""), route("/a", ", methods: [GET]")),
            (route("/a/**", ""), route("/a/**", "")),
        ] {
            let errors = table(&format!("{one}{two}")).unwrap_err();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].starts_with("t.yaml:6: routes[1].path: "), "{errors:?}");
            assert!(errors[0].contains("line 5"), "{errors:?}");
        }
        assert!(table(&(route("/a", ", methods: [GET]") + &route("/a", ", methods: [POST]"))).is_ok());
    }

    #[test]
    fn routes_that_nothing_reaches_are_refused() {
        let covered = route("/a/**", "") + &route("/a", "") + &route("/a/", "") + &route("/a/{x}/**", "");
        let errors = table(&covered).unwrap_err();
        assert!(errors[0].contains("never"), "{errors:?}");
        for own in ["/auth/login", "/auth/sessions/{session}"] {
            assert!(table(&route(own, "")).unwrap_err()[0].contains("authgate"), "{own}");
        }
        let partly = route("/a/**", "")
            + &route("/a", ", methods: [GET]")
            + &route("/a/", "")
            + &route("/a/{x}/**", "");
        assert!(table(&partly).is_ok());
    }
}
