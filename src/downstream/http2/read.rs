//! Reads from the client of an HTTP/2 stream.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use pingora_error::{Error, ErrorType, Result};

use crate::downstream::connection_state::{ConnectionState, Direction};
use crate::downstream::min_rate::MinRateGuard;

/// Reads, and records in the state whether Weir is waiting for the client.
pub(crate) async fn read_with_state(
    reading: impl Future<Output = Result<Option<Bytes>>>,
    state: &ConnectionState,
    is_awaited: bool,
    min_rate: Option<&mut MinRateGuard>,
) -> Result<Option<Bytes>> {
    let mut min_rate = min_rate;
    let mut reading = pin!(reading);
    poll_fn(|context| {
        if state.close_reason().is_some() {
            return Poll::Ready(Error::e_explain(
                ErrorType::ReadError,
                "a deadline of the client has passed",
            ));
        }
        let polled = reading.as_mut().poll(context);
        state.set_waiting_for_client(is_awaited && polled.is_pending());
        if let Some(min_rate) = &mut min_rate {
            let came = |read: &Option<Bytes>| read.as_ref().map_or(0, Bytes::len);
            min_rate.on_transfer(state, Direction::Read, transferred(&polled, came));
        }
        polled
    })
    .await
}

/// How many bytes a finished read or write has transferred.
pub(crate) fn transferred<T>(
    polled: &Poll<Result<T>>,
    bytes: impl FnOnce(&T) -> usize,
) -> Poll<usize> {
    match polled {
        Poll::Ready(done) => Poll::Ready(done.as_ref().map_or(0, bytes)),
        Poll::Pending => Poll::Pending,
    }
}
