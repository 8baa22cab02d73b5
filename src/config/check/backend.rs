//! Addresses that no backend can have.

use super::super::BackendAddress;
use super::super::problem::{Origin, Problem};
use super::bindings::Bindings;

/// Why a backend cannot be at this address, if it cannot.
pub(super) fn impossible(
    address: &BackendAddress,
    at: Origin,
    bound: &Bindings,
) -> Option<Problem> {
    let problem = |what: &str| Problem::new(at, format!("the backend `{address}` {what}"));
    match bound.leads_here(address) {
        Some(true) => {
            return Some(
                problem("is the admin port of this balancer")
                    .help("name the address of the server that is to respond"),
            );
        }
        Some(false) => {
            return Some(
                problem("is a listener of this balancer: requests would come back to it")
                    .help("name the address of the server that is to respond"),
            );
        }
        None => {}
    }
    let BackendAddress::Socket(socket) = address else { return None };
    let ip = socket.ip().to_canonical();
    if ip.is_unspecified() {
        let here = if ip.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        return Some(
            problem("is no address that can be connected to")
                .help(format!("for this machine write `{here}`")),
        );
    }
    let is_broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
    (ip.is_multicast() || is_broadcast).then(|| {
        problem("is a multicast or broadcast address, which no HTTP server has")
            .help("name the address of one server")
    })
}
