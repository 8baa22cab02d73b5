//! Work-arounds for Pingora, each with its reason and with the change of Pingora that would end it.

pub mod engine;
pub(crate) mod http10;
