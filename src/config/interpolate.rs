//! `${NAME}` and `${NAME:-default}` inside scalar values.
//!
//! It acts on parsed scalars, so a value from the environment cannot add keys or change types
//! other than its own.

use std::collections::HashSet;

use serde_yaml::Value;

use super::position::join;

/// Looks a variable up by its name.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Fills in every scalar below `value`. Returns the paths that were touched.
///
/// # Errors
/// The path and the trouble of every scalar that could not be filled in.
pub(super) fn fill(value: &mut Value, lookup: Lookup<'_>) -> Result<HashSet<String>, Vec<(String, String)>> {
    let mut walk = Walk { lookup, touched: HashSet::new(), errors: Vec::new() };
    walk.value(value, String::new());
    if walk.errors.is_empty() { Ok(walk.touched) } else { Err(walk.errors) }
}

struct Walk<'a> {
    lookup: Lookup<'a>,
    touched: HashSet<String>,
    errors: Vec<(String, String)>,
}

impl Walk<'_> {
    fn value(&mut self, value: &mut Value, path: String) {
        match value {
            Value::String(text) if text.contains("${") => match expand(text, self.lookup) {
                Ok(filled) => {
                    *text = filled;
                    self.touched.insert(path);
                }
                Err(problem) => self.errors.push((path, problem)),
            },
            Value::Sequence(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(item, format!("{path}[{index}]"));
                }
            }
            Value::Mapping(entries) => {
                for (key, entry) in entries.iter_mut() {
                    let name = key.as_str().unwrap_or_default();
                    self.value(entry, join(&path, name));
                }
            }
            Value::Tagged(tagged) => self.value(&mut tagged.value, path),
            _ => {}
        }
    }
}

fn expand(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            filled.push_str(&rest[..start - 1]);
            filled.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        filled.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else {
            return Err("`${` is not closed; write `$${` for a literal one".to_owned());
        };
        let inside = &rest[start + 2..start + length];
        rest = &rest[start + length + 1..];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let legal = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !legal {
            return Err(format!("`{name}` is not a variable's name; write ${{NAME}} or ${{NAME:-default}}"));
        }
        match (lookup(name), default) {
            // As in a shell, `:-` also replaces a variable that is set to nothing.
            (Some(value), Some(default)) if value.is_empty() => filled.push_str(default),
            (Some(value), _) => filled.push_str(&value),
            (None, Some(default)) => filled.push_str(default),
            (None, None) => {
                return Err(format!(
                    "the variable {name} is not set; set it in the environment or in .env beside this file, or write ${{{name}:-default}}"
                ));
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("one: {two}".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_defaults_and_literals() {
        for (text, filled) in [
            ("x${A}y", "xone: {two}y"),
            ("${NONE:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY}", ""),
            ("$${A}", "${A}"),
            ("$5 ${NONE:-}", "$5 "),
        ] {
            assert_eq!(expand(text, &lookup).as_deref(), Ok(filled), "{text}");
        }
        for text in ["${NONE}", "${A", "${}", "${a-b}"] {
            assert!(expand(text, &lookup).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_cannot_add_keys() {
        let mut value: Value = serde_yaml::from_str("a: ${A}\nb: [\"${A}\"]").unwrap();
        let touched = fill(&mut value, &lookup).unwrap();
        assert_eq!(value["a"], Value::String("one: {two}".into()));
        assert_eq!(touched, HashSet::from(["a".to_owned(), "b[0]".to_owned()]));
    }
}
