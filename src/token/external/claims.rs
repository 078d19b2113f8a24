//! What a token of another issuer, or an issuer's word about one, tells of the caller.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::super::jws::TokenError;
use crate::{
    config::Issuer,
    types::{ExternalId, Role, Roles},
};

/// The longest text that is read from a claim, in bytes.
const LONGEST: usize = 512;

/// A JSON object, in which no name stands twice, at any depth: which of two is meant depends on the reader.
#[derive(Debug)]
pub struct Claims(Map<String, Value>);

struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Unique, E> {
        Ok(Unique(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Unique, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Unique(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut members = Map::new();
        while let Some((name, Unique(value))) = map.next_entry::<String, Unique>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Unique(Value::Object(members)))
    }
}

/// What is known of the caller of a token.
#[derive(Debug, PartialEq, Eq)]
pub struct ExternalCaller {
    /// Whom it stands for, by the issuer's name.
    pub(in crate::token) id: String,
    pub(in crate::token) name: String,
    pub(in crate::token) roles: Roles,
    /// What it can be revoked by, its subject first.
    pub(in crate::token) subject: ExternalId,
    pub(in crate::token) others: Vec<ExternalId>,
    /// Unix seconds; 0 if it is not known, which is before any revocation.
    pub(in crate::token) issued_at: i64,
    /// Unix seconds, with the leeway.
    pub(in crate::token) expires_at: Option<i64>,
}

impl Claims {
    /// Reads an object.
    ///
    /// # Errors
    /// When it is none, or has a name twice.
    pub fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        match serde_json::from_slice(bytes) {
            Ok(Unique(Value::Object(members))) => Ok(Self(members)),
            _ => Err(TokenError::Claims),
        }
    }

    fn at(&self, path: &[String]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(first)?, |value, name| value.get(name))
    }

    /// Returns a text that is there and not empty.
    ///
    /// # Errors
    /// When it is there as anything else.
    pub fn text(&self, name: &str) -> Result<Option<&str>, TokenError> {
        self.text_at(&[name.to_owned()])
    }

    fn text_at(&self, path: &[String]) -> Result<Option<&str>, TokenError> {
        match self.at(path) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() && text.len() <= LONGEST => Ok(Some(text)),
            Some(_) => Err(TokenError::Claims),
        }
    }

    /// Returns a moment (RFC 7519, section 2: NumericDate), in Unix seconds.
    ///
    /// # Errors
    /// When it is there as anything but a number.
    pub fn date(&self, name: &str) -> Result<Option<i64>, TokenError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(date), _) => Ok(Some(date)),
                (None, Some(date)) if date.abs() < 1e15 => Ok(Some(date.floor() as i64)),
                _ => Err(TokenError::Claims),
            },
            Some(_) => Err(TokenError::Claims),
        }
    }

    /// Returns a member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Checks whose it is, for whom, and from when to when.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, issuer: &Issuer, audiences: &[String], now: i64) -> Result<(), TokenError> {
        let leeway = issuer.leeway.as_secs() as i64;
        let is_ours = match self.0.get("aud") {
            Some(Value::String(audience)) => audiences.contains(audience),
            Some(Value::Array(told)) => {
                // Each has to be a text (RFC 7519, section 4.1.3).
                told.iter().all(Value::is_string)
                    && told.iter().any(|audience| audiences.iter().any(|own| audience == own))
            }
            _ => false,
        };
        if !is_ours {
            return Err(TokenError::Claims);
        }
        if self.date("nbf")?.is_some_and(|nbf| nbf > now.saturating_add(leeway)) {
            return Err(TokenError::NotYetValid);
        }
        // Revocations go by the time of issue: one that lies ahead would outlive them.
        if self.date("iat")?.is_some_and(|iat| iat > now.saturating_add(leeway)) {
            return Err(TokenError::NotYetValid);
        }
        if self.date("exp")?.is_some_and(|exp| exp.saturating_add(leeway) <= now) {
            return Err(TokenError::Expired);
        }
        // Revocations are remembered for so long: no token may outlive them.
        let longest = self.longest(issuer)?;
        if longest.is_some_and(|longest| longest <= now) {
            return Err(TokenError::Expired);
        }
        if let (Some(exp), Some(longest)) = (self.date("exp")?, longest)
            && exp > longest
        {
            return Err(TokenError::Claims);
        }
        Ok(())
    }

    /// Returns the Unix second after which it is not accepted, whatever it says; none if it does not tell when it was issued.
    pub(in crate::token) fn longest(&self, issuer: &Issuer) -> Result<Option<i64>, TokenError> {
        let issued_at = self.date("iat")?;
        Ok(issued_at.map(|issued_at| issued_at.saturating_add(issuer.max_ttl.as_secs() as i64)))
    }

    /// Returns whether it is a token of another purpose: one that tells who signed in (an ID token), one that gets others, or one that
    /// holds for the owner of a key alone, who is not asked for here.
    pub(in crate::token) fn is_for_something_else(&self) -> bool {
        let kind = self.0.get("typ").and_then(Value::as_str);
        let is_other = kind.is_some_and(|kind| {
            ["id", "refresh", "offline", "logout"].iter().any(|other| kind.eq_ignore_ascii_case(other))
        });
        let names = ["events", "at_hash", "c_hash", "s_hash", "cnf"];
        is_other || names.iter().any(|name| self.0.contains_key(*name))
    }

    /// Returns whom it stands for.
    ///
    /// # Errors
    /// When a claim that is needed is absent or of the wrong type.
    pub(in crate::token) fn caller(&self, issuer: &Issuer) -> Result<ExternalCaller, TokenError> {
        let names = &issuer.claims;
        let id = self.text_at(&names.id)?.ok_or(TokenError::Claims)?;
        let sub = self.text("sub")?.unwrap_or(id);
        let session = match self.text_at(&names.session)? {
            Some(sid) => ExternalId::of_session(&issuer.issuer, sid),
            None => ExternalId::of_sessionless(&issuer.issuer, sub),
        };
        let token = self.text("jti")?.map(|jti| ExternalId::of_token(&issuer.issuer, jti));
        let suspended = ExternalId::of_suspended(&issuer.issuer, sub);
        let leeway = issuer.leeway.as_secs() as i64;
        Ok(ExternalCaller {
            id: format!("{}:{id}", issuer.name),
            // Of a name that is none, nothing is told but the id.
            name: self.text_at(&names.name).ok().flatten().unwrap_or(id).to_owned(),
            roles: self.roles(issuer),
            subject: ExternalId::of(&issuer.issuer, sub),
            others: [Some(session), token, Some(suspended)].into_iter().flatten().collect(),
            issued_at: self.date("iat")?.unwrap_or(0),
            expires_at: self.date("exp")?.map(|exp| exp.saturating_add(leeway)),
        })
    }

    /// Returns the roles that the config gives for those of the token; what is none of them is left out.
    fn roles(&self, issuer: &Issuer) -> Roles {
        let theirs: Vec<&str> = match self.at(&issuer.claims.roles) {
            Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
            Some(Value::Array(roles)) => roles.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let ours = |theirs: &str| -> Option<Role> {
            match (issuer.roles.get(theirs), &issuer.role_prefix) {
                (Some(role), _) => Some(role.clone()),
                (None, Some(prefix)) => format!("{prefix}{theirs}").parse().ok(),
                (None, None) => None,
            }
        };
        let roles = theirs.into_iter().filter_map(ours).filter(|role| role.as_str() != Role::ADMIN);
        let mut roles: Vec<Role> = roles.collect();
        roles.sort();
        roles.dedup();
        roles.truncate(Roles::MAX);
        roles.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_at_any_depth_is_refused() {
        assert!(Claims::parse(br#"{"a": 1, "b": {"a": [{"c": 1.5}, null, true, -1]}}"#).is_ok());
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": {"b": 1, "b": 2}}"#,
            r#"{"a": [{"b": 1, "b": 2}]}"#,
            "[]",
            "1",
            "",
        ] {
            assert_eq!(Claims::parse(text.as_bytes()).err(), Some(TokenError::Claims), "{text}");
        }
    }

    #[test]
    fn dates_are_numbers() {
        let claims = Claims::parse(br#"{"a": 12, "b": 12.9, "c": "12", "d": 1e300}"#).unwrap();
        assert_eq!(claims.date("a"), Ok(Some(12)));
        assert_eq!(claims.date("b"), Ok(Some(12)));
        assert_eq!(claims.date("e"), Ok(None));
        assert!(claims.date("c").is_err() && claims.date("d").is_err());
    }
}
