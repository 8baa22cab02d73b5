//! The link between the supervisor and a worker.
//!
//! It is a pair of connected Unix sockets. Messages are JSON, each after its length in bytes; listening
//! sockets are sent beside them (`SCM_RIGHTS`, unix(7)). The worker's end is its standard input, which
//! no other child inherits. A process learns that the other one is gone when its end closes.
//!
//! Requests and responses carry no number, because workers of older versions would reject one. Messages
//! arrive in their order, and a worker responds to each [`ToWorker::HandOver`] and each
//! [`ToWorker::Quiesce`] exactly once, in order. The supervisor therefore knows by counting which request
//! a response belongs to (`src/lifecycle/worker.rs`), in every pair of versions. A new kind of request
//! needs the same, or a number that both ends have by default.

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

use crate::metrics::{Counts, SupervisorStats};
use crate::policy::operator::OverrideList;
use crate::runtime::debits::Debits;
use crate::runtime::handoff::Handoff;
use crate::runtime::report::BackendReport;
use crate::tls::last_good::LastGoodFiles;
use crate::tls::tickets::TicketKeys;

/// The largest frame: ten million clients' buckets fit.
const FRAME_BYTES_MAX: usize = 512 * 1024 * 1024;
/// How long the other end may take to read.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Sockets in one message; the kernel takes 253 (`SCM_MAX_FD`).
const SOCKETS_PER_MESSAGE: usize = 128;

/// A message to a worker. Older and newer binaries read it, so the names on the wire stay.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message: what to serve. The sockets follow it.
    Start(Box<Start>),
    /// Accept connections from now on; this is the last known state of the service.
    TakeOver(Box<State>),
    /// Freeze the admin port and send the state: a successor is warm.
    HandOver,
    /// The successor failed: respond on the admin port again.
    Resume,
    /// Stop accepting, finish what is in flight, and exit.
    Drain,
    /// Report 503 on `/readyz`, wait `pre_stop`, then drain.
    Stop,
    /// Abort what is in flight, log it, and exit.
    StopNow,
    /// Send [`ToSupervisor::Quiesced`] and nothing more: the supervisor replaces itself. It is
    /// acknowledged each time.
    #[serde(rename = "Hold")]
    Quiesce,
    /// Send again.
    #[serde(rename = "Speak")]
    Unquiesce,
    /// Add what a draining worker has counted and admitted since its last report.
    #[serde(rename = "Inherit")]
    AddCounts(Box<DrainReport>),
    /// What operators have set on backends. The worker responds with [`ToSupervisor::Overridden`]. Sent
    /// only to a worker whose state says that it knows overrides.
    Overrides {
        /// The number that the worker sends back.
        serial: u64,
        /// All that is set.
        list: OverrideList,
    },
    /// The figures of the supervisor, for the admin port.
    #[serde(rename = "Supervised")]
    SupervisorStats(SupervisorStats),
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
    /// The last known state of the service, without buckets and counts: these come with
    /// [`ToWorker::TakeOver`].
    pub state: Option<State>,
    /// The figures of the supervisor, so that no scrape misses them.
    pub supervision: SupervisorStats,
    /// No other worker serves: this one responds on the admin port while it starts.
    #[serde(default)]
    pub is_alone: bool,
    /// What operators have set on backends.
    #[serde(default)]
    pub overrides: OverrideList,
}

/// What a worker knows and its successor needs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// Health, host names, buckets and their seed.
    pub handoff: Handoff,
    /// Totals, and requests in flight.
    pub counts: Counts,
    /// The keys that resume TLS sessions of clients.
    #[serde(default)]
    pub tickets: Option<TicketKeys>,
    /// The contents of TLS files that are used. `None`: as in the state before.
    #[serde(default)]
    pub files: Option<LastGoodFiles>,
    /// The version of the overrides that the worker applies. `None`: an older version, which knows none.
    #[serde(default)]
    pub overrides: Option<u64>,
}

impl State {
    /// Replaces this state by a newer one.
    pub fn update(&mut self, mut new: Self) {
        new.files = new.files.or_else(|| self.files.take());
        *self = new;
    }
}

/// What a draining worker has done since its last report. Older versions send the counts alone.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct DrainReport {
    /// What it counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// What its limiters admitted.
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

/// A message to the supervisor. Older and newer binaries read it, so the names on the wire stay.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// It cannot serve, for this reason, and exits.
    Failed(String),
    /// It can take over: the configuration is loaded, and the first health checks are done, or have
    /// taken half of `--ready-timeout`.
    Warm,
    /// It accepts connections.
    Ready,
    /// Its state, in response to [`ToWorker::HandOver`].
    State(Box<State>),
    /// Its state, in case it dies.
    Checkpoint(Box<State>),
    /// What it did since its last report, and its number of client connections.
    Draining(Box<DrainReport>, u64),
    /// Its number of client connections.
    Connections(u64),
    /// It sends nothing until [`ToWorker::Unquiesce`].
    #[serde(rename = "Held")]
    Quiesced,
    /// It applies the overrides of this number, in response to [`ToWorker::Overrides`].
    Overridden {
        /// The number that came with them.
        serial: u64,
        /// Their version.
        version: u64,
        /// The state of its backends.
        backends: Vec<BackendReport>,
    },
    /// It is alive. Sent only to a supervisor that has a hang timeout: an older one does not know this
    /// message.
    Heartbeat {
        /// Data threads that made no progress for that long.
        hung_threads: u64,
    },
    /// It exits, and this many lines of its log were lost without a report in the log.
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
        ours.set_write_timeout(Some(SEND_TIMEOUT))?;
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

    /// Sends a message. Messages of several threads do not mix.
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
    /// The bytes are no message.
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
    fn files_that_are_not_sent_again_are_as_they_were() {
        let state_of = |files: Option<&str>| State {
            files: files.map(|files| serde_json::from_str(files).unwrap()),
            ..State::default()
        };
        let (first, second) = (
            r#"[{"files":["a.crt","a.key"],"contents":["AQ","Ag"]}]"#,
            r#"[{"files":["b.crt","b.key"],"contents":["AQ","Ag"]}]"#,
        );
        let mut state = state_of(Some(first));
        state.update(state_of(None));
        assert_eq!(state.files, state_of(Some(first)).files);
        state.update(state_of(Some(second)));
        assert_eq!(state.files, state_of(Some(second)).files);
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
    fn a_closed_link_is_no_message() {
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
