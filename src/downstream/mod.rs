//! Client connections: from an accepted socket to a session that the proxy serves.

pub(crate) mod accept_error;
pub(crate) mod close_reason;
pub(crate) mod connection_info;
pub mod connection_state;
pub(crate) mod cork;
pub(crate) mod disconnect;
pub mod early_refusal;
pub mod handler;
pub mod handshake;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod http2_settings;
pub(crate) mod linger;
pub mod listener_app;
pub(crate) mod min_rate;
pub(crate) mod phase;
pub(crate) mod reply;
pub(crate) mod request_target;
pub(crate) mod response_progress;
pub mod server;
pub(crate) mod session_ext;
pub(crate) mod stalled;
pub(crate) mod timers;
pub mod tracker;
