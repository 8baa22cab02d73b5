//! Requests as clients send them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Version};
use weir::exchange::event::Observer;
use weir::exchange::refusal::Refusal;
use weir::exchange::{Admitted, Exchange, Head};
use weir::http::scheme::Scheme;
use weir::runtime::snapshot::Snapshot;
use weir::time::Timestamp;

/// What differs from request to request.
pub(crate) struct Incoming {
    pub(crate) client: Ipv4Addr,
    pub(crate) method: Method,
    pub(crate) host: &'static str,
}

impl Incoming {
    /// A GET from this client.
    pub(crate) fn get(client: Ipv4Addr) -> Self {
        Self { client, method: Method::GET, host: "a.test" }
    }

    /// Begins its exchange, and asks whether it is admitted.
    pub(crate) fn begin(
        &self,
        snapshot: &Arc<Snapshot>,
        observer: Arc<dyn Observer>,
        now: Timestamp,
    ) -> (Exchange, Result<Admitted, Refusal>) {
        let host = HeaderValue::from_static(self.host);
        let headers = HeaderMap::from_iter([(http::header::HOST, host)]);
        let head = Head {
            peer: IpAddr::V4(self.client),
            method: &self.method,
            version: Version::HTTP_11,
            scheme: Scheme::Http,
            query: None,
            path: "/",
            headers: &headers,
        };
        let mut exchange = Exchange::new(Arc::clone(snapshot), observer, now);
        let admitted = exchange.admit(&head, now);
        (exchange, admitted)
    }

    /// Begins its exchange, which is admitted.
    pub(crate) fn admitted(
        &self,
        snapshot: &Arc<Snapshot>,
        observer: Arc<dyn Observer>,
        now: Timestamp,
    ) -> Exchange {
        let (exchange, admitted) = self.begin(snapshot, observer, now);
        admitted.unwrap();
        exchange
    }
}
