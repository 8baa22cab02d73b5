//! The link between the supervisor and a worker.
//!
//! A pair of connected Unix sockets: frames of JSON, each behind its length, and listening
//! sockets beside them (`SCM_RIGHTS`, unix(7)). The worker finds its end as its standard input,
//! which every process has and no other child inherits. When one end closes, the other process is
//! gone: that is how each learns of it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::metrics::{Counts, Supervision};
use crate::runtime::debits::Debits;
use crate::runtime::handoff::Handoff;
use crate::tls::last_good::LastGoodFiles;
use crate::tls::tickets::TicketKeys;

/// The largest frame: ten million clients' buckets fit.
const FRAME_BYTES_MAX: usize = 512 * 1024 * 1024;
/// How long the other end may take to read.
const SEND_MAX: Duration = Duration::from_secs(5);
/// Sockets in one message; the kernel takes 253 (`SCM_MAX_FD`).
const SOCKETS_PER_MESSAGE: usize = 128;

/// What the supervisor tells a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message: what to serve. The sockets follow it.
    Start(Box<Start>),
    /// Take over: what the predecessor knew at last, and requests from now on.
    TakeOver(Box<State>),
    /// Stop answering on the admin port and tell what you know: a successor is warm.
    HandOver,
    /// The successor failed: answer on the admin port again.
    Resume,
    /// Stop accepting, finish what is in flight, and exit.
    Drain,
    /// Turn `/readyz` to 503, wait `pre_stop`, then drain.
    Stop,
    /// Do not wait for anything any more: abort what is in flight, log it, and exit.
    StopNow,
    /// Say nothing more after [`ToSupervisor::Held`]: the supervisor replaces itself.
    Hold,
    /// Speak again.
    Speak,
    /// What a draining predecessor has counted, and given to clients, meanwhile.
    Inherit(Box<DrainReport>),
    /// How things stand with the supervisor.
    Supervised(Supervision),
}

/// What a worker is to serve.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Start {
    /// The file's text, as the supervisor checked it.
    pub text: Option<String>,
    /// The configuration's version.
    pub version: String,
    /// The addresses of the sockets that follow, in their order.
    pub sockets: Vec<SocketAddr>,
    /// What a predecessor knew some moments ago.
    pub state: Option<State>,
    /// How things stand with the supervisor, so that no scrape misses it.
    pub supervision: Supervision,
    /// No other worker serves: this one answers on the admin port while it starts.
    #[serde(default)]
    pub is_alone: bool,
}

/// What a worker knows that its successor has to know.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// Health, buckets, marks.
    pub handoff: Handoff,
    /// Every total.
    pub counts: Counts,
    /// What sessions of clients are resumed with.
    #[serde(default)]
    pub tickets: Option<TicketKeys>,
    /// What is used of the files for TLS. `None` is what was told before.
    #[serde(default)]
    pub files: Option<LastGoodFiles>,
}

impl State {
    /// Takes in what a worker knows now.
    pub fn update(&mut self, mut new: Self) {
        new.files = new.files.or_else(|| self.files.take());
        *self = new;
    }
}

/// What a draining worker has done since its last report. An older version knows the counts alone.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct DrainReport {
    /// What it has counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// What its limiters have given to clients.
    #[serde(default, skip_serializing_if = "Debits::is_empty")]
    pub debits: Debits,
}

impl DrainReport {
    /// Whether nothing has happened since the last report.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.debits.is_empty() && self.counts.is_empty()
    }
}

/// What a worker tells the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// It cannot serve, for this reason, and ends.
    Failed(String),
    /// Configuration loaded, first probes in: it can take over.
    Warm,
    /// It accepts requests.
    Ready,
    /// The answer to [`ToWorker::HandOver`].
    State(Box<State>),
    /// What it knows now, for the case that it dies.
    Checkpoint(Box<State>),
    /// What it has done since it last reported, and how many client connections it has.
    Draining(Box<DrainReport>, u64),
    /// How many client connections it has.
    Connections(u64),
    /// The last word until [`ToWorker::Speak`].
    Held,
    /// It is alive, and how many of its data threads are not. Sent only to a supervisor that says
    /// for how long it may be silent: an older one does not know this message.
    Heartbeat {
        /// Data threads that made no progress for that long.
        hung_threads: u64,
    },
    /// It ends, and has lost so many lines of its log that the log does not report.
    LogLost(u64),
}

/// One end of the link.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    writing: Mutex<()>,
}

impl Link {
    /// Both ends; the second is to become a worker's standard input.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        // A worker that hangs must not hang the supervisor.
        ours.set_write_timeout(Some(SEND_MAX))?;
        Ok((Self::from(ours), theirs.into()))
    }

    /// The worker's end.
    ///
    /// # Errors
    /// Standard input is closed.
    pub fn standard_input() -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self::from(UnixStream::from(input)))
    }

    /// Sends a message. Whole messages never mix, whoever sends.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).map_err(|_too_long| too_long(body.len()))?;
        let _turn = self.writing.lock();
        (&self.stream).write_all(&length.to_le_bytes())?;
        (&self.stream).write_all(&body)
    }

    /// The next message; `None` when the other end is gone.
    ///
    /// # Errors
    /// What came is no message.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        let mut length = [0; 4];
        match (&self.stream).read_exact(&mut length) {
            Err(error) if is_end(&error) => return Ok(None),
            read => read?,
        }
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(too_long(length));
        }
        let mut body = vec![0; length];
        match (&self.stream).read_exact(&mut body) {
            Err(error) if is_end(&error) => return Ok(None),
            read => read?,
        }
        Ok(Some(serde_json::from_slice(&body)?))
    }

    /// Sends listening sockets. The other process gets descriptors of its own.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn send_sockets<'a>(
        &self,
        sockets: impl IntoIterator<Item = &'a TcpListener>,
    ) -> io::Result<()> {
        let sockets: Vec<BorrowedFd<'_>> = sockets.into_iter().map(AsFd::as_fd).collect();
        let _turn = self.writing.lock();
        for batch in sockets.chunks(SOCKETS_PER_MESSAGE) {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(batch));
            sendmsg(&self.stream, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty())?;
        }
        Ok(())
    }

    /// The sockets that the other end sends next.
    ///
    /// # Errors
    /// The other end is gone, or sent fewer.
    pub fn receive_sockets(&self, count: usize) -> io::Result<Vec<TcpListener>> {
        let mut sockets: Vec<TcpListener> = Vec::with_capacity(count);
        while sockets.len() < count {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let read = recvmsg(
                &self.stream,
                &mut [IoSliceMut::new(&mut byte)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            let before = sockets.len();
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    sockets.extend(descriptors.map(TcpListener::from));
                }
            }
            if read.bytes == 0 || sockets.len() == before {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(sockets)
    }
}

impl From<UnixStream> for Link {
    fn from(stream: UnixStream) -> Self {
        Self { stream, writing: Mutex::new(()) }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

fn too_long(length: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Link, Link) {
        let (one, other) = Link::pair().unwrap();
        (one, Link::from(UnixStream::from(other)))
    }

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let (supervisor, worker) = pair();
        supervisor.send(&ToWorker::HandOver).unwrap();
        supervisor.send(&ToWorker::Drain).unwrap();
        assert!(matches!(worker.receive().unwrap(), Some(ToWorker::HandOver)));
        assert!(matches!(worker.receive().unwrap(), Some(ToWorker::Drain)));
    }

    #[test]
    fn files_that_are_not_told_again_are_as_they_were() {
        let told = |files: Option<&str>| State {
            files: files.map(|files| serde_json::from_str(files).unwrap()),
            ..State::default()
        };
        let (first, second) = (
            r#"[{"files":["a.crt","a.key"],"contents":["AQ","Ag"]}]"#,
            r#"[{"files":["b.crt","b.key"],"contents":["AQ","Ag"]}]"#,
        );
        let mut state = told(Some(first));
        state.update(told(None));
        assert_eq!(state.files, told(Some(first)).files);
        state.update(told(Some(second)));
        assert_eq!(state.files, told(Some(second)).files);
    }

    #[test]
    fn a_drain_report_and_the_counts_of_another_version_are_understood() {
        let known = |report: &str| serde_json::from_str::<DrainReport>(report).unwrap();
        let sums = r#"{"sums":{"succeeded":7,"seconds":1}}"#;
        let counts: Counts = serde_json::from_str(sums).unwrap();
        let old = known(&serde_json::to_string(&counts).unwrap());
        assert_eq!((old.counts, old.debits.is_empty()), (counts.clone(), true));
        let limiter = r#"{"scope":"Global","ipv6_prefix":64,"debits":"AgMF"}"#;
        let debits = serde_json::from_str(&format!(r#"{{"seed":9,"limiters":[{limiter}]}}"#));
        let report = DrainReport { counts: counts.clone(), debits: debits.unwrap() };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!((known(&text).counts, known(&text).debits), (report.counts, report.debits));
        assert_eq!(serde_json::from_str::<Counts>(&text).unwrap(), counts);
    }

    #[test]
    fn an_end_that_is_gone_is_told_from_a_message() {
        let (supervisor, worker) = pair();
        drop(supervisor);
        assert!(worker.receive::<ToWorker>().unwrap().is_none());
    }

    #[test]
    fn more_sockets_than_one_message_carries_arrive_in_order() {
        let (supervisor, worker) = pair();
        let sent: Vec<TcpListener> =
            (0..300).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        supervisor.send_sockets(&sent).unwrap();
        supervisor.send(&ToWorker::Drain).unwrap();
        let received = worker.receive_sockets(300).unwrap();
        let addresses = |sockets: &[TcpListener]| -> Vec<SocketAddr> {
            sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
        };
        assert_eq!(addresses(&sent), addresses(&received));
        assert!(matches!(worker.receive().unwrap(), Some(ToWorker::Drain)));
    }
}
