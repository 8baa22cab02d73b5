//! A configuration as a file.

mod fill;
mod print;
mod route;
mod yaml;

use super::problem::Origin;
use super::yaml::{self as reader, Node, Value};
use super::{
    Action, Config, FieldChanges, Overrides, Position, Problem, Problems, load, precedence,
};
use fill::{Filled, filled};

/// A file with every default and every override written out, and its routes in the order in which they
/// are asked. It means the same as `text` with `overrides`; the text may be left out. Where something is
/// wrong, values and routes are as typed.
///
/// # Errors
/// `text` is no map of keys, or there is nothing at all to show.
pub fn show(text: Option<&[u8]>, overrides: &Overrides) -> Result<String, Problems> {
    let read = load(text, overrides);
    let mut root = match (text, &read) {
        (Some(text), _) => reader::read(text)?,
        (None, Err(problems)) if overrides.backends.is_empty() => return Err(problems.clone()),
        (None, _) => Node::map(Origin::File(Position::START), Vec::new()),
    };
    if !matches!(root.value, Value::Map(_)) {
        return Err(Problem::new(root.at, "a configuration is a map of keys").into());
    }
    overrides.write(&mut root);
    let config = read.ok();
    if let Some(config) = &config {
        in_order(&mut root, config);
    }
    let mut filled = filled(&root, "");
    if let (Filled::Map(entries), Some(config)) = (&mut filled, &config) {
        no_routes(entries, config);
    }
    let order = match config {
        Some(_) => "The routes are in the order\n# in which they are asked.",
        None => "Something is wrong with the\n# file: values and the order of routes are as typed.",
    };
    let names = overrides.names();
    let overridden = if names.is_empty() {
        String::new()
    } else {
        format!("# Not from the file, but from: {names}.\n")
    };
    let document = print::document(&filled);
    Ok(format!(
        "# Every default is written out. What has none is a comment. {order}\n{overridden}{document}"
    ))
}

/// Puts the routes into the order in which they are asked.
fn in_order(root: &mut Node, config: &Config) {
    let Value::Map(entries) = &mut root.value else { return };
    let routes = entries.iter_mut().find(|(key, _)| key.typed == "routes");
    let Some((_, Node { value: Value::List(routes), .. })) = routes else { return };
    let order = precedence(&config.routes);
    if order.len() == routes.len() {
        let sorted: Vec<Node> = order.iter().filter_map(|&at| routes.get(at).cloned()).collect();
        *routes = sorted;
    }
}

/// A file without routes has one, to the only pool.
fn no_routes(entries: &mut [fill::Entry], config: &Config) {
    let comment =
        |entry: &fill::Entry| matches!(entry, fill::Entry::Left(name, _) if *name == "routes");
    let (Some(entry), [pool]) =
        (entries.iter_mut().find(|one| comment(one)), config.pools.as_slice())
    else {
        return;
    };
    let route = vec![
        fill::Entry::Key("path".to_owned(), Filled::Scalar("/".to_owned())),
        fill::Entry::Key("pool".to_owned(), Filled::Scalar(yaml::text(pool.name.as_str()))),
    ];
    *entry = fill::Entry::Key("routes".to_owned(), Filled::List(vec![Filled::Map(route)]));
}

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
