//! Files in PEM (RFC 7468): every block of them, or what is wrong.
//!
//! The usual readers skip what they do not understand: a certificate whose BEGIN line follows other
//! text on the same line is left out without a message. Here a file is used whole or not at all. Text between blocks
//! is a comment, unless it looks like the beginning or the end of a block.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Parts of a line that was meant to begin or to end a block, but is malformed.
const MARKS: [&str; 6] =
    ["--BEGIN", "--END", "-BEGIN ", "-END ", "BEGIN CERTIFICATE", "END CERTIFICATE"];

/// One block.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    /// What it says that it is, such as `CERTIFICATE`.
    pub label: String,
    /// The line that it begins on, from 1.
    pub line: usize,
    /// Whether it has headers ahead of its contents, as encrypted keys of OpenSSL have.
    pub headers: bool,
    /// What is in it.
    pub der: Vec<u8>,
}

impl fmt::Debug for Block {
    /// There may be a private key in it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Block({} line={} bytes={})", self.label, self.line, self.der.len())
    }
}

/// Why a file is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// It begins with the mark that some editors put before UTF-8.
    #[error("begins with a byte order mark")]
    ByteOrderMark,
    /// It is text of two bytes a character.
    #[error("is UTF-16 text")]
    Utf16,
    /// A line has a malformed beginning or end of a block, or one with other text.
    #[error(
        "is not PEM: line {0} looks like a `-----BEGIN …-----` or `-----END …-----` line, but is malformed"
    )]
    Stray(usize),
    /// A block ends that has not begun.
    #[error("is not PEM: line {0} ends a block that has not begun")]
    Unbegun(usize),
    /// A block ends with another label than it began with.
    #[error("is not PEM: line {line} ends `{label}`, but `{begun}` began on line {begun_on}")]
    OtherEnd {
        /// The line of the end.
        line: usize,
        /// Its label.
        label: String,
        /// The label of the beginning.
        begun: String,
        /// Its line.
        begun_on: usize,
    },
    /// A block does not end.
    #[error("is not PEM: the `-----END …-----` line is missing")]
    Unended,
    /// Another block begins first.
    #[error("is not PEM: the `-----END …-----` line is missing before line {0}")]
    UnendedBefore(usize),
    /// What is between the lines of a block is no base64.
    #[error("is not PEM: the block that begins on line {0} is not base64")]
    NoBase64(usize),
    /// There is nothing in a block.
    #[error("is not PEM: the block that begins on line {0} is empty")]
    Empty(usize),
}

impl PemError {
    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::ByteOrderMark => {
                "save it without one: `sed -i '1s/^\\xEF\\xBB\\xBF//' FILE` removes it"
            }
            Self::Utf16 => {
                "save it as plain text: `iconv -f UTF-16 -t ASCII FILE` prints it as ASCII"
            }
            Self::Stray(_) => {
                "write exactly five dashes on each side, and nothing else on the line"
            }
            Self::Unbegun(_)
            | Self::OtherEnd { .. }
            | Self::Unended
            | Self::UnendedBefore(_)
            | Self::NoBase64(_)
            | Self::Empty(_) => {
                "copy the file again, whole: each block has both of its lines, and only base64 between"
            }
        }
    }
}

/// A block that has begun.
struct Open {
    block: Block,
    base64: Vec<u8>,
}

/// Every block of a file, in its order.
///
/// # Errors
/// Not every part of it can be used.
pub fn blocks(file: &[u8]) -> Result<Vec<Block>, PemError> {
    if file.starts_with(b"\xEF\xBB\xBF") {
        return Err(PemError::ByteOrderMark);
    }
    if file.starts_with(b"\xFF\xFE") || file.starts_with(b"\xFE\xFF") {
        return Err(PemError::Utf16);
    }
    let mut blocks = Vec::new();
    let mut open: Option<Open> = None;
    for (line, text) in (1..).zip(file.split(|byte| *byte == b'\n')) {
        let text = trim_end(text);
        open = match (marker(text), open) {
            (Marker::Stray, _) => return Err(PemError::Stray(line)),
            (Marker::None, None) => None,
            (Marker::None, Some(mut open)) => {
                open.take(text)?;
                Some(open)
            }
            (Marker::Begin(label), None) => Some(Open::begin(label, line)),
            (Marker::Begin(_), Some(_)) => return Err(PemError::UnendedBefore(line)),
            (Marker::End(label), Some(open)) if open.block.label == label => {
                blocks.push(open.end()?);
                None
            }
            (Marker::End(label), Some(open)) => {
                let Block { label: begun, line: begun_on, .. } = open.block;
                return Err(PemError::OtherEnd { line, label: label.to_owned(), begun, begun_on });
            }
            (Marker::End(_), None) => return Err(PemError::Unbegun(line)),
        };
    }
    match open {
        Some(_) => Err(PemError::Unended),
        None => Ok(blocks),
    }
}

/// Without trailing spaces and carriage returns.
fn trim_end(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\r'] = line {
        line = rest;
    }
    line
}

/// What a line is.
enum Marker<'a> {
    Begin(&'a str),
    End(&'a str),
    /// A malformed beginning or end.
    Stray,
    None,
}

fn marker(line: &[u8]) -> Marker<'_> {
    let has_mark = |mark: &str| line.windows(mark.len()).any(|window| window == mark.as_bytes());
    if !MARKS.iter().any(|mark| has_mark(mark)) {
        return Marker::None;
    }
    let text = str::from_utf8(line).unwrap_or_default();
    let label = |begin: &str| {
        let label = text.strip_prefix(begin)?.strip_suffix(DASHES)?;
        (!label.is_empty() && !label.contains('-')).then_some(label)
    };
    match (label(BEGIN), label(END)) {
        (Some(label), _) => Marker::Begin(label),
        (None, Some(label)) => Marker::End(label),
        (None, None) => Marker::Stray,
    }
}

impl Open {
    fn begin(label: &str, line: usize) -> Self {
        let block = Block { label: label.to_owned(), line, headers: false, der: Vec::new() };
        Self { block, base64: Vec::new() }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), PemError> {
        if line.contains(&b':') && self.base64.is_empty() {
            self.block.headers = true;
            return Ok(());
        }
        if line.iter().any(|byte| !byte.is_ascii_graphic()) {
            return Err(PemError::NoBase64(self.block.line));
        }
        self.base64.extend_from_slice(line);
        Ok(())
    }

    fn end(mut self) -> Result<Block, PemError> {
        let line = self.block.line;
        self.block.der = BASE64.decode(&self.base64).map_err(|_why| PemError::NoBase64(line))?;
        if self.block.der.is_empty() { Err(PemError::Empty(line)) } else { Ok(self.block) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(label: &str, base64: &str) -> String {
        format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
    }

    fn found(file: &str) -> Vec<(String, usize, Vec<u8>)> {
        let blocks = blocks(file.as_bytes()).unwrap();
        blocks.into_iter().map(|block| (block.label, block.line, block.der)).collect()
    }

    #[test]
    fn every_block_is_found_with_its_line() {
        let one = block("CERTIFICATE", "AQID");
        let file =
            format!("# ours\n{one}\n subject=END of line\n{}", block("PRIVATE KEY", "BA\nUG"));
        assert_eq!(
            found(&file),
            [
                ("CERTIFICATE".to_owned(), 2, vec![1, 2, 3]),
                ("PRIVATE KEY".to_owned(), 7, vec![4, 5, 6]),
            ]
        );
        assert_eq!(found(&one.replace('\n', " \r\n")), found(&one));
        assert_eq!(found(one.trim_end()), found(&one));
        assert_eq!(found("nothing"), []);
    }

    #[test]
    fn an_end_with_another_label_names_both_lines() {
        let one = block("CERTIFICATE", "AQID");
        let error = blocks(one.replace("END CERTIFICATE", "END KEY").as_bytes()).unwrap_err();
        let message = "line 3 ends `KEY`, but `CERTIFICATE` began on line 1";
        assert!(error.to_string().ends_with(message), "{error}");
    }

    #[test]
    fn what_would_be_left_out_is_an_error() {
        let one = block("CERTIFICATE", "AQID");
        let joined = one.trim_end().to_owned() + &one;
        for (file, error) in [
            (joined, PemError::Stray(3)),
            (format!("{} {one}", one.trim_end()), PemError::Stray(3)),
            (format!("  {one}"), PemError::Stray(1)),
            (format!("AQID-----BEGIN \n{one}"), PemError::Stray(1)),
            (one.replacen("-----", "----", 1), PemError::Stray(1)),
            (one.replacen("-----", "- ----", 1), PemError::Stray(1)),
            (
                one.replace("-----END CERTIFICATE-----", "-----END KEY-----"),
                PemError::OtherEnd {
                    line: 3,
                    label: "KEY".to_owned(),
                    begun: "CERTIFICATE".to_owned(),
                    begun_on: 1,
                },
            ),
            (one.replace("-----BEGIN CERTIFICATE-----\n", ""), PemError::Unbegun(2)),
            (one.replace("-----END CERTIFICATE-----", "") + &one, PemError::UnendedBefore(4)),
            (format!("{one}-----BEGIN CERTIFICATE-----\nAQID\n"), PemError::Unended),
            (block("CERTIFICATE", "AQ=D"), PemError::NoBase64(1)),
            (block("CERTIFICATE", "AQ D"), PemError::NoBase64(1)),
            (block("CERTIFICATE", "AQI"), PemError::NoBase64(1)),
            (block("CERTIFICATE", ""), PemError::Empty(1)),
            (format!("\u{FEFF}{one}"), PemError::ByteOrderMark),
        ] {
            assert_eq!(blocks(file.as_bytes()), Err(error), "{file}");
        }
        assert_eq!(blocks(b"\xFF\xFE-\0-\0"), Err(PemError::Utf16));
    }

    #[test]
    fn headers_of_an_encrypted_key_are_noted() {
        let key = block("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES,00\n\nAQID");
        let found = blocks(key.as_bytes()).unwrap();
        assert!(found[0].headers && found[0].der == [1, 2, 3], "{found:?}");
    }

    #[test]
    fn no_log_shows_what_is_in_a_block() {
        let found = blocks(block("PRIVATE KEY", "AQID").as_bytes()).unwrap();
        assert_eq!(format!("{found:?}"), "[Block(PRIVATE KEY line=1 bytes=3)]");
    }
}
