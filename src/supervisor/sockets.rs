//! Which addresses are bound for a configuration, and when they are listened on.
//!
//! An address that collides with one that is served now (`0.0.0.0:80` and `127.0.0.1:80`) is bound
//! beside it, and listened on only when its worker takes over: until then the old worker gets the
//! connections, and a reload that is rejected has changed nothing. When the old worker drains, it
//! closes its socket. Connections to that listener which the kernel has taken by then, and which
//! the old worker has not accepted, are lost; those of other listeners are not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpListener};

use crate::sockets::{BindError, bind, bind_beside, bind_with_retries, listen_beside};

/// The listening sockets of the service.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    bound: BTreeMap<SocketAddr, TcpListener>,
    /// Those that are bound for the worker of a reload and get no connection yet.
    unlistened: BTreeSet<SocketAddr>,
}

impl Sockets {
    /// Binds the addresses of the first configuration, except those that are `given` already. The errors
    /// are of all addresses that cannot be bound.
    pub(super) fn bind_first(
        &mut self,
        addresses: &[SocketAddr],
        mut given: BTreeMap<SocketAddr, TcpListener>,
    ) -> Result<(), Vec<BindError>> {
        let mut errors = Vec::new();
        for address in addresses {
            let bound = match given.remove(address) {
                Some(socket) => Ok(socket),
                // The worker of a supervisor that was killed just now closes its sockets soon.
                None if errors.is_empty() => bind_with_retries(*address),
                None => bind(*address),
            };
            match bound {
                Ok(socket) => drop(self.bound.insert(*address, socket)),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        for address in given.keys() {
            log::warn!("systemd's socket not used: {address} (help: list it in `listeners`)");
        }
        Ok(())
    }

    /// Binds those of the addresses that are not bound yet. The errors are of all that cannot be bound.
    pub(super) fn bind_missing(
        &mut self,
        addresses: &[SocketAddr],
        is_draining: bool,
    ) -> Result<(), Vec<BindError>> {
        let mut errors = Vec::new();
        for address in addresses.iter().copied() {
            if self.bound.contains_key(&address) {
                continue;
            }
            let is_beside = self.colliding(address).next().is_some();
            let bound = if is_beside {
                bind_beside(address, self.colliding(address))
            } else if is_draining && errors.is_empty() {
                // A worker that drains since a moment ago may not have closed it yet.
                bind_with_retries(address)
            } else {
                bind(address)
            };
            match bound {
                Ok(socket) => {
                    self.bound.insert(address, socket);
                    if is_beside {
                        self.unlistened.insert(address);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Adds a socket that another image of this supervisor has bound.
    pub(super) fn restore(&mut self, address: SocketAddr, socket: TcpListener) {
        self.bound.insert(address, socket);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SocketAddr, &TcpListener)> {
        self.bound.iter()
    }

    /// The sockets of these addresses, in their order.
    pub(super) fn of(&self, addresses: &[SocketAddr]) -> impl Iterator<Item = &TcpListener> {
        addresses.iter().filter_map(|address| self.bound.get(address))
    }

    /// Closes every socket of another address.
    pub(super) fn close_unused(&mut self, used: &[SocketAddr]) {
        self.bound.retain(|address, _| used.contains(address));
        self.unlistened.clear();
    }

    pub(super) fn close_all(&mut self) {
        self.bound.clear();
    }

    /// Listens on what was bound for the worker of a reload, which takes over now.
    pub(super) fn listen(&mut self) -> Result<(), String> {
        for address in std::mem::take(&mut self.unlistened) {
            if let Some(socket) = self.bound.get(&address) {
                listen_beside(socket, self.colliding(address))
                    .map_err(|error| format!("cannot listen on {address}: {error}"))?;
            }
        }
        Ok(())
    }

    /// Our sockets beside which the kernel would not bind this address.
    fn colliding(&self, address: SocketAddr) -> impl Iterator<Item = &TcpListener> + Clone {
        let others = self.bound.iter();
        others.filter(move |(other, _)| collide(**other, address)).map(|(_, socket)| socket)
    }
}

/// Whether one of two different addresses stands for the other as well.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let is_wide = |ip: IpAddr| ip.is_unspecified();
    one != other
        && one.port() == other.port()
        && same_family
        && (is_wide(one.ip()) || is_wide(other.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_collides_with_the_one_that_stands_for_all_of_its_family() {
        let collide =
            |one: &str, other: &str| collide(one.parse().unwrap(), other.parse().unwrap());
        assert!(collide("127.0.0.1:80", "0.0.0.0:80") && collide("0.0.0.0:80", "127.0.0.1:80"));
        assert!(collide("[::1]:80", "[::]:80"));
        assert!(!collide("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!collide("127.0.0.1:80", "0.0.0.0:81"));
        assert!(!collide("127.0.0.1:80", "[::]:80"), "that one is for IPv6 alone");
        assert!(!collide("0.0.0.0:80", "0.0.0.0:80"), "the same socket");
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn listener() -> (SocketAddr, TcpListener) {
        let socket = TcpListener::bind("127.77.41.1:0").unwrap();
        (socket.local_addr().unwrap(), socket)
    }

    #[test]
    fn a_socket_that_was_passed_is_not_bound_again() {
        let (given, socket) = listener();
        let mut sockets = Sockets::default();
        sockets.bind_first(&[given], BTreeMap::from([(given, socket)])).unwrap();
        assert_eq!(sockets.of(&[given]).next().unwrap().local_addr().unwrap(), given);
    }

    #[test]
    fn every_address_that_cannot_be_bound_is_reported() {
        let (in_use, _socket) = listener();
        // It is in no network. An address in use would be tried again for a second.
        let foreign = [address("[2001:db8::1]:1"), in_use];
        let addresses = |errors: Vec<BindError>| -> Vec<SocketAddr> {
            errors.iter().map(|error| error.address).collect()
        };
        let mut sockets = Sockets::default();
        let first = sockets.bind_first(&foreign, BTreeMap::new()).unwrap_err();
        assert_eq!(addresses(first), foreign);
        let (kept, socket) = listener();
        sockets.restore(kept, socket);
        let all = [foreign[0], kept, foreign[1]];
        assert_eq!(addresses(sockets.bind_missing(&all, false).unwrap_err()), foreign);
    }

    #[test]
    fn sockets_are_passed_in_the_order_of_the_configuration_and_closed_if_unused() {
        let mut sockets = Sockets::default();
        let (one, socket) = listener();
        sockets.restore(one, socket);
        let (two, socket) = listener();
        sockets.restore(two, socket);
        let order = |sockets: &Sockets, addresses: &[SocketAddr]| -> Vec<SocketAddr> {
            sockets.of(addresses).map(|socket| socket.local_addr().unwrap()).collect()
        };
        assert_eq!(order(&sockets, &[two, one]), [two, one]);
        assert_eq!(order(&sockets, &[one, two]), [one, two]);
        sockets.close_unused(&[two, address("192.0.2.1:1")]);
        assert_eq!(order(&sockets, &[one, two]), [two]);
    }
}
