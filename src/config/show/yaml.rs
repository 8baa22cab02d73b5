//! YAML on one line.

use std::fmt::{Display, Write as _};

use super::super::yaml as reader;

/// A text as a scalar that is read as this text: bare where that is safe, else in double quotes.
pub(super) fn text(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_.-+:%".contains(&b);
    let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/');
    // Words that other readers of YAML take for switches.
    let words = ["yes", "no", "on", "y", "n"];
    let word = words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if begins && !word && !text.ends_with(':') && text.bytes().all(plain) {
        // Whether it is a number, a switch or nothing is for the reader itself to say.
        let read = reader::read(text.as_bytes());
        if read.is_ok_and(|node| node.text() == Some(text)) {
            return text.to_owned();
        }
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // Beyond ASCII everything is escaped that an editor might not show as it is.
            _ if character.is_control()
                || (!character.is_ascii() && !character.is_alphanumeric()) =>
            {
                // Writing into a String cannot fail.
                let _written: Result<(), _> = write!(quoted, "\\U{:08X}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// A map on one line.
#[derive(Default)]
pub(super) struct Map(Vec<String>);

impl Map {
    /// Adds a key with what is YAML already.
    pub(super) fn raw(&mut self, key: &str, value: impl Display) -> &mut Self {
        self.0.push(format!("{key}: {value}"));
        self
    }

    /// Adds a key with a text.
    pub(super) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(key, text(value))
    }

    /// Adds a key if there is a value.
    pub(super) fn maybe(&mut self, key: &str, value: Option<impl Display>) -> &mut Self {
        if let Some(value) = value {
            self.raw(key, value);
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries, one after the other.
    pub(super) fn entries(&self) -> String {
        self.0.join(", ")
    }

    pub(super) fn line(&self) -> String {
        format!("{{{}}}", self.entries())
    }
}

/// A list on one line.
pub(super) fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}
