//! A configuration as a file.

mod effective;
mod print;

use super::builder::load;
use super::meaning::Config;
use super::overrides::Overrides;
use super::problem::{Problem, Problems};
use super::route::precedence;
use super::source::ConfigSource;
use super::yaml::{Node, Value};
pub(super) use effective::{Effective, Entry};
use effective::{Style, effective};
pub(super) use print::inline;

/// A file with every default and every override filled in, and its routes in order of precedence. It means
/// the same as `text` with `overrides`; the text may be missing. If the file has problems, values and the
/// order of routes are as typed.
///
/// # Errors
/// `text` is not a map of keys, or there is nothing to show.
pub fn show(text: Option<&[u8]>, overrides: &Overrides) -> Result<String, Problems> {
    let read = load(text, overrides);
    if let (None, Err(problems), true) = (text, &read, overrides.backends.is_empty()) {
        return Err(problems.clone());
    }
    let mut root = ConfigSource::new(text, overrides).root()?;
    if !matches!(root.value, Value::Map(_)) {
        return Err(Problem::new(root.at, "a configuration must be a map of keys").into());
    }
    let config = read.ok();
    if let Some(config) = &config {
        in_order(&mut root, config);
        add_default_route(&mut root, config);
    }
    let order = match config {
        Some(_) => "The routes are in order of\n# precedence.",
        None => "The file has problems:\n# values and the order of routes are as typed.",
    };
    let names = overrides.names();
    let overridden = if names.is_empty() {
        String::new()
    } else {
        format!("# Not from the file, but from: {names}.\n")
    };
    let document = print::document(&effective(&root, Style::Typed));
    Ok(format!(
        "# Every default is filled in. Keys without a default are comments. {order}\n{overridden}{document}"
    ))
}

/// The file that `config` was made from, with every default; equal values have the same spelling.
pub(super) fn canonical(config: &Config) -> Result<Effective, Problems> {
    let mut root = config.source.root()?;
    add_default_route(&mut root, config);
    Ok(effective(&root, Style::Canonical))
}

/// Puts the routes in order of precedence.
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
fn add_default_route(root: &mut Node, config: &Config) {
    if let (None, [pool]) = (root.get_mut("routes"), config.pools.as_slice()) {
        let (path, pool) = (Node::given(root.at, "/"), Node::given(root.at, pool.name.as_str()));
        let route = Node::map(root.at, vec![("path", path), ("pool", pool)]);
        root.set("routes", Node::list(root.at, vec![route]));
    }
}
