//! Path patterns of routes.

use std::fmt;

use crate::types::path;

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Exactly this, decoded.
    Literal(String),
    /// `{x}`: any one segment that is not empty.
    Any,
}

/// The path of a route: segments, and whether all below them belongs to it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    written: String,
    segments: Vec<Segment>,
    below: bool,
    trailing_slash: bool,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The problem, for the operator.
    pub fn parse(written: &str) -> Result<Self, String> {
        let rest = written.strip_prefix('/').ok_or("a path begins with `/`")?;
        let (fixed, below) = match rest.strip_suffix("/**") {
            Some(fixed) => (fixed, true),
            None if rest == "**" => ("", true),
            None => (rest, false),
        };
        let (inner, trailing_slash) = match fixed.strip_suffix('/') {
            Some(inner) if !below => (inner, true),
            _ => (fixed, !below && fixed.is_empty()),
        };
        let mut segments = Vec::new();
        // `/` and `/**` are the two paths without a segment.
        if !rest.is_empty() && rest != "**" {
            for segment in inner.split('/') {
                segments.push(parse_segment(segment)?);
            }
        }
        Ok(Self { written: written.to_owned(), segments, below, trailing_slash })
    }

    /// The segments before `**`, or all.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it ends in `/**`.
    pub fn covers_below(&self) -> bool {
        self.below
    }

    /// Whether it ends in `/`, which then counts.
    pub fn has_trailing_slash(&self) -> bool {
        self.trailing_slash
    }

    /// Whether it is this one path and no other.
    pub fn is_exactly(&self, path: &str) -> bool {
        !self.below && self.written == path && !self.segments.contains(&Segment::Any)
    }
}

fn parse_segment(segment: &str) -> Result<Segment, String> {
    if let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let legal = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        return if legal {
            Ok(Segment::Any)
        } else {
            Err("a placeholder is one whole segment such as `{id}`".to_owned())
        };
    }
    if segment.is_empty() {
        return Err("a path has no empty segments".to_owned());
    }
    if segment.contains(['{', '}', '*']) {
        return Err(
            "write `{name}` for one whole segment, and `/**` only at the end for all below".to_owned()
        );
    }
    // A path that is not canonical is refused before it is matched, so such a route would never match.
    match path::canonical(&format!("/{segment}")) {
        Ok(canonical) => Ok(Segment::Literal(canonical.decoded[1..].to_owned())),
        Err(path::NotCanonical) => Err(format!(
            "`{segment}` is not canonical: no request could match it (encode only what must be encoded; no `.`, `..`, `;` or `\\`)"
        )),
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_whole_segments() {
        let pattern = Pattern::parse("/users/{id}/files").unwrap();
        assert_eq!(
            pattern.segments(),
            [Segment::Literal("users".into()), Segment::Any, Segment::Literal("files".into())]
        );
        assert!(Pattern::parse("/a/**").unwrap().covers_below());
        assert!(Pattern::parse("/").unwrap().has_trailing_slash());
        assert!(Pattern::parse("/**").unwrap().segments().is_empty());
        assert!(Pattern::parse("/a/").unwrap().has_trailing_slash());
    }

    #[test]
    fn patterns_that_no_request_could_match_are_refused() {
        for pattern in [
            "", "a", "//", "/a//b", "/a/*", "/a/**/b", "/a**", "/a{x}", "/{}", "/{a-b}", "/a;b", "/..",
            "/a/%2e", "/a b", "/a?b", "//**", "/a//**", "/a//",
        ] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern:?}");
        }
    }
}
