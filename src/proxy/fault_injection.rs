//! Panics and deadlocks for tests.
//!
//! What a panic leaves behind (a gauge that never comes down, a lock, other requests) shows only if
//! one happens, and no hook is known to panic. So a test build can cause one. With debug
//! assertions, `WEIR_FAULT=panic` in the environment makes the hook `x` panic for requests to
//! `/panic/x`. `WEIR_FAULT=block` makes it block its thread forever for requests to `/block/x`, as
//! a deadlock would. A release build contains none of this. A cargo feature would need a second
//! build of everything, and `--all-features` would enable it.

use pingora_proxy::Session;

#[cfg(debug_assertions)]
static ARMED: std::sync::LazyLock<Option<String>> =
    std::sync::LazyLock::new(|| std::env::var("WEIR_FAULT").ok());

/// Panics or blocks if this request asks for it in `hook`.
#[cfg(debug_assertions)]
pub(super) fn at(hook: &str, session: &Session) {
    let asked = |prefix| session.req_header().uri.path().strip_prefix(prefix) == Some(hook);
    #[expect(clippy::panic, reason = "this is what it is for")]
    match ARMED.as_deref() {
        Some("panic") if asked("/panic/") => panic!("a fault in {hook}, as the environment asks"),
        Some("block") if asked("/block/") => loop {
            std::thread::park();
        },
        _ => {}
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
pub(super) const fn at(_hook: &str, _session: &Session) {}
