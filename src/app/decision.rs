//! What a config decides of a request, without serving it.

use http::Method;

use super::load::LoadedGateway;
use crate::{
    access::{Caller, Denied, judge},
    config::{ConfigError, Expect, Test},
    route::{Match, Route, Table},
    types::{Proof, Proofs, Roles, path},
};

/// A caller has shown who they are by whatever is asked for.
const EVERY: Proofs = Proofs::PASSWORD.with(Proof::Passkey { verified: true });

/// What would happen to a request.
pub enum Verdict<'a> {
    /// 400: its path is not canonical.
    NotCanonical,
    /// It is a call of the gateway's own.
    Own,
    /// 404.
    NoRoute,
    /// 405, with what `Allow` says.
    WrongMethod(String),
    /// A route takes it, and allows it or not.
    Route(&'a Route, Result<(), Denied>),
}

/// Returns what would happen to a request for a path, with a query or without, by a caller with these roles; none stands for an anonymous
/// one. They have just shown who they
/// are.
pub fn decide<'a>(
    routes: &'a Table,
    method: &Method,
    host: Option<&str>,
    target: &str,
    roles: Option<&Roles>,
) -> Verdict<'a> {
    // A query takes no part in matching.
    let path = target.split('?').next().unwrap_or_default();
    let found = match path::canonical(path) {
        Ok(path) => Some(routes.find(host, method, &path.decoded)),
        Err(_) => path::kept(path)
            .ok()
            .and_then(|kept| routes.find_kept(host, method, &kept.readings))
            .map(Match::Route),
    };
    let Some(found) = found else { return Verdict::NotCanonical };
    match found {
        Match::Builtin => Verdict::Own,
        Match::None => Verdict::NoRoute,
        Match::WrongMethod(allow) => Verdict::WrongMethod(allow),
        Match::Route(route) => Verdict::Route(
            route,
            judge(&route.config.access, roles.map(|roles| Caller { roles, proofs: EVERY, proved: 0 })),
        ),
    }
}

/// Runs one of a config's own tests.
fn run_test(routes: &Table, test: &Test) -> Option<ConfigError> {
    let verdict = decide(routes, &test.method, test.host.as_deref(), &test.path, test.roles.as_ref());
    let (found, why) = match verdict {
        Verdict::NotCanonical => ("none", "the path is not canonical".to_owned()),
        Verdict::NoRoute => ("none", "no route takes it".to_owned()),
        Verdict::WrongMethod(allow) => ("none", format!("only {allow} are taken")),
        Verdict::Own => ("allow", "authgate answers it itself".to_owned()),
        Verdict::Route(route, Ok(())) => {
            ("allow", format!("by the route on line {}", route.config.source.line))
        }
        Verdict::Route(route, Err(denied)) => {
            ("deny", format!("by the route on line {}: {denied}", route.config.source.line))
        }
    };
    let expected = match test.expect {
        Expect::Allow => "allow",
        Expect::Deny => "deny",
        Expect::None => "none",
    };
    (found != expected).then(|| {
        test.source
            .error(format!("{} {}: expected {expected}, but it is {found}: {why}", test.method, test.path))
    })
}

/// Runs a config's own tests. Returns those that fail.
pub fn failed_tests(loaded: &LoadedGateway) -> Vec<ConfigError> {
    loaded.config.tests.iter().filter_map(|test| run_test(&loaded.routes, test)).collect()
}
