//! Connects Weir's probes to Pingora's health check interface.
//!
//! A probe is a `HealthCheck` of `pingora-load-balancing`. It gets that crate's `Backend`, with the
//! other data it needs among its extensions. That crate's own health checks are not used. Their
//! connectors load the system's roots themselves and panic on an invalid one. The TCP check has no
//! client certificate, and the HTTP check does not expose the body.

use std::sync::Arc;

use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_load_balancing as lb;

use crate::runtime::backend::Backend;

/// A valid response that does not pass the check.
pub(super) const UNEXPECTED: ErrorType = ErrorType::Custom("the response does not pass");

/// What a probe needs besides the address.
#[derive(Clone)]
pub(super) struct ProbeTarget {
    /// The address as written in the configuration.
    pub(super) label: Arc<str>,
    /// How to connect.
    pub(super) peer: Arc<HttpPeer>,
}

impl ProbeTarget {
    /// The target that [`target`] put into a backend.
    pub(super) fn of(backend: &lb::Backend) -> Result<&Self> {
        let found = backend.ext.get::<Self>();
        found.ok_or_else(|| Error::explain(ErrorType::InternalError, "the backend has no target"))
    }
}

/// Wraps `backend` for a probe.
pub(super) fn target(backend: &Backend, peer: HttpPeer) -> lb::Backend {
    let mut ext = lb::Extensions::new();
    let addr = peer._address.clone();
    ext.insert(ProbeTarget { label: Arc::from(&*backend.label), peer: Arc::new(peer) });
    lb::Backend { addr, weight: 1, ext }
}

/// The error of a probe whose response does not pass; `why` is for the operator.
pub(super) fn unexpected(why: impl Into<String>) -> Box<Error> {
    Error::explain(UNEXPECTED, why.into())
}
