//! A file with every default filled in.
//!
//! It is made of the file as typed and of the table of its keys, not of what the file means: so
//! whatever key there is has its place here, and nothing has to be turned back into text.

use std::time::Duration;

use super::super::file;
use super::super::read::{FromText as _, Presence, Section};
use super::super::value::spell;
use super::super::yaml::{self as reader, Node, Value};
use super::yaml::text;

/// Something to be printed.
#[derive(Debug, PartialEq)]
pub(super) enum Effective {
    /// As YAML.
    Scalar(String),
    List(Vec<Effective>),
    Map(Vec<Entry>),
}

/// An entry of a map.
#[derive(Debug, PartialEq)]
pub(super) enum Entry {
    /// A key, as YAML.
    Key(String, Effective),
    /// A key that is not there, and what that means.
    Omitted(&'static str, &'static str),
}

/// What stands at a place of the file, with what is not written there. The path is that of a
/// section, if one can be there.
pub(super) fn effective(node: &Node, path: &str) -> Effective {
    // `headers` and `query` are maps of what is described once.
    if let (Some(values), Value::Map(entries)) = (path.strip_suffix("{}"), &node.value) {
        let entry =
            |(key, value): &(Node, Node)| Entry::Key(text(&key.typed), effective(value, values));
        return Effective::Map(entries.iter().map(entry).collect());
    }
    let section = file::SECTIONS.iter().find(|section| section.path == path);
    match (&node.value, section) {
        (Value::Map(entries), Some(section)) => of_section(entries, section),
        (Value::Map(entries), None) => {
            let entry =
                |(key, value): &(Node, Node)| Entry::Key(text(&key.typed), effective(value, NONE));
            Effective::Map(entries.iter().map(entry).collect())
        }
        (Value::List(items), _) => {
            Effective::List(items.iter().map(|item| effective(item, path)).collect())
        }
        (_, Some(Section { short: Some(short), .. })) => {
            let key = Node::given(node.at, short);
            section
                .map_or_else(|| scalar(node), |section| of_section(&[(key, node.clone())], section))
        }
        (Value::Null | Value::Bool(_) | Value::Whole(_) | Value::Real(_) | Value::Text, _) => {
            scalar(node)
        }
    }
}

/// The path of no section.
const NONE: &str = "-";

fn scalar(node: &Node) -> Effective {
    Effective::Scalar(match node.value {
        Value::Text => text(&node.typed),
        Value::Null
        | Value::Bool(_)
        | Value::Whole(_)
        | Value::Real(_)
        | Value::List(_)
        | Value::Map(_) => node.typed.clone(),
    })
}

fn of_section(entries: &[(Node, Node)], section: &Section) -> Effective {
    let find = |name: &str| entries.iter().find(|(key, _)| key.typed == name).map(|(_, node)| node);
    let typed = |name: &str| find(name).map(|node| node.typed.as_str());
    let mut lines = Vec::new();
    for key in section.keys {
        let path = path_of(section.path, key.name, find(key.name));
        let name = key.name.to_owned();
        if let Some(node) = find(key.name) {
            lines.push(Entry::Key(name, effective(node, &path)));
            continue;
        }
        match key.presence {
            Presence::Default(value) if applies(section.path, key.name, typed) => {
                // A default is a text of ours that every other test reads, too.
                let Ok(node) = reader::read(value.as_bytes()) else { continue };
                let path = path_of(section.path, key.name, Some(&node));
                lines.push(Entry::Key(name, effective(&node, &path)));
            }
            Presence::Otherwise("the defaults below")
                if !applies(section.path, key.name, typed) =>
            {
                lines.push(Entry::Omitted(key.name, "this pool speaks HTTP/1.1 with its backends"));
            }
            Presence::Otherwise("the defaults below") => {
                let child = file::SECTIONS.iter().find(|child| child.path == path);
                lines.extend(child.map(|child| Entry::Key(name, of_section(&[], child))));
            }
            Presence::Otherwise(_) if computed(section.path, key.name, typed).is_some() => {
                let value = computed(section.path, key.name, typed).unwrap_or_default();
                lines.push(Entry::Key(name, Effective::Scalar(value)));
            }
            // Unused keys of ten thousand routes or backends would only be noise.
            Presence::Otherwise(_)
                if section.path.starts_with("routes[]") || section.path == "pools[].backends[]" => {
            }
            Presence::Otherwise(words) => lines.push(Entry::Omitted(key.name, words)),
            Presence::Default(_) | Presence::Required => {}
        }
    }
    Effective::Map(lines)
}

/// A default that is made of other keys of the section.
fn computed<'a>(
    section: &str,
    key: &str,
    typed: impl Fn(&str) -> Option<&'a str>,
) -> Option<String> {
    match (section, key) {
        ("listeners[]", "http2") => Some(typed("tls").is_some().to_string()),
        ("listeners[].tls", "client_auth") => {
            Some(if typed("client_ca").is_some() { "require" } else { "off" }.to_owned())
        }
        ("pools[].health_check", "type") => {
            Some(if typed("path").is_some() { "http" } else { "tcp" }.to_owned())
        }
        ("pools[].health_check", "timeout") => {
            let usual = Duration::from_secs(3);
            let interval = typed("interval").map(Duration::from_text);
            let timeout = interval.and_then(Result::ok).map_or(usual, |it| it.min(usual));
            Some(spell(timeout))
        }
        ("rate_limit", "burst") => {
            let rate: f64 = typed("requests_per_second")?.parse().ok()?;
            // Nothing behind the point is left of it.
            Some(format!("{:.0}", rate.ceil().max(1.0)))
        }
        ("shutdown", "tunnels") => Some(typed("drain").unwrap_or("30s").to_owned()),
        _ => None,
    }
}

/// The section that can stand under a key.
fn path_of(section: &str, key: &str, node: Option<&Node>) -> String {
    let list = node.is_some_and(|node| matches!(node.value, Value::List(_)));
    match (section, key) {
        (_, "rate_limit") => "rate_limit".to_owned(),
        ("routes[]", "headers" | "query") => "routes[].headers{}".to_owned(),
        ("routes[]", "request_headers" | "response_headers") => {
            "routes[].request_headers".to_owned()
        }
        ("", key) => format!("{key}{}", if list { "[]" } else { "" }),
        (section, key) => format!("{section}.{key}{}", if list { "[]" } else { "" }),
    }
}

/// Whether a default may be written where it stands: some keys are for some values of others alone.
fn applies<'a>(section: &str, key: &str, typed: impl Fn(&str) -> Option<&'a str>) -> bool {
    match (section, key) {
        ("routes[]", "path") => typed("path_exact").is_none() && typed("path_regex").is_none(),
        ("pools[].health_check", "path" | "status") => {
            typed("path").is_some() || typed("type") == Some("http")
        }
        ("pools[]", "http2") => typed("protocol").is_some_and(|protocol| protocol != "http1"),
        ("access_log", "target") => typed("format") != Some("off"),
        _ => true,
    }
}
