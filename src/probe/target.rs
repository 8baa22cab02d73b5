//! What is probed, in the words of Pingora's health checks.
//!
//! A probe is a `HealthCheck` of `pingora-load-balancing`: it is given that crate's `Backend`, with
//! what it has to know beside the address among its extensions. That crate's own checks are not
//! used: their connectors look for the system's roots by themselves and panic on an odd one, the TCP
//! check has no certificate to show, and the HTTP check reads a body to its end without showing it.

use std::sync::Arc;

use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_load_balancing as lb;

use crate::runtime::backend::Backend;

/// An answer was understood, and it is not the one that passes.
pub(super) const UNFIT: ErrorType = ErrorType::Custom("the answer does not pass");

/// What a probe has to know beside the address.
#[derive(Clone)]
pub(super) struct Target {
    /// The address as the file has it.
    pub(super) label: Arc<str>,
    /// How to connect.
    pub(super) peer: Arc<HttpPeer>,
}

impl Target {
    /// What a probe gave back to us.
    pub(super) fn of(backend: &lb::Backend) -> Result<&Self> {
        let found = backend.ext.get::<Self>();
        found.ok_or_else(|| Error::explain(ErrorType::InternalError, "a target of somebody else"))
    }
}

/// `backend` as a probe is given it.
pub(super) fn target(backend: &Backend, peer: HttpPeer) -> lb::Backend {
    let mut ext = lb::Extensions::new();
    let addr = peer._address.clone();
    ext.insert(Target { label: Arc::from(&*backend.label), peer: Arc::new(peer) });
    lb::Backend { addr, weight: 1, ext }
}

/// The error of a probe whose answer does not pass; `why` is for the operator.
pub(super) fn unfit(why: impl Into<String>) -> Box<Error> {
    Error::explain(UNFIT, why.into())
}
