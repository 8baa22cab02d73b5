//! One connection to the admin port: its requests, one after the other, until it is to be closed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::page::{self, Page};
use super::server::{Phase, Shared};
use super::table::Place;
use crate::http::request_reader::{Request, RequestReader};
use crate::http::scan::Violation;

/// What is read at once: a usual request whole.
const READ: usize = 1024;
/// How long, and how many bytes, a client may go on sending after its last response. What is not
/// read makes the kernel reset the connection, and the client may lose the response.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// One connection.
pub(super) struct Connection {
    stream: TcpStream,
    reader: RequestReader,
    shared: Arc<Shared>,
    phases: watch::Receiver<Phase>,
    place: Place,
    /// Whether it has had a response.
    is_kept: bool,
}

/// What comes of waiting for a request.
enum Next {
    Request(Request),
    Violation(Violation),
    /// A part of a request came, and the rest not in time.
    TooSlow,
    /// Nothing is to be said any more.
    Over,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        shared: Arc<Shared>,
        phases: watch::Receiver<Phase>,
        place: Place,
    ) -> Self {
        let reader = RequestReader::default();
        Self { stream, reader, shared, phases, place, is_kept: false }
    }

    /// Serves it to its end.
    pub(super) async fn serve(mut self) {
        while self.exchange().await {}
        // What cannot be taken out of the runtime is closed all the same.
        if let Ok(stream) = self.stream.into_std() {
            self.shared.reserve.recycle(stream);
        }
        self.shared.reserve.refill();
    }

    /// Reads one request and answers it. Whether another one may follow.
    async fn exchange(&mut self) -> bool {
        let (page, without_body, connection) = match self.next().await {
            Next::Request(request) => {
                let is_open = *self.phases.borrow() == Phase::Open;
                let connection = match (request.keeps_connection && is_open, request.is_http_1_0) {
                    (false, _) => page::Connection::Close,
                    (true, false) => page::Connection::Kept,
                    (true, true) => page::Connection::KeptForHttp10,
                };
                let page = self.shared.pages.page(&request.method, &request.path);
                (page, request.method == "HEAD", connection)
            }
            Next::Violation(violation) => {
                let code = violation.code();
                let page = Page::text(violation.status(), format!("not a request: {code}\n"));
                (page, false, page::Connection::Close)
            }
            Next::TooSlow => (Page::status(408), false, page::Connection::Close),
            Next::Over => return false,
        };
        let body = if without_body { Bytes::new() } else { page.body.clone() };
        if !self.respond(page.head(connection), body).await {
            return false;
        }
        self.is_kept = true;
        if connection == page::Connection::Close {
            self.linger().await;
            return false;
        }
        true
    }

    async fn next(&mut self) -> Next {
        let bounds = self.shared.bounds;
        let first_wait =
            if self.is_kept && self.reader.is_empty() { bounds.idle } else { bounds.head };
        let mut timer = pin!(sleep(first_wait));
        let mut has_begun = !self.reader.is_empty();
        let mut is_hurried = false;
        loop {
            match self.reader.next_request() {
                Ok(Some(request)) => return Next::Request(request),
                Ok(None) => {}
                Err(violation) => return Next::Violation(violation),
            }
            if !has_begun && !self.reader.is_empty() {
                has_begun = true;
                if !is_hurried {
                    timer.set(sleep(bounds.head));
                }
            }
            match *self.phases.borrow_and_update() {
                Phase::Open => {}
                Phase::Ended => return Next::Over,
                Phase::Closing | Phase::Retired if self.is_kept && !has_begun => return Next::Over,
                Phase::Closing | Phase::Retired if is_hurried => {}
                Phase::Closing | Phase::Retired => {
                    is_hurried = true;
                    timer.set(sleep(bounds.grace));
                }
            }
            tokio::select! {
                biased;
                is_open = read(&self.stream, &mut self.reader) => {
                    if !is_open {
                        return Next::Over;
                    }
                }
                () = self.place.evicted() => return Next::Over,
                changed = self.phases.changed() => {
                    if changed.is_err() {
                        return Next::Over;
                    }
                }
                () = &mut timer => {
                    return if has_begun { Next::TooSlow } else { Next::Over };
                }
            }
        }
    }

    /// Whether the whole response was taken.
    async fn respond(&mut self, head: Bytes, body: Bytes) -> bool {
        if !self.place.responds(head.len() + body.len()) {
            return false;
        }
        let mut response = head.chain(body);
        let written = timeout(self.shared.bounds.write, self.stream.write_all_buf(&mut response));
        let is_written = tokio::select! {
            biased;
            () = self.place.evicted() => false,
            written = written => matches!(written, Ok(Ok(()))),
        };
        is_written && self.place.waits()
    }

    /// Ends our half, and waits for the client to end its own.
    async fn linger(&mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES;
        let drain = async {
            let mut unused = RequestReader::default();
            while left > 0 && read(&self.stream, &mut unused).await {
                left = left.saturating_sub(READ);
                unused = RequestReader::default();
            }
        };
        tokio::select! {
            () = drain => {}
            () = self.place.evicted() => {}
            () = sleep(LINGER) => {}
        }
    }
}

/// Reads what has come. False at the end of the connection.
async fn read(stream: &TcpStream, reader: &mut RequestReader) -> bool {
    loop {
        if stream.readable().await.is_err() {
            return false;
        }
        let mut bytes = [0; READ];
        let most = reader.room().min(READ);
        let Some(bytes) = bytes.get_mut(..most) else { return false };
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
