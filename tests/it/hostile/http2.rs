//! Each line of `tests/http/http2.txt`, sent to the real binary in front of an origin that writes
//! down every byte.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what is not as it must be fails the test, which is what a panic does"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::frames::{self, Frames, block, frame};
use super::origin::Origin;
use super::table::{self, Case};
use crate::support::message::find;
use crate::support::tls::{Authority, TlsConfig};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, now, within};

const CASES: &str = include_str!("../../http/http2.txt");
/// What a client begins with (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Its settings: no table, so that a client need not keep one to read what it is answered.
const SETTINGS: &[u8] = b"\x00\x01\x00\x00\x00\x00";
/// What is asked behind each case.
const AFTER: &str = ":method: GET¶:scheme: http¶:authority: a.test¶:path: /after";
/// Words that tell of something else than what the client gets.
const MODIFIERS: [&str; 4] = ["cut", "early", "plaintext", "tls"];
/// How long a read waits before somebody looks whether it is enough.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A clear connection, or one over TLS.
trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

/// How a client comes.
enum Door {
    Clear,
    Tls(Box<TlsConfig>),
}

impl Door {
    fn socket(&self, to: SocketAddr) -> Box<dyn Socket> {
        match self {
            Self::Clear => {
                let socket = TcpStream::connect(to).unwrap();
                socket.set_read_timeout(Some(POLL_INTERVAL)).unwrap();
                socket.set_write_timeout(Some(TIMEOUT)).unwrap();
                Box::new(socket)
            }
            Self::Tls(config) => Box::new(config.connect(to, "a.test").into_stream(POLL_INTERVAL)),
        }
    }

    /// Whether a case is for this door.
    fn is_for(&self, case: &Case) -> bool {
        match self {
            Self::Clear => !case.has("tls"),
            Self::Tls(_) => !case.has("plaintext"),
        }
    }
}

fn config(origin: &Origin, listener: &str) -> String {
    format!(
        "{LISTENER_KEYS}{listener}\n\
         limits: {{body: 1000000, http2: {{streams: 4}}}}\n\
         pools: [{{name: web, health_check: off, backends: [http://{}]}}]\n",
        origin.address()
    )
}

#[test]
fn every_line_of_the_table_comes_to_what_it_says() {
    let origin = Origin::start();
    let weir = Weir::start(&config(&origin, "http2: true"));
    judge_all(&Door::Clear, &weir, &origin);
}

#[test]
fn it_comes_to_the_same_over_tls() {
    let (origin, authority) = (Origin::start(), Authority::new());
    let identity = authority.identity("site", &["a.test"]);
    let listener = format!("tls: {{certificates: [{}]}}", identity.yaml());
    let weir = Weir::start(&config(&origin, &listener));
    let door = Door::Tls(Box::new(TlsConfig::new(&authority, None).alpn(&["h2"])));
    judge_all(&door, &weir, &origin);
}

#[track_caller]
fn judge_all(door: &Door, weir: &Weir, origin: &Origin) {
    let cases = table::cases(CASES);
    let wrong: Vec<String> = cases
        .iter()
        .filter(|case| door.is_for(case))
        .filter_map(|case| {
            origin.forget();
            let problem = judge(case, door, weir, origin).err()?;
            Some(format!("{}: {}: {problem}", case.section, case.what))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Whether it has come to what the table says.
fn judge(case: &Case, door: &Door, weir: &Weir, origin: &Origin) -> Result<(), String> {
    let sent = frames::frames(case);
    let expected: Vec<&str> = case.outcome.iter().map(String::as_str).collect();
    let expected: Vec<&str> =
        expected.into_iter().filter(|word| !MODIFIERS.contains(word)).collect();
    let ends = expected.last().is_some_and(|last| last.starts_with("goaway") || *last == "closed");

    let mut client = Client::open(door, weir.address(), &sent);
    let came = client.until(|client| !ends && client.pinged && client.came() == expected);
    if came != expected {
        return Err(format!("it came to {came:?}"));
    }
    let may_begin = case.has("cut") || case.has("early");
    let reached = if may_begin { Ok(()) } else { reached(&sent, origin) };
    let mut next = match ends {
        true => Client::open(
            door,
            weir.address(),
            &Frames { parts: Vec::new(), is_raw: false, next: 1, origin: Vec::new() },
        ),
        false => client,
    };
    let number = if ends { 1 } else { sent.next };
    next.send(&frame(0x1, 0x5, number, &block(AFTER)));
    next.until(|next| next.streams.get(&number).is_some_and(Stream::is_over));
    let after = next.streams.remove(&number).unwrap_or_default();
    if after.status != Some(200) || after.body != b"/after" {
        return Err(format!("the next stream: {after:?}"));
    }
    if !ends && next.came() != expected {
        return Err(format!("later it came to {:?}", next.came()));
    }
    if may_begin { begun(case, &sent, weir, origin) } else { reached }
}

/// Whether the origin has got what it should, and nothing else.
fn reached(sent: &Frames, origin: &Origin) -> Result<(), String> {
    let seen = without_our_own(&origin.bytes());
    if seen == sent.origin {
        return Ok(());
    }
    Err(format!("the origin got {}, not {}", seen.escape_ascii(), sent.origin.escape_ascii()))
}

/// Whether the origin, which has been asked for something else since, may have got a part of the
/// request before, but not all of it; or, `early`, all that there was to it.
fn begun(case: &Case, sent: &Frames, weir: &Weir, origin: &Origin) -> Result<(), String> {
    let is_quiet =
        || (weir.metrics().sum("lb_backend_in_flight_requests", &[]) == 0.0).then_some(());
    within(TIMEOUT, is_quiet).ok_or("the request does not end")?;
    // The connection of the other one may be kept.
    within(TIMEOUT, || (origin.open() <= 1).then_some(())).ok_or("it is not cut")?;
    let seen = without_our_own(&origin.bytes());
    let whole = origin.whole();
    if whole == 1 && !ends_chunks(&seen) {
        return Ok(());
    }
    let after: &[u8] = b"GET /after HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let both = [[&sent.origin, after].concat(), [after, &sent.origin].concat()];
    if case.has("early") && both.contains(&seen) {
        return Ok(());
    }
    Err(format!("the origin got {whole} whole: {}", seen.escape_ascii()))
}

fn ends_chunks(bytes: &[u8]) -> bool {
    find(bytes, b"\r\n0\r\n\r\n").is_some()
}

/// What reached the origin, without the fields that Weir adds.
fn without_our_own(bytes: &[u8]) -> Vec<u8> {
    let own = ["x-request-id:", "x-forwarded-", "x-real-ip:", "via:"];
    let is_own = |line: &&[u8]| {
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        own.iter().any(|name| line.starts_with(name))
    };
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !is_own(line))
        .flatten()
        .copied()
        .collect()
}

/// What has come of a stream.
#[derive(Debug, Default)]
struct Stream {
    status: Option<u16>,
    body: Vec<u8>,
    ended: bool,
    reset: Option<u32>,
}

impl Stream {
    fn is_over(&self) -> bool {
        self.ended || self.reset.is_some()
    }
}

/// A client that sends given bytes, and reads frames.
struct Client {
    socket: Box<dyn Socket>,
    unread: Vec<u8>,
    streams: BTreeMap<u32, Stream>,
    /// What the server answered that speaks HTTP/1.
    old: Option<u16>,
    goaway: Option<u32>,
    is_ended: bool,
    settings: usize,
    pinged: bool,
}

impl Client {
    fn open(door: &Door, to: SocketAddr, sent: &Frames) -> Self {
        let mut client = Self {
            socket: door.socket(to),
            unread: Vec::new(),
            streams: BTreeMap::new(),
            old: None,
            goaway: None,
            is_ended: false,
            settings: 0,
            pinged: false,
        };
        if !sent.is_raw {
            client.send(PREFACE);
            client.send(&frame(0x4, 0, 0, SETTINGS));
            // Then the acknowledgement has been sent before anything else.
            client.until(|client| client.settings > 0);
        }
        for (bytes, wait) in &sent.parts {
            client.send(bytes);
            if let Some(stream) = wait {
                client.until(|client| client.streams.get(stream).is_some_and(Stream::is_over));
            }
        }
        // What is answered behind it, all that came before has been read for.
        client.send(&frame(0x6, 0, 0, b"and then"));
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        // The server may have ended the connection by now; what it said before that counts.
        let _taken = self.socket.write_all(bytes).and_then(|()| self.socket.flush());
    }

    /// Reads until it is enough, or nothing more can come. What has come of it.
    fn until(&mut self, is_enough: impl Fn(&Self) -> bool) -> Vec<String> {
        let end = now() + TIMEOUT;
        let mut piece = [0; 65_536];
        while !is_enough(self) && !self.is_ended && now() < end {
            match self.socket.read(&mut piece) {
                Ok(0) => self.is_ended = true,
                Ok(count) => {
                    self.unread.extend_from_slice(&piece[..count]);
                    self.read_frames();
                }
                Err(error) if is_silence(&error) => {}
                Err(_reset) => self.is_ended = true,
            }
        }
        self.came()
    }

    /// What has come, in the words of the table.
    fn came(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.old.map(|status| status.to_string()));
        for stream in self.streams.values() {
            let status = stream.status.filter(|_| stream.ended);
            words.extend(status.map(|status| status.to_string()));
            // Who has answered in full may say so of the rest of the request (RFC 9113 §8.1).
            let reset = stream.reset.filter(|code| *code != 0 || status.is_none());
            words.extend(reset.map(|code| format!("reset:{}", reason(code))));
        }
        words.extend(self.goaway.map(|code| format!("goaway:{}", reason(code))));
        if self.is_ended && self.goaway.is_none() {
            words.push("closed".to_owned());
        }
        words
    }

    fn read_frames(&mut self) {
        if self.unread.starts_with(b"HTTP/1.") {
            self.old = std::str::from_utf8(&self.unread[9..12]).ok().and_then(|it| it.parse().ok());
            return;
        }
        while self.unread.len() >= 9 {
            let [high, middle, low, kind, flags, ..] = self.unread[..] else { return };
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if self.unread.len() < 9 + length {
                return;
            }
            let frame: Vec<u8> = self.unread.drain(..9 + length).collect();
            let number = u32::from_be_bytes(frame[5..9].try_into().unwrap());
            self.read_frame(kind, flags, number, &frame[9..]);
        }
    }

    fn read_frame(&mut self, kind: u8, flags: u8, number: u32, payload: &[u8]) {
        let code = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap());
        match kind {
            0x0 | 0x1 => {
                let stream = self.streams.entry(number).or_default();
                if kind == 0x1 {
                    stream.status = Some(status(payload));
                } else {
                    stream.body.extend_from_slice(payload);
                }
                stream.ended |= flags & 0x1 != 0;
            }
            0x3 => self.streams.entry(number).or_default().reset = Some(code(payload)),
            0x4 if flags & 0x1 == 0 => {
                self.settings += 1;
                self.send(&frame(0x4, 0x1, 0, b""));
            }
            0x6 => self.pinged |= flags & 0x1 != 0,
            0x7 => self.goaway = Some(code(&payload[4..])),
            _ => {}
        }
    }
}

fn is_silence(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// The status that a block begins with. There is no table but the fixed one: we asked for that.
fn status(block: &[u8]) -> u16 {
    const FIXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        // The size of the table that there is not.
        [0x20, rest @ ..] => status(rest),
        [index @ 0x88..=0x8e, ..] => FIXED[usize::from(index - 0x88)],
        [0x08 | 0x18 | 0x48, length, text @ ..] => {
            let text = &text[..usize::from(length & 0x7f)];
            let digits = if length & 0x80 == 0 { text.to_vec() } else { huffman(text) };
            String::from_utf8(digits).unwrap().parse().unwrap()
        }
        other => panic!("no status: {}", other.escape_ascii()),
    }
}

/// Digits in the code of RFC 7541 (Appendix B): 0 to 2 have five bits, the others six.
fn huffman(bytes: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let mut digits = Vec::new();
    let mut rest = &bits[..];
    while rest.len() >= 5 {
        let number = |count: usize| rest[..count].iter().fold(0, |sum, bit| sum << 1 | bit);
        let (digit, length) = match number(5) {
            five @ 0..=2 => (five, 5),
            _ if rest.len() >= 6 && (0x19..=0x1f).contains(&number(6)) => (number(6) - 0x16, 6),
            _ => break,
        };
        digits.push(b'0' + digit);
        rest = &rest[length..];
    }
    digits
}

/// The name of an error code (RFC 9113 §7).
fn reason(code: u32) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.map_or_else(|| code.to_string(), |name| (*name).to_owned())
}
