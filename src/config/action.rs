//! What a route does with a request.

use ::http::{HeaderName, HeaderValue};

use crate::http::redirect::Redirect;
use crate::http::rewrite::NewPath;

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A pool serves it.
    Forward(Forward),
    /// The client is redirected.
    Redirect(Redirect),
    /// Weir responds itself.
    Respond(Respond),
}

impl Action {
    /// Forwards to one pool without changes.
    #[must_use]
    pub fn to_pool(pool: usize) -> Self {
        let pools = vec![Share { pool, weight: 1 }];
        Self::Forward(Forward { pools, rewrite: Rewrite::default() })
    }

    /// The pools that may serve it.
    #[must_use]
    pub fn pools(&self) -> &[Share] {
        match self {
            Self::Forward(forward) => &forward.pools,
            Self::Redirect(_) | Self::Respond(_) => &[],
        }
    }
}

/// Forwarding to a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// At least one, no pool twice; not all of weight 0.
    pub pools: Vec<Share>,
    /// Changes of the request.
    pub rewrite: Rewrite,
}

/// One of the pools that share the requests of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// An index into [`Config::pools`](super::Config::pools).
    pub pool: usize,
    /// Relative to the others; at most 1000.
    pub weight: u32,
}

/// Changes of a request before it goes to a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Its path.
    pub path: Option<NewPath>,
    /// Its `Host`.
    pub host: Option<String>,
}

/// A fixed response without a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// May be empty.
    pub body: String,
    /// `Content-Type` of the body.
    pub content_type: HeaderValue,
}

/// Header changes: first `remove`, then `set`, then `add`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Replace all headers of that name.
    pub set: Vec<Header>,
    /// Added headers.
    pub add: Vec<Header>,
    /// Removed headers.
    pub remove: Vec<HeaderName>,
}

impl HeaderChanges {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// A header and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// As written, because HTTP/1 keeps the case of names.
    pub name: String,
    /// As written.
    pub value: HeaderValue,
}
