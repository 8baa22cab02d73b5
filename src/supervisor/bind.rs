//! Which addresses are bound for a configuration, and when they are listened on.
//!
//! An address that collides with one that is served now (`0.0.0.0:80` and `127.0.0.1:80`) is bound
//! beside it, and listened on only when its worker takes over: until then the old worker gets the
//! connections, and a reload that is rejected has changed nothing. When the old worker drains, it
//! closes its socket. Connections to that listener which the kernel has taken by then, and which
//! the old worker has not accepted, are lost; those of other listeners are not.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};

use super::Supervisor;
use super::reload::addresses;
use crate::config::Config;
use crate::sockets::{BindError, bind, bind_beside, bind_with_retries, listen_beside};

impl Supervisor {
    /// Binds what the first configuration asks for.
    pub(super) fn bind_first(
        &mut self,
        mut given: BTreeMap<SocketAddr, TcpListener>,
    ) -> Result<(), BindError> {
        for address in addresses(&self.served.config) {
            let socket = match given.remove(&address) {
                Some(socket) => socket,
                // The worker of a supervisor that was killed just now closes its sockets soon.
                None => bind_with_retries(address)?,
            };
            self.sockets.insert(address, socket);
        }
        for address in given.keys() {
            log::warn!("systemd's socket not used: {address} (help: list it in `listeners`)");
        }
        Ok(())
    }

    /// Binds what this configuration asks for and the one that is served does not.
    pub(super) fn bind_missing(&mut self, config: &Config) -> Result<(), BindError> {
        for address in addresses(config) {
            if self.sockets.contains_key(&address) {
                continue;
            }
            let socket = if self.colliding(address).next().is_some() {
                let socket = bind_beside(address, self.colliding(address))?;
                self.unlistened.insert(address);
                socket
            } else if self.draining.is_empty() {
                bind(address)?
            } else {
                // A worker that drains may have it for a moment still, since a reload just before.
                bind_with_retries(address)?
            };
            self.sockets.insert(address, socket);
        }
        Ok(())
    }

    /// Closes what the configuration that is served does not ask for.
    pub(super) fn close_unused(&mut self) {
        let wanted = addresses(&self.served.config);
        self.sockets.retain(|address, _| wanted.contains(address));
        self.unlistened.clear();
    }

    /// The candidate of a reload takes over: connections may come to what was bound for it.
    pub(super) fn listen_for(&mut self, generation: u64) -> Result<(), String> {
        if self.candidate.as_ref().is_none_or(|one| one.child.generation != generation) {
            return Ok(());
        }
        for address in std::mem::take(&mut self.unlistened) {
            if let Some(socket) = self.sockets.get(&address) {
                listen_beside(socket, self.colliding(address))
                    .map_err(|error| format!("cannot listen on {address}: {error}"))?;
            }
        }
        Ok(())
    }

    /// Our sockets that the kernel would not let this address be bound beside.
    fn colliding(&self, address: SocketAddr) -> impl Iterator<Item = &TcpListener> + Clone {
        let others = self.sockets.iter();
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
}
