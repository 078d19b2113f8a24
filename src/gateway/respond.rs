//! Responses that a route gives without an upstream.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::token::Principal;

/// The response of a `respond` route. Placeholders are filled in once, inside strings, before the
/// whole is serialised, so a name cannot leave its string.
pub(super) fn respond(status: StatusCode, json: &Value, principal: Option<&Principal>) -> Response<Bytes> {
    let filled = fill(json, principal);
    let mut response = Response::new(Bytes::from(filled.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if principal.is_some() {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn fill(json: &Value, principal: Option<&Principal>) -> Value {
    match json {
        Value::String(text) => Value::String(fill_text(text, principal)),
        Value::Array(items) => items.iter().map(|item| fill(item, principal)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), fill(member, principal))).collect()
        }
        other => other.clone(),
    }
}

fn fill_text(text: &str, principal: Option<&Principal>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{user.") {
        filled.push_str(&rest[..start]);
        rest = &rest[start..];
        let found = [("{user.id}", 0), ("{user.name}", 1), ("{user.roles}", 2)]
            .into_iter()
            .find(|(placeholder, _)| rest.starts_with(placeholder));
        let Some((placeholder, which)) = found else {
            filled.push('{');
            rest = &rest[1..];
            continue;
        };
        if let Some(principal) = principal {
            match which {
                0 => filled.push_str(principal.id_value.to_str().unwrap_or_default()),
                1 => filled.push_str(&principal.name),
                _ => filled.push_str(&principal.roles.to_string()),
            }
        }
        rest = &rest[placeholder.len()..];
    }
    filled.push_str(rest);
    filled
}
