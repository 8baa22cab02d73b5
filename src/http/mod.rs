//! The rules of HTTP that need no socket.
//!
//! Each file is one rule: text in, answer out. The edges read the headers and obey; so every
//! odd value that a client can think of is a unit test here, and not an integration test.
//!
//! What comes in is a peer's word: nothing in here panics, and nothing takes longer than one
//! walk over its input.

pub mod accept;
pub mod address;
pub mod example;
pub mod forwarded;
pub mod frames;
pub mod grpc;
pub mod hop_by_hop;
pub mod host;
pub mod label;
pub mod method;
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
