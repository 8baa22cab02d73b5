//! What the kernel calls "cannot assign requested address": no local port is left, or there is no local
//! address to reach a backend from.

use http::Method;

use crate::support::backend::{Backend, Behaviour};
use crate::support::http2::{Http2, request};
use crate::support::networks::is_in_network_with;
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

const NO_IPV6: &str = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6";
const FOUR_PORTS: &str = "echo 40000 40003 >/proc/sys/net/ipv4/ip_local_port_range";

#[test]
fn a_backend_that_no_local_address_reaches_fails_its_health_checks() {
    if !is_in_network_with(
        NO_IPV6,
        "local_addresses::a_backend_that_no_local_address_reaches_fails_its_health_checks",
    ) {
        return;
    }
    for check in ["type: tcp", "type: http", "type: grpc"] {
        for proxied in ["", "proxy_protocol: v2, "] {
            let config = format!(
                "pools: [{{name: web, backends: [\"http://[::1]:8081\"], {proxied}\
                 health_check: {{{check}, interval: 1s, timeout: 1s, unhealthy_after: 1}}}}]\n"
            );
            let mut weir = Weir::spawn(&config);
            weir.until_alive();
            let state = || weir.status()["backends"][0].clone();
            eventually(TIMEOUT, "it is unhealthy", || state()["state"] == "unhealthy");
            let why = state()["last_error"].as_str().unwrap_or_default().to_owned();
            assert_eq!(why, "no local address to connect from", "{check} {proxied}");
            assert!(!weir.stderr().contains("probe not made"), "{}", weir.stderr());
        }
    }
}

#[test]
fn a_request_goes_on_to_the_next_backend_if_no_local_address_reaches_one() {
    if !is_in_network_with(
        NO_IPV6,
        "local_addresses::a_request_goes_on_to_the_next_backend_if_no_local_address_reaches_one",
    ) {
        return;
    }
    let backend = Backend::start("one");
    let config = |backends: &str| {
        format!("pools: [{{name: web, health_check: off, backends: [{backends}]}}]\n")
    };
    let weir = Weir::start(&config(&format!("\"http://[::1]:8081\", {}", backend.url())));
    let statuses: Vec<u16> = (0..4).map(|_| weir.get("/").status()).collect();
    assert_eq!((statuses, backend.count_of("/")), (vec![200; 4], 4));
    let line = weir.until_logged("a second attempt", |line| {
        line["attempts"].as_array().is_some_and(|attempts| attempts.len() == 2)
    });
    assert_eq!(line["attempts"][0]["failure"], "connect", "{line}");
    let error = weir.status()["backends"][0]["last_error"].clone();
    assert_eq!(error, "no local address to connect from");
    drop(weir);
    // With no other backend, it is not what this machine lacks either.
    let weir = Weir::start(&config("\"http://[::1]:8081\""));
    assert_eq!(weir.get("/").status(), 503);
    let line = weir.until_logged("a line", |_| true);
    assert_eq!(line["reason"], "no_backend", "{line}");
    assert!(!weir.stderr().contains("out of local ports"), "{}", weir.stderr());
}

#[test]
fn local_ports_that_have_run_out_are_no_failure_of_the_backend() {
    if !is_in_network_with(
        FOUR_PORTS,
        "local_addresses::local_ports_that_have_run_out_are_no_failure_of_the_backend",
    ) {
        return;
    }
    let backend = Backend::start("one");
    backend.on("/hang", Behaviour::NeverAnswer);
    let weir = Weir::start(&format!(
        "{LISTENER_KEYS}http2: true\npools: [{{name: web, backends: [{}], health_check: off}}]\n",
        backend.url()
    ));
    let mut client = Http2::connect(weir.address());
    let hang = || request(Method::GET, "/hang", &[]);
    let _streams: Vec<_> = (0..8).map(|_| client.start(hang(), true).unwrap()).collect();
    let line = weir.until_logged("an overload", |line| line["reason"] == "overload");
    assert_eq!((line["status"].as_u64(), line["attempts"].as_array()), (Some(503), Some(&vec![])));
    let warning = "request rejected, out of local ports: reason=overload backend=";
    eventually(TIMEOUT, "a warning", || weir.stderr().contains(warning));
    assert!(weir.stderr().contains("net.ipv4.ip_local_port_range=\"40000 40003\""));
    assert_eq!(weir.status()["backends"][0]["total_failures"], 0);
}
