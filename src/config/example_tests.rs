//! conf/weir.yaml against the schema.
//!
//! The file is written by hand, because it groups keys, shows alternatives and explains several keys at
//! once, which no key could say alone. These tests hold it to the schema: each key is there, each line
//! that is commented out is accepted once it is not, and each default that it shows is the real one.

use std::collections::BTreeSet;

use super::file::SCHEMA;
use super::read::{Key, Presence, Section, Shape};
use super::yaml::{self, Node, Value};
use super::{Config, Overrides, load};

const EXAMPLE: &str = include_str!("../../conf/weir.yaml");

/// How a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineMark {
    /// It is active.
    Active,
    /// `#key`: off or computed unless it is set.
    Off,
    /// `# key`: an alternative to another key or value.
    Alternative,
}

/// A line that has a key.
#[derive(Debug, Clone)]
struct KeyLine {
    /// Its index in the file.
    index: usize,
    mark: LineMark,
    /// Where the key stands once it is active.
    indent: usize,
    /// The line without its mark.
    text: String,
    section: &'static Section,
    key: &'static Key,
}

impl KeyLine {
    fn path(&self) -> String {
        format!("{}.{}", self.section.path, self.key.name)
    }

    /// Whether the value is on the following lines.
    fn opens(&self) -> bool {
        self.text.trim_end().ends_with(':')
    }

    fn is_entry(&self) -> bool {
        self.text.trim_start().starts_with("- ")
    }
}

/// A mark, the place of the key, and the line without the mark.
fn unmarked(line: &str) -> (LineMark, usize, String) {
    let blank = line.len() - line.trim_start().len();
    let Some(rest) = line.trim_start().strip_prefix('#') else {
        return (LineMark::Active, blank, line.to_owned());
    };
    let gap = rest.len() - rest.trim_start().len();
    // One blank is part of the mark. More belong to a block of which each line has one.
    let (mark, indent) = match gap {
        0 => (LineMark::Off, blank),
        1 => (LineMark::Alternative, blank),
        _ => (LineMark::Off, blank + gap),
    };
    (mark, indent, format!("{}{}", " ".repeat(indent), rest.trim_start()))
}

/// The name before the colon, if there is one.
fn name_of(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let (name, value) = text.strip_prefix("- ").unwrap_or(text).split_once(':')?;
    (value.is_empty() || value.starts_with(' ')).then_some(name)
}

/// Every line with a key of the section that it stands in.
fn key_lines() -> Vec<KeyLine> {
    let mut found: Vec<KeyLine> = Vec::new();
    for (index, line) in EXAMPLE.lines().enumerate() {
        let (mark, at, text) = unmarked(line);
        let text = text.split(" # ").next().unwrap().trim_end().to_owned();
        let entry = if text.trim_start().starts_with("- ") { 2 } else { 0 };
        let indent = at + entry;
        let parent = found.iter().rev().find(|one| one.opens() && one.indent < indent);
        let section = parent.map_or(Some(SCHEMA.root), |parent| parent.key.section);
        let key = section.zip(name_of(&text)).and_then(|(section, name)| section.key(name));
        if let (Some(section), Some(key)) = (section, key) {
            found.push(KeyLine { index, mark, indent, text, section, key });
        } else {
            let name = name_of(&text).filter(|_| mark == LineMark::Off).unwrap_or_default();
            let is_value = name.is_empty()
                || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(is_value, "`{name}` is no key here: `{line}`");
        }
    }
    found
}

/// What a key needs, or excludes, in order to be accepted.
enum Need {
    /// Another line that is commented out, of the same map.
    With(&'static str),
    /// Without this active key.
    Without(&'static str),
    /// With a text in place of another.
    Instead(&'static str, &'static str),
}

fn needs(path: &str) -> Vec<Need> {
    use Need::{Instead, With, Without};
    match path {
        "listeners[].tls.min_version" | "listeners[].tls.client_ca" => vec![With("certificates")],
        "listeners[].tls.client_auth" => vec![With("certificates"), With("client_ca")],
        "routes[].path_exact" | "routes[].path_regex" => vec![Without("path")],
        "routes[].pools" => vec![
            Without("pool"),
            Instead("\npools:\n", "\npools:\n  - {name: canary, backends: [http://10.0.0.9:80]}\n"),
        ],
        "routes[].redirect" | "routes[].respond" => vec![
            Without("pool"),
            Instead("\nroutes:\n", "\nroutes:\n  - {path: /other, pool: web}\n"),
        ],
        "routes[].scheme" => {
            vec![Instead("trusted_proxies: []", "trusted_proxies: [10.0.0.0/8]")]
        }
        "pools[].backends[].dns" => vec![Without("url")],
        "pools[].backends[].srv" | "pools[].backends[].file" => {
            vec![Without("url"), Without("weight")]
        }
        "pools[].backends[].family"
        | "pools[].backends[].refresh"
        | "pools[].backends[].backends_max" => vec![Without("url"), With("dns")],
        "pools[].backends[].server_name" | "pools[].tls" => {
            vec![Instead("http://10.0.0.2", "https://10.0.0.2")]
        }
        "pools[].http2" => vec![
            Instead("protocol: http1", "protocol: auto"),
            Instead("http://10.0.0.2", "https://10.0.0.2"),
        ],
        "pools[].health_check.path"
        | "pools[].health_check.host"
        | "pools[].health_check.status"
        | "pools[].health_check.body" => vec![Instead("type: tcp", "type: http")],
        "pools[].health_check.service" => vec![Instead("type: tcp", "type: grpc")],
        path if path.starts_with("rate_limit.") => vec![With("requests_per_second")],
        _ => Vec::new(),
    }
}

/// The file with what `line` needs, and with the line itself if `with_line`.
fn with(line: &KeyLine, with_line: bool) -> String {
    let lines = key_lines();
    let mut active = vec![line.index];
    let mut outer = line.indent;
    for one in lines.iter().rev().filter(|one| one.index < line.index) {
        if one.opens() && one.indent < outer {
            outer = one.indent;
            active.push(one.index);
        }
    }
    let mut removed = Vec::new();
    let mut replaced = Vec::new();
    for need in needs(&line.path()) {
        let same_map = |name: &str| {
            let one = lines
                .iter()
                .find(|one| one.section.path == line.section.path && one.key.name == name);
            one.unwrap_or_else(|| panic!("{} needs {name}", line.path())).index
        };
        match need {
            Need::With(name) => active.push(same_map(name)),
            Need::Without(name) => removed.push(same_map(name)),
            Need::Instead(from, to) => replaced.push((from, to)),
        }
    }
    if !with_line {
        removed.push(line.index);
    }
    let mut text = String::new();
    for (index, typed) in EXAMPLE.lines().enumerate() {
        let known = lines.iter().find(|one| one.index == index);
        let kept = match known {
            // The first key of an entry has the dash of the whole entry.
            Some(one) if removed.contains(&index) && one.is_entry() => {
                format!("{}-", " ".repeat(one.indent - 2))
            }
            Some(_) if removed.contains(&index) => continue,
            Some(one) if active.contains(&index) => one.text.clone(),
            _ => typed.to_owned(),
        };
        text.push_str(&kept);
        text.push('\n');
    }
    for (from, to) in replaced {
        assert!(text.contains(from), "{}: no `{from}` in conf/weir.yaml", line.path());
        text = text.replace(from, to);
    }
    text
}

fn loaded(text: &str, line: &KeyLine) -> Config {
    load(Some(text.as_bytes()), &Overrides::default())
        .unwrap_or_else(|problems| panic!("`{}`: {problems}\n{text}", line.text.trim()))
}

/// Adds the keys of a value.
fn add_keys(node: &Node, key: &Key, found: &mut BTreeSet<String>) {
    let Some(section) = key.section else { return };
    match (&node.value, key.shape) {
        (Value::List(entries), Shape::List) => {
            for entry in entries {
                add_map(entry, section, found);
            }
        }
        (Value::Map(entries), Shape::Table) => {
            for (_, entry) in entries {
                add_map(entry, section, found);
            }
        }
        _ => add_map(node, section, found),
    }
}

fn add_map(node: &Node, section: &Section, found: &mut BTreeSet<String>) {
    let Value::Map(entries) = &node.value else { return };
    for (name, value) in entries {
        if let Some(key) = section.key(&name.typed) {
            found.insert(format!("{}.{}", section.path, key.name));
            add_keys(value, key, found);
        }
    }
}

#[test]
fn every_key_of_every_section_is_written() {
    let mut found = BTreeSet::new();
    for line in key_lines() {
        found.insert(line.path());
        let text = line.text.trim_start().trim_start_matches("- ");
        if let Value::Map(entries) = yaml::read(text.as_bytes()).unwrap().value {
            add_keys(&entries[0].1, line.key, &mut found);
        }
    }
    let all = SCHEMA.sections().into_iter().flat_map(|section| {
        section.keys.iter().map(|key| format!("{}.{}", section.path, key.name))
    });
    let missing: Vec<String> = all.filter(|path| !found.contains(path)).collect();
    assert!(missing.is_empty(), "conf/weir.yaml lacks {missing:?}");
}

#[test]
fn each_line_that_is_commented_out_is_accepted_alone() {
    let lines = key_lines();
    let mut count = 0;
    for line in lines.iter().filter(|line| line.mark != LineMark::Active && !line.opens()) {
        loaded(&with(line, true), line);
        count += 1;
    }
    assert!(count > 30, "{count}");
}

#[test]
fn each_default_that_is_shown_is_the_real_one() {
    let mut count = 0;
    for line in key_lines() {
        let has_default = matches!(line.key.presence, Presence::Default | Presence::Computed(_));
        if !has_default || line.opens() || line.mark == LineMark::Alternative {
            continue;
        }
        let (shown, left_out) =
            (loaded(&with(&line, true), &line), loaded(&with(&line, false), &line));
        assert_eq!(shown, left_out, "{} is not the default: `{}`", line.path(), line.text.trim());
        count += 1;
    }
    assert!(count > 60, "{count}");
}
