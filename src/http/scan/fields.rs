//! The lines of a head, or of the trailers behind a body (RFC 9112 §5).
//!
//! ```text
//!   Start ──▶ Name ─── : ──▶ Value ─── CR ──▶ ValueEnd ─── LF ──▶ Start
//!     │ CR
//!     ▼
//!    End ─── LF ──▶ done
//! ```

use super::bytes::{is_token, name_end, value_end};
use super::{At, Limits, Step, Violation};

/// Longer than any name that means something here.
const NAME_KEPT: usize = 24;

/// What becomes of the fields.
pub(super) trait Sink {
    /// A field has this name, in lower case; one that is too long to be known is empty.
    fn name(&mut self, name: &[u8]) -> Result<(), Violation>;
    /// More of its value, space around it included.
    fn value(&mut self, part: &[u8]) -> Result<(), Violation>;
    /// Its value is whole.
    fn end(&mut self) -> Result<(), Violation>;
}

/// Where in the fields we are.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    place: Place,
    count: usize,
    bytes: usize,
    name: [u8; NAME_KEPT],
    name_bytes: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    Name,
    Value,
    ValueEnd,
    End,
}

impl Fields {
    /// Reads on. `Done` is said of the byte behind the empty line.
    pub(super) fn step(
        &mut self,
        bytes: &[u8],
        sink: &mut impl Sink,
        limits: Limits,
    ) -> Result<Step, At> {
        let mut at = 0;
        while let Some(rest @ [byte, ..]) = bytes.get(at..) {
            // The bounds come first: whatever the bytes are, there are too many. What comes before
            // the first one too many is looked at, so that the verdict depends on no cut.
            let room = limits.header_bytes.saturating_sub(self.bytes);
            if room == 0 {
                return Err(At(at, Violation::FieldBytes));
            }
            let used = match self.place {
                Place::Value => value_end(rest).unwrap_or(rest.len()).min(room),
                Place::Name => name_end(rest).min(room),
                Place::Start | Place::ValueEnd | Place::End => 0,
            };
            let plain = rest.get(..used).unwrap_or_default();
            self.bytes += used.max(1);
            let done = if plain.is_empty() {
                self.byte(*byte, sink, limits.headers)
            } else if self.place == Place::Name {
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

    /// One byte that is not plainly part of a name or of a value. Whether it was the last of all fields.
    fn byte(&mut self, byte: u8, sink: &mut impl Sink, most: usize) -> Result<bool, Violation> {
        self.place = match (self.place, byte) {
            (Place::Start, b'\r') => Place::End,
            (Place::Start, b'\n') | (Place::Value, b'\n') => return Err(Violation::BareNewline),
            (Place::Start, b' ' | b'\t') => return Err(Violation::Fold),
            (Place::Start, byte) if is_token(byte) => {
                self.count += 1;
                if self.count > most {
                    return Err(Violation::Fields);
                }
                self.name_bytes = 0;
                self.push(&[byte]);
                Place::Name
            }
            (Place::Name, b':') => {
                sink.name(self.name.get(..self.name_bytes).unwrap_or_default())?;
                Place::Value
            }
            (Place::Start | Place::Name, _) => return Err(Violation::FieldName),
            (Place::Value, b'\t') => {
                sink.value(b"\t")?;
                Place::Value
            }
            (Place::Value, b'\r') => {
                sink.end()?;
                Place::ValueEnd
            }
            (Place::Value, _) => return Err(Violation::FieldValue),
            (Place::ValueEnd, b'\n') => Place::Start,
            (Place::End, b'\n') => return Ok(true),
            (Place::ValueEnd | Place::End, _) => return Err(Violation::BareReturn),
        };
        Ok(false)
    }

    fn push(&mut self, part: &[u8]) {
        let kept = self.name.get_mut(self.name_bytes..).unwrap_or_default();
        for (place, byte) in kept.iter_mut().zip(part) {
            *place = byte.to_ascii_lowercase();
        }
        self.name_bytes += part.len();
    }
}
