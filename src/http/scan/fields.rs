//! The header section, or the trailer section after a body (RFC 9112 §5).
//!
//! ```text
//!   Start ──▶ Name ─── : ──▶ Value ─── CR ──▶ ValueEnd ─── LF ──▶ Start
//!     │ CR
//!     ▼
//!    End ─── LF ──▶ done
//! ```

use super::bytes::{is_token, name_end, value_end};
use super::{At, Limits, ScanStep, Violation};

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
    position: FieldPosition,
    count: usize,
    bytes: usize,
    name: [u8; NAME_BYTES_MAX],
    name_bytes: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum FieldPosition {
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
    ) -> Result<ScanStep, At> {
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
                FieldPosition::Value => value_end(rest).unwrap_or(rest.len()).min(room),
                FieldPosition::Name => name_end(rest).min(room),
                FieldPosition::Start | FieldPosition::ValueEnd | FieldPosition::End => 0,
            };
            let plain = rest.get(..used).unwrap_or_default();
            self.bytes += used.max(1);
            let done = if plain.is_empty() {
                self.byte(*byte, sink, limits.headers)
            } else if self.position == FieldPosition::Name {
                self.push(plain);
                Ok(false)
            } else {
                sink.value(plain).map(|()| false)
            };
            match done {
                Ok(false) => at += used.max(1),
                Ok(true) => return Ok(ScanStep::Done(at + 1)),
                Err(violation) => return Err(At(at, violation)),
            }
        }
        Ok(ScanStep::More)
    }

    /// Handles a byte that is not simply part of a name or a value. Returns whether it ends the
    /// section.
    fn byte(&mut self, byte: u8, sink: &mut impl Sink, most: usize) -> Result<bool, Violation> {
        self.position = match (self.position, byte) {
            (FieldPosition::Start, b'\r') => FieldPosition::End,
            (FieldPosition::Start, b'\n') | (FieldPosition::Value, b'\n') => {
                return Err(Violation::BareNewline);
            }
            (FieldPosition::Start, b' ' | b'\t') => return Err(Violation::Fold),
            (FieldPosition::Start, byte) if is_token(byte) => {
                self.count += 1;
                if self.count > most {
                    return Err(Violation::Fields);
                }
                self.name_bytes = 0;
                self.push(&[byte]);
                FieldPosition::Name
            }
            (FieldPosition::Name, b':') => {
                sink.name(self.name.get(..self.name_bytes).unwrap_or_default())?;
                FieldPosition::Value
            }
            (FieldPosition::Start | FieldPosition::Name, _) => return Err(Violation::FieldName),
            (FieldPosition::Value, b'\t') => {
                sink.value(b"\t")?;
                FieldPosition::Value
            }
            (FieldPosition::Value, b'\r') => {
                sink.end()?;
                FieldPosition::ValueEnd
            }
            (FieldPosition::Value, _) => return Err(Violation::FieldValue),
            (FieldPosition::ValueEnd, b'\n') => FieldPosition::Start,
            (FieldPosition::End, b'\n') => return Ok(true),
            (FieldPosition::ValueEnd | FieldPosition::End, _) => return Err(Violation::BareReturn),
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
