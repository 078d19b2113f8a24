//! Claims of accounts in tokens.

use std::collections::HashMap;

use http::HeaderValue;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{header_text::encode, jws::TokenError};
use crate::{
    config::{ClaimRule, Claims},
    types::{ClaimValue, ClaimValues},
};

/// The member of a token with the claims that only upstreams are told, by their names in the config.
const FOR_HEADERS: &str = "headers";

/// The member that tells by which rules claims were said: what a name means may be another thing after a reload.
const RULES: &str = "claims";

/// The claims of an account as members of a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenClaims<'a> {
    pub(super) rules: &'a Claims,
    pub(super) values: &'a ClaimValues,
}

impl Serialize for TokenClaims<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let said = self.rules.rules().iter().zip(self.values.iter());
        let said = said.filter_map(|(rule, value)| Some((rule, json(value?))));
        let (own, for_headers): (Vec<_>, Vec<_>) = said.partition(|(rule, _)| rule.token.is_some());
        let mut map = serializer.serialize_map(None)?;
        if !self.rules.is_empty() {
            map.serialize_entry(RULES, self.rules.digest())?;
        }
        for (rule, value) in &own {
            map.serialize_entry(rule.token.as_deref().unwrap_or_default(), value)?;
        }
        if !for_headers.is_empty() {
            let members: HashMap<&str, &Value> =
                for_headers.iter().map(|(rule, value)| (rule.key.as_str(), value)).collect();
            map.serialize_entry(FOR_HEADERS, &members)?;
        }
        map.end()
    }
}

fn json(value: &ClaimValue) -> Value {
    match value {
        ClaimValue::Text(text) => Value::String(text.clone()),
        ClaimValue::Flag(flag) => Value::Bool(*flag),
    }
}

/// Reads the claims of a token whose signature was verified. One that it does not have, or has in another form, is absent. Returns `None` if it
/// was made by other rules.
pub(super) fn read(rules: &Claims, payload: &[u8]) -> Result<Option<ClaimValues>, TokenError> {
    if rules.is_empty() {
        return Ok(Some(ClaimValues::default()));
    }
    let members: HashMap<String, Value> = serde_json::from_slice(payload).map_err(|_| TokenError::Claims)?;
    if members.get(RULES).and_then(Value::as_str) != Some(rules.digest()) {
        return Ok(None);
    }
    let value = |rule: &ClaimRule| {
        let member = match &rule.token {
            Some(name) => members.get(name),
            None => members.get(FOR_HEADERS)?.get(&rule.key),
        };
        match member? {
            Value::String(text) => Some(ClaimValue::Text(text.clone())),
            Value::Bool(flag) => Some(ClaimValue::Flag(*flag)),
            _ => None,
        }
    };
    Ok(Some(rules.rules().iter().map(value).collect()))
}

/// Returns the values for the headers of an upstream, one for each rule that has one. Returns `None` if one would be illegal.
pub(super) fn header_values(rules: &Claims, values: &ClaimValues) -> Option<Box<[Option<HeaderValue>]>> {
    let told = rules.rules().iter().zip(values.iter()).filter(|(rule, _)| rule.header.is_some());
    let value = |value: Option<&ClaimValue>| match value {
        None => Some(None),
        Some(ClaimValue::Text(text)) => HeaderValue::try_from(encode(text)).ok().map(Some),
        Some(ClaimValue::Flag(true)) => Some(Some(HeaderValue::from_static("true"))),
        Some(ClaimValue::Flag(false)) => Some(Some(HeaderValue::from_static("false"))),
    };
    told.map(|(_, said)| value(said)).collect()
}
