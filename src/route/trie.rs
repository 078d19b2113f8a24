//! A trie of path segments.

use std::{collections::HashMap, ops::ControlFlow};

use foldhash::fast::RandomState;

use crate::config::{Pattern, Segment};

/// A node: the routes that end here, and its children.
#[derive(Debug)]
pub(super) struct Node<T> {
    pub(super) literals: HashMap<Box<str>, Node<T>, RandomState>,
    pub(super) any: Option<Box<Node<T>>>,
    /// What ends exactly here.
    pub(super) exact: Vec<T>,
    /// What ends here with a slash behind it.
    pub(super) slash: Vec<T>,
    /// What covers this and all below.
    pub(super) below: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            literals: HashMap::default(),
            any: None,
            exact: Vec::new(),
            slash: Vec::new(),
            below: Vec::new(),
        }
    }
}

impl<T: Copy> Node<T> {
    /// Puts `item` where `pattern` ends.
    pub(super) fn insert(&mut self, pattern: &Pattern, item: T) {
        let mut node = self;
        for segment in pattern.segments() {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.as_str().into()).or_default(),
                Segment::Any => node.any.get_or_insert_default(),
            };
        }
        let ends = if pattern.covers_below() {
            &mut node.below
        } else if pattern.has_trailing_slash() {
            &mut node.slash
        } else {
            &mut node.exact
        };
        ends.push(item);
    }

    /// Shows `visit` every item that matches `path`, the most specific first, until it breaks.
    ///
    /// Each node is visited at most once, since a path fixes the depth of each of its segments.
    pub(super) fn walk<B>(&self, path: &str, visit: &mut impl FnMut(T) -> ControlFlow<B>) -> ControlFlow<B> {
        self.walk_rest(path.strip_prefix('/'), visit)
    }

    fn walk_rest<B>(
        &self,
        rest: Option<&str>,
        visit: &mut impl FnMut(T) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match rest {
            None => self.exact.iter().copied().try_for_each(&mut *visit)?,
            Some("") => self.slash.iter().copied().try_for_each(&mut *visit)?,
            Some(rest) => {
                // Segments are short: a loop finds their end sooner than a search that is made for long texts.
                let (segment, rest) = match rest.bytes().position(|byte| byte == b'/') {
                    Some(end) => (&rest[..end], Some(&rest[end + 1..])),
                    None => (rest, None),
                };
                if let Some(node) = self.literals.get(segment) {
                    node.walk_rest(rest, visit)?;
                }
                if let Some(node) = self.any.as_ref().filter(|_| !segment.is_empty()) {
                    node.walk_rest(rest, visit)?;
                }
            }
        }
        self.below.iter().copied().try_for_each(visit)
    }
}
