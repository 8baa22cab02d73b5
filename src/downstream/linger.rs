//! Closing a connection whose client may still be sending.

use std::time::Duration;

use pingora_core::protocols::Stream;
use tokio::io::AsyncWriteExt as _;

use super::early_refusal::PanickedRequest;
use super::reply::{RawReply, raw_http1_reply};
use crate::exchange::refusal::Refusal;
use crate::http::request_id;

/// How long further data of a client is read and dropped after the last response. Closing at once
/// would send a reset, and a reset discards the response that the client has not read yet (RFC 9112
/// §9.6).
const LINGER: Duration = Duration::from_secs(2);

/// Sends a response to a rejected connection, before anything is read from it.
pub(crate) async fn send_raw_reply(stream: Stream, refusal: Refusal) {
    let id = request_id::from_roll(fastrand::u128(..));
    send_and_close(stream, &raw_http1_reply(refusal, id.as_str(), false)).await;
}

/// Sends the response to a request that a panic ended before its response started.
pub(crate) async fn after_panic(stream: Stream, request: &PanickedRequest) {
    send_and_close(stream, &raw_http1_reply(Refusal::Internal, &request.id, request.is_head)).await;
}

async fn send_and_close(mut stream: Stream, reply: &RawReply) {
    let sent = async {
        stream.write_all(reply.as_bytes()).await?;
        stream.flush().await
    };
    match tokio::time::timeout(LINGER, sent).await {
        Ok(Ok(())) => linger(stream).await,
        Ok(Err(error)) => log::debug!("response not sent: error=\"{error}\""),
        Err(elapsed) => log::debug!("response not sent: error=\"{elapsed}\""),
    }
}

/// Closes the sending side, and reads what the client still sends.
pub(crate) async fn linger(mut stream: Stream) {
    let lingering = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(LINGER, lingering).await {
        log::debug!("client disconnected: error=\"{error}\"");
    }
}
