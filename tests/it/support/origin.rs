//! An origin of HTTP/1 that keeps every byte of a connection, and answers as a script says.
//!
//! `Backend` parses what arrives, as a server would. A test that is about single bytes must see them:
//! what follows a message, and where the next one begins.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;

use super::message::find;
use super::{TIMEOUT, now, ports};

/// A message as it came: everything up to the empty line, and the bytes of its body, framing included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The number of its connection, from 1.
    pub(crate) connection: usize,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The first line.
    pub(crate) fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    /// Whether a field has this value.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.head.split("\r\n").any(|line| line.eq_ignore_ascii_case(field))
    }

    /// Whether there is such a field.
    pub(crate) fn names(&self, field: &str) -> bool {
        let prefix = format!("{}:", field.to_ascii_lowercase());
        self.head.split("\r\n").any(|line| line.to_ascii_lowercase().starts_with(&prefix))
    }
}

/// The origin. Its threads end with their connections.
pub(crate) struct Origin {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    connections: usize,
    messages: Vec<Message>,
    /// Everything that has come, of all connections.
    bytes: Vec<u8>,
}

/// One connection, in the hands of a script.
pub(crate) struct Conversation {
    socket: TcpStream,
    shared: Arc<Mutex<Shared>>,
    number: usize,
    unread: Vec<u8>,
}

impl Origin {
    /// Starts one; the script is run for each connection, until it ends or fails.
    pub(crate) fn start<S>(script: S) -> Self
    where
        S: Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
    {
        let address = ports::own_socket(3100);
        let listener = TcpListener::bind(address).expect("binding");
        let shared = Arc::<Mutex<Shared>>::default();
        let (script, recorded) = (Arc::new(script), Arc::clone(&shared));
        std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                let (script, shared) = (Arc::clone(&script), Arc::clone(&recorded));
                std::thread::spawn(move || {
                    let number = {
                        let mut shared = shared.lock().expect("a script panicked");
                        shared.connections += 1;
                        shared.connections
                    };
                    let mut conversation =
                        Conversation { socket, shared, number, unread: Vec::new() };
                    // An error says that the other side left, which may be what the test wants.
                    drop(conversation.prepare().and_then(|()| script(&mut conversation)));
                });
            }
        });
        Self { address, shared }
    }

    /// One that answers every request with these bytes.
    pub(crate) fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |conversation| {
            while conversation.message()?.is_some() {
                conversation.send(&answer)?;
            }
            Ok(())
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// As it is written in a configuration.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every message that has come to its end.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.shared.lock().expect("a script panicked").messages.clone()
    }

    /// Whether the last that has come, on whichever connection, is this.
    pub(crate) fn has_come_to(&self, end: &str) -> bool {
        self.shared.lock().expect("a script panicked").bytes.ends_with(end.as_bytes())
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.lock().expect("a script panicked").connections
    }
}

impl Conversation {
    fn prepare(&self) -> io::Result<()> {
        self.socket.set_nodelay(true)?;
        self.socket.set_read_timeout(Some(TIMEOUT))?;
        self.socket.set_write_timeout(Some(TIMEOUT))
    }

    /// The number of the connection, from 1.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Whether a message with this first line has come before the last one.
    pub(crate) fn has_seen_before(&self, line: &str) -> bool {
        let shared = self.shared.lock().expect("a script panicked");
        shared.messages.iter().filter(|message| message.line() == line).count() > 1
    }

    /// Reads a message to its end; `None` if the connection ends before it.
    pub(crate) fn message(&mut self) -> io::Result<Option<Message>> {
        let Some(head) = self.head()? else { return Ok(None) };
        self.rest(head).map(Some)
    }

    /// Reads a head; `None` if the connection ends before it.
    pub(crate) fn head(&mut self) -> io::Result<Option<String>> {
        let length = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill()? {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.unread.drain(..length).collect();
        Ok(Some(String::from_utf8_lossy(&head[..length - 4]).into_owned()))
    }

    /// Reads the body behind a head, and notes the message.
    pub(crate) fn rest(&mut self, head: String) -> io::Result<Message> {
        let message = Message { connection: self.number, head, body: Vec::new() };
        let body = if message.has("transfer-encoding: chunked") {
            self.chunks()?
        } else {
            let length = message.head.split("\r\n").find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            self.exactly(length.unwrap_or(0))?
        };
        let message = Message { body, ..message };
        self.shared.lock().expect("a script panicked").messages.push(message.clone());
        Ok(message)
    }

    /// Whether these bytes are among those that have come and were not used.
    pub(crate) fn has_come(&self, bytes: &[u8]) -> bool {
        find(&self.unread, bytes).is_some()
    }

    /// Reads until what has come and was not used ends so.
    pub(crate) fn until(&mut self, end: &str) -> io::Result<()> {
        while !self.unread.ends_with(end.as_bytes()) {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    /// Sends one byte per pause until the peer stops reading, at most this number.
    pub(crate) fn drip(&mut self, bytes: &[u8], pause: Duration) -> io::Result<()> {
        for byte in bytes {
            self.send([*byte])?;
            self.pause(pause)?;
        }
        Ok(())
    }

    /// Waits that long; an error if the other side ends the connection meanwhile.
    pub(crate) fn pause(&mut self, pause: Duration) -> io::Result<()> {
        let end = now() + pause;
        loop {
            let left = end.saturating_duration_since(now());
            if left.is_zero() {
                return self.socket.set_read_timeout(Some(TIMEOUT));
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the other side ends the connection.
    pub(crate) fn until_closed(&mut self) -> io::Result<()> {
        while self.fill()? {}
        Ok(())
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(&self) -> io::Result<()> {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))?;
        Err(io::ErrorKind::ConnectionReset.into())
    }

    fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.unread.drain(..count).collect())
    }

    /// Everything to the end of the last chunk and what follows it.
    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let line = self.line()?;
            all.extend_from_slice(&line);
            let digits = String::from_utf8_lossy(&line);
            let digits = digits.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
            if size == 0 {
                break;
            }
            all.extend(self.exactly(size + 2)?);
        }
        loop {
            let line = self.line()?;
            all.extend_from_slice(&line);
            if line == b"\r\n" {
                return Ok(all);
            }
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n") {
                return Ok(self.unread.drain(..at + 2).collect());
            }
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Whether there was more.
    fn fill(&mut self) -> io::Result<bool> {
        let mut piece = [0; 65_536];
        let count = self.socket.read(&mut piece)?;
        self.unread.extend_from_slice(&piece[..count]);
        let mut shared = self.shared.lock().expect("a script panicked");
        shared.bytes.extend_from_slice(&piece[..count]);
        Ok(count > 0)
    }
}
