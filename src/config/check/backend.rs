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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(address: &str) -> Option<String> {
        let address = BackendAddress::Socket(address.parse().unwrap());
        let problem = impossible(&address, Origin::START, &Bindings::default())?;
        Some(format!("{} ({})", problem.what, problem.help.unwrap_or_default()))
    }

    #[test]
    fn an_open_address_is_no_backend_and_its_loopback_is_proposed() {
        let text = found("0.0.0.0:80").unwrap();
        assert!(text.contains("cannot") || text.contains("not an address"), "{text}");
        assert!(text.contains("`127.0.0.1`"), "{text}");
        assert!(found("[::ffff:0.0.0.0]:80").unwrap().contains("`127.0.0.1`"));
        assert!(found("[::]:80").unwrap().contains("`[::1]`"));
    }

    #[test]
    fn an_address_of_many_machines_is_no_backend() {
        for address in
            ["224.0.0.1:80", "255.255.255.255:80", "[ff02::1]:80", "[::ffff:224.0.0.1]:80"]
        {
            assert!(found(address).is_some_and(|text| text.contains("multicast")), "{address}");
        }
        for address in ["10.255.255.255:80", "127.0.0.1:80", "[fe80::1]:80"] {
            assert_eq!(found(address), None, "{address}");
        }
    }
}
