//! A topic trie: which of many filters match a topic, in time that depends on the topic's depth and not on how many
//! filters there are. The broker keeps subscriptions in one, the dispatcher its bindings.

use std::collections::HashMap;

use crate::{TopicFilter, TopicName};

/// A map from topic filters to values, asked by topic name. One value per filter; use a collection as `V` for several.
#[derive(Debug, Clone)]
pub struct TopicTrie<V> {
    root: Node<V>,
}

#[derive(Debug, Clone)]
struct Node<V> {
    children: HashMap<Box<str>, Node<V>>,
    /// The child for `+`, apart from the others so that a literal lookup never finds it.
    any: Option<Box<Node<V>>>,
    /// The value of a filter that ends here.
    here: Option<V>,
    /// The value of a filter that ends here with `#`.
    rest: Option<V>,
}

impl<V> Default for TopicTrie<V> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { children: HashMap::new(), any: None, here: None, rest: None }
    }
}

impl<V> TopicTrie<V> {
    /// An empty trie.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of exactly this filter, made by `default` when there is none yet.
    pub fn entry(&mut self, filter: &TopicFilter, default: impl FnOnce() -> V) -> &mut V {
        let mut node = &mut self.root;
        for level in filter.as_str().split('/') {
            match level {
                "#" => return node.rest.get_or_insert_with(default),
                "+" => node = node.any.get_or_insert_with(Box::default),
                // Two look-ups on the miss path only: `entry` would copy the level on every hit.
                literal if node.children.contains_key(literal) => match node.children.get_mut(literal) {
                    Some(child) => node = child,
                    None => unreachable!("the key was found a line above"),
                },
                literal => node = node.children.entry(literal.into()).or_default(),
            }
        }
        node.here.get_or_insert_with(default)
    }

    /// The value of exactly this filter.
    pub fn get_mut(&mut self, filter: &TopicFilter) -> Option<&mut V> {
        let mut node = &mut self.root;
        for level in filter.as_str().split('/') {
            match level {
                "#" => return node.rest.as_mut(),
                "+" => node = node.any.as_deref_mut()?,
                literal => node = node.children.get_mut(literal)?,
            }
        }
        node.here.as_mut()
    }

    /// Takes the value of exactly this filter out, and the branches that are empty without it.
    pub fn remove(&mut self, filter: &TopicFilter) -> Option<V> {
        self.root.remove(filter.as_str().split('/'))
    }

    /// Calls `visit` with the value of every filter that matches `topic`, each once.
    pub fn for_each_match<'a>(&'a self, topic: &TopicName, mut visit: impl FnMut(&'a V)) {
        let text = topic.as_str();
        self.root.visit(Some(text), !text.starts_with('$'), &mut visit);
    }
}

impl<V> Node<V> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_none() && self.rest.is_none()
    }

    fn remove(&mut self, mut levels: std::str::Split<'_, char>) -> Option<V> {
        match levels.next() {
            None => self.here.take(),
            Some("#") => self.rest.take(),
            Some("+") => {
                let child = self.any.as_mut()?;
                let value = child.remove(levels);
                if child.is_empty() {
                    self.any = None;
                }
                value
            }
            Some(literal) => {
                let child = self.children.get_mut(literal)?;
                let value = child.remove(levels);
                if child.is_empty() {
                    self.children.remove(literal);
                }
                value
            }
        }
    }

    /// `remaining` is the part of the topic below this node, `None` when the topic is used up; `wildcards` is whether
    /// `+` and `#` may match at this level (not at the first of a `$` topic).
    fn visit<'a>(&'a self, remaining: Option<&str>, wildcards: bool, visit: &mut impl FnMut(&'a V)) {
        if wildcards && let Some(value) = &self.rest {
            visit(value);
        }
        let Some(text) = remaining else {
            if let Some(value) = &self.here {
                visit(value);
            }
            return;
        };
        let (level, below) = match text.split_once('/') {
            Some((level, below)) => (level, Some(below)),
            None => (text, None),
        };
        if let Some(child) = self.children.get(level) {
            child.visit(below, true, visit);
        }
        if wildcards && let Some(child) = &self.any {
            child.visit(below, true, visit);
        }
    }
}

#[cfg(test)]
#[path = "trie_tests.rs"]
mod tests;
