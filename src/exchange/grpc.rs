//! gRPC data of an exchange.

use std::time::Duration;

use crate::exchange::{Exchange, Head};
use crate::http::grpc;

impl Head<'_> {
    /// The client's timeout for the whole request, if it has one.
    pub(super) fn grpc_timeout(&self) -> Option<Duration> {
        grpc::is_grpc(self.headers).then(|| grpc::timeout(self.headers)).flatten()
    }
}

impl Exchange {
    /// Records the gRPC status sent to the client; the last one counts.
    pub fn grpc_ended(&mut self, status: u16) {
        self.grpc_status = Some(status);
    }

    /// The gRPC status sent to the client, if any.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u16> {
        self.grpc_status
    }
}
