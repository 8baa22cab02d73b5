//! Writes YAML on one line.

use std::fmt::Write as _;

/// A text as a scalar that is read as this text: bare where that is safe, else in double quotes.
pub(in super::super) fn text(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_.-+:%".contains(&b);
    let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/');
    // Words that other readers of YAML take for switches.
    let words = ["yes", "no", "on", "y", "n"];
    let word = words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if begins && !word && !text.ends_with(':') && text.bytes().all(plain) {
        // Whether it is a number, a switch or nothing is for the reader itself to say.
        let read = super::read(text.as_bytes());
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
