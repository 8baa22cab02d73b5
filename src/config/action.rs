//! What becomes of a request that a route takes.

use ::http::{HeaderName, HeaderValue};

use crate::http::redirect::Redirect;
use crate::http::rewrite::NewPath;

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A pool answers.
    Forward(Forward),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// We answer.
    Respond(Respond),
}

impl Action {
    /// To one pool, as it came.
    #[must_use]
    pub fn to_pool(pool: usize) -> Self {
        let pools = vec![Share { pool, weight: 1 }];
        Self::Forward(Forward { pools, rewrite: Rewrite::default() })
    }

    /// The pools that it may lead to.
    #[must_use]
    pub fn pools(&self) -> &[Share] {
        match self {
            Self::Forward(forward) => &forward.pools,
            Self::Redirect(_) | Self::Respond(_) => &[],
        }
    }
}

/// To a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// At least one, no pool twice; not all of weight 0.
    pub pools: Vec<Share>,
    /// How the request differs from the one that came.
    pub rewrite: Rewrite,
}

/// One of the pools that share the requests of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// An index into [`Config::pools`](super::Config::pools).
    pub pool: usize,
    /// Relative to the others; at most [`limits::WEIGHT_MAX`](super::limits::WEIGHT_MAX).
    pub weight: u32,
}

/// How a request is changed before it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Its path.
    pub path: Option<NewPath>,
    /// Its `Host`.
    pub host: Option<String>,
}

/// An answer without a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// May be empty.
    pub body: String,
    /// What the body is.
    pub content_type: HeaderValue,
}

/// Changes of fields: first what is removed, then what is set, then what is added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// In place of every line of that name.
    pub set: Vec<Header>,
    /// One more line.
    pub add: Vec<Header>,
    /// Every line of that name.
    pub remove: Vec<HeaderName>,
}

impl HeaderChanges {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// A field and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// As written: HTTP/1 sends it in the case that somebody chose.
    pub name: String,
    /// As written.
    pub value: HeaderValue,
}
