//! Notifications to systemd and sockets from it (sd_notify(3), sd_listen_fds(3)). Without systemd, these
//! functions do nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::sockets::inherited;

/// The service is ready, with the active configuration.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// A reload has begun; [`ready`] ends it, done or rejected.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => log::debug!("systemd not notified: error=\"{error}\""),
    }
}

/// The service stops.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The supervisor is alive.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is called, if systemd expects it: half of its timeout.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("systemd not notified: error=\"{error}\"");
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
