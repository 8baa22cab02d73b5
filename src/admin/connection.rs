//! One connection to the admin port. It serves requests one after the other until it is closed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::page::{self, Page};
use super::shared::{ServerPhase, ServerState};
use super::table::ConnectionSlot;
use crate::http::request_reader::{AdminRequest, RequestReader};
use crate::http::scan::Violation;

/// Bytes per read: enough for a usual request.
const READ: usize = 1024;
/// How long, and how many bytes, a client may keep sending after its last response. If unread data
/// were left, the kernel would reset the connection, and the client could lose the response.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// One connection.
pub(super) struct Connection {
    stream: TcpStream,
    reader: RequestReader,
    shared: Arc<ServerState>,
    phases: watch::Receiver<ServerPhase>,
    slot: ConnectionSlot,
    /// Whether a response has been sent on this connection.
    had_response: bool,
}

/// The result of waiting for a request.
enum Next {
    Request(AdminRequest),
    Violation(Violation),
    /// A part of a request arrived, but not the rest in time.
    Timeout,
    /// The connection is closed without another response.
    Close,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        shared: Arc<ServerState>,
        phases: watch::Receiver<ServerPhase>,
        slot: ConnectionSlot,
    ) -> Self {
        let reader = RequestReader::default();
        Self { stream, reader, shared, phases, slot, had_response: false }
    }

    /// Serves requests until the connection is closed.
    pub(super) async fn serve(mut self) {
        while self.exchange().await {}
        // A stream that cannot be taken from the runtime is closed when it is dropped.
        if let Ok(stream) = self.stream.into_std() {
            self.shared.reserve.recycle(stream);
        }
        self.shared.reserve.refill();
    }

    /// Reads one request and responds to it. Returns whether another request may follow.
    async fn exchange(&mut self) -> bool {
        let (page, without_body, connection) = match self.next().await {
            Next::Request(request) => {
                let is_open = *self.phases.borrow() == ServerPhase::Open;
                let connection = match (request.keeps_connection && is_open, request.is_http_1_0) {
                    (false, _) => page::ConnectionHeader::Close,
                    (true, false) => page::ConnectionHeader::KeepAlive,
                    (true, true) => page::ConnectionHeader::KeepAliveHttp10,
                };
                let page = self.shared.pages.page(&request.method, &request.path);
                (page, request.method == "HEAD", connection)
            }
            Next::Violation(violation) => {
                let code = violation.code();
                let page = Page::text(violation.status(), format!("not a valid request: {code}\n"));
                (page, false, page::ConnectionHeader::Close)
            }
            Next::Timeout => (Page::status(408), false, page::ConnectionHeader::Close),
            Next::Close => return false,
        };
        let body = if without_body { Bytes::new() } else { page.body.clone() };
        if !self.respond(page.head(connection), body).await {
            return false;
        }
        self.had_response = true;
        if connection == page::ConnectionHeader::Close {
            self.linger().await;
            return false;
        }
        true
    }

    async fn next(&mut self) -> Next {
        let bounds = self.shared.bounds;
        let first_wait =
            if self.had_response && self.reader.is_empty() { bounds.idle } else { bounds.head };
        let mut timer = pin!(sleep(first_wait));
        let mut has_started = !self.reader.is_empty();
        let mut has_grace_timer = false;
        loop {
            match self.reader.next_request() {
                Ok(Some(request)) => return Next::Request(request),
                Ok(None) => {}
                Err(violation) => return Next::Violation(violation),
            }
            if !has_started && !self.reader.is_empty() {
                has_started = true;
                if !has_grace_timer {
                    timer.set(sleep(bounds.head));
                }
            }
            match *self.phases.borrow_and_update() {
                ServerPhase::Open => {}
                ServerPhase::Ended => return Next::Close,
                ServerPhase::Closing | ServerPhase::Retired
                    if self.had_response && !has_started =>
                {
                    return Next::Close;
                }
                ServerPhase::Closing | ServerPhase::Retired if has_grace_timer => {}
                ServerPhase::Closing | ServerPhase::Retired => {
                    has_grace_timer = true;
                    timer.set(sleep(bounds.grace));
                }
            }
            tokio::select! {
                biased;
                is_open = read(&self.stream, &mut self.reader) => {
                    if !is_open {
                        return Next::Close;
                    }
                }
                () = self.slot.evicted() => return Next::Close,
                changed = self.phases.changed() => {
                    if changed.is_err() {
                        return Next::Close;
                    }
                }
                () = &mut timer => {
                    return if has_started { Next::Timeout } else { Next::Close };
                }
            }
        }
    }

    /// Returns whether the whole response was written and the connection was not evicted.
    async fn respond(&mut self, head: Bytes, body: Bytes) -> bool {
        if !self.slot.start_response(head.len() + body.len()) {
            return false;
        }
        let mut response = head.chain(body);
        let written = timeout(self.shared.bounds.write, self.stream.write_all_buf(&mut response));
        let is_written = tokio::select! {
            biased;
            () = self.slot.evicted() => false,
            written = written => matches!(written, Ok(Ok(()))),
        };
        is_written && self.slot.wait_for_request()
    }

    /// Closes the write side, and waits for the client to close its own.
    async fn linger(&mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES;
        let drain = async {
            let mut discarded = RequestReader::default();
            while left > 0 && read(&self.stream, &mut discarded).await {
                left = left.saturating_sub(READ);
                discarded = RequestReader::default();
            }
        };
        tokio::select! {
            () = drain => {}
            () = self.slot.evicted() => {}
            () = sleep(LINGER) => {}
        }
    }
}

/// Reads available bytes. Returns false at the end of the connection.
async fn read(stream: &TcpStream, reader: &mut RequestReader) -> bool {
    loop {
        if stream.readable().await.is_err() {
            return false;
        }
        let mut bytes = [0; READ];
        let count_max = reader.room().min(READ);
        let Some(bytes) = bytes.get_mut(..count_max) else { return false };
        match stream.try_read(bytes) {
            Ok(0) => return false,
            Ok(count) => {
                reader.push(bytes.get(..count).unwrap_or_default());
                return true;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
}
