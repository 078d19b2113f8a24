//! What an operator's programs want to know about people beside their names and roles.

use std::collections::BTreeMap;

/// Further facts about an account, by the names that the config declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<String, String>);

/// New values of attributes; none takes one away.
pub type AttributeChanges = BTreeMap<String, Option<String>>;

impl Attributes {
    /// Reads what [`Self::stored`] returned. Returns `None` for what that could not have been.
    pub fn parse(stored: &str) -> Option<Self> {
        if stored.is_empty() { Some(Self::default()) } else { serde_json::from_str(stored).ok().map(Self) }
    }

    /// Returns the form in which a store keeps them; empty if there are none.
    pub fn stored(&self) -> String {
        if self.0.is_empty() { String::new() } else { serde_json::json!(self.0).to_string() }
    }

    /// Returns the value of an attribute.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns them as they are after a change.
    pub fn changed(&self, changes: &AttributeChanges) -> Self {
        let mut values = self.0.clone();
        for (name, value) in changes {
            match value {
                Some(value) => drop(values.insert(name.clone(), value.clone())),
                None => drop(values.remove(name)),
            }
        }
        Self(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_reads_as_it_was() {
        let changes = |pairs: &[(&str, Option<&str>)]| -> AttributeChanges {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
        };
        let none = Attributes::default();
        assert_eq!((none.stored().as_str(), Attributes::parse("")), ("", Some(none.clone())));
        let two = none.changed(&changes(&[("team", Some("a \"b\"")), ("city", Some("K\u{f6}ln"))]));
        assert_eq!(Attributes::parse(&two.stored()), Some(two.clone()));
        assert_eq!(two.changed(&changes(&[("team", None), ("city", None)])), none);
        assert_eq!(Attributes::parse("[]"), None);
    }
}
