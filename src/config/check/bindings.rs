//! Addresses that Weir listens on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::problem::{Diagnostics, Origin, Problem};
use super::super::terms::BackendAddress;

/// An address of a listener or of the admin port.
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    /// `None` for a default.
    pub(super) at: Option<Origin>,
    pub(super) admin: bool,
}

/// All addresses that Weir listens on, to find conflicts. At most [`super::super::limits::LISTENERS_MAX`] and one.
#[derive(Default)]
pub(super) struct Bindings(Vec<Bound>);

impl Bindings {
    pub(super) fn add(&mut self, new: Bound, found: &mut Diagnostics) {
        let old = self.0.iter().find(|old| collide(old.address, new.address));
        // Two defaults do not collide, so one of the two was typed.
        if let Some((old, at)) = old.and_then(|old| Some((old, new.at.or(old.at)?))) {
            found.add(collision(old, &new, at));
        }
        self.0.push(new);
    }
}

impl Bindings {
    /// Whether a connection to `backend` would certainly reach Weir itself: `Some(true)` its admin port,
    /// `Some(false)` a listener.
    pub(super) fn leads_here(&self, backend: &BackendAddress) -> Option<bool> {
        let (ip, port) = match backend {
            BackendAddress::Socket(address) => (address.ip().to_canonical(), address.port()),
            BackendAddress::Name(name, port) if name == "localhost" => {
                (IpAddr::V4(Ipv4Addr::LOCALHOST), *port)
            }
            BackendAddress::Name(..) | BackendAddress::Discovered(_) => return None,
        };
        let is_here = |bound: &&Bound| {
            let own = bound.address.ip().to_canonical();
            // Which other addresses this machine has is unknown here.
            let covers = own.is_unspecified() && ip.is_loopback() && own.is_ipv4() == ip.is_ipv4();
            bound.address.port() == port && (own == ip || covers)
        };
        self.0.iter().find(is_here).map(|bound| bound.admin)
    }
}

/// Whether the kernel would reject one of the two.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    // `[::]` is bound for IPv6 only, so it conflicts with IPv6 addresses only.
    let covers = |wide: IpAddr, narrow: IpAddr| match wide {
        IpAddr::V4(ip) => ip == Ipv4Addr::UNSPECIFIED && narrow.is_ipv4(),
        IpAddr::V6(ip) => ip == Ipv6Addr::UNSPECIFIED && narrow.is_ipv6(),
    };
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

fn collision(old: &Bound, new: &Bound, at: Origin) -> Problem {
    let what = match (old.admin, old.address == new.address) {
        (true, true) => format!("`{}` is also the address of the admin port", new.address),
        (true, false) => {
            format!("`{}` conflicts with `{}`, the admin port", new.address, old.address)
        }
        (false, true) => format!("`{}` is listed twice", new.address),
        (false, false) => {
            format!("`{}` conflicts with the listener `{}`", new.address, old.address)
        }
    };
    let problem = Problem::new(at, what);
    match (old.admin, old.address == new.address) {
        (true, _) => {
            problem.help("the admin port needs an address of its own: change one of the two")
        }
        (false, true) => match old.at {
            Some(first) => problem.help(format!("the first is at {first}")),
            None => problem,
        },
        (false, false) => problem.help(
            "one of them already covers all addresses of that port: keep that one, or list each address",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(bound: &str, backend: BackendAddress) -> bool {
        let address = bound.parse().unwrap();
        let bound = Bindings(vec![Bound { address, at: None, admin: false }]);
        bound.leads_here(&backend).is_some()
    }

    #[test]
    fn a_backend_on_a_loopback_address_of_an_open_port_is_weir_itself() {
        let leads =
            |bound, backend: &str| leads(bound, BackendAddress::Socket(backend.parse().unwrap()));
        assert!(leads("0.0.0.0:80", "127.0.0.1:80") && leads("[::]:80", "[::1]:80"));
        assert!(leads("127.0.0.1:80", "[::ffff:127.0.0.1]:80"), "the same address");
        assert!(!leads("0.0.0.0:80", "[::1]:80") && !leads("[::]:80", "127.0.0.1:80"));
        assert!(!leads("0.0.0.0:80", "127.0.0.1:81"));
        assert!(!leads("0.0.0.0:80", "10.0.0.1:80"), "it may be another machine");
    }

    #[test]
    fn of_all_host_names_only_localhost_is_known_to_be_here() {
        let name = |name: &str| BackendAddress::Name(name.into(), 80);
        assert!(leads("127.0.0.1:80", name("localhost")) && leads("0.0.0.0:80", name("localhost")));
        assert!(
            !leads("127.0.0.1:80", name("weir.test")) && !leads("127.0.0.1:81", name("localhost"))
        );
    }

    #[test]
    fn an_open_address_collides_within_its_own_family_only() {
        let collide = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(collide(one, other), collide(other, one));
            collide(one, other)
        };
        assert!(collide("0.0.0.0:80", "10.0.0.1:80") && collide("[::]:80", "[::1]:80"));
        assert!(collide("10.0.0.1:80", "[::ffff:10.0.0.1]:80"), "the same address");
        assert!(!collide("[::]:80", "10.0.0.1:80") && !collide("0.0.0.0:80", "[::1]:80"));
        assert!(!collide("0.0.0.0:80", "10.0.0.1:81") && !collide("10.0.0.1:80", "10.0.0.2:80"));
    }
}
