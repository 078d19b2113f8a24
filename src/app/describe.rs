//! Routes in words, and as one gateway tells another process of them.

use std::fmt::Write;

use http::Method;
use serde_json::{Value, json};

use crate::{
    config::{self, Access, Action, Encoded, OnStale, RoleRule},
    route::Table,
    types::Role,
};

fn names(roles: &[Role]) -> Vec<&str> {
    roles.iter().map(Role::as_str).collect()
}

/// Describes who may use a route.
pub fn describe_access(access: &Access) -> String {
    match access {
        Access::Open => "open".to_owned(),
        Access::Optional => "optional".to_owned(),
        Access::SignedIn(requirements) => {
            let mut text = match &requirements.roles {
                None => "signed in".to_owned(),
                Some(RoleRule::Any(roles)) => format!("any of {}", names(roles).join(",")),
                Some(RoleRule::All(roles)) => format!("all of {}", names(roles).join(",")),
            };
            if let Some(fresh) = requirements.fresh {
                let _ = write!(text, ", fresh {}s", fresh.as_secs());
            }
            if requirements.mfa {
                text.push_str(", two factors");
            }
            text
        }
    }
}

/// Describes what becomes of the requests of a route. `upstream` returns an upstream by its number.
pub fn describe_action<'a>(
    upstream: impl FnOnce(usize) -> Option<&'a config::Upstream>,
    route: &config::Route,
) -> String {
    let mut text = match &route.action {
        Action::Forward(index) => match upstream(*index) {
            Some(upstream) => {
                let urls: Vec<_> = upstream.servers.iter().map(|server| server.server.url()).collect();
                format!("{} ({})", upstream.name, urls.join(", "))
            }
            None => String::new(),
        },
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

/// Describes the methods of a route.
pub fn describe_methods(methods: Option<&[Method]>) -> String {
    methods.map_or_else(
        || "any".to_owned(),
        |methods| methods.iter().map(Method::as_str).collect::<Vec<_>>().join(","),
    )
}

/// What decides, of a table that serves: as the routes of a config, each with a description of its action, which may hold no secret.
/// `upstream` returns an upstream by its number.
pub(super) fn running<'a>(table: &Table, upstream: impl Fn(usize) -> Option<&'a config::Upstream>) -> Value {
    let route = |route: &crate::route::Route| {
        let config = &route.config;
        let mut value = json!({"path": config.pattern.to_string(), "respond": {"json": {}}});
        match &config.access {
            Access::Open => value["auth"] = json!("none"),
            Access::Optional => value["auth"] = json!("optional"),
            Access::SignedIn(requirements) => {
                match &requirements.roles {
                    None => {}
                    Some(RoleRule::Any(roles)) => value["roles"] = json!({"any": names(roles)}),
                    Some(RoleRule::All(roles)) => value["roles"] = json!({"all": names(roles)}),
                }
                if let Some(fresh) = requirements.fresh {
                    value["fresh"] = json!(format!("{}s", fresh.as_secs()));
                }
                if requirements.mfa {
                    value["mfa"] = json!(true);
                }
            }
        }
        if let Some(host) = &config.host {
            value["host"] = json!(host);
        }
        if let Some(methods) = &config.methods {
            value["methods"] = methods.iter().map(Method::as_str).collect();
        }
        if config.encoded == Encoded::Keep {
            value["encoded"] = json!("keep");
        }
        json!({"route": value, "action": describe_action(&upstream, config)})
    };
    json!({"mount": table.mount(), "routes": table.routes().iter().map(route).collect::<Vec<_>>()})
}
