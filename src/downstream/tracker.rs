//! All open client connections: their number, their drain and their end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};
use prometheus::IntGauge;
use tokio::sync::Notify;

use super::connection_state::ConnectionState;
use crate::exchange::refusal::Abort;
use crate::http::address;
use crate::time::Timestamp;

/// Every open client connection.
#[derive(Debug)]
pub struct ConnectionTracker {
    registry: Mutex<Registry>,
    next: AtomicU64,
    open: AtomicUsize,
    /// How many were closed by force.
    force_close: AtomicUsize,
    gauge: IntGauge,
    all_closed: Notify,
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

/// Connections past their handshake.
#[derive(Debug, Default)]
struct Registry {
    by_permit: HashMap<u64, Arc<ConnectionState>>,
    draining_since: Option<Timestamp>,
    /// Since when, and why, every connection is closed by force.
    aborted: Option<(Timestamp, Abort)>,
}

impl ConnectionTracker {
    /// Without connections. Their number is also kept in `gauge`.
    #[must_use]
    pub fn new(gauge: IntGauge) -> Self {
        Self {
            registry: Mutex::default(),
            next: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            force_close: AtomicUsize::new(0),
            gauge,
            all_closed: Notify::new(),
            by_client: Mutex::default(),
        }
    }

    /// The number of open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Returns once no connection is open.
    pub async fn all_closed(&self) {
        loop {
            let all_closed = self.all_closed.notified();
            let mut all_closed = pin!(all_closed);
            all_closed.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            all_closed.await;
        }
    }

    /// Starts the drain of all connections, including later ones.
    pub fn drain(&self, now: Timestamp) {
        let mut registry = self.registry();
        let since = *registry.draining_since.get_or_insert(now);
        registry.by_permit.values().for_each(|state| state.drain(since));
    }

    /// The number of upgraded connections, and of all others.
    pub(crate) fn upgraded(&self) -> (usize, usize) {
        let upgraded =
            self.registry().by_permit.values().filter(|state| state.is_upgraded()).count();
        (upgraded, self.open().saturating_sub(upgraded))
    }

    /// Ends upgraded connections, as the end of `shutdown.tunnels` would.
    pub fn end_upgraded(&self, now: Timestamp) {
        self.registry().by_permit.values().for_each(|state| state.end_upgraded(now));
    }

    /// Closes by force all connections that are not upgraded.
    pub(crate) fn force_close_requests(&self, now: Timestamp, reason: Abort) {
        for state in self.registry().by_permit.values().filter(|state| !state.is_upgraded()) {
            self.force_close(state, now, reason);
        }
    }

    /// Closes by force all connections, including later ones.
    pub fn abort(&self, now: Timestamp, reason: Abort) {
        let mut registry = self.registry();
        registry.aborted.get_or_insert((now, reason));
        registry.by_permit.values().for_each(|state| self.force_close(state, now, reason));
    }

    fn force_close(&self, state: &ConnectionState, now: Timestamp, reason: Abort) {
        if state.force_close(now, reason) {
            self.force_close.fetch_add(1, Relaxed);
        }
    }

    /// How many were closed by force, or will be if the process exits now.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.open() + self.force_close.load(Relaxed)
    }

    /// A permit for one more connection, unless `max` are open.
    pub(crate) fn try_acquire(self: &Arc<Self>, max: usize) -> Option<ConnectionPermit> {
        self.gauge.inc();
        if self.open.fetch_add(1, Relaxed) >= max {
            self.release();
            return None;
        }
        let id = self.next.fetch_add(1, Relaxed);
        Some(ConnectionPermit { connections: Arc::clone(self), id })
    }

    /// A permit for one more connection of this client, unless it has `max`.
    pub(crate) fn try_acquire_for(
        self: &Arc<Self>,
        client: IpAddr,
        max: usize,
    ) -> Option<PerClientPermit> {
        let client = address::client_key(client);
        let mut clients = self.by_client.lock();
        let count = clients.get(&client).map_or(0, |count| *count);
        if count >= max {
            return None;
        }
        clients.insert(client, count + 1);
        Some(PerClientPermit { connections: Arc::clone(self), client })
    }

    fn release(&self) {
        self.gauge.dec();
        if self.open.fetch_sub(1, Relaxed) == 1 {
            self.all_closed.notify_waiters();
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock()
    }
}

/// One open connection of a client, until it is dropped.
pub(crate) struct PerClientPermit {
    connections: Arc<ConnectionTracker>,
    client: IpAddr,
}

impl Drop for PerClientPermit {
    fn drop(&mut self) {
        let clients = self.connections.by_client.lock();
        let mut clients = clients;
        if let Entry::Occupied(mut entry) = clients.entry(self.client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// One open connection, until it is dropped.
pub(crate) struct ConnectionPermit {
    connections: Arc<ConnectionTracker>,
    id: u64,
}

impl ConnectionPermit {
    /// From now on the drain and the end of all connections apply to this one.
    pub(crate) fn register(&self, state: &Arc<ConnectionState>) {
        let mut registry = self.connections.registry();
        if let Some(since) = registry.draining_since {
            state.drain(since);
        }
        if let Some((since, reason)) = registry.aborted {
            self.connections.force_close(state, since, reason);
        }
        registry.by_permit.insert(self.id, Arc::clone(state));
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.registry().by_permit.remove(&self.id);
        self.connections.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Arc<ConnectionTracker> {
        Arc::new(ConnectionTracker::new(IntGauge::new("open", "open").unwrap()))
    }

    #[test]
    fn a_client_has_a_limited_number_of_permits_and_gets_them_back() {
        let connections = connections();
        let client = |address: &str| connections.try_acquire_for(address.parse().unwrap(), 2);
        let (one, two) = (client("192.0.2.1").unwrap(), client("::ffff:192.0.2.1"));
        assert!(two.is_some() && client("192.0.2.1").is_none());
        assert!(client("192.0.2.2").is_some(), "another client");
        drop(one);
        assert!(client("192.0.2.1").is_some());
        drop(two);
        assert!(connections.by_client.lock().is_empty(), "nothing is left behind");
    }

    #[test]
    fn a_client_without_a_permit_takes_no_memory() {
        let connections = connections();
        assert!(connections.try_acquire_for("192.0.2.1".parse().unwrap(), 0).is_none());
        assert!(connections.by_client.lock().is_empty());
    }

    #[test]
    fn all_addresses_of_an_ipv6_network_are_one_client() {
        let connections = connections();
        let client = |address: &str| connections.try_acquire_for(address.parse().unwrap(), 1);
        let _one = client("2001:db8::1").unwrap();
        assert!(client("2001:db8::ffff:1").is_none());
        assert!(client("2001:db8:0:1::1").is_some());
    }

    fn state() -> Arc<ConnectionState> {
        Arc::new(ConnectionState::fixture(Timestamp::ZERO))
    }

    #[test]
    fn a_connection_over_the_limit_is_not_counted() {
        let connections = connections();
        let first = connections.try_acquire(1).unwrap();
        assert!(connections.try_acquire(1).is_none());
        assert_eq!((connections.open(), connections.gauge.get()), (1, 1));
        drop(first);
        assert_eq!((connections.open(), connections.gauge.get()), (0, 0));
        assert!(connections.try_acquire(1).is_some());
    }

    #[test]
    fn a_drain_and_an_abort_apply_to_later_connections() {
        let connections = connections();
        connections.drain(Timestamp::from_nanos(5));
        let (drained, aborted) = (state(), state());
        let permit = connections.try_acquire(9).unwrap();
        permit.register(&drained);
        assert!(drained.is_draining() && drained.abort_reason().is_none());
        connections.abort(Timestamp::from_nanos(6), Abort::ForcedStop);
        connections.abort(Timestamp::from_nanos(7), Abort::DrainTimeout);
        let later = connections.try_acquire(9).unwrap();
        later.register(&aborted);
        assert_eq!(drained.abort_reason(), Some(Abort::ForcedStop));
        assert_eq!(aborted.abort_reason(), Some(Abort::ForcedStop), "the first reason");
    }

    #[test]
    fn upgraded_connections_outlast_the_end_of_a_drain() {
        let connections = connections();
        let (upgraded, request) = (state(), state());
        upgraded.upgraded();
        let permits = [(); 2].map(|()| connections.try_acquire(9).unwrap());
        permits[0].register(&upgraded);
        permits[1].register(&request);
        assert_eq!(connections.upgraded(), (1, 1));
        connections.force_close_requests(Timestamp::ZERO, Abort::DrainTimeout);
        assert_eq!(upgraded.abort_reason(), None);
        assert_eq!(request.abort_reason(), Some(Abort::DrainTimeout));
    }

    #[test]
    fn a_connection_closed_by_force_stays_unfinished_and_is_counted_once() {
        let connections = connections();
        let state = state();
        let permit = connections.try_acquire(9).unwrap();
        permit.register(&state);
        connections.force_close_requests(Timestamp::ZERO, Abort::DrainTimeout);
        connections.abort(Timestamp::ZERO, Abort::ForcedStop);
        drop(permit);
        assert_eq!((connections.open(), connections.unfinished()), (0, 1));
    }
}
