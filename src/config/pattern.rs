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

impl Segment {
    fn takes(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == text,
            Self::Any => !text.is_empty(),
        }
    }
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

    /// Returns whether a path, which is canonical and decoded, matches.
    pub fn matches(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix('/') else { return false };
        let (inner, has_slash) =
            rest.strip_suffix('/').map_or((rest, rest.is_empty()), |inner| (inner, true));
        let mut given = (!inner.is_empty()).then(|| inner.split('/')).into_iter().flatten();
        let mut own = self.segments.iter();
        loop {
            match (own.next(), given.next()) {
                (Some(segment), Some(text)) if segment.takes(text) => {}
                (Some(_), _) => return false,
                (None, Some(_)) => return self.below,
                (None, None) => return self.below || self.trailing_slash == has_slash,
            }
        }
    }

    /// Returns whether any path matches both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (shorter, longer) =
            if self.segments.len() <= other.segments.len() { (self, other) } else { (other, self) };
        let can_be_one = |(a, b): (&Segment, &Segment)| a == b || *a == Segment::Any || *b == Segment::Any;
        if !shorter.segments.iter().zip(&longer.segments).all(can_be_one) {
            return false;
        }
        if shorter.segments.len() < longer.segments.len() {
            return shorter.below;
        }
        self.below || other.below || self.trailing_slash == other.trailing_slash
    }

    /// Returns whether it matches all that another one does.
    pub fn covers(&self, other: &Self) -> bool {
        let takes = |(own, its): (&Segment, &Segment)| own == its || *own == Segment::Any;
        let (own, its) = (self.segments.len(), other.segments.len());
        if own > its || !self.segments.iter().zip(&other.segments).all(takes) {
            return false;
        }
        self.below || (own == its && !other.below && self.trailing_slash == other.trailing_slash)
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
    fn a_pattern_matches_as_routes_do() {
        let matches = |pattern: &str, path| Pattern::parse(pattern).unwrap().matches(path);
        for (pattern, path) in [
            ("/", "/"),
            ("/**", "/"),
            ("/**", "/a/b/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/**", "/a"),
            ("/a/**", "/a/"),
            ("/a/**", "/a/b"),
            ("/a/{x}", "/a/b"),
            ("/a/{x}/c", "/a/b/c"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/", "/a"),
            ("/a", "/a/"),
            ("/a/", "/a"),
            ("/a", "/ab"),
            ("/a/**", "/ab"),
            ("/a/{x}", "/a/"),
            ("/a/{x}", "/a"),
            ("/a/{x}", "/a/b/c"),
            ("/a", "a"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_overlap_where_a_path_matches_both_and_cover_where_all_do() {
        let of = |text: &str| Pattern::parse(text).unwrap();
        for (one, other, overlap, covers) in [
            ("/**", "/a/b", true, true),
            ("/a/b", "/**", true, false),
            ("/a/**", "/a", true, true),
            ("/a/**", "/a/{x}/**", true, true),
            ("/a/{x}", "/{y}/b", true, false),
            ("/a/{x}", "/a/b", true, true),
            ("/a", "/a/", false, false),
            ("/a", "/a/b", false, false),
            ("/a/**", "/b/**", false, false),
            ("/a/{x}", "/a/b/**", true, false),
        ] {
            assert_eq!(
                (of(one).overlaps(&of(other)), of(other).overlaps(&of(one))),
                (overlap, overlap),
                "{one} {other}"
            );
            assert_eq!(of(one).covers(&of(other)), covers, "{one} {other}");
        }
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
