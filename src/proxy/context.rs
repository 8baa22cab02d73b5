//! What Pingora carries along with a request: its exchange, and what the log needs if the request
//! ends without its last hook.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use pingora_proxy::Session;

use super::log_record;
use super::request_headers;
use crate::clock::Clock;
use crate::downstream::connection_state::ConnectionState;
use crate::downstream::early_refusal::PanickedRequest;
use crate::downstream::session_ext::SessionExt as _;
use crate::exchange::Exchange;
use crate::exchange::outcome;
use crate::exchange::refusal::{Abort, Outcome, Refusal};
use crate::exchange::request::Transfer;

/// The exchange of one request. If it is dropped before it is over, it is logged and counted: with
/// what was read of the request, what was sent of the response, and why the connection was closed.
#[derive(Debug)]
pub struct RequestContext {
    exchange: Exchange,
    state: Option<Arc<ConnectionState>>,
    clock: Clock,
}

impl RequestContext {
    pub(super) const fn new(exchange: Exchange, clock: Clock) -> Self {
        Self { exchange, state: None, clock }
    }

    /// Records what the log needs of the request.
    pub(super) fn received(&mut self, session: &Session, roll: u128) {
        self.state = session.connection_state().cloned();
        if let Some(state) = &self.state {
            self.exchange.set_peer(state.connection.client_ip());
        }
        let id = request_headers::assign_request_id(session.req_header(), roll);
        self.exchange.received(log_record::request(session, id));
    }

    fn is_head(&self) -> bool {
        self.exchange.request().is_some_and(|request| request.method == http::Method::HEAD)
    }

    /// Records that a panic ended the request. If no response has started, the client gets one,
    /// which the access log already has.
    fn panicked(&self, mut transfer: Transfer) -> Transfer {
        if let Some(state) = self.state.as_ref().filter(|_| transfer.status == 0) {
            let id = self.exchange.request_id();
            let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
            let panicked = PanickedRequest { id, is_head: self.is_head() };
            transfer.status = Refusal::Internal.status();
            transfer.bytes_out = panicked.body_bytes();
            state.panicked.get_or_init(|| panicked);
        }
        transfer
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        if self.exchange.is_over() {
            return;
        }
        let sent =
            self.state.as_ref().map(|state| (state.response.status(), state.response.bytes()));
        let (status, bytes_out) = sent.unwrap_or_default();
        let transfer = Transfer { status, bytes_in: self.exchange.bytes_in(), bytes_out };
        let now = self.clock.now();
        if std::thread::panicking() {
            let transfer = self.panicked(transfer);
            return self.exchange.ended(Outcome::Aborted(Abort::Panic), transfer, now);
        }
        let expired = self.state.as_deref().and_then(ConnectionState::expired);
        self.exchange.ended(outcome::of_dropped(expired), transfer, now);
    }
}

impl Deref for RequestContext {
    type Target = Exchange;

    fn deref(&self) -> &Exchange {
        &self.exchange
    }
}

impl DerefMut for RequestContext {
    fn deref_mut(&mut self) -> &mut Exchange {
        &mut self.exchange
    }
}
