//! The request line, and the headers that determine the body (RFC 9112 §3, §6).

use super::bytes::{is_token, target_pause};
use super::fields::{Fields, Sink};
use super::{At, Limits, ScanStep, Violation};
use crate::http::host::{is_authority, is_authority_byte};
use crate::http::target::{FOR_FIRST, FOR_ODD, is_odd};

/// No registered method has more than 17 bytes.
pub(super) const METHOD_BYTES_MAX: usize = 32;
/// The stored part of a method: as long as the longest that is handled here.
const METHOD_STORED: usize = 7;
/// The stored part of a target: enough to determine its form.
const TARGET_STORED: usize = 9;
/// The first byte of a TLS handshake.
const TLS: u8 = 0x16;
const VERSION: &[u8] = b"HTTP/";
/// The length of a percent-encoded character.
const ESCAPE: usize = 3;

/// The position in the headers, and the values parsed so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    position: HeadPosition,
    /// Bytes of the method, the target, or the version and the end of its line.
    bytes: usize,
    name: [u8; METHOD_STORED],
    method: Method,
    target: [u8; TARGET_STORED],
    /// Bytes of the target, where those that will be percent-encoded count once.
    length: usize,
    /// Replacements in the bytes fed last.
    changes: Vec<Swap>,
    minor: u8,
    fields: Fields,
    framing: Framing,
}

/// A byte of the target, and its replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Swap {
    /// Its index in the bytes that were fed.
    pub(super) at: usize,
    /// Its index in the target.
    pub(super) offset: usize,
    pub(super) byte: u8,
    pub(super) instead: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum HeadPosition {
    #[default]
    Method,
    Target,
    Version,
    Fields,
    Done,
}

/// The end of nearly every request line; others are parsed byte by byte.
const VERSION_LINE: &[u8] = b"HTTP/1.1\r\n";

/// A method whose target has a special form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Method {
    #[default]
    Other,
    Options,
    Connect,
    /// The first word of a PROXY line.
    Proxy,
    /// The first word of the HTTP/2 preface.
    Preface,
}

/// How the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFraming {
    None,
    Length(u64),
    Chunks,
}

impl Head {
    /// Continues with `bytes`. `Done` is the index after the headers.
    pub(super) fn step(&mut self, bytes: &[u8], limits: Limits) -> Result<ScanStep, At> {
        let mut at = 0;
        while let Some(rest @ [byte, ..]) = bytes.get(at..) {
            let used = match self.position {
                HeadPosition::Fields => return self.fields(at, rest, limits),
                HeadPosition::Target => self.target(at, rest, limits.target_bytes),
                HeadPosition::Method => self.method(*byte).map(|()| 1),
                HeadPosition::Version if self.bytes == 0 && rest.starts_with(VERSION_LINE) => {
                    (self.minor, self.position) = (b'1', HeadPosition::Fields);
                    Ok(VERSION_LINE.len())
                }
                HeadPosition::Version => self.version(*byte).map(|()| 1),
                HeadPosition::Done => return Ok(ScanStep::Done(at)),
            };
            at += used.map_err(|violation| At(at, violation))?;
        }
        Ok(ScanStep::More)
    }

    /// The kind of body, once the headers are complete.
    pub(super) const fn body(&self) -> Option<BodyFraming> {
        match (self.position, self.framing.is_chunked, self.framing.length) {
            (HeadPosition::Done, true, _) => Some(BodyFraming::Chunks),
            (HeadPosition::Done, false, Some(length)) if length > 0 => {
                Some(BodyFraming::Length(length))
            }
            (HeadPosition::Done, false, _) => Some(BodyFraming::None),
            _ => None,
        }
    }

    fn method(&mut self, byte: u8) -> Result<(), Violation> {
        if byte == b' ' && self.bytes > 0 {
            self.method = match self.name.get(..self.bytes) {
                Some(b"OPTIONS") => Method::Options,
                Some(b"CONNECT") => Method::Connect,
                Some(b"PROXY") => Method::Proxy,
                Some(b"PRI") => Method::Preface,
                _ => Method::Other,
            };
            (self.position, self.bytes) = (HeadPosition::Target, 0);
            return Ok(());
        }
        if byte == TLS && self.bytes == 0 {
            return Err(Violation::Tls);
        }
        if !is_token(byte) || self.bytes == METHOD_BYTES_MAX {
            return Err(Violation::Method);
        }
        if let Some(to) = self.name.get_mut(self.bytes) {
            *to = byte;
        }
        self.bytes += 1;
        Ok(())
    }

    fn target(&mut self, at: usize, rest: &[u8], most: usize) -> Result<usize, Violation> {
        let used = target_pause(rest).unwrap_or(rest.len());
        let odd = rest.get(used).is_some_and(|byte| is_odd(*byte));
        let stored = self.target.get_mut(self.bytes..).unwrap_or_default();
        for (to, byte) in stored.iter_mut().zip(rest.iter().take(used + usize::from(odd))) {
            *to = *byte;
        }
        let first = rest.first().filter(|_| self.length == 0 && used > 0);
        if let Some(first) = first.filter(|first| !matches!(first, b'/' | b'*')) {
            self.change(at, *first, FOR_FIRST);
        }
        self.length += used;
        self.bytes += used;
        if let Some(odd) = rest.get(used).filter(|_| odd) {
            let instead = if self.length == 0 { FOR_FIRST } else { FOR_ODD };
            self.change(at + used, *odd, instead);
            self.length += 1;
            self.bytes += ESCAPE;
        }
        if self.bytes > most {
            return Err(Violation::TargetBytes);
        }
        match rest.get(used) {
            None => Ok(used),
            Some(_) if odd => Ok(used + 1),
            Some(b' ') if self.fits() => {
                (self.position, self.bytes) = (HeadPosition::Version, 0);
                Ok(used + 1)
            }
            // A request line of HTTP/0.9 ends here.
            Some(b'\r' | b'\n') => Err(self.foreign().unwrap_or(Violation::Version)),
            Some(b' ') => Err(self.foreign().unwrap_or(Violation::Target)),
            Some(_) => Err(Violation::Target),
        }
    }

    /// Records a byte that must not reach Pingora.
    fn change(&mut self, at: usize, byte: u8, instead: u8) {
        let offset = self.length;
        self.changes.push(Swap { at, offset, byte, instead });
    }

    /// Takes the replacements in the bytes that were fed last.
    pub(super) fn take_changes(&mut self) -> Vec<Swap> {
        std::mem::take(&mut self.changes)
    }

    /// Recognizes another protocol that begins with such a method and target.
    fn foreign(&self) -> Option<Violation> {
        match (self.method, self.target.get(..self.bytes)) {
            (Method::Proxy, Some(b"TCP4" | b"TCP6" | b"UNKNOWN")) => Some(Violation::ProxyHeader),
            (Method::Preface, Some(b"*")) => Some(Violation::Http2Preface),
            _ => None,
        }
    }

    /// Whether the target's form fits the method (RFC 9112 §3.2).
    fn fits(&self) -> bool {
        let stored = self.target.get(..self.bytes).unwrap_or(&self.target);
        match (self.method, stored) {
            (_, []) => false,
            (Method::Connect, [first, ..]) => !matches!(first, b'/' | b'*' | b'?'),
            (_, [b'/', ..]) | (Method::Options, [b'*']) => true,
            _ => [&b"http://"[..], b"https://"].iter().any(|scheme| {
                let rest = stored.split_at_checked(scheme.len());
                rest.is_some_and(|(start, rest)| {
                    start.eq_ignore_ascii_case(scheme) && !matches!(rest, [] | [b'/' | b'?', ..])
                })
            }),
        }
    }

    fn version(&mut self, byte: u8) -> Result<(), Violation> {
        match (self.bytes, byte) {
            (at @ 0..5, byte) if VERSION.get(at) == Some(&byte) => {}
            (5, b'1') | (6, b'.') => {}
            (7, b'0' | b'1') => self.minor = byte,
            // Reported at once, not at the end of the line: a parser of the bytes read so far would
            // call them malformed.
            (5 | 7, b'0'..=b'9') => return Err(Violation::OtherVersion),
            (8, b'\r') => {}
            (8, b'\n') => return Err(Violation::BareNewline),
            (9, b'\n') => self.position = HeadPosition::Fields,
            (9, _) => return Err(Violation::BareReturn),
            _ => return Err(Violation::Version),
        }
        self.bytes += 1;
        Ok(())
    }

    fn fields(&mut self, at: usize, rest: &[u8], limits: Limits) -> Result<ScanStep, At> {
        match self.fields.step(rest, &mut self.framing, limits) {
            Ok(ScanStep::More) => Ok(ScanStep::More),
            Ok(ScanStep::Done(used)) => {
                self.whole().map_err(|violation| At(at + used - 1, violation))?;
                self.position = HeadPosition::Done;
                Ok(ScanStep::Done(at + used))
            }
            Err(At(used, violation)) => Err(At(at + used, violation)),
        }
    }

    fn whole(&self) -> Result<(), Violation> {
        let is_1_0 = self.minor == b'0';
        let framing = &self.framing;
        if framing.is_chunked && is_1_0 {
            return Err(Violation::OldCoding);
        }
        if framing.is_chunked && framing.length.is_some() {
            return Err(Violation::LengthAndCoding);
        }
        if framing.has_host || is_1_0 { Ok(()) } else { Err(Violation::NoHost) }
    }
}

/// The values of the headers that determine the end of the message and its host.
#[derive(Debug, Clone, Default)]
struct Framing {
    field: Field,
    has_host: bool,
    length: Option<u64>,
    is_chunked: bool,
    part: WordPart,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Field {
    #[default]
    Other,
    Host,
    Length,
    Coding,
}

/// The position in a value that consists of one word with space around it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum WordPart {
    #[default]
    Before,
    /// The number of bytes of the word so far.
    Word(usize),
    After,
}

const CHUNKED: &[u8] = b"chunked";

impl Sink for Framing {
    fn name(&mut self, name: &[u8]) -> Result<(), Violation> {
        self.part = WordPart::Before;
        self.field = Field::Other;
        match name {
            b"host" if self.has_host => return Err(Violation::Hosts),
            b"host" => {
                self.field = Field::Host;
                self.has_host = true;
            }
            b"content-length" if self.length.is_some() => return Err(Violation::Lengths),
            b"content-length" => {
                self.field = Field::Length;
                self.length = Some(0);
            }
            b"transfer-encoding" if self.is_chunked => return Err(Violation::Coding),
            b"transfer-encoding" => {
                self.field = Field::Coding;
                self.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn value(&mut self, part: &[u8]) -> Result<(), Violation> {
        match self.field {
            Field::Other => Ok(()),
            Field::Host => self.hosts(part),
            Field::Length => part.iter().try_for_each(|byte| self.length(*byte)),
            Field::Coding => part.iter().try_for_each(|byte| self.coding(*byte)),
        }
    }

    fn end(&mut self) -> Result<(), Violation> {
        match (self.field, self.part) {
            (Field::Host, WordPart::Before) => Err(Violation::Host),
            (Field::Length, WordPart::Before) => Err(Violation::Length),
            (Field::Coding, WordPart::Before) => Err(Violation::Coding),
            (Field::Coding, WordPart::Word(bytes)) if bytes < CHUNKED.len() => {
                Err(Violation::Coding)
            }
            _ => Ok(()),
        }
    }
}

impl Framing {
    fn hosts(&mut self, part: &[u8]) -> Result<(), Violation> {
        let word = match self.part {
            WordPart::Before => part.strip_prefix(b" ").unwrap_or(part),
            WordPart::Word(_) | WordPart::After => part,
        };
        // Nearly every value is one word in one piece, with a space before it.
        if self.part != WordPart::After && is_authority(word) {
            self.part = WordPart::Word(1);
            return Ok(());
        }
        part.iter().try_for_each(|byte| self.host(*byte))
    }

    /// Only allowed bytes are checked here; whether they form a valid host is checked later.
    fn host(&mut self, byte: u8) -> Result<(), Violation> {
        self.part = match (self.part, byte) {
            (WordPart::Before, b' ' | b'\t') => WordPart::Before,
            (WordPart::Word(_) | WordPart::After, b' ' | b'\t') => WordPart::After,
            (WordPart::Before | WordPart::Word(_), byte) if is_authority_byte(byte) => {
                WordPart::Word(1)
            }
            _ => return Err(Violation::Host),
        };
        Ok(())
    }

    fn length(&mut self, byte: u8) -> Result<(), Violation> {
        self.part = match (self.part, byte) {
            (WordPart::Before, b' ' | b'\t') => WordPart::Before,
            (WordPart::Word(_) | WordPart::After, b' ' | b'\t') => WordPart::After,
            (WordPart::Before | WordPart::Word(_), b'0'..=b'9') => {
                let digit = u64::from(byte - b'0');
                let longer = self.length.and_then(|length| length.checked_mul(10));
                let longer = longer.and_then(|length| length.checked_add(digit));
                // Beyond a signed number, some servers would read it as negative.
                let longer = longer.filter(|length| i64::try_from(*length).is_ok());
                self.length = Some(longer.ok_or(Violation::Length)?);
                WordPart::Word(1)
            }
            _ => return Err(Violation::Length),
        };
        Ok(())
    }

    fn coding(&mut self, byte: u8) -> Result<(), Violation> {
        let word = match self.part {
            WordPart::Before => 0,
            WordPart::Word(bytes) => bytes,
            WordPart::After => CHUNKED.len(),
        };
        let is_next = CHUNKED.get(word) == Some(&byte.to_ascii_lowercase());
        self.part = match (self.part, byte) {
            (WordPart::Before | WordPart::Word(_), _) if is_next => WordPart::Word(word + 1),
            (WordPart::Before, b' ' | b'\t') => WordPart::Before,
            (WordPart::Word(_) | WordPart::After, b' ' | b'\t') if word == CHUNKED.len() => {
                WordPart::After
            }
            _ => return Err(Violation::Coding),
        };
        Ok(())
    }
}
