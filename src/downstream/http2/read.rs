//! Waiting for what the client of an HTTP/2 stream sends.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use pingora_error::{Error, ErrorType, Result};

use crate::downstream::connection_state::{Direction, Line, Verdict};
use crate::downstream::min_rate::Pacing;

/// Waits for what the client says, and tells the line whether it is to say the next word.
pub(crate) async fn listen(
    reading: impl Future<Output = Result<Option<Bytes>>>,
    line: &Line,
    is_awaited: bool,
    pacing: Option<&mut Pacing>,
) -> Result<Option<Bytes>> {
    let mut pacing = pacing;
    let mut reading = pin!(reading);
    poll_fn(|context| {
        if line.verdict() != Verdict::Open {
            return Poll::Ready(Error::e_explain(ErrorType::ReadError, "its time is up"));
        }
        let polled = reading.as_mut().poll(context);
        line.read_pending(is_awaited && polled.is_pending());
        if let Some(pacing) = &mut pacing {
            let came = |read: &Option<Bytes>| read.as_ref().map_or(0, Bytes::len);
            pacing.moved(line, Direction::Read, moved(&polled, came));
        }
        polled
    })
    .await
}

/// How many bytes have moved, if it has come to anything.
pub(crate) fn moved<T>(polled: &Poll<Result<T>>, bytes: impl FnOnce(&T) -> usize) -> Poll<usize> {
    match polled {
        Poll::Ready(done) => Poll::Ready(done.as_ref().map_or(0, bytes)),
        Poll::Pending => Poll::Pending,
    }
}
