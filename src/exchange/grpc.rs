//! What is known of an exchange of gRPC.

use std::time::Duration;

use crate::exchange::{Exchange, Head};
use crate::http::grpc;

impl Head<'_> {
    /// How long the client waits for the whole exchange, if it says so.
    pub(super) fn patience(&self) -> Option<Duration> {
        grpc::is_grpc(self.headers).then(|| grpc::timeout(self.headers)).flatten()
    }
}

impl Exchange {
    /// The client was told this status of gRPC; the last one counts.
    pub fn grpc_ended(&mut self, status: u16) {
        self.grpc_status = Some(status);
    }

    /// The status of gRPC that the client got, if one was seen.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u16> {
        self.grpc_status
    }
}
