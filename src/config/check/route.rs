//! Where requests go: `routes`, `tests`.

use std::time::Duration;

use http::{Method, StatusCode};

use super::Check;
use crate::{
    config::{
        Access, Action, IdentityHeaders, Limits, OnStale, Pattern, Requirements, RoleRule, Route, RouteAuth,
        Test, Upstream, raw,
        units::{Span, Switch},
    },
    types::host::{is_host, name_of},
};

impl Check<'_> {
    pub(super) fn method(&mut self, key: &str, text: &str) -> Option<Method> {
        let upper = !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        match Method::from_bytes(text.as_bytes()) {
            Ok(Method::CONNECT) => self.error(key, "CONNECT is never accepted"),
            Ok(method) if upper => return Some(method),
            _ => self.error(key, "expected a method in capitals, such as GET"),
        }
        None
    }

    pub(super) fn host(&mut self, key: &str, text: &str) -> Option<String> {
        let host = text.to_ascii_lowercase();
        let name = name_of(&host).into_owned();
        // A port would be none of the name's.
        let bare = host == name || (host.starts_with('[') && host.ends_with(']'));
        if !is_host(&host) || !bare {
            self.error(key, "expected a host name without a port, such as api.example.com");
        }
        Some(name)
    }

    /// The host of a route: a name, or `*.` and a name.
    fn route_host(&mut self, key: &str, text: &str) -> Option<String> {
        let Some(name) = text.strip_prefix("*.") else { return self.host(key, text) };
        let last = name.rsplit('.').next().unwrap_or_default();
        if name.starts_with('[') || last.bytes().all(|byte| byte.is_ascii_digit()) {
            self.error(key, "`*.` stands before a name, such as *.example.com");
        }
        self.host(key, name).map(|name| format!("*.{name}"))
    }

    pub(super) fn routes(
        &mut self,
        raw: Vec<raw::Route>,
        upstreams: &[Upstream],
        limits: &Limits,
        on_stale: OnStale,
        identity: &IdentityHeaders,
    ) -> Vec<Route> {
        let mut routes = Vec::new();
        for (index, route) in raw.into_iter().enumerate() {
            routes.extend(self.route(
                &format!("routes[{index}]"),
                route,
                upstreams,
                limits,
                on_stale,
                identity,
            ));
        }
        routes
    }

    /// None where nothing could be made of it, which was said.
    fn route(
        &mut self,
        key: &str,
        raw: raw::Route,
        upstreams: &[Upstream],
        limits: &Limits,
        on_stale: OnStale,
        identity: &IdentityHeaders,
    ) -> Option<Route> {
        let path_key = format!("{key}.path");
        let pattern = Pattern::parse(&raw.path).map_err(|problem| self.error(&path_key, problem)).ok();
        let methods = raw.methods.map(|texts| {
            if texts.is_empty() {
                self.error(
                    &format!("{key}.methods"),
                    "expected at least one method; leave the key out for all",
                );
            }
            let methods = texts.iter().enumerate();
            methods.filter_map(|(at, text)| self.method(&format!("{key}.methods[{at}]"), text)).collect()
        });
        let host = raw.host.as_deref().and_then(|host| self.route_host(&format!("{key}.host"), host));
        let access = self.access(key, raw.auth, raw.roles, (raw.fresh, raw.mfa));
        let forward_token = raw.forward_token.is_some_and(|forward| forward.0);
        let (request_headers, response_headers) = self.header_rules(key, raw.headers, identity);
        let for_upstreams = [
            ("forward_token", forward_token),
            ("rewrite", raw.rewrite.is_some()),
            ("idle_timeout", raw.idle_timeout.is_some()),
            ("headers.request", !request_headers.is_empty()),
        ];
        if raw.upstream.is_none()
            && let Some((name, _)) = for_upstreams.into_iter().find(|(_, given)| *given)
        {
            self.error(&format!("{key}.{name}"), "needs `upstream`");
        }
        let action = match (raw.upstream, raw.respond, raw.redirect) {
            (Some(name), None, None) => Some(self.forward(key, &name, upstreams)),
            (None, Some(respond), None) => self.respond(key, respond, &access),
            (None, None, Some(redirect)) => self.redirect(key, redirect),
            _ => {
                self.error(key, "expected one of `upstream`, `respond` and `redirect`");
                None
            }
        };
        let rewrite = raw.rewrite.map(|rewrite| self.rewrite(key, rewrite, pattern.as_ref()));
        let timeout = self.span(&format!("{key}.timeout"), raw.timeout, limits.request_timeout);
        let idle_key = format!("{key}.idle_timeout");
        let idle_timeout = raw.idle_timeout.map(|idle| self.span(&idle_key, Some(idle), limits.idle_timeout));
        let cors = raw.cors.map(|cors| self.cors(&format!("{key}.cors"), cors));
        let rate_limits = self.rate_limits(&format!("{key}.rate_limit"), raw.rate_limit);
        let body = self.size(&format!("{key}.body"), raw.body, limits.body, (0, 1 << 40));
        Some(Route {
            source: self.document.source(&path_key),
            pattern: pattern?,
            host,
            methods,
            access,
            action: action?,
            forward_token,
            timeout,
            body,
            on_stale: raw.on_stale.unwrap_or(on_stale),
            method_override: raw.method_override.is_some_and(|kept| kept.0),
            idle_timeout,
            encoded: raw.encoded,
            rewrite,
            request_headers,
            response_headers,
            cors,
            rate_limits,
        })
    }

    fn forward(&mut self, key: &str, name: &str, upstreams: &[Upstream]) -> Action {
        let found = upstreams.iter().position(|upstream| upstream.name == name);
        if found.is_none() {
            let names: Vec<_> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
            let legal = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
            self.error(&format!("{key}.upstream"), format!("no such upstream; expected one of: {legal}"));
        }
        // A config with an error is never served, and the route may have others.
        Action::Forward(found.unwrap_or_default())
    }

    pub(super) fn access(
        &mut self,
        key: &str,
        auth: Option<RouteAuth>,
        roles: Option<raw::RoleRule>,
        (fresh, mfa): (Option<Span>, Option<Switch>),
    ) -> Access {
        let mfa = mfa.is_some_and(|mfa| mfa.0);
        if mfa && !matches!(auth, None | Some(RouteAuth::Required)) {
            self.error(&format!("{key}.auth"), "`mfa` needs a signed-in caller: expected required");
        }
        let fresh_key = format!("{key}.fresh");
        let fresh = fresh.map(|fresh| {
            if !matches!(auth, None | Some(RouteAuth::Required)) {
                self.error(&format!("{key}.auth"), "`fresh` needs a signed-in caller: expected required");
            }
            let span = self.span(&fresh_key, Some(fresh), Duration::from_secs(300));
            if span < Duration::from_secs(1) {
                self.error(&fresh_key, "expected 1s or more");
            }
            span
        });
        let Some(rule) = roles else {
            return match auth {
                Some(RouteAuth::None) => Access::Open,
                Some(RouteAuth::Optional) => Access::Optional,
                Some(RouteAuth::Required) | None => {
                    Access::SignedIn(Requirements { roles: None, fresh, mfa })
                }
            };
        };
        if !matches!(auth, None | Some(RouteAuth::Required)) {
            self.error(&format!("{key}.auth"), "`roles` needs a signed-in caller: expected required");
        }
        let (name, texts) = match (&rule.any, &rule.all) {
            (Some(any), None) => ("any", any),
            (None, Some(all)) => ("all", all),
            _ => {
                self.error(&format!("{key}.roles"), "expected either `any` or `all`");
                return Access::SignedIn(Requirements { roles: None, fresh, mfa });
            }
        };
        let roles_key = format!("{key}.roles.{name}");
        if texts.is_empty() {
            self.error(&roles_key, "expected at least one role");
        }
        let roles = self.roles(&roles_key, texts).iter().cloned().collect();
        let rule = if name == "any" { RoleRule::Any(roles) } else { RoleRule::All(roles) };
        Access::SignedIn(Requirements { roles: Some(rule), fresh, mfa })
    }

    pub(super) fn respond(&mut self, key: &str, raw: raw::Respond, access: &Access) -> Option<Action> {
        let status = raw.status.map_or(200, |status| status.0);
        let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        // Below 200 is not a final response; 204, 205 and 304 have no body.
        let status =
            status.filter(|s| (200..600).contains(&s.as_u16()) && ![204, 205, 304].contains(&s.as_u16()));
        if status.is_none() {
            self.error(&format!("{key}.respond.status"), "expected 200 to 599, and a status that has a body");
        }
        let mut unknown = Vec::new();
        placeholders(&raw.json, &mut |name| {
            if !["user.id", "user.name", "user.roles"].contains(&name) {
                unknown.push(format!(
                    "`{{{name}}}` is unknown; expected {{user.id}}, {{user.name}} or {{user.roles}}"
                ));
            } else if *access == Access::Open {
                unknown.push(format!("`{{{name}}}` has no value on a route with `auth: none`"));
            }
        });
        for problem in unknown {
            self.error(&format!("{key}.respond.json"), problem);
        }
        Some(Action::Respond { status: status?, json: raw.json })
    }

    pub(super) fn tests(&mut self, raw: Vec<raw::Test>) -> Vec<Test> {
        let mut tests = Vec::new();
        for (index, test) in raw.into_iter().enumerate() {
            let key = format!("tests[{index}]");
            let anonymous = test.anonymous.is_some_and(|anonymous| anonymous.0);
            if anonymous && test.roles.is_some() {
                self.error(&key, "expected either `roles` or `anonymous: true`");
            }
            let roles = self.roles(&format!("{key}.roles"), test.roles.as_deref().unwrap_or_default());
            let host = test.host.as_deref().and_then(|host| self.host(&format!("{key}.host"), host));
            if let Some(method) = self.method(&format!("{key}.method"), &test.method) {
                tests.push(Test {
                    source: self.document.source(&key),
                    method,
                    path: test.path,
                    host,
                    roles: (!anonymous).then_some(roles),
                    expect: test.expect,
                });
            }
        }
        tests
    }
}

/// Calls `found` with what stands between braces in the strings of `json`.
fn placeholders(json: &serde_json::Value, found: &mut dyn FnMut(&str)) {
    match json {
        serde_json::Value::String(text) => {
            let mut rest = text.as_str();
            while let Some(start) = rest.find("{user.") {
                rest = &rest[start + 1..];
                match rest.find('}') {
                    Some(end) => found(&rest[..end]),
                    None => found(rest),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| placeholders(item, found)),
        serde_json::Value::Object(members) => {
            members.values().for_each(|member| placeholders(member, found));
        }
        _ => {}
    }
}
