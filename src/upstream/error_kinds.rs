//! What each kind of Pingora's errors means: one row each.
//!
//! Requests (`proxy/error_map.rs`) and health checks (`probe/`) read the same rows. Some errors carry
//! more than their kind, such as an error of the operating system; `error_map.rs` looks at that first.
//! What follows from a fault is decided elsewhere: `exchange/outcome.rs` decides who is to blame and the
//! response to the client, `policy/retry.rs` names the failure of an attempt for log and metrics.

use pingora_error::ErrorType;

use crate::exchange::outcome::Kind;

/// The text if a connection to a backend turns out not to be HTTP/2.
pub const NOT_HTTP2: &str = "the backend does not speak HTTP/2";

/// What one kind of error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorMeaning {
    /// The fault, if the error is on a backend's connection.
    pub backend: Kind,
    /// The fault, if it is on a client's connection.
    pub client: Kind,
    /// What happened at a backend, for the operator.
    pub text: ErrorText,
}

/// What happened at a backend, without its address, which is logged beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorText {
    /// It says as much as the error of the operating system would.
    Exact(&'static str),
    /// The error of the operating system says more, if there is one.
    General(&'static str),
}

impl ErrorText {
    /// The text itself.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact(text) | Self::General(text) => text,
        }
    }
}

/// The row of a kind. There is no wildcard, so a kind that a new version of Pingora adds does not
/// compile until it has a row.
#[must_use]
pub const fn meaning(kind: &ErrorType) -> ErrorMeaning {
    use ErrorText::{Exact, General};
    use ErrorType as E;
    use Kind::{Certificate, Closed, Connect, ConnectTimeout, Protocol, Timeout, Tls, Unread};

    match kind {
        // A backend cannot be connected to. At a client these do not occur.
        E::ConnectTimedout => row(ConnectTimeout, Protocol, Exact("connecting timed out")),
        E::TLSHandshakeTimedout => {
            row(ConnectTimeout, Protocol, General("the TLS handshake timed out"))
        }
        E::ConnectRefused => row(Connect, Protocol, Exact("connection refused")),
        E::ConnectNoRoute => row(Connect, Protocol, Exact("no route to the backend")),
        E::ConnectError => row(Connect, Protocol, General("the connection could not be made")),
        E::BindError => row(Connect, Protocol, General("the socket could not be bound")),
        E::SocketError => row(Connect, Protocol, General("the socket failed")),
        E::TLSHandshakeFailure | E::HandshakeError => {
            row(Tls, Protocol, General("the TLS handshake failed"))
        }
        E::InvalidCert => row(Certificate, Protocol, General("the certificate is not trusted")),
        // Something was received that is not valid.
        E::InvalidHTTPHeader => row(Protocol, Protocol, General("the response is not valid HTTP")),
        E::H1Error => row(Closed, Protocol, General("the response is not valid HTTP")),
        E::InvalidH2 => row(Protocol, Protocol, Exact(NOT_HTTP2)),
        // A stream was reset, or its connection was closed.
        E::H2Error => row(Closed, Closed, General("the connection broke, or is not HTTP/2")),
        E::H2Downgrade => row(Closed, Protocol, General("the backend requires HTTP/1.1")),
        // A connection broke or stalled.
        E::ReadError => {
            row(Closed, Closed, General("the connection broke while the response was read"))
        }
        E::WriteError => {
            row(Closed, Closed, General("the connection broke while the request was sent"))
        }
        E::ReadTimedout => row(Timeout, Timeout, Exact("the response timed out")),
        E::WriteTimedout => row(Timeout, Unread, General("sending the request timed out")),
        E::ConnectionClosed => row(Closed, Closed, General("the backend closed the connection")),
        // Weir's own: a status that is retried, and an internal error.
        E::HTTPStatus(_) => row(Closed, Protocol, General("the status is retried")),
        E::InternalError => row(Closed, Protocol, General("internal error")),
        E::Custom(text) | E::CustomCode(text, _) => row(Closed, Protocol, General(text)),
        // Weir uses neither OpenSSL nor a proxy to backends, and Pingora opens no file for it.
        E::TLSWantX509Lookup
        | E::ConnectProxyFailure
        | E::AcceptError
        | E::FileOpenError
        | E::FileCreateError
        | E::FileReadError
        | E::FileWriteError
        | E::UnknownError => row(Closed, Protocol, General("an unexpected error")),
    }
}

const fn row(backend: Kind, client: Kind, text: ErrorText) -> ErrorMeaning {
    ErrorMeaning { backend, client, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kinds that an operator finds as they are in the `last_error` of a backend. For the others
    /// a more exact text is shown, of the TLS handshake or the operating system.
    const SHOWN: [ErrorType; 15] = [
        ErrorType::ConnectTimedout,
        ErrorType::TLSHandshakeTimedout,
        ErrorType::ConnectRefused,
        ErrorType::ConnectNoRoute,
        ErrorType::ConnectError,
        ErrorType::InvalidHTTPHeader,
        ErrorType::H1Error,
        ErrorType::InvalidH2,
        ErrorType::H2Error,
        ErrorType::H2Downgrade,
        ErrorType::ReadError,
        ErrorType::WriteError,
        ErrorType::ReadTimedout,
        ErrorType::WriteTimedout,
        ErrorType::ConnectionClosed,
    ];

    /// The texts that docs/OPERATIONS.md lists for `last_error`.
    fn documented() -> Vec<String> {
        let page = include_str!("../../docs/OPERATIONS.md").replace('\n', " ");
        let (_, list) = page.split_once("`last_error` is ").unwrap();
        let (list, _) = list.split_once("; or it says").unwrap();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_manual_lists_exactly_the_texts_of_last_error() {
        let mut texts = SHOWN.map(|kind| meaning(&kind).text.as_str()).to_vec();
        texts.dedup();
        assert_eq!(documented(), texts);
    }

    #[test]
    fn a_fault_of_a_client_is_never_one_of_connecting_to_a_backend() {
        let clients = SHOWN.iter().map(|kind| meaning(kind).client);
        for kind in clients {
            assert!(
                matches!(kind, Kind::Protocol | Kind::Timeout | Kind::Unread | Kind::Closed),
                "{kind:?}"
            );
        }
    }
}
