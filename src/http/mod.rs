//! Rules of HTTP that need no socket.
//!
//! Each file implements one rule as a pure function. The edges read headers and apply the results.
//! So every odd input from a client is a unit test here, not an integration test.
//!
//! All input is untrusted: nothing here panics, and nothing takes more than one pass over its
//! input.

pub mod accept;
pub mod address;
pub mod forwarded;
pub mod grpc;
pub mod hop_by_hop;
pub mod host;
pub mod method;
pub mod metric_label;
pub mod path;
pub mod pattern;
pub mod proxy_protocol;
pub mod query;
pub mod redirect;
pub mod request_id;
pub mod request_reader;
pub mod rewrite;
pub mod scan;
pub mod scheme;
pub mod target;
pub mod trace;
pub mod underscore;
pub mod upgrade;
pub mod url;
pub mod via;
