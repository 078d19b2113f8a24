//! The one form of a request path that is matched and forwarded.
//!
//! Two parsers that read one path differently are how gateways are walked around. What any
//! common backend could read in a second way is therefore refused, not repaired: dot segments,
//! empty segments, encoded separators, path parameters, double encoding, and characters that
//! needed no encoding (RFC 3986, sections 2.3 and 6.2.2). The one thing that is rewritten is the
//! case of the hex digits, which RFC 3986, section 6.2.2.1 defines as equal.
//!
//! What may be encoded or not (`@` and `%40`) is one path to every backend, so routes are matched
//! against the decoded form: `/a:b` cannot be reached around its route as `/a%3Ab`.

use std::borrow::Cow;

/// A path that has one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical<'a> {
    /// As it is forwarded.
    pub wire: Cow<'a, str>,
    /// With every escape undone, as it is matched. No escape can stand for `/`.
    pub decoded: Cow<'a, str>,
}

/// The path could be read in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotCanonical;

const PLAIN: u8 = 0;
const SLASH: u8 = 1;
const DOT: u8 = 2;
const PERCENT: u8 = 3;
const REFUSED: u8 = 4;

/// `pchar` of RFC 3986 without `;`, and the three that browsers leave as they are: `[`, `]`, `|`.
const CLASS: [u8; 256] = {
    let mut class = [REFUSED; 256];
    let plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_~!$&'()*+,=:@[]|";
    let mut i = 0;
    while i < plain.len() {
        class[plain[i] as usize] = PLAIN;
        i += 1;
    }
    class[b'/' as usize] = SLASH;
    class[b'.' as usize] = DOT;
    class[b'%' as usize] = PERCENT;
    class
};

/// The canonical form of `path`, which must begin with `/` and hold no query.
///
/// # Errors
/// When the path has more than one reading.
pub fn canonical(path: &str) -> Result<Canonical<'_>, NotCanonical> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(NotCanonical);
    }
    let mut segment = 1;
    let mut at = 1;
    let mut encoded = false;
    let mut lower_hex = false;
    while at < bytes.len() {
        match CLASS[bytes[at] as usize] {
            PLAIN => {}
            SLASH => {
                // The last segment may be empty: `/a/` is not `/a`, but it is one path.
                if at == segment || is_dots(&bytes[segment..at]) {
                    return Err(NotCanonical);
                }
                segment = at + 1;
            }
            DOT => {}
            PERCENT => {
                lower_hex |= check_escape(bytes, at)?;
                encoded = true;
                at += 2;
            }
            _ => return Err(NotCanonical),
        }
        at += 1;
    }
    if is_dots(&bytes[segment..]) {
        return Err(NotCanonical);
    }
    let wire = if lower_hex { Cow::Owned(upper_hex(path)) } else { Cow::Borrowed(path) };
    let decoded = if encoded {
        // Overlong and other broken sequences are how `/` hides from one of two decoders.
        percent_encoding::percent_decode(bytes).decode_utf8().map_err(|_| NotCanonical)?
    } else {
        Cow::Borrowed(path)
    };
    Ok(Canonical { wire, decoded })
}

/// A path in which `%2F` and `;` are left to the backend, with everything that a backend could read it as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<'a> {
    /// As it is forwarded.
    pub wire: &'a str,
    /// As it is matched: with an encoded slash as a character of its segment, and as a separator; with the parameters of
    /// segments, and without them; without those of the last segment; and cut at each semicolon.
    pub readings: Vec<String>,
}

/// The longest path with several readings, in bytes, and the most of `%2F` and `;` in it: each adds readings.
const MAX_KEPT: usize = 4 << 10;
const MAX_MARKS: usize = 8;

/// What stands for `%2F` and `;` in a reading: characters of no path (Unicode noncharacters), so that no pattern has them.
const KEPT_SLASH: &str = "%EF%BF%BE";
const KEPT_SEMICOLON: &str = "%EF%BF%BF";

/// All readings of a path that need not be [`canonical`] but for `%2F` and `;`.
///
/// # Errors
/// When any reading is not canonical: has a dot segment or an empty one, or what [`canonical`] refuses otherwise. When there
/// are too many.
pub fn kept(path: &str) -> Result<Kept<'_>, NotCanonical> {
    let with_slashes = |path: &str, slash: &str| path.replace("%2F", slash).replace("%2f", slash);
    let split = with_slashes(path, "/");
    let slashes = path.match_indices("%2").filter(|(at, _)| path[at + 2..].starts_with(['F', 'f'])).count();
    if path.len() > MAX_KEPT || slashes + path.matches(';').count() > MAX_MARKS {
        return Err(NotCanonical);
    }
    let mut forms = Vec::new();
    for base in [path, &split] {
        let last = base.rfind('/').map_or(0, |slash| slash + 1);
        let whole_last = format!("{}{}", &base[..last], without_parameters(&base[last..]));
        forms.extend([base.to_owned(), without_parameters(base), whole_last]);
        for (mark, _) in base.match_indices(';') {
            forms.extend([base[..mark].to_owned(), without_parameters(&base[..mark])]);
        }
    }
    let mut readings = Vec::new();
    for form in &forms {
        for slash in [KEPT_SLASH, "/"] {
            let reading = with_slashes(form, slash).replace(';', KEPT_SEMICOLON);
            readings.push(canonical(&reading)?.decoded.into_owned());
        }
    }
    readings.sort_unstable();
    readings.dedup();
    Ok(Kept { wire: path, readings })
}

/// A path without what follows a semicolon in each segment.
fn without_parameters(path: &str) -> String {
    let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    segments.collect::<Vec<_>>().join("/")
}

fn is_dots(segment: &[u8]) -> bool {
    segment == b"." || segment == b".."
}

/// Checks the escape at `at`; true when it has a hex digit in lower case.
fn check_escape(bytes: &[u8], at: usize) -> Result<bool, NotCanonical> {
    let (Some(&high), Some(&low)) = (bytes.get(at + 1), bytes.get(at + 2)) else {
        return Err(NotCanonical);
    };
    let digit = |byte: u8| (byte as char).to_digit(16).ok_or(NotCanonical);
    let decoded = (digit(high)? * 16 + digit(low)?) as u8;
    let refused = match decoded {
        0..=0x1f | 0x7f => true,
        b'/' | b'\\' | b';' | b'?' | b'#' => true,
        b'-' | b'.' | b'_' | b'~' => true,
        b'%' => {
            let next = |offset: usize| bytes.get(at + offset).is_some_and(u8::is_ascii_hexdigit);
            next(3) && next(4)
        }
        byte => byte.is_ascii_alphanumeric(),
    };
    if refused {
        return Err(NotCanonical);
    }
    Ok(high.is_ascii_lowercase() || low.is_ascii_lowercase())
}

fn upper_hex(path: &str) -> String {
    let mut upper = String::with_capacity(path.len());
    let mut digits = 0;
    for c in path.chars() {
        if digits > 0 {
            upper.push(c.to_ascii_uppercase());
            digits -= 1;
        } else {
            upper.push(c);
            if c == '%' {
                digits = 2;
            }
        }
    }
    upper
}

#[cfg(test)]
#[path = "../../fuzz/path.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_paths_stay_as_they_are() {
        for path in
            ["/", "/a", "/a/", "/a.b/..c/...", "/caf%C3%A9/%20x", "/a:b@c,d=e+f", "/100%25", "/a[0]|b"]
        {
            assert_eq!(canonical(path).map(|path| path.wire), Ok(Cow::Borrowed(path)));
        }
    }

    #[test]
    fn hex_digits_are_raised_to_upper_case() {
        assert_eq!(canonical("/caf%c3%a9").map(|path| path.wire), Ok("/caf%C3%A9".into()));
    }

    #[test]
    fn an_escape_that_was_a_choice_makes_no_second_path() {
        let paths = ["/a:b@c", "/a%3Ab%40c", "/a%3ab@c"];
        for path in paths {
            assert_eq!(canonical(path).map(|path| path.decoded), Ok("/a:b@c".into()));
        }
    }

    #[test]
    fn what_is_kept_is_read_in_every_way() {
        let readings = |path: &str| kept(path).map(|kept| kept.readings);
        let sorted = |paths: &[&str]| {
            let mut paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
            paths.sort_unstable();
            Ok(paths)
        };
        assert_eq!(readings("/a%2fb/c"), sorted(&["/a\u{fffe}b/c", "/a/b/c"]));
        assert_eq!(
            readings("/a;x%2Fy/b"),
            sorted(&["/a\u{ffff}x\u{fffe}y/b", "/a\u{ffff}x/y/b", "/a/b", "/a/y/b", "/a"])
        );
        // What cuts a path at a semicolon, and what takes parameters from the last segment only.
        assert!(readings("/a/7;/x").unwrap().contains(&"/a/7".to_owned()));
        assert!(readings("/a/7%2Fq;y/z").unwrap().contains(&"/a/7/q".to_owned()));
        assert!(readings("/a;x%2Fq/b;y%2Fz").unwrap().contains(&"/a\u{ffff}x/q/b".to_owned()));
        assert_eq!(readings(&format!("/a{}", ";b".repeat(9))), Err(NotCanonical), "too many");
        for path in [
            "/a/..;x/b",
            "/..%2Fb",
            "/a%2F..%2Fb",
            "/.;/b",
            "/a/%2e%2e;x",
            "/;x/b",
            "/a%2F%2Fb",
            "/%2Fa",
            "/a%2F/b",
            "/a;x=%5C",
            "/a%252Fb",
            "/a;%00",
            "/a%2F..;x",
        ] {
            assert_eq!(readings(path), Err(NotCanonical), "{path}");
        }
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        for path in [
            "",
            "a",
            "*",
            "//",
            "/a//b",
            "//a",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/%2e%2e/a",
            "/%2E",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a;b=c",
            "/a%3Bb",
            "/%00",
            "/a%0d%0a",
            "/a%7f",
            "/%252e",
            "/a%25%32%66",
            "/a%2",
            "/a%",
            "/a%zz",
            "/%61dmin",
            "/a%7Eb",
            "/%ff",
            "/%c0%af",
            "/a b",
            "/a\u{e9}",
            "/a\tb",
            "/a#b",
            "/a?b",
            "/a%3Fb",
            "/a%23b",
            "/a\"b",
            "/a<b",
            "/{x}",
        ] {
            assert_eq!(canonical(path), Err(NotCanonical), "{path:?}");
        }
    }
}
