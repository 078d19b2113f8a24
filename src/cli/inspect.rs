//! `check` and `explain`: what a config decides, without serving it.

use std::{fmt::Write, process::ExitCode};

use super::{DENIED, NO_ROUTE, Outcome, Refused, args::Explain, operator::parse_roles, print};
use crate::{
    app::{
        self, Difference, LoadedGateway, Verdict, decide, describe_access, describe_action, describe_methods,
        failed_tests,
    },
    config::{Config, ConfigErrors},
    route::Table,
    types::host::{is_host, name_of},
};

/// The most lines of a difference that are shown of each kind.
const MOST_LINES: usize = 200;

/// `authgate check`, with `--against` if there is an address.
pub(super) fn check(loaded: LoadedGateway, against: Option<&str>) -> Outcome {
    app::check_files(&loaded)?;
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
    if let Some(address) = against {
        let difference = super::runtime()?.block_on(app::compare(&loaded, address))?;
        print(&describe_difference(&difference))?;
    }
    if failed.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(ConfigErrors(failed).into()) }
}

fn describe_difference(difference: &Difference) -> String {
    if *difference == Difference::default() {
        return "no difference to what runs, in routes and decisions\n".to_owned();
    }
    let mut text = String::new();
    for (title, lines) in [("routes", &difference.routes), ("decisions", &difference.decisions)] {
        let _ = writeln!(text, "{title} that differ from what runs: {}", lines.len());
        for line in lines.iter().take(MOST_LINES) {
            let _ = writeln!(text, "  {line}");
        }
        if lines.len() > MOST_LINES {
            let _ = writeln!(text, "  and {} more", lines.len() - MOST_LINES);
        }
    }
    text
}

/// The compiled route table, as columns.
fn table(config: &Config, routes: &Table) -> String {
    let rows: Vec<[String; 5]> = routes
        .routes()
        .iter()
        .map(|route| {
            let route = &route.config;
            [
                describe_methods(route.methods.as_deref()),
                route.host.clone().unwrap_or_else(|| "*".to_owned()),
                route.pattern.to_string(),
                describe_access(&route.access),
                describe_action(|index| config.upstreams.get(index), route),
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

/// What follows where another proxy that asks about the request is told otherwise.
const TO_PROXIES: &str = "; another proxy that asks about it is told 403";

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
    let method = explain.method.as_str();
    if loaded.routes.is_misspelt(method) || method == "CONNECT" {
        return Err(Refused(format!("{method}: no method that is served; the gateway answers 400")));
    }
    let verdict = decide(&loaded.routes, &explain.method, host.as_deref(), &explain.path, roles.as_ref());
    let (text, code) = match verdict {
        Verdict::NotCanonical => {
            return Err(Refused(format!("{}: not a canonical path; the gateway answers 400", explain.path)));
        }
        Verdict::Own => {
            (format!("allowed: authgate answers this call itself{TO_PROXIES}\n"), ExitCode::SUCCESS)
        }
        Verdict::NoRoute => {
            (format!("no route: the gateway answers 404{TO_PROXIES}\n"), ExitCode::from(NO_ROUTE))
        }
        Verdict::WrongMethod(allow) => (
            format!(
                "no route takes {}: the gateway answers 405, Allow: {allow}{TO_PROXIES}\n",
                explain.method
            ),
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
                describe_action(|index| loaded.config.upstreams.get(index), &route.config),
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
