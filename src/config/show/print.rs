//! YAML over many lines.

use super::effective::{Effective, Entry};

/// The whole file.
pub(super) fn document(effective: &Effective) -> String {
    let mut text = String::new();
    match effective {
        Effective::Map(entries) => map(&mut text, entries, 0),
        Effective::Scalar(_) | Effective::List(_) => text.push_str(&inline(effective)),
    }
    text
}

fn map(text: &mut String, entries: &[Entry], depth: usize) {
    for entry in entries {
        indent(text, depth);
        match entry {
            Entry::Omitted(name, words) => text.push_str(&format!("# {name}: {words}\n")),
            Entry::Key(name, value) => {
                text.push_str(name);
                text.push(':');
                below(text, value, depth);
            }
        }
    }
}

/// A value behind its key.
fn below(text: &mut String, value: &Effective, depth: usize) {
    match value {
        // Comments alone would leave the key without a value.
        Effective::Map(entries) if entries.iter().any(|entry| matches!(entry, Entry::Key(..))) => {
            text.push('\n');
            map(text, entries, depth + 1);
        }
        Effective::List(items) if items.iter().any(|item| matches!(item, Effective::Map(_))) => {
            text.push('\n');
            for item in items {
                indent(text, depth + 1);
                text.push_str("- ");
                text.push_str(&inline_or_block(item, depth + 2));
            }
        }
        Effective::Scalar(_) | Effective::List(_) | Effective::Map(_) => {
            text.push_str(&format!(" {}\n", inline(value)));
        }
    }
}

/// An entry of a list: on one line if it has nothing below it, as most routes and backends.
fn inline_or_block(item: &Effective, depth: usize) -> String {
    let Effective::Map(entries) = item else { return format!("{}\n", inline(item)) };
    let flat = entries.iter().all(|entry| match entry {
        Entry::Key(_, Effective::Map(below)) => {
            below.iter().all(|one| matches!(one, Entry::Key(..)))
        }
        Entry::Key(_, Effective::Scalar(_) | Effective::List(_)) => true,
        Entry::Omitted(..) => false,
    });
    if flat {
        return format!("{}\n", inline(item));
    }
    let mut text = String::new();
    // The first line stands behind the dash, so it must be a key.
    let (keys, left): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| matches!(entry, Entry::Key(..)));
    for entry in keys.into_iter().chain(left) {
        map(&mut text, std::slice::from_ref(entry), depth);
    }
    text.trim_start().to_owned()
}

/// A value on one line.
pub(in super::super) fn inline(value: &Effective) -> String {
    match value {
        Effective::Scalar(scalar) => scalar.clone(),
        Effective::List(items) => {
            format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        Effective::Map(entries) => {
            let pairs = entries.iter().filter_map(|entry| match entry {
                Entry::Key(name, value) => Some(format!("{name}: {}", inline(value))),
                Entry::Omitted(..) => None,
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

fn indent(text: &mut String, depth: usize) {
    text.push_str(&"  ".repeat(depth));
}
