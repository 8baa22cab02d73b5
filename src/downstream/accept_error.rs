//! Connections that failed before their first request, counted and logged.

use std::fmt;
use std::net::SocketAddr;

use prometheus::{IntCounter, IntCounterVec};

use crate::clock::Clock;
use crate::exchange::refusal::Refusal;
use crate::http::proxy_protocol::Invalid;
use crate::policy::log_throttle::LogThrottle;
use crate::tls::terminator::Handshake;

/// Why a connection failed before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// It was closed before it sent anything, as a TCP health check does.
    ClosedEarly,
    /// A PROXY header was expected, and something else was sent.
    NoProxyHeader,
    /// The PROXY header is invalid.
    BadProxyHeader(Invalid),
    /// The TLS handshake failed.
    Handshake(Handshake),
    /// It took longer than the header timeout.
    Timeout,
    /// A read failed.
    Broken,
    /// It sent too many HTTP/2 frames that carry no request.
    Flooded,
    /// There are too many connections, of all clients or of this one.
    Rejected(Refusal),
}

/// What a failed connection means, in one row.
#[derive(Debug, Clone, Copy)]
struct AcceptErrorRow {
    /// The metric's label, and the reason in the log; `None` if it is not counted.
    reason: Option<&'static str>,
    /// Whether the client only left or was slow. This happens often, so it is not logged.
    is_expected: bool,
    /// The text for the log, before the cause if there is one.
    text: &'static str,
}

impl AcceptErrorRow {
    const fn new(reason: &'static str, text: &'static str) -> Self {
        Self { reason: Some(reason), is_expected: false, text }
    }

    const fn expected(mut self) -> Self {
        self.is_expected = true;
        self
    }

    const fn uncounted(mut self) -> Self {
        self.reason = None;
        self
    }
}

macro_rules! rows {
    ($($error:pat => $row:expr;)+) => {
        impl AcceptError {
            const fn row(self) -> AcceptErrorRow {
                match self {
                    $($error => $row,)+
                }
            }
        }

        const ROWS: &[AcceptErrorRow] = &[$($row),+];
    };
}

const TLS_FAILED: &str = "the TLS handshake failed";

rows! {
    Self::ClosedEarly => AcceptErrorRow::new("", "closed before any data").expected().uncounted();
    Self::NoProxyHeader => AcceptErrorRow::new("proxy_header_missing", "no PROXY header");
    Self::BadProxyHeader(_) => AcceptErrorRow::new("proxy_header_invalid", "the PROXY header is invalid");
    Self::Handshake(Handshake::Closed) => AcceptErrorRow::new("tls_closed", TLS_FAILED).expected();
    Self::Handshake(Handshake::NotTls) => AcceptErrorRow::new("tls_not_tls", TLS_FAILED);
    Self::Handshake(Handshake::Incompatible) => AcceptErrorRow::new("tls_incompatible", TLS_FAILED);
    Self::Handshake(Handshake::Refused) => AcceptErrorRow::new("tls_refused", TLS_FAILED);
    Self::Handshake(Handshake::ClientCertificate) => AcceptErrorRow::new("tls_client_certificate", TLS_FAILED);
    Self::Handshake(Handshake::Missing) => AcceptErrorRow::new("tls_certificate_unavailable", TLS_FAILED);
    Self::Handshake(Handshake::Failed) => AcceptErrorRow::new("tls_failed", TLS_FAILED);
    Self::Timeout => AcceptErrorRow::new("timeout", "the handshake took longer than limits.header_timeout").expected();
    Self::Broken => AcceptErrorRow::new("broken", "a read failed").expected();
    Self::Flooded => AcceptErrorRow::new("http2_flood", "too many HTTP/2 frames without a request");
    Self::Rejected(Refusal::TooManyConnectionsPerClient) => AcceptErrorRow::new(
        Refusal::TooManyConnectionsPerClient.code(),
        "more connections of one client than limits.connections_per_client",
    );
    Self::Rejected(_) => AcceptErrorRow::new(
        Refusal::TooManyConnections.code(),
        "more connections than limits.connections",
    );
}

impl fmt::Display for AcceptError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.row().text;
        match self {
            Self::BadProxyHeader(cause) => write!(formatter, "{text}: {cause}"),
            Self::Handshake(cause) => write!(formatter, "{text}: {cause}"),
            Self::ClosedEarly
            | Self::NoProxyHeader
            | Self::Timeout
            | Self::Broken
            | Self::Flooded
            | Self::Rejected(_) => formatter.write_str(text),
        }
    }
}

/// Counts and logs connections that failed before their first request.
pub(crate) struct AcceptErrorReporter {
    kinds: Vec<LabelledFailures>,
    clock: Clock,
}

/// The failures with one label.
struct LabelledFailures {
    label: &'static str,
    counter: IntCounter,
    log_throttle: LogThrottle,
}

impl AcceptErrorReporter {
    pub(crate) fn new(counters: &IntCounterVec, clock: Clock) -> Self {
        let kind = |label| {
            let counter = counters.with_label_values(&[label]);
            LabelledFailures { label, counter, log_throttle: LogThrottle::default() }
        };
        Self { kinds: ROWS.iter().filter_map(|row| row.reason).map(kind).collect(), clock }
    }

    /// Records a connection that was closed for its HTTP/2 frames.
    pub(crate) fn record_flood(&self, peer: SocketAddr, listener: SocketAddr) {
        self.record(AcceptError::Flooded, peer, listener);
    }

    /// Counts a failure, and logs it unless too many of its kind were logged.
    pub(crate) fn record(&self, error: AcceptError, peer: SocketAddr, listener: SocketAddr) {
        let row = error.row();
        let kind = row.reason.and_then(|label| self.kinds.iter().find(|kind| kind.label == label));
        let line = format_args!("listener={listener} peer={peer} error=\"{error}\"");
        let Some(kind) = kind else { return log::debug!("connection closed: {line}") };
        kind.counter.inc();
        if row.is_expected {
            return log::debug!("connection closed: {line}");
        }
        if let Some(suppressed) = kind.log_throttle.next(self.clock.now()) {
            log::warn!("connection closed: reason={} {line} suppressed={suppressed}", kind.label);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANUAL: &str = include_str!("../../docs/OPERATIONS.md");

    /// What stands in backticks between `start` and `end` of the manual for operators.
    fn documented(start: &str, end: &str) -> Vec<&'static str> {
        let (_, from) = MANUAL.split_once(start).unwrap();
        let (text, _) = from.split_once(end).unwrap();
        text.split('`').skip(1).step_by(2).filter(|name| !name.contains('.')).collect()
    }

    fn sorted(mut names: Vec<&str>) -> Vec<&str> {
        names.sort_unstable();
        names
    }

    #[test]
    fn the_manual_has_exactly_the_reasons_of_failed_connections() {
        let reasons = ROWS.iter().filter_map(|row| row.reason).collect();
        let documented = documented("Reasons of `lb_connection_failures_total`:", "\n\n");
        assert_eq!(sorted(documented), sorted(reasons));
    }

    #[test]
    fn the_manual_says_which_failed_connections_are_not_logged() {
        let expected = ROWS.iter().filter(|row| row.is_expected);
        let expected = expected.filter_map(|row| row.reason).collect();
        let documented = documented("disconnect or are slow (", ")");
        assert_eq!(sorted(documented), sorted(expected));
    }

    #[test]
    fn the_manual_has_the_status_of_each_rejected_connection() {
        for refusal in [Refusal::TooManyConnections, Refusal::TooManyConnectionsPerClient] {
            let reason = AcceptError::Rejected(refusal).row().reason;
            assert_eq!(reason, Some(refusal.code()));
            let documented = format!("`{}` ({})", refusal.code(), refusal.status());
            assert!(MANUAL.contains(&documented), "{documented}");
        }
    }

    #[test]
    fn the_text_of_a_failed_connection_has_its_cause() {
        let text = AcceptError::BadProxyHeader(Invalid::Checksum).to_string();
        assert_eq!(text, format!("the PROXY header is invalid: {}", Invalid::Checksum));
        let text = AcceptError::Handshake(Handshake::NotTls).to_string();
        assert_eq!(text, format!("the TLS handshake failed: {}", Handshake::NotTls));
    }
}
