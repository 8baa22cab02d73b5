//! How much of the current response has been sent to the client.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};

/// What has been sent of the current response. Only the connection's own task changes it.
#[derive(Debug, Default)]
pub(crate) struct ResponseProgress {
    /// The status of the final response; 0 before its headers.
    status: AtomicU16,
    /// Bytes after the headers.
    bytes: AtomicU64,
    /// The last write returned `Pending`: the client has to read first.
    unread: AtomicBool,
    /// A write has returned `Pending` since [`took_lag`](Self::took_lag) was last asked.
    lagged: AtomicBool,
}

impl ResponseProgress {
    /// Another request starts.
    pub(crate) fn begin(&self) {
        self.status.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
        self.unread.store(false, Relaxed);
        self.lagged.store(false, Relaxed);
    }

    /// The headers of a final response were sent.
    pub(crate) fn headers(&self, status: u16) {
        self.status.store(status, Relaxed);
    }

    /// Bytes of the body were sent.
    pub(crate) fn body(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes.store(self.bytes().saturating_add(bytes), Relaxed);
    }

    /// `written` bytes of HTTP/1 were sent from `piece`. Headers are always at the start of a
    /// piece.
    pub(crate) fn wrote(&self, piece: &[u8], written: usize) {
        if self.has_started() {
            self.body(written);
        } else if let Some(status) = final_status(piece) {
            self.headers(status);
        }
    }

    /// Sets whether the client has to read before more can be sent.
    pub(crate) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Relaxed);
        if unread {
            self.lagged.store(true, Relaxed);
        }
    }

    /// Whether more could not be sent because the client does not read.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// Whether Weir had to wait for the client to read since this was last asked.
    pub(crate) fn took_lag(&self) -> bool {
        self.lagged.load(Relaxed) && self.lagged.swap(false, Relaxed)
    }

    /// Whether the headers of the final response were sent.
    pub(crate) fn has_started(&self) -> bool {
        self.status() != 0
    }

    /// The status sent to the client; 0 if none was.
    pub(crate) fn status(&self) -> u16 {
        self.status.load(Relaxed)
    }

    /// Bytes sent after the headers, including the framing of chunks.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

/// The status of a final response, if `piece` begins with the headers of one (RFC 9112 §4).
fn final_status(piece: &[u8]) -> Option<u16> {
    let [_, b' ', code @ ..] = piece.strip_prefix(b"HTTP/1.")? else { return None };
    let digits = code.first_chunk::<3>()?.iter();
    let status = digits.fold(0, |status, digit| status * 10 + u16::from(digit.wrapping_sub(b'0')));
    (status >= 200 || status == 101).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_final_response() {
        let response = ResponseProgress::default();
        response.wrote(b"HTTP/1.1 100 Continue\r\n\r\n", 25);
        assert_eq!((response.status(), response.bytes()), (0, 0));
        response.wrote(b"HTTP/1.1 404 Not Found\r\n", 24);
        response.wrote(b"HTTP/1.1 200 is what the body says", 34);
        assert_eq!((response.status(), response.bytes()), (404, 34));
        response.begin();
        assert_eq!((response.status(), response.bytes()), (0, 0));
        response.wrote(b"HTTP/1.0 101 Switching Protocols\r\n", 34);
        assert_eq!(response.status(), 101);
    }

    #[test]
    fn a_wait_for_the_client_is_reported_once() {
        let response = ResponseProgress::default();
        response.set_unread(true);
        response.set_unread(false);
        assert!(!response.is_unread());
        assert!(response.took_lag());
        assert!(!response.took_lag());
    }
}
