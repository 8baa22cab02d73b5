//! YAML over many lines.

use super::fill::{Entry, Filled};

/// The whole file.
pub(super) fn document(filled: &Filled) -> String {
    let mut text = String::new();
    match filled {
        Filled::Map(entries) => map(&mut text, entries, 0),
        Filled::Scalar(_) | Filled::List(_) => text.push_str(&inline(filled)),
    }
    text
}

fn map(text: &mut String, entries: &[Entry], depth: usize) {
    for entry in entries {
        indent(text, depth);
        match entry {
            Entry::Left(name, words) => text.push_str(&format!("# {name}: {words}\n")),
            Entry::Key(name, value) => {
                text.push_str(name);
                text.push(':');
                below(text, value, depth);
            }
        }
    }
}

/// A value behind its key.
fn below(text: &mut String, value: &Filled, depth: usize) {
    match value {
        // Comments alone would leave the key without a value.
        Filled::Map(entries) if entries.iter().any(|entry| matches!(entry, Entry::Key(..))) => {
            text.push('\n');
            map(text, entries, depth + 1);
        }
        Filled::List(items) if items.iter().any(|item| matches!(item, Filled::Map(_))) => {
            text.push('\n');
            for item in items {
                indent(text, depth + 1);
                text.push_str("- ");
                text.push_str(&inline_or_block(item, depth + 2));
            }
        }
        Filled::Scalar(_) | Filled::List(_) | Filled::Map(_) => {
            text.push_str(&format!(" {}\n", inline(value)));
        }
    }
}

/// An entry of a list: on one line if it has nothing below it, as most routes and backends.
fn inline_or_block(item: &Filled, depth: usize) -> String {
    let Filled::Map(entries) = item else { return format!("{}\n", inline(item)) };
    let flat = entries.iter().all(|entry| match entry {
        Entry::Key(_, Filled::Map(below)) => below.iter().all(|one| matches!(one, Entry::Key(..))),
        Entry::Key(_, Filled::Scalar(_) | Filled::List(_)) => true,
        Entry::Left(..) => false,
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

fn inline(value: &Filled) -> String {
    match value {
        Filled::Scalar(scalar) => scalar.clone(),
        Filled::List(items) => {
            format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        Filled::Map(entries) => {
            let pairs = entries.iter().filter_map(|entry| match entry {
                Entry::Key(name, value) => Some(format!("{name}: {}", inline(value))),
                Entry::Left(..) => None,
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

fn indent(text: &mut String, depth: usize) {
    text.push_str(&"  ".repeat(depth));
}
