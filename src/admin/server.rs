//! The admin port's server: it accepts, within bounds, and leaves when another worker takes over.
//!
//! It is our own and not Pingora's, whose HTTP session takes a megabyte for a head that does not
//! come and cannot be told that a connection is to be closed while it waits.

use std::io::{self, Write as _};
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Pages;
use super::connection::Connection;
use super::page::{self, Page};
use super::table::Table;
use crate::descriptors::{Reserve, is_out_of_descriptors};

/// The wait after an accept that failed for want of something that may come back.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What a client may take of the admin port.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once.
    pub connections: usize,
    /// Descriptors that are taken at the start, so that they are there when all others are used.
    pub descriptors: usize,
    /// For the header fields of a request, from its first byte on.
    pub head: Duration,
    /// Between two requests of a connection. Longer than any usual interval between two scrapes.
    pub idle: Duration,
    /// For a client to take a response.
    pub write: Duration,
    /// For a first request that is on its way when another worker takes over.
    pub grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 64,
            descriptors: 72,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            grace: Duration::from_secs(1),
        }
    }
}

/// What the server is to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Phase {
    /// It accepts, and keeps connections.
    Open,
    /// Another worker may be taking over: each connection gets one more response at most.
    Closing,
    /// Another worker serves: the same, and the socket is given up.
    Retired,
    /// The process ends: the same, and nothing is waited for.
    Ended,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) pages: Arc<Pages>,
    pub(super) bounds: Bounds,
    pub(super) table: Arc<Table>,
    pub(super) reserve: Reserve,
}

/// A server on a runtime of its own.
pub struct Server {
    runtime: Runtime,
    phase: watch::Sender<Phase>,
    running: JoinHandle<()>,
}

impl Server {
    /// Serves `pages` at `socket`, from now on.
    ///
    /// # Errors
    /// The system gives no thread or no descriptor.
    pub fn start(socket: StdListener, pages: Arc<Pages>, bounds: Bounds) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("weir-admin")
            .enable_all()
            .build()?;
        socket.set_nonblocking(true)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(socket)?
        };
        let (phase, phases) = watch::channel(Phase::Open);
        let shared = Arc::new(Shared::new(pages, bounds));
        let running = runtime.spawn(run(listener, shared, phases));
        Ok(Self { runtime, phase, running })
    }

    /// Accepts and keeps connections, as at the start.
    pub fn open(&self) {
        self.phase.send_replace(Phase::Open);
    }

    /// Accepts no more, closes idle connections, and lets others have one more response, until it
    /// is [opened](Self::open) again.
    pub fn close(&self) {
        self.phase.send_replace(Phase::Closing);
    }

    /// The same for good: another worker serves.
    pub fn retire(&self) {
        self.phase.send_replace(Phase::Retired);
    }

    /// Ends it. Responses that are on their way have `patience`. Not to be called from a runtime.
    pub fn stop(self, patience: Duration) {
        self.phase.send_replace(Phase::Ended);
        let ended = self.runtime.block_on(async { timeout(patience, self.running).await });
        if ended.is_err() {
            log::debug!("admin connections closed before their responses were read");
        }
        self.runtime.shutdown_timeout(Duration::ZERO);
    }
}

impl Shared {
    pub(super) fn new(pages: Arc<Pages>, bounds: Bounds) -> Self {
        let reserve = Reserve::new(bounds.descriptors);
        Self { pages, bounds, table: Table::new(bounds.connections), reserve }
    }

    /// The next connection.
    async fn accept(&self, listener: &TcpListener) -> TcpStream {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) if is_out_of_descriptors(&error) => {
                    if !self.reserve.release() {
                        sleep(ACCEPT_AGAIN).await;
                        self.reserve.refill();
                    }
                }
                Err(error) => {
                    // Mostly a client that has left in the meantime.
                    log::debug!("admin connection not accepted: error=\"{error}\"");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    /// All places are taken by connections that are being answered.
    fn refuse(&self, stream: TcpStream) {
        let Ok(mut stream) = stream.into_std() else { return };
        let page = Page::text(503, "too many connections to the admin port\n");
        let head = page.head(page::Connection::Close);
        let response = [&head[..], &page.body[..]].concat();
        // It fits into the socket's buffer, or the client has left.
        let _written = stream.write(&response);
        self.reserve.recycle(stream);
    }
}

/// Accepts until it is retired, and returns when the last connection has ended.
pub(super) async fn run(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut phases: watch::Receiver<Phase>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let phase = *phases.borrow_and_update();
        if phase >= Phase::Retired {
            listener = None;
            if connections.is_empty() {
                return;
            }
        }
        let open = listener.as_ref().filter(|_| phase == Phase::Open);
        let accept = async {
            match open {
                Some(listener) => shared.accept(listener).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = phases.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(_ended) = connections.join_next() => {}
            stream = accept => match shared.table.enter() {
                Some(place) => {
                    let connection =
                        Connection::new(stream, Arc::clone(&shared), phases.clone(), place);
                    connections.spawn(connection.serve());
                }
                None => shared.refuse(stream),
            },
        }
    }
}
