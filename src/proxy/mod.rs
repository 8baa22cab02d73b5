//! Pingora's `ProxyHttp`: each hook asks the exchange one question and does what it says.

mod client_certificate;
mod context;
mod error_map;
mod fault_injection;
mod forwarding;
mod grpc;
mod header_rules;
mod local_response;
mod log_record;
pub mod pingora;
mod progress;
mod request;
mod request_headers;
mod response_headers;
pub mod service;
#[cfg(test)]
mod tests;
mod upstream_peer;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use ::pingora::http::{RequestHeader, ResponseHeader};
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use self::context::RequestContext;
use crate::clock::Clock;
use crate::current::{CurrentSnapshot, Serving};
use crate::downstream::connection_state::ConnectionState;
use crate::downstream::disconnect;
use crate::downstream::disconnect::ClientPresence;
use crate::downstream::early_refusal::EarlyRefusal;
use crate::downstream::session_ext::SessionExt as _;
use crate::downstream::stalled::Stallable as _;
use crate::exchange::outcome;
use crate::exchange::refusal::{Outcome, Refusal};
use crate::exchange::{Admitted, Exchange};
use crate::lifecycle::serving_state::SharedServingState;
use crate::policy::retry::AttemptFailure;
use crate::time::Timestamp;
use crate::upstream::UpstreamPeers;
use crate::upstream::http2::RequestBody;

/// What all requests share. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    /// The current snapshot, with what logs and counts its requests.
    pub current: Arc<CurrentSnapshot>,
    /// How backends are reached.
    pub upstreams: Arc<UpstreamPeers>,
    /// Reads the time.
    pub clock: Clock,
    /// Whether connections are closed after their current request.
    pub serving: Arc<SharedServingState>,
}

impl Proxy {
    fn exchange(&self) -> RequestContext {
        let Serving { snapshot, observer } = self.current.serving();
        RequestContext::new(Exchange::new(snapshot, observer, self.clock.now()), self.clock)
    }

    fn admit(&self, session: &Session, exchange: &mut Exchange) -> Result<Admitted, Refusal> {
        let head = log_record::request_facts(session);
        let misdirected = || {
            let misdirected = session.connection_info().is_some_and(|it| it.is_misdirected(&head));
            misdirected.then_some(Refusal::MisdirectedRequest)
        };
        if let Some(refusal) = session
            .connection_state()
            .and_then(|state| state.head_refusal.get().copied())
            .or_else(misdirected)
        {
            exchange.set_peer(head.peer);
            exchange.refuse(refusal);
            if let Some(violation) = session.connection_state().and_then(|state| state.violation())
            {
                exchange.set_detail(violation.code());
            }
            return Err(refusal);
        }
        exchange.admit(&head, exchange.started())
    }

    /// Why no connection to `peer` was made. `None`, after logging it, if this machine lacks a
    /// resource.
    fn failure(&self, error: &Error, peer: &HttpPeer, now: Timestamp) -> Option<AttemptFailure> {
        let to = &peer._address;
        let report = |shortage| self.upstreams.shortage_log().report(shortage, to, now);
        error_map::connect_failure(error, to).map_err(report).ok()
    }

    fn is_draining(&self) -> bool {
        self.serving.closes_connections()
    }

    /// Logs and counts a connection that was refused before it had a request.
    fn record_refusal(&self, early: &EarlyRefusal, state: &ConnectionState) {
        let refusal = early.refusal;
        let Serving { snapshot, observer } = self.current.serving();
        let mut exchange = Exchange::new(snapshot, observer, state.head_started_at());
        exchange.set_peer(state.connection.client_ip());
        exchange.refuse(refusal);
        if let Some(violation) = state.violation() {
            exchange.set_detail(violation.code());
        }
        let wire = log_record::record_unparsed(early, state.connection.scheme().as_str());
        exchange.finished(Outcome::Refused(refusal), Some(&wire), self.clock.now());
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        self.exchange()
    }

    /// None. Pingora would add its own, which cost every request. See `pingora::http10`.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        session: &mut Session,
        exchange: &mut RequestContext,
    ) -> Result<()> {
        request::begin(session, exchange.started());
        exchange.received(session, fastrand::u128(..));
        fault_injection::at("early_request_filter", session);
        if session.req_header().version == http::Version::HTTP_10 {
            // HTTP/1.0 has neither interim responses (RFC 9110 §15.2) nor chunks.
            session.as_downstream_mut().set_ignore_info_resp(true);
            pingora::http10::install(session);
        }
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        exchange: &mut RequestContext,
    ) -> Result<bool> {
        fault_injection::at("request_filter", session);
        match self.admit(session, exchange) {
            Ok(Admitted::Forward) => {
                request::set_deadline(session, exchange);
                return Ok(false);
            }
            Ok(Admitted::Direct(response)) => {
                local_response::send_direct_response(session, exchange, &response).await?;
            }
            Err(refusal) => local_response::send_refusal(session, exchange, refusal).await?,
        }
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        exchange: &mut RequestContext,
    ) -> Result<Box<HttpPeer>> {
        fault_injection::at("upstream_peer", session);
        let (target, now) = upstream_peer::pick(session, exchange, self.clock).await?;
        websocket::arm_upgrade_deadline(session, exchange, &target, now);
        // A client that reads nothing of its response has as long as a backend that sends none.
        session.set_write_timeout(Some(target.response_timeout));
        disconnect::back_off(session, target.backoff).await?;
        upstream_peer::build(&self.upstreams, &target, session.connection_info())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        is_end: bool,
        exchange: &mut RequestContext,
    ) -> Result<()> {
        fault_injection::at("request_body_filter", session);
        request::body_received(session, body, is_end, exchange, self.clock)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        peer: &HttpPeer,
        exchange: &mut RequestContext,
        mut error: Box<Error>,
    ) -> Box<Error> {
        fault_injection::at("fail_to_connect", session);
        let reason = error_map::describe(&error);
        let (presence, now) = (disconnect::check_now(session), self.clock.now());
        let replay = progress::replay(session, exchange, presence);
        let failed = self.failure(&error, peer, now);
        let again = exchange.not_connected(failed, &reason, replay, now);
        error.set_retry(again);
        if presence == ClientPresence::Left { disconnect::client_left() } else { error }
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        _: &HttpPeer,
        socket: std::os::fd::RawFd,
        connection: Option<&Digest>,
        exchange: &mut RequestContext,
    ) -> Result<()> {
        fault_injection::at("connected_to_upstream", session);
        if let Some(state) = session.connection_state() {
            state.set_request_body(connection.and_then(RequestBody::of).cloned());
        }
        let now = self.clock.now();
        exchange.connected(reused, now);
        request::connected(session, exchange, now).await?;
        websocket::cork_request(session, exchange, socket, connection);
        if reused {
            return Ok(());
        }
        request::limit_unsent(socket);
        disconnect::check_after_connect(session)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut RequestContext,
    ) -> Result<()> {
        fault_injection::at("upstream_request_filter", session);
        let Some(client) = exchange.client() else { return Ok(()) };
        request_headers::prepare_upstream_request(request, session, exchange, client)?;
        // After the headers that the client's `Connection` names were removed.
        client_certificate::set_client_cert_headers(request, session.connection_info())?;
        header_rules::apply_to_request(request, session.req_header(), exchange)?;
        grpc::restore_te_trailers(request, session, exchange)?;
        websocket::restore_request_headers(request, exchange)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut RequestContext,
    ) -> Result<()> {
        fault_injection::at("upstream_response_filter", session);
        response_headers::validate_upstream_response(response)?;
        let status = response.status;
        let now = self.clock.now();
        websocket::on_response_headers(session, response, exchange, now)?;
        let replay = progress::replay(session, exchange, disconnect::known(session));
        let head = response_headers::for_retry(response);
        if status.is_informational() || !exchange.response_head(head, replay, now) {
            request::response_arrived(session, status);
            return Ok(());
        }
        Err(error_map::retry_status_error(status.as_u16()))
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut RequestContext,
    ) -> Result<()> {
        fault_injection::at("response_filter", session);
        let client_speaks = session.req_header().version;
        let keep = response_headers::prepare_client_response(
            response,
            exchange.request_id(),
            client_speaks,
        )?;
        header_rules::apply_to_response(response, exchange)?;
        websocket::restore_response_headers(response)?;
        request::responding(session, response.status, keep);
        if !keep || self.is_draining() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    async fn response_trailer_filter(
        &self,
        session: &mut Session,
        trailers: &mut HeaderMap,
        exchange: &mut RequestContext,
    ) -> Result<Option<Bytes>> {
        fault_injection::at("response_trailer_filter", session);
        grpc::record_status(trailers, exchange);
        Ok(None)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        _: &mut Option<Bytes>,
        _: bool,
        exchange: &mut RequestContext,
    ) -> Result<Option<Duration>> {
        fault_injection::at("response_body_filter", session);
        let now = self.clock.now();
        websocket::arm_body_deadline(session, exchange, now);
        // A response that trickles must not outlive the deadline.
        let side = progress::timeout_side(session);
        if now < exchange.deadline() { Ok(None) } else { Err(error_map::deadline_error(side)) }
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        exchange: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        fault_injection::at("error_while_proxy", session);
        let now = self.clock.now();
        let judged = progress::judge(&error, session, exchange, now);
        let presence = disconnect::check_now(session);
        let replay = progress::replay(session, exchange, presence);
        let error = error_map::with_retry(error, reused, |error| {
            let reason = || error_map::describe_blame(error, &judged);
            let failed = |failure| exchange.attempt_failed(failure, &reason(), replay, now);
            judged.blame.is_some_and(failed)
        });
        let left = presence == ClientPresence::Left && !replay.response_started;
        if left { disconnect::client_left() } else { error }
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut RequestContext,
    ) -> FailToProxy {
        fault_injection::at("fail_to_proxy", session);
        local_response::reply_to_failure(session, error, exchange).await
    }

    fn suppress_error_log(&self, _: &Session, _: &RequestContext, _: &Error) -> bool {
        true // the access log has it
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &RequestContext,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true // likewise
    }

    async fn logging(
        &self,
        session: &mut Session,
        error: Option<&Error>,
        exchange: &mut RequestContext,
    ) {
        fault_injection::at("logging", session);
        if session.connection_state().is_some_and(|state| state.given_up_for().is_some()) {
            exchange.set_detail("response_buffers");
        }
        let now = self.clock.now();
        let judged = error.map(|error| progress::judge(error, session, exchange, now));
        let outcome = outcome::of_exchange(exchange.refusal(), exchange.direct_outcome(), judged);
        let transfer = log_record::transfer(session, exchange, outcome);
        exchange.ended(outcome, transfer, now);
    }
}
