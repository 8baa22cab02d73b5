//! HTTP/2 with clients.

pub(crate) mod connection;
pub(crate) mod frame_guard;
pub(crate) mod read;
pub(crate) mod session;
pub(crate) mod stream;
pub(crate) mod streams;
pub(crate) mod write;
