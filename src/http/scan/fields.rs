//! The header section, or the trailer section after a body (RFC 9112 §5).
//!
//! ```text
//!   Start ──▶ Name ─── : ──▶ Value ─── CR ──▶ ValueEnd ─── LF ──▶ Start
//!     │ CR
//!     ▼
//!    End ─── LF ──▶ done
//! ```

use super::bytes::{is_token, name_end, value_end};
use super::{At, Limits, Step, Violation};

/// Longer than any name that is handled here.
const NAME_BYTES_MAX: usize = 24;

/// Receives the parsed headers.
pub(super) trait Sink {
    /// A header has this name, in lower case; a name that is too long to be relevant is empty.
    fn name(&mut self, name: &[u8]) -> Result<(), Violation>;
    /// A part of its value, including space around it.
    fn value(&mut self, part: &[u8]) -> Result<(), Violation>;
    /// Its value is complete.
    fn end(&mut self) -> Result<(), Violation>;
}

/// The position in the grammar.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    position: Position,
    count: usize,
    bytes: usize,
    name: [u8; NAME_BYTES_MAX],
    name_bytes: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Position {
    #[default]
    Start,
    Name,
    Value,
    ValueEnd,
    End,
}

impl Fields {
    /// Continues with `bytes`. `Done` is the index after the empty line.
    pub(super) fn step(
        &mut self,
        bytes: &[u8],
        sink: &mut impl Sink,
        limits: Limits,
    ) -> Result<Step, At> {
        let mut at = 0;
        while let Some(rest @ [byte, ..]) = bytes.get(at..) {
            // The limits are checked first, whatever the bytes are. Everything before the first
            // excess byte is still checked, so that the verdict does not depend on how the input is
            // split.
            let room = limits.header_bytes.saturating_sub(self.bytes);
            if room == 0 {
                return Err(At(at, Violation::FieldBytes));
            }
            let used = match self.position {
                Position::Value => value_end(rest).unwrap_or(rest.len()).min(room),
                Position::Name => name_end(rest).min(room),
                Position::Start | Position::ValueEnd | Position::End => 0,
            };
            let plain = rest.get(..used).unwrap_or_default();
            self.bytes += used.max(1);
            let done = if plain.is_empty() {
                self.byte(*byte, sink, limits.headers)
            } else if self.position == Position::Name {
                self.push(plain);
                Ok(false)
            } else {
                sink.value(plain).map(|()| false)
            };
            match done {
                Ok(false) => at += used.max(1),
                Ok(true) => return Ok(Step::Done(at + 1)),
                Err(violation) => return Err(At(at, violation)),
            }
        }
        Ok(Step::More)
    }

    /// Handles a byte that is not simply part of a name or a value. Returns whether it ends the
    /// section.
    fn byte(&mut self, byte: u8, sink: &mut impl Sink, most: usize) -> Result<bool, Violation> {
        self.position = match (self.position, byte) {
            (Position::Start, b'\r') => Position::End,
            (Position::Start, b'\n') | (Position::Value, b'\n') => {
                return Err(Violation::BareNewline);
            }
            (Position::Start, b' ' | b'\t') => return Err(Violation::Fold),
            (Position::Start, byte) if is_token(byte) => {
                self.count += 1;
                if self.count > most {
                    return Err(Violation::Fields);
                }
                self.name_bytes = 0;
                self.push(&[byte]);
                Position::Name
            }
            (Position::Name, b':') => {
                sink.name(self.name.get(..self.name_bytes).unwrap_or_default())?;
                Position::Value
            }
            (Position::Start | Position::Name, _) => return Err(Violation::FieldName),
            (Position::Value, b'\t') => {
                sink.value(b"\t")?;
                Position::Value
            }
            (Position::Value, b'\r') => {
                sink.end()?;
                Position::ValueEnd
            }
            (Position::Value, _) => return Err(Violation::FieldValue),
            (Position::ValueEnd, b'\n') => Position::Start,
            (Position::End, b'\n') => return Ok(true),
            (Position::ValueEnd | Position::End, _) => return Err(Violation::BareReturn),
        };
        Ok(false)
    }

    fn push(&mut self, part: &[u8]) {
        let kept = self.name.get_mut(self.name_bytes..).unwrap_or_default();
        for (position, byte) in kept.iter_mut().zip(part) {
            *position = byte.to_ascii_lowercase();
        }
        self.name_bytes += part.len();
    }
}
