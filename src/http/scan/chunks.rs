//! A chunked body (RFC 9112 §7.1).
//!
//! ```text
//!   Size ─── ; ──▶ Extension        the last size was 0: Trailers ──▶ done
//!     │ CR            │ CR           ▲
//!     ▼               ▼              │
//!   SizeEnd ─── LF ──┴──▶ Data ──────┘
//!                          │ all of it
//!                          ▼
//!                        DataEnd ─── CR LF ──▶ Size
//! ```

use super::fields::{Fields, Sink};
use super::{At, Limits, ScanStep, Violation, skip};

/// The limit for all chunk extensions of one body. They are unused in practice, but each costs
/// processing time.
const EXTENSION_BYTES_MAX: usize = 4096;
/// The limit for the trailers of one body, even if headers may be longer. Pingora accepts twice as
/// much, and would send its own response.
const TRAILER_BYTES_MAX: usize = 32 * 1024;
/// The maximum number of digits of a size: 2⁶⁰ is more than any client sends, and far from an
/// overflow.
const DIGITS_MAX: u8 = 15;

/// The position in the body.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunks {
    position: ChunkPosition,
    /// The size of the current chunk, then its remaining bytes.
    size: u64,
    digits: u8,
    extension: Extension,
    extension_bytes: usize,
    fields: Fields,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum ChunkPosition {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataNewline,
    Trailers,
}

/// The position in an extension, `;` name or `;` name `=` value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Extension {
    /// After the semicolon: a name must follow.
    #[default]
    BeforeName,
    Name,
    /// Space after a name: `=`, `;` or the end must follow.
    AfterName,
    BeforeValue,
    Value,
    Quoted,
    Escaped,
    /// After a value: `;` or the end must follow.
    AfterValue,
    /// Space, after which only a semicolon is allowed.
    BeforeSemicolon,
}

impl Chunks {
    /// Continues with `bytes`. `Done` is the index after the body.
    pub(super) fn step(&mut self, bytes: &[u8], limits: Limits) -> Result<ScanStep, At> {
        let mut at = 0;
        while let Some(rest @ [byte, ..]) = bytes.get(at..) {
            match self.position {
                ChunkPosition::Data => match skip(&mut self.size, rest) {
                    ScanStep::More => return Ok(ScanStep::More),
                    ScanStep::Done(used) => {
                        self.position = ChunkPosition::DataReturn;
                        at += used;
                    }
                },
                ChunkPosition::Trailers => {
                    let header_bytes = limits.header_bytes.min(TRAILER_BYTES_MAX);
                    let limits = Limits { header_bytes, ..limits };
                    return match self.fields.step(rest, &mut Trailers, limits) {
                        Ok(ScanStep::Done(used)) => Ok(ScanStep::Done(at + used)),
                        Ok(ScanStep::More) => Ok(ScanStep::More),
                        Err(At(used, violation)) => Err(At(at + used, violation)),
                    };
                }
                ChunkPosition::Size
                | ChunkPosition::Extension
                | ChunkPosition::SizeEnd
                | ChunkPosition::DataReturn
                | ChunkPosition::DataNewline => {
                    self.byte(*byte).map_err(|violation| At(at, violation))?;
                    at += 1;
                }
            }
        }
        Ok(ScanStep::More)
    }

    fn byte(&mut self, byte: u8) -> Result<(), Violation> {
        self.position = match (self.position, byte) {
            (ChunkPosition::Size, byte) => self.size(byte)?,
            (ChunkPosition::Extension, byte) => self.extension(byte)?,
            (ChunkPosition::SizeEnd, b'\n') if self.size == 0 => ChunkPosition::Trailers,
            (ChunkPosition::SizeEnd, b'\n') => ChunkPosition::Data,
            (ChunkPosition::DataReturn, b'\r') => ChunkPosition::DataNewline,
            (ChunkPosition::DataNewline, b'\n') => {
                (self.size, self.digits) = (0, 0);
                ChunkPosition::Size
            }
            (ChunkPosition::SizeEnd, _) => return Err(Violation::BareReturn),
            _ => return Err(Violation::ChunkEnd),
        };
        Ok(())
    }

    fn size(&mut self, byte: u8) -> Result<ChunkPosition, Violation> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\n' if self.digits > 0 => return Err(Violation::BareNewline),
            b'\r' if self.digits > 0 => return Ok(ChunkPosition::SizeEnd),
            b';' if self.digits > 0 => {
                self.extension = Extension::BeforeName;
                return self.count_extension();
            }
            b' ' | b'\t' if self.digits > 0 => {
                self.extension = Extension::BeforeSemicolon;
                return self.count_extension();
            }
            _ => return Err(Violation::ChunkSize),
        };
        if self.digits == DIGITS_MAX {
            return Err(Violation::ChunkSize);
        }
        self.digits += 1;
        self.size = self.size << 4 | u64::from(digit);
        Ok(ChunkPosition::Size)
    }

    fn count_extension(&mut self) -> Result<ChunkPosition, Violation> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Violation::ChunkExtensionBytes);
        }
        Ok(ChunkPosition::Extension)
    }

    fn extension(&mut self, byte: u8) -> Result<ChunkPosition, Violation> {
        use Extension as E;
        match (self.extension, byte) {
            (E::Name | E::AfterName | E::Value | E::AfterValue, b'\r') => {
                return Ok(ChunkPosition::SizeEnd);
            }
            (_, b'\n') => return Err(Violation::BareNewline),
            _ => {}
        }
        self.extension = match (self.extension, byte) {
            (E::BeforeName, b' ' | b'\t') => E::BeforeName,
            (E::BeforeName | E::Name, byte) if super::bytes::is_token(byte) => E::Name,
            (E::Name | E::AfterName, b'=') => E::BeforeValue,
            (E::Name | E::AfterName, b' ' | b'\t') => E::AfterName,
            (E::BeforeValue, b' ' | b'\t') => E::BeforeValue,
            (E::BeforeValue, b'"') => E::Quoted,
            (E::BeforeValue | E::Value, byte) if super::bytes::is_token(byte) => E::Value,
            (E::Quoted, b'"') => E::AfterValue,
            (E::Quoted, b'\\') => E::Escaped,
            (E::Quoted | E::Escaped, byte) if !byte.is_ascii_control() || byte == b'\t' => {
                E::Quoted
            }
            (E::Value | E::AfterValue, b' ' | b'\t') => E::AfterValue,
            (E::BeforeSemicolon, b' ' | b'\t') => E::BeforeSemicolon,
            (E::Name | E::AfterName | E::Value | E::AfterValue | E::BeforeSemicolon, b';') => {
                E::BeforeName
            }
            _ => return Err(Violation::ChunkExtension),
        };
        self.count_extension()
    }
}

/// Headers that are not allowed as trailers, because they would come too late (RFC 9110 §6.5.1).
const FORBIDDEN: [&[u8]; 20] = [
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"max-forwards",
    b"proxy-authorization",
    b"range",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"x-forwarded-for",
    b"forwarded",
];

struct Trailers;

impl Sink for Trailers {
    fn name(&mut self, name: &[u8]) -> Result<(), Violation> {
        if FORBIDDEN.contains(&name) { Err(Violation::Trailer) } else { Ok(()) }
    }

    fn value(&mut self, _: &[u8]) -> Result<(), Violation> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), Violation> {
        Ok(())
    }
}
