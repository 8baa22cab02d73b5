//! HTTP/1 with clients.

pub(crate) mod connection;
pub(crate) mod eager;
pub(crate) mod io;
