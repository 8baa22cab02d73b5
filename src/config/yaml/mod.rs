//! From bytes to a tree of nodes that know where they stand.
//!
//! Two readers look at the file. `serde_yaml` says what it means: which scalar is a number, which
//! is text. It does not say where, and it would quietly let the second of two equal keys win.
//! `saphyr-parser` says where each node stands, and its events come one by one, so that a file
//! which nests or repeats itself without end is refused before anything is built of it. The two
//! are zipped in document order. Where they disagree about a file, the file is refused: what two
//! readers understand differently, two people would too. (docs/adr/0001-reading-the-file.md)

mod marks;
mod plain;
mod syntax;
mod write;

use super::limits;
use super::problem::{Origin, Position, Problem};
use marks::{Marks, Shape};
use plain::Plain;
pub(super) use write::text;

/// One value of the file, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Origin,
    /// A scalar as typed, without its quotes; empty for lists and maps.
    pub(super) typed: String,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Whole(u64),
    /// A fraction, or a number below 0 or beyond 64 bits.
    Real(f64),
    Text,
    List(Vec<Node>),
    /// In the order of the file, doubled keys included.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// A text that does not come from the file.
    pub(super) fn given(at: Origin, typed: &str) -> Self {
        Self { at, typed: typed.to_owned(), value: Value::Text }
    }

    /// A list that does not come from the file.
    pub(super) fn list(at: Origin, items: Vec<Self>) -> Self {
        Self { at, typed: String::new(), value: Value::List(items) }
    }

    /// A map that does not come from the file.
    pub(super) fn map(at: Origin, entries: Vec<(&str, Self)>) -> Self {
        let entry = |(name, value)| (Self::given(at, name), value);
        let entries = entries.into_iter().map(entry).collect();
        Self { at, typed: String::new(), value: Value::Map(entries) }
    }

    /// A map of these entries, for a look at them as a whole.
    pub(super) fn of(entries: &[(Self, Self)]) -> Self {
        let value = Value::Map(entries.to_vec());
        Self { at: Origin::START, typed: String::new(), value }
    }

    /// The value of a key, if this is a map that has it.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Self> {
        let Value::Map(entries) = &mut self.value else { return None };
        entries.iter_mut().find(|(key, _)| key.typed == name).map(|(_, value)| value)
    }

    /// Sets the value of a key, if this is a map.
    pub(super) fn set(&mut self, name: &str, value: Self) {
        if let Some(present) = self.get_mut(name) {
            *present = value;
        } else if let Value::Map(entries) = &mut self.value {
            entries.push((Self::given(value.at, name), value));
        }
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        matches!(self.value, Value::Text).then_some(self.typed.as_str())
    }
}

/// Reads one document.
pub(super) fn read(bytes: &[u8]) -> Result<Node, Problem> {
    let text = decode(bytes)?;
    let marks = Marks::read(text)?;
    let plain: Plain = serde_yaml::from_str(text).map_err(|error| refused(&error, text))?;
    let mut zip = Zip { marks: &marks, furthest: Position::START };
    zip.node(0, plain, None).ok_or_else(|| {
        Problem::in_file(zip.furthest, "this can be understood in two ways")
            .help("write it in a simpler way, or put text in quotes")
    })
}

fn decode(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.len() > limits::FILE_BYTES_MAX {
        let what = format!(
            "the file has {} bytes, but {} are the most that are read",
            bytes.len(),
            limits::FILE_BYTES_MAX
        );
        return Err(Problem::in_file(Position::START, what).help("is this the right file?"));
    }
    // A mark that some editors leave at the start. It takes no column.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let (valid, rest) = bytes.split_at_checked(error.valid_up_to()).unwrap_or((bytes, &[]));
        let at = end_of(&String::from_utf8_lossy(valid));
        let what = match rest.first() {
            Some(byte) => format!("the byte 0x{byte:02x} is not UTF-8"),
            None => "the file is not UTF-8".to_owned(),
        };
        Problem::in_file(at, what).help("save the file as UTF-8")
    })
}

/// Where the next character after `text` would stand.
fn end_of(text: &str) -> Position {
    let line = 1 + text.matches('\n').count();
    let last = text.rsplit('\n').next().unwrap_or(text);
    Position { line, column: 1 + last.chars().count() }
}

/// A file that only `serde_yaml` refuses.
fn refused(error: &serde_yaml::Error, text: &str) -> Problem {
    let at = error.location().map_or(Position::START, |location| Position {
        line: location.line(),
        column: location.column(),
    });
    let words = error.to_string();
    // The place is said in front.
    let info = words.split(" at line ").next().unwrap_or(&words);
    syntax::problem(info, at, None, text)
}

struct Zip<'a> {
    marks: &'a Marks,
    /// The last mark that was looked at: where the two readers part, if they do.
    furthest: Position,
}

impl Zip<'_> {
    /// The node whose mark is at `index`. What an alias stands for takes the alias' place,
    /// `alias`, because that is the line to look at; the anchor may be right for others.
    ///
    /// As deep as [`limits::FILE_DEPTH_MAX`], which the marks hold to.
    fn node(&mut self, index: usize, plain: Plain, alias: Option<Position>) -> Option<Node> {
        let mark = self.marks.get(index)?;
        let position = alias.unwrap_or(mark.at);
        self.furthest = position;
        let at = Origin::File(position);
        let (typed, value) = match (&mark.shape, plain) {
            (&Shape::Alias(target), plain) => return self.node(target, plain, Some(position)),
            (Shape::List, Plain::List(items)) => {
                let mut next = index + 1;
                let mut nodes = Vec::with_capacity(items.len());
                for item in items {
                    nodes.push(self.child(&mut next, item, alias)?);
                }
                (next == mark.end).then_some((String::new(), Value::List(nodes)))?
            }
            (Shape::Map, Plain::Map(entries)) => {
                let mut next = index + 1;
                let mut nodes = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let key = self.child(&mut next, key, alias)?;
                    nodes.push((key, self.child(&mut next, value, alias)?));
                }
                (next == mark.end).then_some((String::new(), Value::Map(nodes)))?
            }
            (Shape::Scalar(typed), plain) => (typed.clone(), scalar(typed, plain)?),
            (Shape::List | Shape::Map, _) => return None,
        };
        Some(Node { at, typed, value })
    }

    fn child(&mut self, next: &mut usize, plain: Plain, alias: Option<Position>) -> Option<Node> {
        let index = *next;
        *next = self.marks.get(index)?.end;
        self.node(index, plain, alias)
    }
}

fn scalar(typed: &str, plain: Plain) -> Option<Value> {
    match plain {
        Plain::Null => Some(Value::Null),
        Plain::Bool(value) => Some(Value::Bool(value)),
        Plain::Whole(value) => Some(Value::Whole(value)),
        Plain::Real(value) => Some(Value::Real(value)),
        Plain::Text(text) => (text == typed).then_some(Value::Text),
        Plain::List(_) | Plain::Map(_) => None,
    }
}

#[cfg(test)]
mod tests;
