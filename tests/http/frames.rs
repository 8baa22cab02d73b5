//! Parses the last column of `http2.txt` into HTTP/2 frames.

use super::table::{Case, unescape};

/// The pseudo-headers of a plain request, as text and as a block.
const PLAIN: &str = ":method: GET¶:scheme: http¶:authority: a.test¶:path: /";
const PLAIN_POST: &str = ":method: POST¶:scheme: http¶:authority: a.test¶:path: /";
const PLAIN_BLOCK: &[u8] = b"\x82\x86\x84\x01\x06a.test";
/// What the origin receives for it.
const PLAIN_AT_THE_ORIGIN: &str = "GET / HTTP/1.1¶Host: a.test¶¶";

/// What a case sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frames {
    /// Sent after the preface and settings, unless it is raw: bytes, and the stream whose end to wait for
    /// afterwards.
    pub(crate) parts: Vec<(Vec<u8>, Option<u32>)>,
    /// It has its own preface, or none.
    pub(crate) is_raw: bool,
    /// What the origin receives if each request is passed on.
    pub(crate) origin: Vec<u8>,
    /// The client's next stream.
    pub(crate) next: u32,
}

/// Reads the last column of a case.
#[track_caller]
pub(crate) fn frames(case: &Case) -> Frames {
    let (frames, origin) = match case.text.split_once(" ⇒ ") {
        Some((frames, origin)) => (frames, origin.to_owned()),
        None => {
            let passed = case.statuses().iter().filter(|status| **status == 200).count();
            (case.text.as_str(), PLAIN_AT_THE_ORIGIN.repeat(passed))
        }
    };
    let (mut parts, mut wire, mut next) = (Vec::new(), Vec::new(), 1);
    for text in frames.split(" ▸ ") {
        if let Some(stream) = text.strip_prefix("WAIT ") {
            let stream = stream.parse().expect("a stream");
            parts.push((std::mem::take(&mut wire), Some(stream)));
            continue;
        }
        let (bytes, stream) = frame_of(text);
        wire.extend(bytes);
        if stream < 1000 {
            next = next.max((stream + 1) | 1);
        }
    }
    parts.push((wire, None));
    Frames { parts, is_raw: frames.starts_with("RAW "), origin: unescape(&origin), next }
}

/// The bytes of a frame, and its stream.
#[track_caller]
pub(crate) fn frame_of(text: &str) -> (Vec<u8>, u32) {
    if let Some(raw) = text.strip_prefix("RAW ") {
        return (unescape(raw), 0);
    }
    let mut parts = text.splitn(4, ' ');
    let mut part = || parts.next().expect("kind, flags and stream");
    let (kind, flags, stream) = (kind(part()), flags(part()), part().parse().expect("a stream"));
    let payload = parts.next().unwrap_or_default();
    let has_fields = matches!(kind, 0x1 | 0x5 | 0x9);
    let payload = match payload.strip_prefix('=') {
        Some(raw) if has_fields => {
            raw.split('…').map(unescape).collect::<Vec<_>>().join(PLAIN_BLOCK)
        }
        None if has_fields => block(&payload.replace('…', PLAIN).replace('‥', PLAIN_POST)),
        _ => unescape(payload),
    };
    (frame(kind, flags, stream, &payload), stream)
}

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn kind(name: &str) -> u8 {
    const NAMES: [&str; 10] = [
        "DATA",
        "HEADERS",
        "PRIORITY",
        "RST_STREAM",
        "SETTINGS",
        "PUSH_PROMISE",
        "PING",
        "GOAWAY",
        "WINDOW_UPDATE",
        "CONTINUATION",
    ];
    let known = NAMES.iter().position(|known| *known == name);
    known.map_or(0xfa, |kind| u8::try_from(kind).expect("one of ten"))
}

/// `s`tream ends (or acknowledges), `h`eaders end, `p`added, with a `w`eight.
#[track_caller]
fn flags(letters: &str) -> u8 {
    let flag = |letter| match letter {
        's' => 0x1,
        'h' => 0x4,
        'p' => 0x8,
        'w' => 0x20,
        '-' => 0,
        other => panic!("no flag: {other}"),
    };
    letters.chars().map(flag).sum()
}

/// Headers as literals that are never indexed, without Huffman code.
#[track_caller]
pub(crate) fn block(fields: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for field in fields.split('¶').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once(": ").expect("a name and a value");
        block.push(0x10);
        for text in [unescape(name), unescape(value)] {
            integer(&mut block, text.len());
            block.extend(text);
        }
    }
    block
}

/// A length of seven bits, or more (RFC 7541 §5.1).
fn integer(block: &mut Vec<u8>, number: usize) {
    let byte = |number: usize| u8::try_from(number).expect("seven bits");
    if number < 127 {
        return block.push(byte(number));
    }
    block.push(127);
    let mut rest = number - 127;
    while rest >= 128 {
        block.push(0x80 | byte(rest % 128));
        rest /= 128;
    }
    block.push(byte(rest));
}
