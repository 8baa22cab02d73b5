//! Invalid backend addresses.

use super::super::problem::{Origin, Problem};
use super::super::terms::BackendAddress;
use super::bindings::Bindings;

/// The problem, if a backend cannot have this address.
pub(super) fn impossible(
    address: &BackendAddress,
    at: Origin,
    bound: &Bindings,
) -> Option<Problem> {
    let problem = |what: &str| Problem::new(at, format!("the backend `{address}` {what}"));
    match bound.leads_here(address) {
        Some(true) => {
            return Some(
                problem("is the admin port of this Weir")
                    .help("write the address of the backend server"),
            );
        }
        Some(false) => {
            return Some(
                problem("is a listener of this Weir: requests would loop")
                    .help("write the address of the backend server"),
            );
        }
        None => {}
    }
    let BackendAddress::Socket(socket) = address else { return None };
    let ip = socket.ip().to_canonical();
    if ip.is_unspecified() {
        let here = if ip.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        return Some(
            problem("is not an address that can be connected to")
                .help(format!("for this machine write `{here}`")),
        );
    }
    let is_broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
    (ip.is_multicast() || is_broadcast).then(|| {
        problem("is a multicast or broadcast address").help("write the address of one server")
    })
}
