//! The end of a connection whose client may still be sending.

use std::time::Duration;

use pingora_core::protocols::Stream;
use tokio::io::AsyncWriteExt as _;

use super::early_refusal::PanickedRequest;
use super::reply::{RawReply, raw_http1_reply};
use crate::exchange::refusal::Refusal;
use crate::http::request_id;

/// How long what a client still sends is read and thrown away, once it has been answered and is not
/// listened to any more. To close at once would be a reset, and a reset takes the answer away that
/// the client has not read yet (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);

/// Answers a connection that is one too many, before anything is read from it.
pub(crate) async fn send_raw_reply(stream: Stream, refusal: Refusal) {
    let id = request_id::from_roll(fastrand::u128(..));
    send_and_close(stream, &raw_http1_reply(refusal, id.as_str(), false)).await;
}

/// Responds to a request that a panic ended before its response began.
pub(crate) async fn after_panic(stream: Stream, request: &PanickedRequest) {
    send_and_close(stream, &raw_http1_reply(Refusal::Internal, &request.id, request.is_head)).await;
}

async fn send_and_close(mut stream: Stream, answer: &RawReply) {
    let sent = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await
    };
    match tokio::time::timeout(LINGER, sent).await {
        Ok(Ok(())) => linger(stream).await,
        Ok(Err(error)) => log::debug!("response not sent: error=\"{error}\""),
        Err(elapsed) => log::debug!("response not sent: error=\"{elapsed}\""),
    }
}

/// Says that nothing more is coming, and reads what still comes.
pub(crate) async fn linger(mut stream: Stream) {
    let lingering = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(LINGER, lingering).await {
        log::debug!("client left: {error}");
    }
}
