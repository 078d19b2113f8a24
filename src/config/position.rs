//! Where each key of a YAML file stands, and which keys stand there twice.
//!
//! The deserialiser knows no positions and lets the last of two equal keys win. This pass over
//! the parser's events supplies both.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser};

/// An error found on the way: the line, the key's path, and the problem.
pub(super) type Found = (usize, String, String);

/// The line of each key, by its path: `routes[2].upstream`.
#[derive(Debug, Default)]
pub(super) struct Positions(HashMap<String, usize>);

impl Positions {
    /// The line of `key`, or of the nearest key above it that is in the file.
    pub(super) fn line(&self, key: &str) -> usize {
        let mut key = key;
        loop {
            if let Some(&line) = self.0.get(key) {
                return line;
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return self.0.get("").copied().unwrap_or(1),
            }
        }
    }
}

enum Open {
    Mapping { path: String, seen: HashSet<String>, key: Option<String> },
    Sequence { path: String, next: usize },
}

/// Reads the positions of every key.
///
/// # Errors
/// The first error of syntax, a second document, or every key that stands twice in one mapping.
pub(super) fn scan(text: &str) -> Result<Positions, Vec<Found>> {
    let mut positions = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut doubles = Vec::new();
    let mut documents = 0;
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) =
            event.map_err(|error| vec![(error.marker().line(), String::new(), error.info().to_owned())])?;
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    let problem = "a config is one document; remove the second `---`".to_owned();
                    return Err(vec![(line, String::new(), problem)]);
                }
            }
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
                finish_value(&mut open);
            }
            Event::Scalar(..) | Event::Alias(_) | Event::MappingStart(..) | Event::SequenceStart(..) => {
                if let (Some(Open::Mapping { path, seen, key: key @ None }), Event::Scalar(name, ..)) =
                    (open.last_mut(), &event)
                {
                    let full = join(path, name);
                    if !seen.insert(name.to_string()) {
                        doubles.push((line, full.clone(), "this key stands here twice".to_owned()));
                    }
                    positions.entry(full.clone()).or_insert(line);
                    *key = Some(full);
                    continue;
                }
                let path = match open.last_mut() {
                    None => String::new(),
                    Some(Open::Mapping { path, key, .. }) => match key {
                        Some(full) => full.clone(),
                        None => {
                            let problem = "a key must be plain text".to_owned();
                            return Err(vec![(line, path.clone(), problem)]);
                        }
                    },
                    Some(Open::Sequence { path, next }) => format!("{path}[{next}]"),
                };
                positions.entry(path.clone()).or_insert(line);
                match event {
                    Event::MappingStart(..) => {
                        open.push(Open::Mapping { path, seen: HashSet::new(), key: None });
                    }
                    Event::SequenceStart(..) => open.push(Open::Sequence { path, next: 0 }),
                    _ => finish_value(&mut open),
                }
            }
            _ => {}
        }
    }
    if doubles.is_empty() { Ok(Positions(positions)) } else { Err(doubles) }
}

fn finish_value(open: &mut [Open]) {
    match open.last_mut() {
        Some(Open::Mapping { key, .. }) => *key = None,
        Some(Open::Sequence { next, .. }) => *next += 1,
        None => {}
    }
}

/// The path of `name` below `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_item_has_its_line() {
        let positions = scan("a: 1\nb:\n  - x: {y: 2}\n  - z\nc: |\n  text\n  more\nd: 4\n").unwrap();
        for (key, line) in [("a", 1), ("b[0].x.y", 3), ("b[1]", 4), ("c", 5), ("d", 8), ("d.e", 8)] {
            assert_eq!(positions.line(key), line, "{key}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_found_in_maps_of_any_depth() {
        let found = scan("a: 1\nb: {c: 1, c: 2}\na: 3\n").unwrap_err();
        let keys: Vec<_> = found.iter().map(|(line, key, _)| (*line, key.as_str())).collect();
        assert_eq!(keys, [(2, "b.c"), (3, "a")]);
    }
}
