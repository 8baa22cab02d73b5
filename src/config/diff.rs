//! What a new configuration changes, in lines for the operator.

use super::Config;

/// One line for each change, in the order of the file; none if nothing changed.
#[must_use]
pub fn diff(_old: &Config, _new: &Config) -> Vec<String> {
    Vec::new()
}
