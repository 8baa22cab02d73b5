//! Work-arounds for Pingora 0.9.1, each with its reason and the change in Pingora that would end it.
//!
//! Two more lie where they have to act: `downstream/http1/eager.rs` (buffered headers of a response
//! that pauses) and `downstream/cork.rs` (a 101 that comes before the end of the request body).

pub(crate) mod body_end;
pub(crate) mod early_response;
pub mod engine;
pub(crate) mod expect_continue;
pub(crate) mod http10;
