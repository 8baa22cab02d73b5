//! A configuration as a file.

mod effective;
mod print;
mod route;
mod yaml;

use super::action::{Action, HeaderChanges};
use super::load;
use super::meaning::Config;
use super::overrides::Overrides;
use super::problem::Origin;
use super::problem::{Position, Problem, Problems};
use super::route::precedence;
use super::yaml::{self as reader, Node, Value};
use effective::{Effective, effective};

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
        return Err(Problem::new(root.at, "a configuration must be a map of keys").into());
    }
    overrides.write(&mut root);
    let config = read.ok();
    if let Some(config) = &config {
        in_order(&mut root, config);
    }
    let mut effective = effective(&root, "");
    if let (Effective::Map(entries), Some(config)) = (&mut effective, &config) {
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
    let document = print::document(&effective);
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
fn no_routes(entries: &mut [effective::Entry], config: &Config) {
    let comment = |entry: &effective::Entry| matches!(entry, effective::Entry::Omitted(name, _) if *name == "routes");
    let (Some(entry), [pool]) =
        (entries.iter_mut().find(|one| comment(one)), config.pools.as_slice())
    else {
        return;
    };
    let route = vec![
        effective::Entry::Key("path".to_owned(), Effective::Scalar("/".to_owned())),
        effective::Entry::Key("pool".to_owned(), Effective::Scalar(yaml::text(pool.name.as_str()))),
    ];
    *entry =
        effective::Entry::Key("routes".to_owned(), Effective::List(vec![Effective::Map(route)]));
}

/// What a route does, in its own keys.
pub(super) fn action(config: &Config, action: &Action) -> String {
    let mut map = yaml::Map::default();
    route::action(config, action, &mut map);
    map.entries()
}

/// Changes of fields.
pub(super) fn fields(changes: &HeaderChanges) -> String {
    route::fields(changes)
}
