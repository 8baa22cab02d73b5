//! The bytes of a client's connection, before anybody acts on them.
//!
//! ```text
//!             first byte              empty line: no body
//!   Between ─────────────▶ Head ────────────────────────────▶ Between
//!      ▲                    │ a length            │ chunked      ▲
//!      │                    ▼                     ▼              │
//!      ├──────────────── Length                Chunks ───────────┘
//!      └── all of it came ──┘        last chunk and trailers
//! ```
//! A library that parses requests is made to understand as much as it can. What stands between an
//! attacker and the servers behind us must understand one thing only, the same as they do: so
//! this scanner reads every byte first, and what the grammar of RFC 9112 has no place for goes no
//! further. It keeps no copy: it is fed whatever a read brought, cut anywhere, and remembers where
//! in the grammar it is.

mod bytes;
mod chunks;
mod fields;
mod head;
#[cfg(test)]
mod tests;
mod unpacked;
mod violation;

use self::chunks::Chunks;
use self::head::{Body, Head, Swap};
pub use self::unpacked::Unpacked;
pub use self::violation::Violation;
use super::proxy_protocol::SIGNATURE;
use super::target::Change;

/// How much a head may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request target.
    pub target_bytes: usize,
    /// Bytes of all fields with their line ends; of the trailers, too.
    pub header_bytes: usize,
    /// Fields; trailers, too.
    pub headers: usize,
}

/// Where in a message it was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// Before its body, or in what was fed together with its head: nobody has to know that there
    /// was a request.
    Head,
    /// In its body, and its head was fed before: somebody may be at work on the request.
    Body,
}

/// The end of what can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// What is wrong.
    pub violation: Violation,
    /// Where.
    pub within: Within,
    /// The message's number, from 1.
    pub message: u64,
    /// So many of the bytes that were fed last may be passed on: those before the broken head, or
    /// before the broken place in a body.
    pub pass: usize,
    /// Where in them its request line begins, if it does.
    pub line_at: Option<usize>,
}

/// Reads along with one client connection.
#[derive(Debug, Clone)]
pub struct Scanner {
    limits: Limits,
    state: State,
    /// Messages whose first byte has come.
    begun: u64,
    /// Of the bytes that were fed last.
    swaps: Vec<(u64, Swap)>,
}

#[derive(Debug, Clone)]
enum State {
    /// Nothing of the next message has come, but perhaps an empty line or half of one.
    Between(Gap),
    Head(Head),
    /// So many bytes of a body are missing.
    Length(u64),
    Chunks(Chunks),
}

/// What came before a message: some clients end a body with a line end that is not part of it, so
/// one is let pass (RFC 9112 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    Nothing,
    Return,
    Line,
}

/// How far a part of a message went.
enum Step {
    /// All bytes were used.
    More,
    /// It ended before this byte.
    Done(usize),
}

/// A part of a message is broken at this byte.
struct At(usize, Violation);

impl Scanner {
    /// Nothing has come yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Between(Gap::Nothing), begun: 0, swaps: Vec::new() }
    }

    /// How many messages have begun: of each at least a byte has come.
    #[must_use]
    pub const fn begun(&self) -> u64 {
        self.begun
    }

    /// Whether nothing of a message is missing.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        matches!(self.state, State::Between(_))
    }

    /// Reads on. After a violation nothing more must be fed. Gives where the head begins that is not
    /// at its end yet, if it begins in here.
    ///
    /// # Errors
    /// [`Broken`], at the first byte that has no place here.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, Broken> {
        let mut used = 0;
        self.swaps.clear();
        // Where the head of the current message begins, if that is in here.
        let mut head_at = None;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            let step = match &mut self.state {
                State::Between(gap) => match gap.step(rest) {
                    Ok(Step::Done(skipped)) => {
                        head_at = Some(used + skipped);
                        self.begun += 1;
                        self.state = State::Head(Head::default());
                        Ok(Step::Done(skipped))
                    }
                    other => other,
                },
                State::Head(head) => {
                    let step = head.step(rest, self.limits);
                    let swaps = head.take_changes().into_iter();
                    let begun = self.begun;
                    self.swaps
                        .extend(swaps.map(|swap| (begun, Swap { at: swap.at + used, ..swap })));
                    step
                }
                State::Length(missing) => Ok(skip(missing, rest)),
                State::Chunks(chunks) => chunks.step(rest, self.limits),
            };
            match step {
                Ok(Step::More) => break,
                Ok(Step::Done(more)) => {
                    used += more;
                    self.next();
                }
                Err(At(at, violation)) => return Err(self.broken(violation, used + at, head_at)),
            }
        }
        Ok(head_at.filter(|_| matches!(self.state, State::Head(_))))
    }

    /// Puts other bytes in the place of those that what is behind us would refuse in the targets of the
    /// bytes that were fed last, and says which they were.
    pub fn change<'a>(&'a self, bytes: &'a mut [u8]) -> impl Iterator<Item = Change> + 'a {
        self.swaps.iter().map(|&(message, Swap { at, offset, byte, instead })| {
            if let Some(place) = bytes.get_mut(at) {
                *place = instead;
            }
            Change { message, offset, byte }
        })
    }

    /// One part of a message is over: what comes after it?
    fn next(&mut self) {
        match &self.state {
            State::Head(head) => match head.body() {
                None => {}
                Some(Body::None) => self.state = State::Between(Gap::Nothing),
                Some(Body::Length(length)) => self.state = State::Length(length),
                Some(Body::Chunks) => self.state = State::Chunks(Chunks::default()),
            },
            State::Length(_) | State::Chunks(_) => self.state = State::Between(Gap::Nothing),
            State::Between(_) => {}
        }
    }

    fn broken(&self, violation: Violation, at: usize, head_at: Option<usize>) -> Broken {
        let (within, message, pass) = match (&self.state, head_at) {
            (State::Between(_), _) => (Within::Head, self.begun + 1, at),
            (State::Head(_), head_at) => (Within::Head, self.begun, head_at.unwrap_or(0)),
            (State::Length(_) | State::Chunks(_), Some(head_at)) => {
                (Within::Head, self.begun, head_at)
            }
            (State::Length(_) | State::Chunks(_), None) => (Within::Body, self.begun, at),
        };
        let line_at = head_at.filter(|_| !self.is_between());
        Broken { violation, within, message, pass, line_at }
    }
}

impl Gap {
    fn step(&mut self, bytes: &[u8]) -> Result<Step, At> {
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
                (Self::Nothing | Self::Line, _) => return Ok(Step::Done(at)),
            };
        }
        Ok(Step::More)
    }
}

fn skip(missing: &mut u64, bytes: &[u8]) -> Step {
    let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if here < *missing {
        *missing -= here;
        return Step::More;
    }
    let last = usize::try_from(*missing).unwrap_or(bytes.len());
    *missing = 0;
    Step::Done(last)
}
