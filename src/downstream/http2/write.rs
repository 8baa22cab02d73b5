//! Writes to the client of an HTTP/2 stream.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use pingora_error::{Error, ErrorType, OrErr as _, Result};

/// Waits for capacity to send on the stream, in bytes.
pub(crate) fn poll_capacity(
    body: &mut SendStream<Bytes>,
    context: &mut Context<'_>,
) -> Poll<Result<usize>> {
    // Capacity that exists already wakes no task.
    let polled = match body.capacity() {
        0 => body.poll_capacity(context),
        capacity => Poll::Ready(Some(Ok(capacity))),
    };
    polled.map(|capacity| match capacity {
        Some(capacity) => {
            capacity.or_err(ErrorType::WriteError, "while waiting for the client's window")
        }
        None => Error::e_explain(ErrorType::H2Error, "the client has ended the stream"),
    })
}

/// The error of a client that reads its response too slowly.
pub(crate) fn too_slow<T>() -> Result<T> {
    Error::e_explain(ErrorType::WriteTimedout, "the client reads the response too slowly")
}
