//! A request's body on its way to a backend.

use std::collections::VecDeque;
use std::future::Future as _;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use atomic_waker::AtomicWaker;
use bytes::Bytes;
use h2::{Reason, SendStream};
use parking_lot::Mutex;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::custom::BodyWrite;
use pingora_error::{Error, ErrorType, Result};
use tokio::time::Sleep;

/// While more than this is on its way, no more is read of the client.
const ON_ITS_WAY: usize = 64 * 1024;

/// What is on its way and was not taken yet. All that polls it is one task.
#[derive(Debug, Default)]
pub struct Upload {
    body: Mutex<Body>,
    /// Of whoever reads the answer.
    reader: AtomicWaker,
    /// How often a piece has come or gone.
    moves: AtomicU64,
}

#[derive(Debug, Default)]
struct Body {
    /// `None` before the head is sent, and once nothing more can be.
    stream: Option<SendStream<Bytes>>,
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Nothing comes behind what is waiting.
    is_whole: bool,
    /// The stream was told so.
    is_ended: bool,
    /// The backend takes no more.
    is_refused: bool,
    /// The answer is whole.
    is_answered: bool,
    /// The client needs no more of the answer.
    is_over: bool,
    /// The status of what the client is told instead of an answer.
    given_up: Option<u16>,
    /// How long the backend may take nothing once it has answered.
    patience: Duration,
    /// Until when it may, if so many bytes are left.
    silence: Option<(usize, Pin<Box<Sleep>>)>,
}

/// The upload of a request, if its connection speaks HTTP/2.
#[must_use]
pub fn of(connection: &Digest) -> Option<&Arc<Upload>> {
    connection.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
}

impl Upload {
    /// Whether more may be read of the client.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let sent = self.poll_sent(context);
        let mut body = self.body.lock();
        if sent.is_ready() || body.bytes <= ON_ITS_WAY {
            return Poll::Ready(());
        }
        if body.is_answered {
            ready!(body.poll_silence(context));
            body.refuse();
            return Poll::Ready(());
        }
        Poll::Pending // whoever reads the answer knows how long that may last
    }

    /// The client is told something of this status instead of an answer.
    pub fn give_up(&self, status: u16) {
        let mut body = self.body.lock();
        body.given_up = Some(status);
        body.refuse();
        self.reader.wake();
    }

    /// The head is sent, and nothing else follows if it `is_whole`.
    pub(super) fn begin(
        &self,
        stream: Option<SendStream<Bytes>>,
        is_whole: bool,
        patience: Option<Duration>,
    ) {
        let mut body = self.body.lock();
        body.patience = patience.unwrap_or(Duration::MAX);
        body.stream = stream;
        (body.is_whole, body.is_ended) = (is_whole, is_whole);
    }

    /// Sends what can be sent; ready when nothing is left.
    pub(super) fn poll_sent(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut body = self.body.lock();
        let before = body.bytes;
        let sent = body.poll_sent(context);
        if body.bytes != before {
            self.moves.fetch_add(1, Relaxed);
        }
        sent
    }

    /// Whether the client has the response in full. If not, the caller's task is woken once it has.
    pub(super) fn poll_over(&self, context: &mut Context<'_>) -> bool {
        self.reader.register(context.waker());
        self.body.lock().is_over
    }

    /// The status that the client is told instead of an answer, if it is. Whoever asks is woken once
    /// there is one.
    pub(super) fn poll_given_up(&self, context: &mut Context<'_>) -> Option<u16> {
        self.reader.register(context.waker());
        self.body.lock().given_up
    }

    /// Whether the client is to say the next word.
    pub(super) fn awaits_client(&self) -> bool {
        let body = self.body.lock();
        !body.is_whole && body.bytes == 0
    }

    /// Changes whenever a piece of the body comes or goes.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Relaxed)
    }

    /// All of the answer has come.
    pub(super) fn answered(&self) {
        self.body.lock().is_answered = true;
    }

    /// The stream is left: whatever is not whole is given up.
    pub(super) fn leave(&self) {
        let mut body = self.body.lock();
        let is_done = body.is_ended && body.is_answered;
        if let Some(mut stream) = body.stream.take().filter(|_| !is_done) {
            stream.send_reset(Reason::CANCEL);
        }
        body.refuse();
    }
}

impl Body {
    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(piece) = self.waiting.front_mut() {
            let Some(stream) = &mut self.stream else { return Poll::Ready(()) };
            stream.reserve_capacity(piece.len());
            // What is there already is not told again.
            let room = match stream.capacity() {
                0 => ready!(stream.poll_capacity(context)),
                room => Some(Ok(room)),
            };
            let Some(Ok(room)) = room else {
                self.refuse();
                return Poll::Ready(());
            };
            let taken = piece.split_to(room.min(piece.len()));
            self.bytes -= taken.len();
            if piece.is_empty() {
                self.waiting.pop_front();
            }
            self.is_ended = self.is_whole && self.waiting.is_empty();
            if stream.send_data(taken, self.is_ended).is_err() {
                self.refuse();
            }
        }
        if let Some(stream) = &mut self.stream
            && self.is_whole
            && !mem::replace(&mut self.is_ended, true)
            && stream.send_data(Bytes::new(), true).is_err()
        {
            self.refuse();
        }
        Poll::Ready(())
    }

    /// Ready once the backend has taken nothing for too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (left, patience) = (self.bytes, self.patience);
        let since = self.silence.take().filter(|(then, _)| *then == left);
        let (_, silence) = self
            .silence
            .insert(since.unwrap_or_else(|| (left, Box::pin(tokio::time::sleep(patience)))));
        silence.as_mut().poll(context)
    }

    fn refuse(&mut self) {
        self.is_refused = true;
        self.waiting.clear();
        self.bytes = 0;
    }
}

/// Where Pingora puts the pieces of a body.
pub(super) struct Uploading {
    pub(super) upload: Arc<Upload>,
    /// How long a backend may take nothing of what it has answered already.
    pub(super) patience: Option<Duration>,
}

impl Uploading {
    /// Sends what can be sent now.
    async fn send(&self) {
        std::future::poll_fn(|context| {
            let _left = self.upload.poll_sent(context);
            Poll::Ready(())
        })
        .await;
    }
}

#[async_trait]
impl BodyWrite for Uploading {
    async fn write_all_buf(&mut self, data: &mut Bytes) -> Result<()> {
        if data.is_empty() {
            return Ok(()); // no room is ever told for nothing
        }
        {
            let mut body = self.upload.body.lock();
            if body.is_refused {
                return Error::e_explain(ErrorType::WriteError, "it takes no more of the request");
            }
            self.upload.moves.fetch_add(1, Relaxed);
            body.bytes += data.len();
            body.waiting.push_back(mem::take(data));
        }
        self.send().await;
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.upload.body.lock().is_whole = true;
        self.send().await;
        Ok(())
    }

    /// The client has its answer. What is left of its request is still for the backend.
    async fn cleanup(&mut self) -> Result<()> {
        self.upload.body.lock().is_over = true;
        self.upload.reader.wake();
        let sent = std::future::poll_fn(|context| self.upload.poll_sent(context));
        let patience = self.patience.unwrap_or(Duration::MAX);
        if tokio::time::timeout(patience, sent).await.is_err() {
            log::debug!("a backend has answered and takes no more of the request");
        }
        Ok(())
    }

    fn upgrade_body_writer(&mut self) {}
}
