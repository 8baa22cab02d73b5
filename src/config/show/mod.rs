//! A configuration as a file.

mod route;
mod yaml;

use super::{Action, Config, FieldChanges};

/// What a route does, in its own keys.
pub(super) fn action(config: &Config, action: &Action) -> String {
    let mut map = yaml::Map::default();
    route::action(config, action, &mut map);
    map.entries()
}

/// Changes of fields.
pub(super) fn fields(changes: &FieldChanges) -> String {
    route::fields(changes)
}
