//! Helpers of this room's unit tests: requests as Pingora has read them, and exchanges of a
//! configuration.

use std::io::Cursor;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora_proxy::Session;

use crate::config::{self, Overrides};
use crate::downstream::connection_info::ConnectionInfo;
use crate::downstream::connection_state::{ConnectionState, DownstreamTimeouts};
use crate::downstream::session_ext;
use crate::exchange::event::{ExchangeEvent, Observer};
use crate::exchange::refusal::Refusal;
use crate::exchange::{Admitted, Exchange, Head};
use crate::fixture;
use crate::http::scheme::Scheme;
use crate::runtime::endpoint::Lookup;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// One pool that every request goes to.
pub(super) const ONE_POOL: &str = "
pools: [{name: web, health_check: off, backends: [http://10.1.0.1:8080]}]
";

struct Ignored;

impl Observer for Ignored {
    fn observe(&self, _: &ExchangeEvent<'_>) {}
}

/// A session whose request headers were read from these bytes.
pub(super) async fn session(bytes: &str) -> Session {
    let stream = Cursor::new(bytes.as_bytes().to_vec());
    let mut session = Session::new_h1(Box::new(stream));
    assert!(session.as_downstream_mut().read_request().await.unwrap());
    session
}

/// The same, with the state of a plaintext connection.
pub(super) async fn session_with_state(bytes: &str) -> (Session, Arc<ConnectionState>) {
    let (peer, local) = (fixture::address("203.0.113.7:4711"), fixture::address("10.0.0.1:8443"));
    let connection = Arc::new(ConnectionInfo::new(peer, local));
    let state =
        Arc::new(ConnectionState::new(connection, DownstreamTimeouts::FIXTURE, Timestamp::ZERO));
    let mut session = session(bytes).await;
    let digest = session.as_downstream_mut().digest_mut().unwrap();
    digest.proxy_digest = session_ext::attach_state(&state);
    (session, state)
}

/// The exchange of a GET request from [`fixture::CLIENT`], and whether it was admitted.
pub(super) fn admit(
    config: &str,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> (Exchange, Result<Admitted, Refusal>) {
    let config = config::load(Some(config.as_bytes()), &Overrides::default()).unwrap();
    let snapshot = Snapshot::new(&config, "v1", 1, |_, _| Lookup::Failed("no names".to_owned()));
    let mut exchange = Exchange::new(Arc::new(snapshot), Arc::new(Ignored), Timestamp::ZERO);
    let mut map = HeaderMap::new();
    for &(name, value) in [("host", "a.test")].iter().chain(headers) {
        map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let head = Head {
        peer: fixture::CLIENT,
        method: &Method::GET,
        version: Version::HTTP_11,
        scheme: Scheme::Http,
        path,
        query: None,
        headers: &map,
    };
    let admitted = exchange.admit(&head, Timestamp::ZERO);
    (exchange, admitted)
}

/// An exchange that goes to a backend.
pub(super) fn forwarded(config: &str, path: &str) -> Exchange {
    let (exchange, admitted) = admit(config, path, &[]);
    assert_eq!(admitted, Ok(Admitted::Forward));
    exchange
}

/// The same, for a WebSocket.
pub(super) fn websocket() -> Exchange {
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    let (exchange, admitted) = admit(ONE_POOL, "/", &headers);
    assert_eq!(admitted, Ok(Admitted::Forward));
    assert!(exchange.wants_upgrade());
    exchange
}

/// All headers as `name: value`, in alphabetical order.
pub(super) fn lines(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    let mut lines: Vec<String> = headers.iter().map(line).collect();
    lines.sort();
    lines
}
