//! What a route changes of a request on its way.

use http::{HeaderName, HeaderValue};

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
    /// Changes the headers of a message.
    pub fn apply(&self, fields: &mut Fields) {
        fields.remove_all(&self.remove);
        for (name, value) in &self.set {
            fields.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            fields.append(name.clone(), value.clone());
        }
    }
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
        for (name, value) in [pair("a", "1"), pair("b", "1"), pair("c", "1")] {
            fields.append(name, value);
        }
        let rules = HeaderRules {
            remove: vec![HeaderName::from_static("a")],
            set: vec![pair("b", "2")],
            add: vec![pair("c", "2")],
        };
        rules.apply(&mut fields);
        let mut lines: Vec<_> = fields.iter().cloned().collect();
        lines.sort_by(|a, b| (a.0.as_str(), &a.1).cmp(&(b.0.as_str(), &b.1)));
        assert_eq!(lines, [pair("b", "2"), pair("c", "1"), pair("c", "2")]);
    }
}
