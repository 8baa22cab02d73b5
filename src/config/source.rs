//! What a configuration was made from.

use std::fmt;
use std::sync::Arc;

use super::overrides::Overrides;
use super::problem::{Origin, Problems};
use super::yaml::{self, Node};

/// The text and the overrides that a configuration was made from, for comparing it with another one. They do
/// not affect equality: any two are equal.
#[derive(Clone, Default)]
pub struct ConfigSource {
    text: Option<Arc<[u8]>>,
    overrides: Overrides,
}

impl ConfigSource {
    pub(super) fn new(text: Option<&[u8]>, overrides: &Overrides) -> Self {
        Self { text: text.map(Arc::from), overrides: overrides.clone() }
    }

    /// The root node, with the overrides.
    pub(super) fn root(&self) -> Result<Node, Problems> {
        let mut root = match &self.text {
            Some(text) => yaml::read(text)?,
            None => Node::map(Origin::START, Vec::new()),
        };
        self.overrides.write(&mut root);
        Ok(root)
    }
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConfigSource").finish_non_exhaustive()
    }
}

impl Eq for ConfigSource {}

impl PartialEq for ConfigSource {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
