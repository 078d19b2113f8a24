//! Variables in a file beside the config, one `NAME=value` each.
//!
//! A value is what stands there: a `$` is a `$`, since passwords have them. In double quotes a backslash stands before what would end
//! them; in either quotes a value may go over lines. Without quotes a comment begins behind a space.

/// A variable and its value.
pub(super) type Variable = (String, String);

/// Reads all variables. No part of the text is told of in an error: it may be a secret.
///
/// # Errors
/// The line, from 1, and what is wrong there.
pub(super) fn parse(text: &str) -> Result<Vec<Variable>, (usize, &'static str)> {
    let mut variables = Vec::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    let line_of = |rest: &str| text[..text.len() - rest.len()].matches('\n').count() + 1;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(variables);
        }
        if rest.starts_with('#') {
            rest = behind_line(rest);
            continue;
        }
        let at = line_of(rest);
        let (name, value) = line(rest).split_once('=').ok_or((at, "is not NAME=value"))?;
        let begin = name.len() + 1;
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        if !is_name(name) {
            return Err((at, "expected a name of letters, digits and `_` before the `=`"));
        }
        let indent = value.len() - value.trim_start_matches([' ', '\t']).len();
        let quote = value[indent..].chars().next().filter(|first| matches!(first, '"' | '\''));
        let value = match quote {
            Some(quote) => {
                let quoted = &rest[begin + indent + 1..];
                let (value, behind) = unquote(quoted, quote).ok_or((at, "has a quote that does not end"))?;
                let left = line(behind);
                if !left.trim().is_empty() && !left.trim_start().starts_with('#') {
                    return Err((line_of(behind), "has something behind the quotes"));
                }
                rest = behind_line(behind);
                value
            }
            None => {
                rest = behind_line(rest);
                let comment = [" #", "\t#"].into_iter().filter_map(|mark| value.find(mark)).min();
                value[..comment.unwrap_or(value.len())].trim().to_owned()
            }
        };
        variables.push((name.to_owned(), value));
    }
}

fn is_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_word) && !name.as_bytes()[0].is_ascii_digit()
}

fn line(rest: &str) -> &str {
    rest.split('\n').next().unwrap_or(rest)
}

fn behind_line(rest: &str) -> &str {
    rest.split_once('\n').map_or("", |(_, behind)| behind)
}

/// Returns what stands before the closing quote, and what comes behind it.
fn unquote(quoted: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            _ if char == quote => return Some((value, &quoted[at + 1..])),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\' | '$' | '`') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            _ => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_what_stands_there() {
        for (text, value) in [
            ("A=b", "b"),
            ("A=", ""),
            ("export A = b ", "b"),
            ("A=pa$$word$HOME${HOME}", "pa$$word$HOME${HOME}"),
            ("A=a=b", "a=b"),
            ("A=a b # not this", "a b"),
            ("A=a#b", "a#b"),
            ("A=a\t# b #12", "a"),
            ("A=\"a$c # \\\"d\\\" \\\\ \\d\" # not this", "a$c # \"d\" \\ \\d"),
            ("A='a\\n$\"'", "a\\n$\""),
            ("A=\"one\ntwo\\nthree\"", "one\ntwo\nthree"),
            ("\u{feff}# first\r\n\r\nA=b\r\n", "b"),
        ] {
            assert_eq!(parse(text), Ok(vec![("A".to_owned(), value.to_owned())]), "{text}");
        }
        let both = parse("A=1\n  # b\nB='2\n3'\nC=4").unwrap();
        assert_eq!(both.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["1", "2\n3", "4"]);
    }

    #[test]
    fn what_is_none_is_told_by_its_line() {
        for (text, line) in
            [("A=1\nword", 2), ("=1", 1), ("A B=1", 1), ("1A=1", 1), ("\nA='1\n2", 2), ("A='1\n2' 3", 2)]
        {
            assert_eq!(parse(text).map_err(|(line, _)| line), Err(line), "{text}");
        }
    }
}
