//! Where a route sends its callers.

use http::StatusCode;

use crate::types::host::is_host;

/// The placeholder for the request's path.
const PATH: &str = "{path}";

/// The redirect of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The status, one that a redirect has.
    pub status: StatusCode,
    /// The target before the path of the request.
    before: String,
    /// What follows the path. None if the target does not contain it.
    after: Option<String>,
    /// Whether the target has a query of its own.
    has_query: bool,
}

impl Redirect {
    /// Reads the target of a redirect.
    ///
    /// # Errors
    /// The problem, for the operator.
    pub fn parse(to: &str, status: StatusCode) -> Result<Self, &'static str> {
        if !to.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`|#".contains(&byte)) {
            return Err("expected a target of visible ASCII without a fragment");
        }
        let (before, after) = match to.split_once(PATH) {
            Some((before, after)) => (before, Some(after)),
            None => (to, None),
        };
        if [before, after.unwrap_or_default()].iter().any(|part| part.contains(['{', '}'])) {
            return Err("expected no placeholder but one `{path}`");
        }
        if after.is_some() && before.contains('?') {
            // A path may hold what separates the parts of a query.
            return Err("expected `{path}` before the query");
        }
        if after.is_some() && before.ends_with('/') && !before.ends_with("://") {
            return Err("`{path}` begins with a slash of its own");
        }
        let rest = before.strip_prefix("https://").or_else(|| before.strip_prefix("http://"));
        if let Some(rest) = rest {
            if !is_host(&rest[..rest.find(['/', '?']).unwrap_or(rest.len())]) {
                return Err("expected a host behind `https://`");
            }
        } else if !before.starts_with('/') || before.starts_with("//") {
            return Err("expected https://HOST/…, or a path that begins with one slash");
        }
        Ok(Self {
            status,
            before: before.to_owned(),
            after: after.map(str::to_owned),
            has_query: to.contains('?'),
        })
    }

    /// Returns the `Location` for a request with a canonical path and a query.
    pub fn location(&self, path: &str, query: Option<&str>) -> String {
        let mut location = self.before.clone();
        if let Some(after) = &self.after {
            location.push_str(path);
            location.push_str(after);
        }
        if let Some(query) = query.filter(|_| !self.has_query) {
            location.push('?');
            location.push_str(query);
        }
        location
    }

    /// Returns the target as it was written.
    pub fn to(&self) -> String {
        match &self.after {
            Some(after) => format!("{}{PATH}{after}", self.before),
            None => self.before.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(to: &str) -> Result<Redirect, &'static str> {
        Redirect::parse(to, StatusCode::PERMANENT_REDIRECT)
    }

    #[test]
    fn the_path_stands_where_it_is_asked_for_and_the_query_is_appended() {
        let location = |to: &str, query| parse(to).unwrap().location("/old/a", query);
        assert_eq!(
            location("https://new.example.com{path}", Some("b=1")),
            "https://new.example.com/old/a?b=1"
        );
        assert_eq!(location("https://new.example.com/x", None), "https://new.example.com/x");
        assert_eq!(location("/new{path}/c?from=old", Some("b=1")), "/new/old/a/c?from=old");
    }

    #[test]
    fn a_target_names_a_host_or_a_path_and_no_client_can_change_which() {
        for to in [
            "",
            "{path}",
            "/{path}",
            "//a",
            "a",
            "ftp://a",
            "https://",
            "https:///a",
            "https://u@a",
            "https://{path}",
            "/a{path}{path}",
            "/a{x}",
            "/a b",
            "/a\\b",
            "/a#b",
            "https://a?b={path}",
            "https://a:b{path}",
            "https://a/{path}",
            "/é",
        ] {
            assert!(parse(to).is_err(), "{to:?}");
        }
        for to in ["/", "/a", "/a{path}", "http://a:8080{path}", "https://a?b=c"] {
            assert_eq!(parse(to).map(|redirect| redirect.to()), Ok(to.to_owned()));
        }
    }
}
