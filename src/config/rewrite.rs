//! What a route changes of a request on its way.

use http::{HeaderName, HeaderValue};

use super::IdentityHeaders;
use crate::types::fields::Fields;

/// The path and the host by which an upstream is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The path.
    pub path: PathRewrite,
    /// `Host`, in place of the client's.
    pub host: Option<HeaderValue>,
}

/// The path by which an upstream is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// As the client asked.
    None,
    /// Always this one.
    Fixed(String),
    /// Without its first segments, and behind a prefix.
    Prefix {
        /// The number of segments that are taken away.
        stripped: usize,
        /// The prefix, without a slash at its end.
        added: String,
    },
}

impl PathRewrite {
    /// Returns the path in place of `path`, which is canonical. None if it stays.
    pub fn of(&self, path: &str) -> Option<String> {
        match self {
            Self::None => None,
            Self::Fixed(fixed) => Some(fixed.clone()),
            Self::Prefix { stripped, added } => {
                let ends = path.match_indices('/').map(|(slash, _)| slash);
                let rest = ends.skip(*stripped).map(|slash| &path[slash..]).next().unwrap_or_default();
                Some(if added.is_empty() && rest.is_empty() {
                    "/".to_owned()
                } else {
                    format!("{added}{rest}")
                })
            }
        }
    }
}

/// What a route changes of the headers of a message, beside what the gateway itself does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Headers that are taken out.
    pub remove: Vec<HeaderName>,
    /// Headers that replace those of their name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Headers that stand beside those of their name.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderRules {
    /// Returns whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Changes the headers of a message. A rule is for all spellings of a name that a backend could take for it.
    pub fn apply(&self, fields: &mut Fields) {
        if self.is_empty() {
            return;
        }
        let sets = self.set.iter().map(|(name, _)| name);
        let gone = |name: &HeaderName| {
            self.remove.iter().chain(sets.clone()).any(|rule| is_spelling(name, rule))
                || self.add.iter().any(|(rule, _)| rule != name && is_spelling(name, rule))
        };
        fields.retain(|name| !gone(name));
        for (name, value) in self.set.iter().chain(&self.add) {
            fields.append(name.clone(), value.clone());
        }
    }

    /// Takes out of an interim response what is taken out of the final one.
    pub fn take_out(&self, fields: &mut Fields) {
        fields.retain(|name| !self.remove.iter().any(|rule| is_spelling(name, rule)));
    }
}

/// Whether two names are one to a backend that folds them as [`IdentityHeaders::fold`] does.
fn is_spelling(name: &HeaderName, rule: &HeaderName) -> bool {
    let (name, rule) = (name.as_str(), rule.as_str());
    let fold = IdentityHeaders::fold_byte;
    name.len() == rule.len() && name.bytes().map(fold).eq(rule.bytes().map(fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_segments_are_taken_away_and_put_before() {
        let rewritten = |stripped, added: &str, path| {
            PathRewrite::Prefix { stripped, added: added.to_owned() }.of(path).unwrap()
        };
        for (stripped, added, path, expected) in [
            (1, "/v2", "/api/orders/7", "/v2/orders/7"),
            (1, "", "/api/orders/7", "/orders/7"),
            (1, "", "/api", "/"),
            (1, "/v2", "/api", "/v2"),
            (1, "/v2", "/api/", "/v2/"),
            (2, "", "/api/a%40b/c", "/c"),
            (0, "/v2", "/", "/v2/"),
        ] {
            assert_eq!(rewritten(stripped, added, path), expected, "{path}");
        }
    }

    #[test]
    fn rules_take_out_replace_and_add() {
        let pair =
            |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut fields = Fields::default();
        for (name, value) in
            [("a-x", "1"), ("a_x", "1"), ("b-x", "1"), ("b.x", "1"), ("c-x", "1"), ("c_x", "1")]
                .map(|(name, value)| pair(name, value))
        {
            fields.append(name, value);
        }
        let rules = HeaderRules {
            remove: vec![HeaderName::from_static("a-x")],
            set: vec![pair("b-x", "2")],
            add: vec![pair("c-x", "2")],
        };
        rules.apply(&mut fields);
        let mut lines: Vec<_> = fields.iter().cloned().collect();
        lines.sort_by(|a, b| (a.0.as_str(), &a.1).cmp(&(b.0.as_str(), &b.1)));
        assert_eq!(lines, [pair("b-x", "2"), pair("c-x", "1"), pair("c-x", "2")]);
    }
}
