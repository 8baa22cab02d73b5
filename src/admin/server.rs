//! The server of the admin port: it accepts connections within limits, and closes them when another
//! worker takes over.
//!
//! It does not use Pingora's HTTP session, which may buffer a megabyte of request headers and cannot be
//! closed while it waits for a request.

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
use super::shared::{ServerLimits, ServerPhase, ServerState};
use crate::descriptors::is_out_of_descriptors;

/// The wait after a failed accept, for example without free descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A server with its own runtime.
pub struct Server {
    runtime: Runtime,
    phase: watch::Sender<ServerPhase>,
    running: JoinHandle<()>,
}

impl Server {
    /// Starts to serve `pages` at `socket`.
    ///
    /// # Errors
    /// A thread or a descriptor cannot be created.
    pub fn start(socket: StdListener, pages: Arc<Pages>, bounds: ServerLimits) -> io::Result<Self> {
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
        let (phase, phases) = watch::channel(ServerPhase::Open);
        let shared = Arc::new(ServerState::new(pages, bounds));
        let running = runtime.spawn(run(listener, shared, phases));
        Ok(Self { runtime, phase, running })
    }

    /// Accepts connections again, with keep-alive.
    pub fn open(&self) {
        self.phase.send_replace(ServerPhase::Open);
    }

    /// Stops accepting, closes idle connections, and allows one more response on the others, until
    /// [`Self::open`] is called.
    pub fn close(&self) {
        self.phase.send_replace(ServerPhase::Closing);
    }

    /// The same permanently: another worker serves.
    pub fn retire(&self) {
        self.phase.send_replace(ServerPhase::Retired);
    }

    /// Stops the server. Responses in progress have `drain_timeout`. Must not be called from a
    /// runtime.
    pub fn stop(self, drain_timeout: Duration) {
        self.phase.send_replace(ServerPhase::Ended);
        let ended = self.runtime.block_on(async { timeout(drain_timeout, self.running).await });
        if ended.is_err() {
            log::debug!("admin connections closed before their responses were read");
        }
        self.runtime.shutdown_timeout(Duration::ZERO);
    }
}

/// Accepts the next connection.
async fn accept(shared: &ServerState, listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_out_of_descriptors(&error) => {
                if !shared.reserve.release() {
                    sleep(ACCEPT_RETRY).await;
                    shared.reserve.refill();
                }
            }
            Err(error) => {
                // Usually the client has disconnected in the meantime.
                log::debug!("admin connection not accepted: error=\"{error}\"");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Responds 503, because every connection has a response in progress.
fn reject(shared: &ServerState, stream: TcpStream) {
    let Ok(mut stream) = stream.into_std() else { return };
    let page = Page::text(503, "too many connections to the admin port\n");
    let head = page.head(page::ConnectionHeader::Close);
    let response = [&head[..], &page.body[..]].concat();
    // It fits into the socket's buffer, unless the client has disconnected.
    let _written = stream.write(&response);
    shared.reserve.recycle(stream);
}

/// Accepts until the server is retired, and returns when the last connection is closed.
pub(super) async fn run(
    listener: TcpListener,
    shared: Arc<ServerState>,
    mut phases: watch::Receiver<ServerPhase>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let phase = *phases.borrow_and_update();
        if phase >= ServerPhase::Retired {
            listener = None;
            if connections.is_empty() {
                return;
            }
        }
        let open = listener.as_ref().filter(|_| phase == ServerPhase::Open);
        let accepted = async {
            match open {
                Some(listener) => accept(&shared, listener).await,
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
            stream = accepted => match shared.table.admit() {
                Some(slot) => {
                    let connection =
                        Connection::new(stream, Arc::clone(&shared), phases.clone(), slot);
                    connections.spawn(connection.serve());
                }
                None => reject(&shared, stream),
            },
        }
    }
}
