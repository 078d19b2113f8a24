//! The pairs of `Cookie` (RFC 6265bis, section 4.2.1).

use memchr::memchr;

/// Returns the pairs of a line, without the spaces around them. A line may be long, and it is read at each request of a browser.
pub fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let pair = match memchr(b';', line) {
            Some(end) => {
                rest = Some(&line[end + 1..]);
                &line[..end]
            }
            None => {
                rest = None;
                line
            }
        };
        Some(pair.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::pairs;

    #[test]
    fn pairs_are_split_at_each_semicolon() {
        let of = |line: &'static str| -> Vec<&str> {
            pairs(line.as_bytes()).map(|pair| std::str::from_utf8(pair).unwrap()).collect()
        };
        assert_eq!(of("a=1; b=2;c=\"3\" ; "), ["a=1", "b=2", "c=\"3\"", ""]);
        assert_eq!(of("a"), ["a"]);
        assert_eq!(of(""), [""]);
        assert_eq!(of(";;"), ["", "", ""]);
    }
}
