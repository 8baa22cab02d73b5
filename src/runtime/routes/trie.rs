//! Path prefixes, segment by segment.

use super::conditions::RouteCandidates;
use super::hash::Map;
use super::{Depths, RouteQuery};

/// The routes whose prefix is the path from the root to this node, and the nodes below.
#[derive(Debug, Default)]
pub(super) struct Trie {
    here: RouteCandidates,
    below: Map<Trie>,
}

impl Trie {
    /// The entry of a prefix, which begins with `/`.
    pub(super) fn entry(&mut self, prefix: &str) -> &mut RouteCandidates {
        let mut node = self;
        for segment in prefix.split('/').filter(|segment| !segment.is_empty()) {
            node = node.below.entry(segment.into()).or_default();
        }
        &mut node.here
    }

    /// Whether `/` is the only prefix.
    pub(super) fn is_root_alone(&self) -> bool {
        self.below.is_empty()
    }

    /// The route with the longest prefix whose conditions are met.
    pub(super) fn find(&self, asked: &RouteQuery<'_>) -> Option<usize> {
        let mut depths = Depths::new();
        let mut node = self;
        let mut segments = asked.path.split('/').skip(1);
        loop {
            if !node.here.is_empty() {
                depths.push(&node.here);
            }
            if node.below.is_empty() {
                break;
            }
            let Some(below) = segments.next().and_then(|segment| node.below.get(segment)) else {
                break;
            };
            node = below;
        }
        depths.iter().rev().find_map(|candidates| candidates.find(asked))
    }
}
