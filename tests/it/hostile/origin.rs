//! An origin that writes down every byte that reaches it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of tests alone")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use socket2::SockRef;

use crate::support::message::find;
use crate::support::ports::own_socket;
use crate::support::{TIMEOUT, within};

/// Answers each request with its target, and keeps connections.
pub(super) struct Origin {
    address: SocketAddr,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    whole: usize,
    open: BTreeMap<u16, TcpStream>,
}

impl Origin {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind(own_socket(3000)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let (accepting, shared) = (listener.try_clone().unwrap(), Arc::clone(&seen));
        let acceptor = std::thread::spawn(move || {
            while let Ok((socket, peer)) = accepting.accept() {
                let shared = Arc::clone(&shared);
                shared.lock().unwrap().open.insert(peer.port(), socket.try_clone().unwrap());
                std::thread::spawn(move || {
                    serve(socket, &shared);
                    shared.lock().unwrap().open.remove(&peer.port());
                });
            }
        });
        Self { address, listener, acceptor: Some(acceptor), seen }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Every byte since the last look away.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.seen().bytes.clone()
    }

    /// How many whole requests they were.
    pub(super) fn whole(&self) -> usize {
        self.seen().whole
    }

    /// How many connections there are.
    pub(super) fn open(&self) -> usize {
        self.seen().open.len()
    }

    /// Looks away: forgets what came, and ends all connections.
    ///
    /// Waits until the other side has closed them as well. On a busy machine it learns of an end later than
    /// of the connection that the next case makes, and would lose a POST on a connection that it keeps.
    pub(super) fn forget(&self) {
        for socket in self.seen().open.values() {
            // An error says that the other side was faster.
            drop(socket.shutdown(Shutdown::Write));
        }
        let _closed = within(TIMEOUT, || (self.open() == 0).then_some(()));
        let mut seen = self.seen();
        seen.bytes.clear();
        seen.whole = 0;
        for socket in seen.open.values() {
            drop(socket.shutdown(Shutdown::Both));
        }
        seen.open.clear();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(SockRef::from(&self.listener).shutdown(Shutdown::Both));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        self.forget();
    }
}

fn serve(mut socket: TcpStream, seen: &Mutex<Seen>) {
    let mut unread = Vec::new();
    let mut piece = [0; 65_536];
    while let Ok(count @ 1..) = socket.read(&mut piece) {
        seen.lock().unwrap().bytes.extend_from_slice(&piece[..count]);
        unread.extend_from_slice(&piece[..count]);
        while let Some((length, target)) = request(&unread) {
            unread.drain(..length);
            seen.lock().unwrap().whole += 1;
            let length = target.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}");
            if socket.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// The length and target of the request that the bytes begin with, once it is whole. What it
/// cannot read it waits for.
fn request(bytes: &[u8]) -> Option<(usize, String)> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let target = text.split(' ').nth(1)?.to_owned();
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    if field("transfer-encoding").is_some() {
        return Some((head + chunks(&bytes[head..])?, target));
    }
    let length: usize = field("content-length").map_or(Some(0), |length| length.parse().ok())?;
    (bytes.len() >= head + length).then_some((head + length, target))
}

fn chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        let digits = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        at += line + 2;
        if size == 0 {
            return Some(at + find(&bytes[at..], b"\r\n")? + 2);
        }
        at += size + 2;
        if at > bytes.len() {
            return None;
        }
    }
}
