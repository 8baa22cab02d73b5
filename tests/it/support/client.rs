//! A raw HTTP/1.1 client: it sends given bytes, and returns exactly what it received.
//!
//! A client library would mend what a test wants to see: it would retry, join header lines, hide
//! interim answers and call a truncated body a body. This one keeps everything and tells the ways
//! an answer can fail apart.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

pub(crate) use super::message::{Failure, Framing, Head, Response};
use super::message::{content_length, find, framing, io_failure, parse_field, parse_head};
use super::{TIMEOUT, now};

/// One connection to a server.
pub(crate) struct Client {
    socket: TcpStream,
    /// Read and not yet used.
    unread: Vec<u8>,
    timeout: Duration,
}

impl Client {
    /// Connects; fails the test if that is not possible.
    #[track_caller]
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::try_connect(to, None).unwrap_or_else(|error| panic!("connecting to {to}: {error}"))
    }

    /// Connects as the client `from`; fails the test if that is not possible.
    #[track_caller]
    pub(crate) fn connect_from(from: Ipv4Addr, to: SocketAddr) -> Self {
        Self::try_connect(to, Some(from.into()))
            .unwrap_or_else(|error| panic!("connecting from {from} to {to}: {error}"))
    }

    /// Connects, from an address of our own if one is given.
    pub(crate) fn try_connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        socket.connect_timeout(&to.into(), TIMEOUT)?;
        socket.set_tcp_nodelay(true)?;
        Ok(Self { socket: socket.into(), unread: Vec::new(), timeout: TIMEOUT })
    }

    /// How long each answer may take from now on.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr().expect("a connected socket has an address")
    }

    /// Sends bytes as they are; fails the test if the other side does not take them.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("sending");
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.set_write_timeout(Some(self.timeout))?;
        self.socket.write_all(bytes.as_ref())
    }

    /// Whether the server has read all that was sent, as the kernel's queues of both sockets say.
    pub(crate) fn is_all_read(&self) -> bool {
        let ours = self.local_addr();
        let theirs = self.socket.peer_addr().expect("a connected socket has a peer");
        queues(ours, theirs).is_some_and(|(unsent, _)| unsent == 0)
            && queues(theirs, ours).is_some_and(|(_, unread)| unread == 0)
    }

    /// Says that nothing more is going to be sent.
    pub(crate) fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).expect("half-closing");
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        let socket = Socket::from(self.socket);
        socket.set_linger(Some(Duration::ZERO)).expect("setting linger");
    }

    /// Sends a request with `Host` and, if there is a body, its length.
    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Failure> {
        let mut bytes = request_bytes(method, target, headers, body.len());
        bytes.extend_from_slice(body);
        // A server may answer and close without having read all. Its answer counts, so an error
        // of sending is reported only if there is none.
        let sent = self.try_send(&bytes);
        match (self.try_read_answer(method), sent) {
            (Err(Failure::NoAnswer), Err(error)) => Err(io_failure(&error, 0)),
            (answer, _) => answer,
        }
    }

    /// `GET target` on this connection; fails the test if there is no whole answer.
    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[], b"")
            .unwrap_or_else(|failure| panic!("GET {target}: {failure:?}"))
    }

    /// Reads one answer; fails the test if there is no whole one.
    #[track_caller]
    pub(crate) fn read_answer(&mut self) -> Response {
        self.try_read_answer("GET").unwrap_or_else(|failure| panic!("no answer: {failure:?}"))
    }

    /// Reads one answer to a request with `method`, and any 1xx before it.
    pub(crate) fn try_read_answer(&mut self, method: &str) -> Result<Response, Failure> {
        let end = now() + self.timeout;
        let mut interim = Vec::new();
        loop {
            let head = self.read_head(end)?;
            if (100..200).contains(&head.status) && head.status != 101 {
                interim.push(head);
                continue;
            }
            let framing = framing(method, &head)?;
            let mut trailers = Vec::new();
            let mut body = Vec::new();
            let got_all = match framing {
                Framing::Bodiless => Ok(()),
                Framing::ContentLength => self.read_length(&head, end, &mut body),
                Framing::Chunked => {
                    self.read_chunks(end, &mut body).map(|fields| trailers = fields)
                }
                Framing::Close => self.read_rest(end, &mut body),
            };
            return match got_all {
                Ok(()) => Ok(Response { head, body, framing, trailers, interim }),
                Err(Failure::NoAnswer) => {
                    Err(Failure::TruncatedBody { head, got: body.len() + self.unread.len() })
                }
                Err(Failure::Reset { got }) => Err(Failure::Reset { got: got + body.len() }),
                Err(failure) => Err(failure),
            };
        }
    }

    /// Reads one head.
    pub(crate) fn read_head(&mut self, end: Instant) -> Result<Head, Failure> {
        let length = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            match self.fill(end) {
                Err(Failure::NoAnswer) if !self.unread.is_empty() => {
                    let part = String::from_utf8_lossy(&self.unread).into_owned();
                    return Err(Failure::TruncatedHead(part));
                }
                filled => filled?,
            }
        };
        let bytes: Vec<u8> = self.unread.drain(..length).collect();
        parse_head(&String::from_utf8_lossy(&bytes))
    }

    /// Whether the other side closes this connection in time, without sending anything more.
    pub(crate) fn is_closed_within(&mut self, timeout: Duration) -> bool {
        self.unread.is_empty()
            && matches!(self.fill(now() + timeout), Err(Failure::NoAnswer | Failure::Reset { .. }))
    }

    /// Waits for more bytes and gives back all that were not used yet.
    pub(crate) fn read_some(&mut self) -> Result<Vec<u8>, Failure> {
        if self.unread.is_empty() {
            self.fill(now() + self.timeout)?;
        }
        Ok(std::mem::take(&mut self.unread))
    }

    /// Waits for more bytes, and takes at most `most` of them out of the socket.
    pub(crate) fn read_piece(&mut self, most: usize) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.timeout))?;
        self.socket.read(&mut vec![0; most])
    }

    fn read_length(
        &mut self,
        head: &Head,
        end: Instant,
        body: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let length = content_length(head)?.unwrap_or(0);
        self.read_exactly(length, end, body)
    }

    fn read_chunks(
        &mut self,
        end: Instant,
        body: &mut Vec<u8>,
    ) -> Result<Vec<(String, String)>, Failure> {
        loop {
            let line = self.read_line(end)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16)
                .map_err(|error| Failure::Malformed(format!("chunk size {line:?}: {error}")))?;
            if size == 0 {
                break;
            }
            self.read_exactly(size, end, body)?;
            if !self.read_line(end)?.is_empty() {
                return Err(Failure::Malformed("a chunk longer than it said".to_owned()));
            }
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.read_line(end)?;
            if line.is_empty() {
                return Ok(trailers);
            }
            trailers.push(parse_field(&line)?);
        }
    }

    fn read_rest(&mut self, end: Instant, body: &mut Vec<u8>) -> Result<(), Failure> {
        loop {
            body.append(&mut self.unread);
            match self.fill(end) {
                Ok(()) => {}
                Err(Failure::NoAnswer) => return Ok(()),
                Err(failure) => return Err(failure),
            }
        }
    }

    fn read_exactly(
        &mut self,
        count: usize,
        end: Instant,
        body: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let mut missing = count;
        loop {
            let part = missing.min(self.unread.len());
            body.extend(self.unread.drain(..part));
            missing -= part;
            if missing == 0 {
                return Ok(());
            }
            self.fill(end)?;
        }
    }

    fn read_line(&mut self, end: Instant) -> Result<String, Failure> {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill(end)?;
        }
    }

    /// Reads at least one byte. A closed connection is `NoAnswer`; who called knows better.
    fn fill(&mut self, end: Instant) -> Result<(), Failure> {
        let left = end.saturating_duration_since(now());
        if left.is_zero() {
            return Err(Failure::TimedOut);
        }
        let wait = self.socket.set_read_timeout(Some(left));
        wait.map_err(|error| io_failure(&error, self.unread.len()))?;
        let mut piece = [0; 65_536];
        let read = loop {
            match self.socket.read(&mut piece) {
                // As after a pause of the whole process.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => Err(Failure::NoAnswer),
            Ok(count) => {
                self.unread.extend_from_slice(&piece[..count]);
                Ok(())
            }
            Err(error) => Err(io_failure(&error, self.unread.len())),
        }
    }
}

/// `GET path` on a connection of its own; fails the test if there is no whole answer.
#[track_caller]
pub(crate) fn get(to: SocketAddr, path: &str) -> Response {
    try_get(to, path).unwrap_or_else(|failure| panic!("GET {path} from {to}: {failure:?}"))
}

/// `GET path` on a connection of its own.
pub(crate) fn try_get(to: SocketAddr, path: &str) -> Result<Response, Failure> {
    let mut client = Client::try_connect(to, None).map_err(|error| io_failure(&error, 0))?;
    client.request("GET", path, &[("Connection", "close")], b"")
}

/// How many bytes the kernel holds that the socket at `local` has sent and `remote` has not
/// acknowledged, and that have come for it and were not read. `None` if there is no such socket.
fn queues(local: SocketAddr, remote: SocketAddr) -> Option<(u64, u64)> {
    let name = |address: SocketAddr| match address {
        SocketAddr::V4(it) => {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(it.ip().octets()), it.port())
        }
        SocketAddr::V6(_) => panic!("tests use IPv4"),
    };
    let ends = format!(" {} {} ", name(local), name(remote));
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("reading the kernel's sockets");
    let (_, rest) = sockets.lines().find_map(|line| line.split_once(&ends))?;
    let (sent, received) = rest.split(' ').nth(1)?.split_once(':')?;
    Some((u64::from_str_radix(sent, 16).ok()?, u64::from_str_radix(received, 16).ok()?))
}

/// The head of a request. Gives `Host` unless `headers` has one, and a length if there is a body.
pub(crate) fn request_bytes(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body_bytes: usize,
) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("Host: weir.test\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if body_bytes > 0 {
        head.push_str(&format!("Content-Length: {body_bytes}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}
