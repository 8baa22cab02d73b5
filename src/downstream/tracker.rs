//! Every open client connection: how many there are, and that they hear of the draining.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};
use prometheus::IntGauge;
use tokio::sync::Notify;

use super::connection_state::Line;
use crate::exchange::refusal::Abort;
use crate::http::address;
use crate::time::Timestamp;

/// Every open client connection.
#[derive(Debug)]
pub struct Connections {
    lines: Mutex<Lines>,
    next: AtomicU64,
    open: AtomicUsize,
    /// Ended before they were done.
    cut: AtomicUsize,
    gauge: IntGauge,
    emptied: Notify,
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

/// Those that speak HTTP already.
#[derive(Debug, Default)]
struct Lines {
    by_place: HashMap<u64, Arc<Line>>,
    draining_since: Option<Timestamp>,
    /// Since when, and why, none may go on.
    aborted: Option<(Timestamp, Abort)>,
}

impl Connections {
    /// None yet. Their number is also kept in `gauge`.
    #[must_use]
    pub fn new(gauge: IntGauge) -> Self {
        Self {
            lines: Mutex::default(),
            next: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            gauge,
            emptied: Notify::new(),
            by_client: Mutex::default(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Returns once there is none.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            let mut emptied = pin!(emptied);
            emptied.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Tells every connection that draining has begun, those to come included.
    pub fn drain(&self, now: Timestamp) {
        let mut lines = self.lines();
        let since = *lines.draining_since.get_or_insert(now);
        lines.by_place.values().for_each(|line| line.drain(since));
    }

    /// How many are tunnels, and how many are not.
    pub(crate) fn tunnels(&self) -> (usize, usize) {
        let tunnels = self.lines().by_place.values().filter(|line| line.is_tunnel()).count();
        (tunnels, self.open().saturating_sub(tunnels))
    }

    /// Ends the tunnels, as their own limit would.
    pub fn end_tunnels(&self, now: Timestamp) {
        self.lines().by_place.values().for_each(|line| line.end_tunnel(now));
    }

    /// Ends those that are no tunnels.
    pub(crate) fn cut_others(&self, now: Timestamp, reason: Abort) {
        for line in self.lines().by_place.values().filter(|line| !line.is_tunnel()) {
            self.cut(line, now, reason);
        }
    }

    /// Ends every connection, and those to come.
    pub fn abort(&self, now: Timestamp, reason: Abort) {
        let mut lines = self.lines();
        lines.aborted.get_or_insert((now, reason));
        lines.by_place.values().for_each(|line| self.cut(line, now, reason));
    }

    fn cut(&self, line: &Line, now: Timestamp, reason: Abort) {
        if line.cut(now, reason) {
            self.cut.fetch_add(1, Relaxed);
        }
    }

    /// How many had to be cut, or will be if the process ends now.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.open() + self.cut.load(Relaxed)
    }

    /// A place for one more, unless there are `most` already.
    pub(crate) fn enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        self.gauge.inc();
        if self.open.fetch_add(1, Relaxed) >= most {
            self.leave();
            return None;
        }
        let id = self.next.fetch_add(1, Relaxed);
        Some(Place { connections: Arc::clone(self), id })
    }

    /// A place for one more of this client, unless it has `most` already.
    pub(crate) fn enter_of(self: &Arc<Self>, client: IpAddr, most: usize) -> Option<OfClient> {
        let client = address::client_key(client);
        let mut clients = self.by_client.lock();
        let count = clients.get(&client).map_or(0, |count| *count);
        if count >= most {
            return None;
        }
        clients.insert(client, count + 1);
        Some(OfClient { connections: Arc::clone(self), client })
    }

    fn leave(&self) {
        self.gauge.dec();
        if self.open.fetch_sub(1, Relaxed) == 1 {
            self.emptied.notify_waiters();
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock()
    }
}

/// One open connection among those of its client, until it is dropped.
pub(crate) struct OfClient {
    connections: Arc<Connections>,
    client: IpAddr,
}

impl Drop for OfClient {
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

/// One open connection among the others, until it is dropped.
pub(crate) struct Place {
    connections: Arc<Connections>,
    id: u64,
}

impl Place {
    /// From now on the line hears of the draining.
    pub(crate) fn speaks(&self, line: &Arc<Line>) {
        let mut lines = self.connections.lines();
        if let Some(since) = lines.draining_since {
            line.drain(since);
        }
        if let Some((since, reason)) = lines.aborted {
            self.connections.cut(line, since, reason);
        }
        lines.by_place.insert(self.id, Arc::clone(line));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lines().by_place.remove(&self.id);
        self.connections.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Arc<Connections> {
        Arc::new(Connections::new(IntGauge::new("open", "open").unwrap()))
    }

    #[test]
    fn a_client_has_so_many_places_and_gets_them_back() {
        let connections = connections();
        let client = |address: &str| connections.enter_of(address.parse().unwrap(), 2);
        let (one, two) = (client("192.0.2.1").unwrap(), client("::ffff:192.0.2.1"));
        assert!(two.is_some() && client("192.0.2.1").is_none());
        assert!(client("192.0.2.2").is_some(), "another client");
        drop(one);
        assert!(client("192.0.2.1").is_some());
        drop(two);
        assert!(connections.by_client.lock().is_empty(), "nothing is left behind");
    }

    #[test]
    fn whoever_gets_no_place_is_not_remembered() {
        let connections = connections();
        assert!(connections.enter_of("192.0.2.1".parse().unwrap(), 0).is_none());
        assert!(connections.by_client.lock().is_empty());
    }

    #[test]
    fn all_addresses_of_an_ipv6_network_are_one_client() {
        let connections = connections();
        let client = |address: &str| connections.enter_of(address.parse().unwrap(), 1);
        let _one = client("2001:db8::1").unwrap();
        assert!(client("2001:db8::ffff:1").is_none());
        assert!(client("2001:db8:0:1::1").is_some());
    }
}
