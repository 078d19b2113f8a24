//! `check` and `explain`: what a config decides, without serving it.

use std::{fmt::Write, process::ExitCode};

use http::Method;

use super::{DENIED, NO_ROUTE, Outcome, Refused, args::Explain, operator::parse_roles, print};
use crate::{
    app::{LoadedGateway, Verdict, decide, failed_tests},
    config::{self, Access, Action, Config, ConfigErrors, OnStale, RoleRule},
    route::Table,
    types::{
        Role,
        host::{is_host, name_of},
    },
};

/// `authgate check`.
pub(super) fn check(loaded: LoadedGateway) -> Outcome {
    let config = &loaded.config;
    let failed = failed_tests(&loaded);
    let mut text = table(config, &loaded.routes);
    for warning in &loaded.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let _ = writeln!(
        text,
        "{} routes, {} tests: {} failed",
        config.routes.len(),
        config.tests.len(),
        failed.len()
    );
    print(&text)?;
    if failed.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(ConfigErrors(failed).into()) }
}

/// The compiled route table, as columns.
fn table(config: &Config, routes: &Table) -> String {
    let rows: Vec<[String; 5]> = routes
        .routes()
        .iter()
        .map(|route| {
            let route = &route.config;
            let methods = match &route.methods {
                Some(methods) => methods.iter().map(Method::as_str).collect::<Vec<_>>().join(","),
                None => "any".to_owned(),
            };
            [
                methods,
                route.host.clone().unwrap_or_else(|| "*".to_owned()),
                route.pattern.to_string(),
                describe_access(&route.access),
                describe_action(config, route),
            ]
        })
        .collect();
    let mut all = vec![["METHODS", "HOST", "PATH", "ACCESS", "ACTION"].map(str::to_owned)];
    all.extend(rows);
    columns(&all)
}

/// Aligns columns, the last one as wide as it is.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn describe_access(access: &Access) -> String {
    let list = |roles: &[Role]| roles.iter().map(Role::as_str).collect::<Vec<_>>().join(",");
    match access {
        Access::Open => "open".to_owned(),
        Access::Optional => "optional".to_owned(),
        Access::SignedIn(requirements) => match &requirements.roles {
            None => "signed in".to_owned(),
            Some(RoleRule::Any(roles)) => format!("any of {}", list(roles)),
            Some(RoleRule::All(roles)) => format!("all of {}", list(roles)),
        },
    }
}

fn describe_action(config: &Config, route: &config::Route) -> String {
    let mut text = match &route.action {
        Action::Forward(index) => {
            let upstream = &config.upstreams[*index];
            let urls: Vec<_> = upstream.servers.iter().map(|server| server.server.url()).collect();
            format!("{} ({})", upstream.name, urls.join(", "))
        }
        Action::Respond { status, .. } => format!("respond {}", status.as_u16()),
        Action::Redirect(redirect) => format!("redirect {} {}", redirect.status.as_u16(), redirect.to()),
    };
    if route.forward_token {
        text.push_str(", forwards the token");
    }
    if route.on_stale == OnStale::Allow {
        text.push_str(", serves on when stale");
    }
    for limit in &route.rate_limits {
        let _ = write!(text, ", at most {limit}");
    }
    text
}

/// `authgate explain`.
pub(super) fn explain(loaded: &LoadedGateway, explain: &Explain) -> Outcome {
    let roles = parse_roles(&explain.roles)?;
    let roles = (!explain.anonymous).then_some(roles);
    let host = match explain.host.as_deref() {
        Some(host) if !is_host(host) => {
            return Err(Refused(format!("{host}: not a host; the gateway answers 400")));
        }
        host => host.map(name_of),
    };
    let verdict = decide(&loaded.routes, &explain.method, host.as_deref(), &explain.path, roles.as_ref());
    let (text, code) = match verdict {
        Verdict::NotCanonical => {
            return Err(Refused(format!("{}: not a canonical path; the gateway answers 400", explain.path)));
        }
        Verdict::Own => ("allowed: authgate answers this call itself\n".to_owned(), ExitCode::SUCCESS),
        Verdict::NoRoute => ("no route: the gateway answers 404\n".to_owned(), ExitCode::from(NO_ROUTE)),
        Verdict::WrongMethod(allow) => (
            format!("no route takes {}: the gateway answers 405, Allow: {allow}\n", explain.method),
            ExitCode::from(NO_ROUTE),
        ),
        Verdict::Route(route, decision) => {
            let source = &route.config.source;
            let mut text = format!(
                "route: {} ({}:{})\nasks for: {}\naction: {}\n",
                route.label,
                source.file,
                source.line,
                describe_access(&route.config.access),
                describe_action(&loaded.config, &route.config),
            );
            match decision {
                Ok(()) => {
                    text.push_str("decision: allowed\n");
                    (text, ExitCode::SUCCESS)
                }
                Err(denied) => {
                    let _ =
                        writeln!(text, "decision: denied with {}: {denied}", denied.kind().status().as_u16());
                    (text, ExitCode::from(DENIED))
                }
            }
        }
    };
    print(&text)?;
    Ok(code)
}
