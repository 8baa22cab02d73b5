//! What systemd is told, and what it gives (sd_notify(3), sd_listen_fds(3)). Elsewhere all of it
//! does nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::sockets::inherited;

/// Requests are served, by this configuration.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload has begun; [`ready`] ends it, whatever came of it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::debug!("systemd not told: error=\"{error}\""),
    }
}

/// The service stops.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The supervisor lives.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] has to be said, if at all: half of what systemd waits.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("systemd not told: error=\"{error}\"");
    }
}

/// The listening sockets that systemd has bound for us, by their address.
pub(super) fn sockets() -> io::Result<BTreeMap<SocketAddr, TcpListener>> {
    let numbers = match sd_notify::listen_fds() {
        Ok(numbers) => numbers,
        // No sockets were passed to this process.
        Err(_none) => return Ok(BTreeMap::new()),
    };
    let mut sockets = BTreeMap::new();
    for number in numbers {
        let socket = TcpListener::from(inherited(number)?);
        socket.set_nonblocking(true)?;
        sockets.insert(socket.local_addr()?, socket);
    }
    Ok(sockets)
}
