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

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "pools: [{name: a, backends: [http://10.0.0.1:1]}]\n\
        routes: [{path: /, pool: a}, {path: /long, pool: a}, {path_exact: /x, pool: a}]";

    #[test]
    fn the_shown_file_means_the_same_as_the_file_with_its_overrides() {
        let overrides = Overrides {
            algorithm: Some(crate::config::Override::flag("--algorithm", "ip_hash")),
            ..Overrides::default()
        };
        let shown = show(Some(FILE.as_bytes()), &overrides).unwrap();
        assert!(shown.contains("Not from the file, but from: --algorithm"), "{shown}");
        let again = load(Some(shown.as_bytes()), &Overrides::default()).unwrap();
        let config = load(Some(FILE.as_bytes()), &overrides).unwrap();
        assert_eq!(crate::config::diff(&config, &again).len(), 0, "{shown}");
        assert_eq!(again.pools, config.pools);
    }

    #[test]
    fn routes_are_shown_in_order_of_precedence_unless_the_file_has_problems() {
        let order = |text: &str| {
            let shown = show(Some(text.as_bytes()), &Overrides::default()).unwrap();
            ["/x", "/long"].map(|path| shown.find(path).unwrap())
        };
        let [exact, long] = order(FILE);
        assert!(exact < long);
        let [exact, long] = order(&format!("{FILE}\nthreads: 0"));
        assert!(long < exact, "as typed");
    }

    #[test]
    fn a_file_without_routes_is_shown_with_the_one_to_its_only_pool() {
        let text = "pools: [{name: only, backends: [http://10.0.0.1:1]}]";
        let shown = show(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let again = load(Some(shown.as_bytes()), &Overrides::default()).unwrap();
        assert_eq!(again.routes.len(), 1);
        assert!(shown.contains("\nroutes:"), "{shown}");
    }
}
