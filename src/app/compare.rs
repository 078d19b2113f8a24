//! How a config differs from what a gateway serves: in its routes, and in what it decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::{
    decision::{Verdict, decide},
    describe::{describe_access, describe_action, describe_methods},
    load::{LoadedGateway, builtin_calls},
};
use crate::{
    config::{self, Access, HttpUrl, RoleRule, Segment},
    oidc::{FetchError, Fetcher},
    route::Table,
    tls::TlsError,
    types::{Role, Roles},
};

/// The path at which a gateway tells its routes.
const PATH: &str = "/config/routes";

/// The most roles that callers are made of, each by itself.
const MOST_ROLES: usize = 50;

/// Why a config could not be compared.
#[derive(Debug, Error)]
pub enum CompareError {
    /// The address is none.
    #[error("--against: {0}")]
    Address(&'static str),
    /// The system's authorities cannot be read.
    #[error("{0}")]
    Tls(TlsError),
    /// The gateway did not tell its routes.
    #[error("{0}: {1}")]
    Fetch(String, FetchError),
    /// What it told is not of this kind.
    #[error("what runs there tells no routes that this version can read")]
    Routes,
}

/// What a gateway serves.
#[derive(Deserialize)]
struct Running {
    mount: String,
    routes: Vec<RunningRoute>,
}

#[derive(Deserialize)]
struct RunningRoute {
    route: Value,
    action: String,
}

/// One side of a comparison.
struct Side {
    table: Table,
    /// What becomes of the requests of each route.
    actions: Vec<String>,
}

/// The difference, in lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Routes that come, go, or are others.
    pub routes: Vec<String>,
    /// Requests that are decided otherwise.
    pub decisions: Vec<String>,
}

/// Compares a config with what the gateway serves whose admin listener is at `address`.
///
/// # Errors
/// [`CompareError`].
pub async fn compare(loaded: &LoadedGateway, address: &str) -> Result<Difference, CompareError> {
    let url = HttpUrl::parse(address).map_err(CompareError::Address)?.below(PATH);
    let tls = config::UpstreamTls {
        ca: None,
        beside_system: false,
        name: None,
        own: None,
        source: config::Source { file: String::new(), line: 0, key: String::new() },
    };
    let fetcher = Fetcher::new(&tls).map_err(|(_, error)| CompareError::Tls(error))?;
    let text =
        fetcher.get_large(&url).await.map_err(|error| CompareError::Fetch(address.to_owned(), error))?;
    let running = serde_json::from_slice(&text).map_err(|_| CompareError::Routes)?;
    let config = &loaded.config;
    let action =
        |route: &crate::route::Route| describe_action(|index| config.upstreams.get(index), &route.config);
    let actions = loaded.routes.routes().iter().map(action).collect();
    let mount = &config.auth.path;
    let table =
        Table::compile(&config.routes, mount, builtin_calls(config)).map_err(|_| CompareError::Routes)?;
    Ok(difference(&read(running)?, &Side { table, actions }))
}

/// Compiles what a gateway told.
fn read(running: Running) -> Result<Side, CompareError> {
    let Running { mount, routes } = running;
    let (routes, actions): (Vec<Value>, _) =
        routes.into_iter().map(|route| (route.route, route.action)).unzip();
    // Any config would do: only its routes matter.
    let text = json!({
        "listeners": [{"address": "127.0.0.1:1"}],
        "auth": {"issuer": "https://localhost", "audience": "none", "path": mount},
        "routes": routes,
    });
    let loaded = config::load("running", &text.to_string(), Path::new("."), &|_| None, &|_| Vec::new());
    let config = loaded.map_err(|_| CompareError::Routes)?.config;
    let table = Table::compile(&config.routes, &mount, builtin_calls(&config));
    Ok(Side { table: table.map_err(|_| CompareError::Routes)?, actions })
}

/// What tells a route from others.
type Key = (String, String, String);

impl Side {
    /// Returns who may use each route, and what becomes of its requests.
    fn routes(&self) -> BTreeMap<Key, (String, &str)> {
        let mut routes = BTreeMap::new();
        for (route, action) in self.table.routes().iter().zip(&self.actions) {
            let config = &route.config;
            let host = config.host.clone().unwrap_or_default();
            let key = (host, config.pattern.to_string(), describe_methods(config.methods.as_deref()));
            routes.insert(key, (describe_access(&config.access), action.as_str()));
        }
        routes
    }

    /// Describes what happens to a request.
    fn verdict(&self, sample: &Sample, caller: &Caller) -> String {
        match decide(&self.table, &sample.method, sample.host.as_deref(), &sample.path, caller.roles.as_ref())
        {
            Verdict::NotCanonical => "400".to_owned(),
            Verdict::Own => "authgate's own".to_owned(),
            Verdict::NoRoute => "404".to_owned(),
            Verdict::WrongMethod(_) => "405".to_owned(),
            Verdict::Route(_, Err(denied)) => denied.kind().status().as_u16().to_string(),
            Verdict::Route(route, Ok(())) => {
                let action = self.actions.get(route.index as usize).map_or("", String::as_str);
                format!("allowed: {action}")
            }
        }
    }
}

/// A request that is decided by both sides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Sample {
    host: Option<String>,
    path: String,
    method: SampleMethod,
}

/// A method, in an order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SampleMethod(Method);

impl std::ops::Deref for SampleMethod {
    type Target = Method;

    fn deref(&self) -> &Method {
        &self.0
    }
}

impl PartialOrd for SampleMethod {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SampleMethod {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

struct Caller {
    name: String,
    roles: Option<Roles>,
}

/// Returns requests of each kind that the routes of both sides tell apart.
fn samples(sides: [&Side; 2]) -> BTreeSet<Sample> {
    let routes = || sides.iter().flat_map(|side| side.table.routes());
    let mut methods: BTreeSet<SampleMethod> =
        [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE].map(SampleMethod).into();
    methods
        .extend(routes().flat_map(|route| route.config.methods.iter().flatten().cloned().map(SampleMethod)));
    let mut samples = BTreeSet::new();
    for route in routes() {
        let config = &route.config;
        let host = config.host.as_ref().map(|host| host.replacen('*', "x", 1));
        let segments: Vec<&str> = config
            .pattern
            .segments()
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => text.as_str(),
                Segment::Any => "x",
            })
            .collect();
        let path = format!("/{}", segments.join("/"));
        let mut paths = vec![path.clone()];
        if config.pattern.covers_below() {
            paths.push(format!("{}/x", path.trim_end_matches('/')));
        }
        if config.pattern.has_trailing_slash() && path != "/" {
            paths.push(format!("{path}/"));
        }
        for path in paths {
            for method in &methods {
                samples.insert(Sample { host: host.clone(), path: path.clone(), method: method.clone() });
            }
        }
    }
    samples
}

/// Returns callers that the routes of both sides tell apart.
fn callers(sides: [&Side; 2]) -> Vec<Caller> {
    let mut alone: BTreeSet<Role> = BTreeSet::new();
    let mut together: BTreeSet<Vec<Role>> = BTreeSet::new();
    for route in sides.iter().flat_map(|side| side.table.routes()) {
        let Access::SignedIn(requirements) = &route.config.access else { continue };
        match &requirements.roles {
            None => {}
            Some(RoleRule::Any(roles)) => alone.extend(roles.iter().cloned()),
            Some(RoleRule::All(roles)) => {
                alone.extend(roles.iter().cloned());
                together.insert(roles.clone());
            }
        }
    }
    let mut callers = vec![
        Caller { name: "anonymous".to_owned(), roles: None },
        Caller { name: "signed in".to_owned(), roles: Some(Roles::default()) },
    ];
    let alone = alone.into_iter().take(MOST_ROLES).map(|role| vec![role]);
    for roles in alone.chain(together.into_iter().filter(|roles| roles.len() > 1).take(MOST_ROLES)) {
        let roles: Roles = roles.into_iter().collect();
        callers.push(Caller { name: format!("with {roles}"), roles: Some(roles) });
    }
    callers
}

fn difference(running: &Side, next: &Side) -> Difference {
    let mut difference = Difference::default();
    let (before, after) = (running.routes(), next.routes());
    let keys: BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let (then, now) = (before.get(key), after.get(key));
        if then == now {
            continue;
        }
        let (host, path, methods) = key;
        for (sign, side) in [('-', then), ('+', now)] {
            if let Some((access, action)) = side {
                difference.routes.push(format!("{sign} {methods} {host}{path}: {access} → {action}"));
            }
        }
    }
    let sides = [running, next];
    let callers = callers(sides);
    for sample in samples(sides) {
        for caller in &callers {
            let (before, after) = (running.verdict(&sample, caller), next.verdict(&sample, caller));
            if before != after {
                let host = sample.host.as_deref().unwrap_or_default();
                difference.decisions.push(format!(
                    "{} {host}{} {}: {before}, then {after}",
                    sample.method.as_str(),
                    sample.path,
                    caller.name
                ));
            }
        }
    }
    difference
}
