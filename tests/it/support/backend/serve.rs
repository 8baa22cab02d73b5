//! The threads of a backend: one accepts, one serves each connection.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

use super::super::message::{find, parse_field};
use super::super::now;
use super::{Answer, Behaviour, Seen, Shared, path_of};

/// How often a waiting thread looks whether the other side has hung up: at first, and in the end. Two
/// hundred that always look often would need all of a CPU.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(80);
/// Bytes of a request's body that are kept; the rest is read and counted as come.
const BODY_KEPT: usize = 4 << 20;

/// Why a wait ended.
#[derive(PartialEq, Eq)]
enum Wait {
    Elapsed,
    Released,
    Over,
}

/// What becomes of the connection after an answer.
#[derive(PartialEq, Eq)]
enum Then {
    Next,
    Close,
}

/// One accepted connection.
struct Connection {
    shared: Arc<Shared>,
    socket: TcpStream,
    peer: SocketAddr,
    number: u64,
    /// Which life of the backend it belongs to.
    stops: u64,
    unread: Vec<u8>,
    answered: usize,
}

/// Accepts until the listener is shut down.
pub(super) fn accept(listener: &TcpListener, shared: &Arc<Shared>, stops: u64) {
    while let Ok((socket, peer)) = listener.accept() {
        let Ok(handle) = socket.try_clone() else { continue };
        let mut state = shared.state();
        state.connections += 1;
        let number = state.connections;
        state.open.insert(number, handle);
        drop(state);
        let shared = Arc::clone(shared);
        let unread = Vec::new();
        let mut connection =
            Connection { shared, socket, peer, number, stops, unread, answered: 0 };
        std::thread::spawn(move || {
            // Errors are the other side's doing, or ours on purpose.
            drop(connection.serve());
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.state().open.remove(&self.number);
    }
}

impl Connection {
    fn serve(&mut self) -> io::Result<()> {
        self.socket.set_nodelay(true)?;
        while let Some(at) = self.read_request()? {
            let request = self.shared.state().seen_mut(at).cloned();
            let Some(request) = request else { return Ok(()) };
            let behaviour = self.behaviour(&request);
            let is_probe = path_of(&request.target) == "/health";
            let in_flight = InFlight::begin(Arc::clone(&self.shared), is_probe);
            let then = self.behave(&behaviour, &request)?;
            drop(in_flight);
            self.answered += 1;
            let is_last = request.version == "HTTP/1.0"
                || request.header_values("connection").iter().any(|value| value.contains("close"));
            if then == Then::Close || is_last {
                break;
            }
        }
        Ok(())
    }

    fn behaviour(&self, request: &Seen) -> Behaviour {
        let mut state = self.shared.state();
        let own = state.paths.get(path_of(&request.target)).cloned();
        let behaviour = match own {
            Some(own) => own,
            None => state.queue.pop_front().unwrap_or_else(|| state.behaviour.clone()),
        };
        drop(state);
        if let Behaviour::By(decide) = &behaviour { decide(request) } else { behaviour }
    }

    fn behave(&mut self, behaviour: &Behaviour, request: &Seen) -> io::Result<Then> {
        match behaviour {
            Behaviour::Good | Behaviour::By(_) => self.answer(&Answer::status(200), request),
            Behaviour::Answer(answer) => self.answer(answer, request),
            Behaviour::AnswerSlowly(wait, after) => match self.wait(Some(*wait))? {
                Wait::Elapsed | Wait::Released => self.behave(after, request),
                Wait::Over => Ok(Then::Close),
            },
            Behaviour::NeverAnswer => match self.wait(None)? {
                Wait::Elapsed | Wait::Released => self.answer(&Answer::status(200), request),
                Wait::Over => Ok(Then::Close),
            },
            Behaviour::Chunked { pieces, pause } => self.chunks(pieces, *pause),
            Behaviour::Interim(heads, after) => {
                self.socket.write_all(heads.as_bytes())?;
                self.behave(after, request)
            }
            Behaviour::CloseBeforeAnswer => Ok(Then::Close),
            Behaviour::ResetBeforeAnswer => self.reset(),
            Behaviour::CloseAfterRequests(count) if self.answered >= *count => Ok(Then::Close),
            Behaviour::CloseAfterRequests(_) => self.answer(&Answer::status(200), request),
            Behaviour::ResetMidBody => {
                self.socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n")?;
                self.socket.write_all(&[b'x'; 1000])?;
                // A reset overtakes what the other side has not read yet; let it read.
                self.wait(Some(Duration::from_millis(100)))?;
                self.reset()
            }
            Behaviour::HalfHead { pause } => self.drip(*pause),
            Behaviour::UntilClosed(body) => {
                self.close_after(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", body)
            }
            Behaviour::Garbage(bytes) => self.close_after(bytes, b""),
            Behaviour::Raw(bytes) => self.socket.write_all(bytes).map(|()| Then::Next),
            Behaviour::WrongLength { promised, sent } => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {promised}\r\n\r\n");
                self.close_after(head.as_bytes(), &vec![b'x'; *sent])
            }
            Behaviour::Upgrade(protocol) => self.echo(protocol),
        }
    }

    fn answer(&mut self, answer: &Answer, request: &Seen) -> io::Result<Then> {
        let body = answer.body.as_deref().unwrap_or(self.shared.name.as_bytes());
        let has_no_body = matches!(answer.status, 204 | 304);
        let mut bytes = format!("HTTP/1.1 {} Status\r\n", answer.status).into_bytes();
        bytes.extend(format!("X-Backend: {}\r\n", self.shared.name).into_bytes());
        if !has_no_body {
            bytes.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
        }
        for (name, value) in &answer.headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        if !has_no_body && request.method != "HEAD" {
            bytes.extend(body);
        }
        self.socket.write_all(&bytes).map(|()| Then::Next)
    }

    fn chunks(&mut self, pieces: &[Vec<u8>], pause: Duration) -> io::Result<Then> {
        self.socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for (number, piece) in pieces.iter().enumerate() {
            if number > 0 && self.wait(Some(pause))? == Wait::Over {
                return Ok(Then::Close);
            }
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend(piece);
            chunk.extend(b"\r\n");
            self.socket.write_all(&chunk)?;
        }
        self.socket.write_all(b"0\r\n\r\n").map(|()| Then::Next)
    }

    fn drip(&mut self, pause: Duration) -> io::Result<Then> {
        for byte in b"HTTP/1.1 200 OK\r\nX-Drip: ".iter().chain(std::iter::repeat(&b'x')) {
            self.socket.write_all(&[*byte])?;
            if self.wait(Some(pause))? == Wait::Over {
                break;
            }
        }
        Ok(Then::Close)
    }

    fn close_after(&mut self, head: &[u8], body: &[u8]) -> io::Result<Then> {
        self.socket.write_all(head)?;
        self.socket.write_all(body)?;
        Ok(Then::Close)
    }

    fn echo(&mut self, protocol: &str) -> io::Result<Then> {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        );
        self.socket.write_all(head.as_bytes())?;
        loop {
            if self.unread.is_empty() && !self.fill()? {
                return Ok(Then::Close);
            }
            let bytes = std::mem::take(&mut self.unread);
            self.socket.write_all(&bytes)?;
        }
    }

    fn reset(&mut self) -> io::Result<Then> {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))?;
        Ok(Then::Close)
    }

    /// Waits that long, or for ever; ends early on a release, a stop, or a peer that hung up.
    fn wait(&mut self, wait: Option<Duration>) -> io::Result<Wait> {
        let end = wait.map(|wait| now() + wait);
        let mut interval = POLL_INTERVAL;
        let mut state = self.shared.state();
        let releases = state.releases;
        loop {
            if state.stops != self.stops {
                return Ok(Wait::Over);
            }
            if wait.is_none() && state.releases != releases {
                return Ok(Wait::Released);
            }
            let left = end.map_or(interval, |end| end.saturating_duration_since(now()));
            if left.is_zero() {
                return Ok(Wait::Elapsed);
            }
            let bell = &self.shared.bell;
            (state, _) = bell.wait_timeout(state, left.min(interval)).expect("a thread panicked");
            interval = (interval * 2).min(POLL_INTERVAL_MAX);
            if has_hung_up(&self.socket)? {
                // A stop looks the same from here, but is our own doing.
                state.abandoned += usize::from(state.stops == self.stops);
                return Ok(Wait::Over);
            }
        }
    }

    /// Reads a request to its end and notes it; says where it is in the list of those seen.
    fn read_request(&mut self) -> io::Result<Option<usize>> {
        let length = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill()? {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.unread.drain(..length).collect();
        let seen = self.parse(&String::from_utf8_lossy(&head))?;
        let says = |name: &str, word: &str| {
            seen.header_values(name).iter().any(|value| value.eq_ignore_ascii_case(word))
        };
        let is_chunked = says("transfer-encoding", "chunked");
        let length = seen.header_values("content-length").first().and_then(|v| v.parse().ok());
        if says("expect", "100-continue") {
            self.socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut state = self.shared.state();
        let at = state.forgotten + state.seen.len();
        state.seen.push(seen);
        drop(state);

        if is_chunked {
            while let size @ 1.. = self.read_chunk_size()? {
                self.read_body(at, size)?;
                self.read_line()?;
            }
            while !self.read_line()?.is_empty() {}
        } else {
            self.read_body(at, length.unwrap_or(0))?;
        }
        if let Some(seen) = self.shared.state().seen_mut(at) {
            seen.is_whole = true;
        }
        Ok(Some(at))
    }

    fn parse(&self, head: &str) -> io::Result<Seen> {
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let line = lines.next().unwrap_or_default();
        let mut words = line.split(' ').map(str::to_owned);
        let garbled = |line: &str| {
            self.shared.state().garbled.push(line.to_owned());
            io::Error::from(io::ErrorKind::InvalidData)
        };
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(garbled(line));
        };
        let field = |line| parse_field(line).ok().ok_or_else(|| garbled(line));
        let headers = lines.map(field).collect::<io::Result<_>>()?;
        let (connection, peer) = (self.number, self.peer);
        let (body, is_whole) = (Vec::new(), false);
        Ok(Seen { connection, peer, method, target, version, headers, body, is_whole })
    }

    fn read_chunk_size(&mut self) -> io::Result<usize> {
        let line = self.read_line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        usize::from_str_radix(digits, 16).map_err(io::Error::other)
    }

    fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn read_body(&mut self, at: usize, count: usize) -> io::Result<()> {
        let mut missing = count;
        while missing > 0 {
            if self.unread.is_empty() && !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let part: Vec<u8> = self.unread.drain(..missing.min(self.unread.len())).collect();
            missing -= part.len();
            if let Some(seen) = self.shared.state().seen_mut(at)
                && seen.body.len() < BODY_KEPT
            {
                seen.body.extend(part);
            }
        }
        Ok(())
    }

    /// Whether there was more.
    fn fill(&mut self) -> io::Result<bool> {
        let mut piece = [0; 65_536];
        let count = self.socket.read(&mut piece)?;
        self.unread.extend_from_slice(&piece[..count]);
        Ok(count > 0)
    }
}

/// Whether the other side has closed or reset the connection.
fn has_hung_up(socket: &TcpStream) -> io::Result<bool> {
    socket.set_nonblocking(true)?;
    let peeked = socket.peek(&mut [0; 1]);
    socket.set_nonblocking(false)?;
    Ok(match peeked {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    })
}

/// One request being answered; over when dropped.
struct InFlight(Option<Arc<Shared>>);

impl InFlight {
    fn begin(shared: Arc<Shared>, is_probe: bool) -> Self {
        if is_probe {
            return Self(None);
        }
        let mut state = shared.state();
        state.in_flight += 1;
        state.in_flight_peak = state.in_flight_peak.max(state.in_flight);
        drop(state);
        Self(Some(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.state().in_flight -= 1;
        }
    }
}
