//! Validates the bytes of a client's connection before anything else uses them.
//!
//! ```text
//!             first byte              empty line: no body
//!   Between ─────────────▶ Head ────────────────────────────▶ Between
//!      ▲                    │ a length            │ chunked      ▲
//!      │                    ▼                     ▼              │
//!      ├──────────────── Length                Chunks ───────────┘
//!      └── complete ────────┘        last chunk and trailers
//! ```
//! A library that parses requests accepts as much as it can. A proxy in front of other servers must
//! accept only what all of them interpret in the same way. So this scanner reads every byte first,
//! and anything that the grammar of RFC 9112 does not allow is not passed on. It copies nothing: it
//! is fed the result of each read, split anywhere, and keeps its position in the grammar.

mod bytes;
mod chunks;
mod fields;
mod head;
mod http2_head;
#[cfg(test)]
mod tests;
mod violation;

use self::chunks::Chunks;
use self::head::{BodyFraming, Head, Swap};
pub use self::http2_head::Http2Head;
pub use self::violation::Violation;
use super::proxy_protocol::SIGNATURE;
use super::target::ReplacedByte;

/// The limits for request headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request target.
    pub target_bytes: usize,
    /// Bytes of all headers with their line ends; also of the trailers.
    pub header_bytes: usize,
    /// Number of headers; also of trailers.
    pub headers: usize,
}

/// The part of a message with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessagePart {
    /// Before its body, or in bytes that were fed together with its headers: the request has not
    /// been started yet.
    Head,
    /// In its body, after the headers were fed: the request may be in progress.
    Body,
}

/// The first error of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramingError {
    /// What is wrong.
    pub violation: Violation,
    /// Where.
    pub part: MessagePart,
    /// The message's number, from 1.
    pub message: u64,
    /// How many of the bytes fed last are valid and may be passed on: those before the invalid
    /// headers, or before the error in a body.
    pub valid_prefix: usize,
    /// Where the request line begins in those bytes, if it does.
    pub line_at: Option<usize>,
}

/// Scans the input of one client connection.
#[derive(Debug, Clone)]
pub struct Scanner {
    limits: Limits,
    state: ScanState,
    /// The number of messages whose first byte has arrived.
    begun: u64,
    /// Replacements in the bytes fed last.
    swaps: Vec<(u64, Swap)>,
}

#[derive(Debug, Clone)]
enum ScanState {
    /// No byte of the next message has arrived, except perhaps an empty line or a part of one.
    Between(LeadingCrlf),
    Head(Head),
    /// The number of missing bytes of a body.
    Length(u64),
    Chunks(Chunks),
}

/// An empty line before a message. Some clients end a body with a line end that is not part of it,
/// so one is accepted (RFC 9112 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeadingCrlf {
    Nothing,
    Return,
    Line,
}

/// How far a part of a message extends.
enum ScanStep {
    /// All bytes were used.
    More,
    /// It ended before this byte.
    Done(usize),
}

/// An error in a part of a message, at this byte.
struct At(usize, Violation);

impl Scanner {
    /// Creates a scanner for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: ScanState::Between(LeadingCrlf::Nothing),
            begun: 0,
            swaps: Vec::new(),
        }
    }

    /// The number of messages of which at least one byte has arrived.
    #[must_use]
    pub const fn begun(&self) -> u64 {
        self.begun
    }

    /// Whether the last message is complete.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        matches!(self.state, ScanState::Between(_))
    }

    /// Continues with `bytes`. Must not be called after an error. Returns the index where
    /// incomplete headers begin, if they begin in `bytes`.
    ///
    /// # Errors
    /// [`FramingError`], at the first invalid byte.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, FramingError> {
        let mut used = 0;
        self.swaps.clear();
        // Where the headers of the current message begin, if in `bytes`.
        let mut head_at = None;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            let step = match &mut self.state {
                ScanState::Between(gap) => match gap.step(rest) {
                    Ok(ScanStep::Done(skipped)) => {
                        head_at = Some(used + skipped);
                        self.begun += 1;
                        self.state = ScanState::Head(Head::default());
                        Ok(ScanStep::Done(skipped))
                    }
                    other => other,
                },
                ScanState::Head(head) => {
                    let step = head.step(rest, self.limits);
                    let swaps = head.take_changes().into_iter();
                    let begun = self.begun;
                    self.swaps
                        .extend(swaps.map(|swap| (begun, Swap { at: swap.at + used, ..swap })));
                    step
                }
                ScanState::Length(missing) => Ok(skip(missing, rest)),
                ScanState::Chunks(chunks) => chunks.step(rest, self.limits),
            };
            match step {
                Ok(ScanStep::More) => break,
                Ok(ScanStep::Done(more)) => {
                    used += more;
                    self.next();
                }
                Err(At(at, violation)) => return Err(self.broken(violation, used + at, head_at)),
            }
        }
        Ok(head_at.filter(|_| matches!(self.state, ScanState::Head(_))))
    }

    /// Replaces the bytes in targets that Pingora would reject, in the bytes that were fed last.
    /// Yields what was replaced.
    pub fn change<'a>(&'a self, bytes: &'a mut [u8]) -> impl Iterator<Item = ReplacedByte> + 'a {
        self.swaps.iter().map(|&(message, Swap { at, offset, byte, instead })| {
            if let Some(place) = bytes.get_mut(at) {
                *place = instead;
            }
            ReplacedByte { message, offset, byte }
        })
    }

    /// One part of a message is complete: selects the next one.
    fn next(&mut self) {
        match &self.state {
            ScanState::Head(head) => match head.body() {
                None => {}
                Some(BodyFraming::None) => self.state = ScanState::Between(LeadingCrlf::Nothing),
                Some(BodyFraming::Length(length)) => self.state = ScanState::Length(length),
                Some(BodyFraming::Chunks) => self.state = ScanState::Chunks(Chunks::default()),
            },
            ScanState::Length(_) | ScanState::Chunks(_) => {
                self.state = ScanState::Between(LeadingCrlf::Nothing)
            }
            ScanState::Between(_) => {}
        }
    }

    fn broken(&self, violation: Violation, at: usize, head_at: Option<usize>) -> FramingError {
        let (part, message, valid_prefix) = match (&self.state, head_at) {
            (ScanState::Between(_), _) => (MessagePart::Head, self.begun + 1, at),
            (ScanState::Head(_), head_at) => (MessagePart::Head, self.begun, head_at.unwrap_or(0)),
            (ScanState::Length(_) | ScanState::Chunks(_), Some(head_at)) => {
                (MessagePart::Head, self.begun, head_at)
            }
            (ScanState::Length(_) | ScanState::Chunks(_), None) => {
                (MessagePart::Body, self.begun, at)
            }
        };
        let line_at = head_at.filter(|_| !self.is_between());
        FramingError { violation, part, message, valid_prefix, line_at }
    }
}

impl LeadingCrlf {
    fn step(&mut self, bytes: &[u8]) -> Result<ScanStep, At> {
        for (at, byte) in bytes.iter().enumerate() {
            *self = match (*self, byte) {
                (Self::Nothing, b'\r') => Self::Return,
                (Self::Return, b'\n') => Self::Line,
                (Self::Return, _) => return Err(At(at, Violation::BareReturn)),
                (Self::Line, b'\r') if bytes.starts_with(&SIGNATURE) => {
                    return Err(At(at, Violation::ProxyHeader));
                }
                (Self::Line, b'\r' | b'\n') => return Err(At(at, Violation::EmptyLines)),
                (Self::Nothing, b'\n') => return Err(At(at, Violation::BareNewline)),
                (Self::Nothing | Self::Line, _) => return Ok(ScanStep::Done(at)),
            };
        }
        Ok(ScanStep::More)
    }
}

fn skip(missing: &mut u64, bytes: &[u8]) -> ScanStep {
    let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if here < *missing {
        *missing -= here;
        return ScanStep::More;
    }
    let last = usize::try_from(*missing).unwrap_or(bytes.len());
    *missing = 0;
    ScanStep::Done(last)
}
