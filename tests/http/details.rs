//! The values of `detail` in the access log, read from the code: docs/HTTP.md lists all of them.

use std::fs;
use std::path::Path;

const VIOLATIONS: &str = include_str!("../../src/http/scan/violation.rs");
/// Values that are not grammar violations: the status, and what they mean.
const OTHERS: [(&str, &str, &str); 2] = [
    ("before_101", "400", "Bytes for a WebSocket arrived before the backend's 101."),
    (
        "response_buffers",
        "of the response",
        "No violation: the client, or the backend of a WebSocket, read nothing for 10 s or less while more than `limits.response_buffers` was held.",
    ),
];

/// The table of all values.
pub(crate) fn table() -> String {
    let mut table = String::from("\n| `detail` | Status | What is wrong |\n|---|---|---|\n");
    let mut row = |(word, status, what): (&str, &str, &str)| {
        table.push_str(&format!("| `{word}` | {status} | {what} |\n"));
    };
    let rows = rows();
    assert!(rows.len() > 20, "violation.rs has another form: {rows:?}");
    for (name, status, code) in rows {
        row((code, status, &doc(name)));
    }
    OTHERS.into_iter().for_each(row);
    table.push('\n');
    table
}

/// Each violation: its name, its status and its code.
fn rows() -> Vec<(&'static str, &'static str, &'static str)> {
    let (_, table) = VIOLATIONS.split_once("violations! {\n").expect("the table");
    let row = |line: &'static str| {
        let (name, row) = line.trim().strip_suffix("\";")?.split_once(" = ")?;
        let (status, code) = row.split_once(", \"")?;
        Some((name, status, code))
    };
    table.lines().filter_map(row).collect()
}

/// The doc comment of a variant.
fn doc(name: &str) -> String {
    let lines: Vec<&str> = VIOLATIONS.lines().map(str::trim).collect();
    let end =
        lines.iter().position(|line| line.starts_with(&format!("{name} = "))).expect("the variant");
    let docs = lines.get(..end).into_iter().flatten().rev();
    let docs: Vec<&str> = docs.map_while(|line| line.strip_prefix("/// ")).collect();
    assert!(!docs.is_empty(), "{name} has no doc comment");
    let words = docs.into_iter().rev().collect::<Vec<_>>().join(" ");
    codes_for_names(&words)
}

/// Replaces a link to another variant by its code.
fn codes_for_names(words: &str) -> String {
    rows().into_iter().fold(words.to_owned(), |words, (name, _, code)| {
        words.replace(&format!("[`Violation::{name}`]"), &format!("`{code}`"))
    })
}

#[test]
fn every_value_of_detail_is_in_the_table() {
    let proxy = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proxy");
    let mut logged = Vec::new();
    let mut folders = vec![proxy];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src/proxy can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(path).expect("it can be read");
            let argument =
                |call: &str| call.split_once(')').map(|(argument, _)| argument.to_owned());
            logged.extend(text.split("exchange.set_detail(").skip(1).filter_map(argument));
        }
    }
    assert!(logged.iter().any(|word| word.starts_with('"')), "no value was found: {logged:?}");
    for word in logged {
        let is_code = word == "violation.code(";
        let is_listed = OTHERS.iter().any(|(other, ..)| word == format!("{other:?}"));
        assert!(is_code || is_listed, "`detail` {word} is in no table: tests/http/details.rs");
    }
}
