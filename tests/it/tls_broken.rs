//! Files for TLS that are broken when a worker starts: what was in them before is used, or else only
//! what needs them fails, until they are repaired.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::ports;
use crate::support::tls::{Authority, Identity, TlsConfig, write_at_once};
use crate::support::tls_front::TlsFront;
use crate::support::weir::{Directory, LISTENER_KEYS, Weir, copy_binary, put_script};
use crate::support::{TIMEOUT, eventually};

/// A listener with these certificates and further keys, before this backend.
fn site(backend: &Backend, identities: &[&Identity], keys: &str) -> String {
    let certificates: Vec<String> = identities.iter().map(|one| one.yaml()).collect();
    let tls = format!("tls: {{certificates: [{}]{keys}}}", certificates.join(", "));
    format!("{LISTENER_KEYS}{tls}\npools:\n{}", pool("web", &backend.url(), ""))
}

/// A pool without probes.
fn pool(name: &str, url: &str, more: &str) -> String {
    format!("  - {{name: {name}, health_check: off, backends: [{url}]{more}}}\n")
}

fn gauge(weir: &Weir, name: &str, file: &Path) -> Option<f64> {
    weir.metrics().value(name, &[("certificate", file.to_str().unwrap())])
}

fn is_broken(weir: &Weir, file: &Path) -> bool {
    gauge(weir, "lb_certificate_reload_failed", file) == Some(1.0)
}

/// Nothing is used in its place.
fn is_missing(weir: &Weir, file: &Path) -> bool {
    gauge(weir, "lb_certificate_unavailable", file) == Some(1.0)
}

/// Serves `first`, then `second`; between the supervisor's look at the files and the worker's own,
/// these break. So the new worker finds broken what no worker has ever read.
fn start_and_break(first: &str, second: &str, broken: &[&Path]) -> (Directory, Weir) {
    let directory = Directory::new();
    let binary = directory.path("weir");
    copy_binary(&binary, "");
    let weir = Weir::start_by(Command::new(&binary), first);
    let each = |file: &&Path| format!("echo broken >{0}.new && mv {0}.new {0}\n", file.display());
    put_script(&binary, &broken.iter().map(each).collect::<String>());
    weir.write_config(second);
    weir.reload();
    // The next one breaks nothing.
    put_script(&binary, "");
    (directory, weir)
}

/// A backend, and certificates for `first.test` and `b.test`.
fn two() -> (Backend, Authority, [Identity; 2]) {
    let authority = Authority::new();
    let both = [("first", "first.test"), ("other", "b.test")];
    let both = both.map(|(file, name)| authority.identity(file, &[name]));
    (Backend::start("one"), authority, both)
}

/// The text of these files, to mend them by.
fn texts(files: &[&Path]) -> Vec<String> {
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

// ── what the worker before had ──

#[test]
fn the_replacement_of_a_crashed_worker_uses_the_last_good_certificates() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let (a, b) = (authority.identity("a", &["a.test"]), authority.identity("b", &["b.test"]));
    let (was_a, was_b) = (a.der(), b.der());
    let keys = format!(", client_ca: {}, client_auth: request", authority.ca().display());
    let weir = Weir::start(&site(&backend, &[&a, &b], &keys));
    let friend = authority.identity("friend", &["friend.test"]);
    let client = TlsConfig::new(&authority, Some(&friend));
    let shown = |name| client.connect(weir.address(), name).certificate();
    write_at_once(&a.key, "broken");
    fs::remove_file(&b.cert).unwrap();
    fs::remove_file(authority.ca()).unwrap();
    eventually(TIMEOUT, "all is noticed", || {
        [&a.cert, &b.cert, &authority.ca()].iter().all(|file| is_broken(&weir, file))
    });
    // The third one has what the first had from the second, which never saw a good file.
    for turn in [2, 3] {
        weir.replace_by_kill();
        assert_eq!((shown("a.test"), shown("b.test")), (was_a.clone(), was_b.clone()), "{turn}");
        // Who reads an answer gets tickets, and would be shown nothing the next time.
        let other = TlsConfig::new(&authority, Some(&friend));
        let answer = other.connect(weir.address(), "b.test").get("/", &[("Host", "b.test")]);
        assert_eq!(answer.status(), 200);
        let request = backend.requests().pop().unwrap();
        assert_eq!(request.header("x-client-cert-verified"), Some("yes"), "the issuer is known");
        assert!(is_broken(&weir, &a.cert) && is_broken(&weir, &b.cert), "{turn}");
        assert!(!is_missing(&weir, &a.cert) && !is_missing(&weir, &b.cert), "{turn}");
        let logged = weir.stderr().matches("the old one stays").count();
        assert_eq!(logged, 3 * turn, "{}", weir.stderr());
    }
    let new_b = authority.identity("b", &["b.test"]);
    eventually(TIMEOUT, "a repaired one is used", || shown("b.test") == new_b.der());
    eventually(TIMEOUT, "and the gauge is 0", || !is_broken(&weir, &b.cert));
    assert_eq!(shown("a.test"), was_a);
    assert_eq!(weir.workers().len(), 1, "without a reload");
    let was_new_b = new_b.der();
    write_at_once(&b.key, "broken");
    eventually(TIMEOUT, "it is noticed", || is_broken(&weir, &b.cert));
    weir.replace_by_kill();
    assert_eq!(shown("b.test"), was_new_b, "the last good one is the renewed one");
}

#[test]
fn who_replaces_a_dead_worker_prefers_its_good_certificate_to_one_that_has_expired() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let good = authority.identity("site", &["a.test"]);
    let was = good.der();
    let weir = Weir::start(&site(&backend, &[&good], ""));
    authority.identity_with("site", &["a.test"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    eventually(TIMEOUT, "it is noticed", || is_broken(&weir, &good.cert));
    weir.replace_by_kill();
    let client = TlsConfig::new(&authority, None);
    assert_eq!(client.connect(weir.address(), "a.test").certificate(), was);
}

#[test]
fn who_replaces_a_dead_worker_speaks_to_backends_as_before() {
    let authority = Authority::new();
    let backend = Backend::start("one");
    let ours = authority.identity("weir", &["weir.internal"]);
    let was = ours.der();
    let site = authority.identity("site", &["web.internal"]);
    let clients = Some(&authority);
    let front = TlsFront::with(ports::own_socket(3443), backend.address(), &site, clients, &[]);
    let ca = authority.path("backends.crt");
    fs::copy(authority.ca(), &ca).unwrap();
    let tls = format!(
        ", tls: {{ca: {}, cert: {}, key: {}, server_name: web.internal}}",
        ca.display(),
        ours.cert.display(),
        ours.key.display()
    );
    let weir = Weir::start(&format!("pools:\n{}", pool("web", &front.url(), &tls)));
    assert_eq!(weir.get("/").status(), 200);
    write_at_once(&ca, "broken");
    fs::remove_file(&ours.key).unwrap();
    eventually(TIMEOUT, "both are noticed", || {
        is_broken(&weir, &ca) && is_broken(&weir, &ours.cert)
    });
    weir.replace_by_kill();
    assert_eq!(weir.get("/").status(), 200);
    let shakes = front.shakes();
    assert_eq!(shakes.len(), 2, "{shakes:?}");
    assert_eq!(shakes[1].client, Some(was));
    assert!(is_broken(&weir, &ca) && !is_missing(&weir, &ca));
}

// ── files without last good contents ──

#[test]
fn a_missing_certificate_affects_no_other_and_is_used_once_repaired() {
    let (backend, authority, [first, other]) = two();
    let (was_other, repaired) = (other.der(), texts(&[&other.cert]));
    let one = site(&backend, &[&first], "");
    let both = site(&backend, &[&first, &other], "");
    let (_binary, weir) = start_and_break(&one, &both, &[&other.cert]);
    let client = TlsConfig::new(&authority, None);
    let shown = |name| client.connect(weir.address(), name).certificate();
    assert_eq!(client.connect(weir.address(), "first.test").get("/", &[]).status(), 200);
    assert_eq!(shown("b.test"), first.der(), "as for every name that no certificate has");
    assert!(is_broken(&weir, &other.cert) && is_missing(&weir, &other.cert));
    assert!(!is_missing(&weir, &first.cert));
    let said = weir.stderr();
    assert!(said.contains("certificate missing, handshakes that need it fail"), "{said}");
    write_at_once(&other.cert, &repaired[0]);
    eventually(TIMEOUT, "it is shown", || shown("b.test") == was_other);
    eventually(TIMEOUT, "and the gauge is 0", || !is_missing(&weir, &other.cert));
    assert_eq!(weir.workers().len(), 1, "without a reload");
}

#[test]
fn a_missing_default_certificate_is_not_replaced_by_another_one() {
    let (backend, authority, [first, other]) = two();
    let (was_first, repaired) = (first.der(), texts(&[&first.key]));
    let one = site(&backend, &[&other], "");
    let both = site(&backend, &[&first, &other], "");
    let (_binary, weir) = start_and_break(&one, &both, &[&first.key]);
    let client = TlsConfig::new(&authority, None);
    assert_eq!(client.connect(weir.address(), "b.test").get("/", &[]).status(), 200);
    for name in ["first.test", "unknown.test"] {
        assert_denied(&weir, &client, name);
    }
    eventually(TIMEOUT, "it is counted", || missing_handshakes(&weir) == Some(2.0));
    write_at_once(&first.key, &repaired[0]);
    eventually(TIMEOUT, "it is shown", || {
        let shown = client.try_connect(weir.address(), "unknown.test");
        shown.is_ok_and(|shown| shown.certificate() == was_first)
    });
}

/// That the handshake is answered by an alert.
#[track_caller]
fn assert_denied(weir: &Weir, client: &TlsConfig, name: &str) {
    let refused = client.try_connect(weir.address(), name).err().map(|error| error.to_string());
    assert!(refused.as_ref().is_some_and(|it| it.contains("AccessDenied")), "{name}: {refused:?}");
}

fn missing_handshakes(weir: &Weir) -> Option<f64> {
    let reason = [("reason", "tls_certificate_unavailable")];
    weir.metrics().value("lb_connection_failures_total", &reason)
}

#[test]
fn a_listener_whose_certificates_are_all_missing_opens_and_heals() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let (old, new) =
        (authority.identity("old", &["a.test"]), authority.identity("new", &["a.test"]));
    let (was_new, repaired) = (new.der(), texts(&[&new.cert, &new.key]));
    let one = site(&backend, &[&old], "");
    let two = site(&backend, &[&new], "");
    let (_binary, weir) = start_and_break(&one, &two, &[&new.cert, &new.key]);
    let client = TlsConfig::new(&authority, None);
    assert_denied(&weir, &client, "a.test");
    write_at_once(&new.cert, &repaired[0]);
    write_at_once(&new.key, &repaired[1]);
    eventually(TIMEOUT, "it is shown", || {
        let shown = client.try_connect(weir.address(), "a.test");
        shown.is_ok_and(|shown| shown.certificate() == was_new)
    });
    assert_eq!(client.connect(weir.address(), "a.test").get("/", &[]).status(), 200);
}

#[test]
fn without_the_client_ca_no_client_gets_in() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let identity = authority.identity("site", &["a.test"]);
    let ca = authority.path("clients.crt");
    fs::copy(authority.ca(), &ca).unwrap();
    let repaired = texts(&[&ca]);
    let off = site(&backend, &[&identity], "");
    let keys = format!(", client_ca: {}", ca.display());
    let on = site(&backend, &[&identity], &keys);
    let (_binary, weir) = start_and_break(&off, &on, &[&ca]);
    let friend = authority.identity("friend", &["friend.test"]);
    for shown in [None, Some(&friend)] {
        assert_denied(&weir, &TlsConfig::new(&authority, shown), "a.test");
    }
    assert!(is_missing(&weir, &ca));
    assert_eq!(backend.count(), 0);
    write_at_once(&ca, &repaired[0]);
    let client = TlsConfig::new(&authority, Some(&friend));
    eventually(TIMEOUT, "they vouch", || {
        let client = client.try_connect(weir.address(), "a.test");
        client.and_then(|mut client| client.try_get("/", &[])).is_ok()
    });
    let without = TlsConfig::new(&authority, None);
    let answer = without
        .try_connect(weir.address(), "a.test")
        .and_then(|mut client| client.try_get("/", &[]));
    assert!(answer.is_err(), "who shows nothing stays out: {answer:?}");
    assert_eq!(backend.count(), 1);
}

#[test]
fn a_pool_without_its_ca_gets_no_connections_and_the_others_do() {
    let authority = Authority::new();
    let backend = Backend::start("one");
    let front = TlsFront::start(backend.address(), &authority.identity("site", &["web.internal"]));
    // Any connection to this address would be noticed.
    let proxied = TcpListener::bind(ports::own_socket(3444)).unwrap();
    proxied.set_nonblocking(true).unwrap();
    let ca = authority.path("backends.crt");
    fs::copy(authority.ca(), &ca).unwrap();
    let ours = authority.identity("weir", &["weir.internal"]);
    let repaired = texts(&[&ca, &ours.key]);
    let clear = pool("clear", &backend.url(), "");
    let by_ca = format!(", tls: {{ca: {}, server_name: web.internal}}", ca.display());
    let show = format!(
        ", tls: {{verify: off, cert: {}, key: {}, server_name: web.internal}}",
        ours.cert.display(),
        ours.key.display()
    );
    let header = format!("{by_ca}, proxy_protocol: v2");
    let to_proxied = format!("https://{}", proxied.local_addr().unwrap());
    let second = format!(
        "routes: [{{path: /clear, pool: clear}}, {{path: /ca, pool: ca}}, {{path: /show, pool: show}}, \
         {{path: /proxied, pool: proxied}}]\npools:\n{clear}{}{}{}",
        pool("ca", &front.url(), &by_ca),
        pool("show", &front.url(), &show),
        pool("proxied", &to_proxied, &header),
    );
    let first = format!("pools:\n{clear}");
    let (_binary, weir) = start_and_break(&first, &second, &[&ca, &ours.key]);
    assert_eq!(weir.get("/clear").status(), 200);
    for path in ["/ca", "/show", "/proxied"] {
        assert_eq!(weir.get(path).status(), 502, "{path}");
        let line = weir.until_logged(path, |line| line["path"] == path);
        assert_eq!(line["reason"], "tls_failed", "{line}");
    }
    let errors = weir.status()["backends"].clone();
    let error = errors[1]["last_error"].as_str().unwrap();
    assert!(error.contains("a file cannot be used: ") && error.contains("backends.crt"), "{error}");
    assert!(proxied.accept().is_err(), "no connection is made");
    assert_eq!((front.shakes().len(), front.failed(), backend.count()), (0, 0, 1));
    assert!(is_missing(&weir, &ca) && is_missing(&weir, &ours.cert));
    let said = weir.stderr();
    assert!(said.contains("its pool's TLS backends get no request"), "{said}");

    write_at_once(&ca, &repaired[0]);
    write_at_once(&ours.key, &repaired[1]);
    for path in ["/ca", "/show"] {
        eventually(TIMEOUT, "it is spoken to", || weir.get(path).status() == 200);
    }
    assert_eq!(weir.workers().len(), 1, "without a reload");
}

// ── what is renewed for backends ──

#[test]
fn the_ca_for_backends_is_reloaded_and_older_connections_are_not_reused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let backend = Backend::start("one");
    let front = TlsFront::start(backend.address(), &authority.identity("site", &["web.internal"]));
    let ca = authority.path("backends.crt");
    fs::copy(authority.ca(), &ca).unwrap();
    let good = texts(&[&ca]);
    let tls = format!(", tls: {{ca: {}, server_name: web.internal}}", ca.display());
    let weir = Weir::start(&format!("pools:\n{}", pool("web", &front.url(), &tls)));
    // One after the other, so that the connection is there when it is asked for.
    let mut client = Client::connect(weir.address());
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(front.shakes().len(), 1, "the connection is kept");
    write_at_once(&ca, &fs::read_to_string(other.ca()).unwrap());
    eventually(TIMEOUT, "others vouch", || renewed(&weir, "done") == Some(1.0));
    let before = backend.count();
    assert_eq!(client.get("/").status(), 502, "the connection that is kept is of another trust");
    assert_eq!(backend.count(), before);
    write_at_once(&ca, "broken");
    eventually(TIMEOUT, "a broken one is counted", || renewed(&weir, "failed") == Some(1.0));
    assert_eq!(weir.get("/").status(), 502, "the old one stays");
    write_at_once(&ca, &good[0]);
    eventually(TIMEOUT, "the first ones vouch again", || weir.get("/").status() == 200);
    assert_eq!(weir.workers().len(), 1, "without a reload");
}

fn renewed(weir: &Weir, outcome: &str) -> Option<f64> {
    weir.metrics().value("lb_certificate_renewals_total", &[("outcome", outcome)])
}

#[test]
fn what_backends_are_shown_is_renewed_for_requests_and_probes() {
    let authority = Authority::new();
    let backend = Backend::start("one");
    let ours = authority.identity("weir", &["weir.internal"]);
    let was = ours.der();
    let site = authority.identity("site", &["web.internal"]);
    let clients = Some(&authority);
    let front = TlsFront::with(ports::own_socket(3443), backend.address(), &site, clients, &[]);
    let (cert, key) = (ours.cert.display(), ours.key.display());
    let weir = Weir::start(&format!(
        "pools: [{{name: web, backends: [{}], health_check: {{path: /health, interval: 200ms}}, \
         tls: {{verify: off, cert: {cert}, key: {key}}}}}]",
        front.url(),
    ));
    assert_eq!(weir.get("/").status(), 200);
    assert!(front.shakes().iter().all(|shake| shake.client.as_ref() == Some(&was)));
    let expiry = gauge(&weir, "lb_certificate_expiry_timestamp_seconds", &ours.cert);
    assert!(expiry.is_some_and(|expiry| expiry > 1e9), "{expiry:?}");
    let new = authority.identity("weir", &["weir.internal"]);
    eventually(TIMEOUT, "it is renewed", || renewed(&weir, "done") == Some(1.0));
    let shakes = front.shakes().len();
    eventually(TIMEOUT, "probes show it", || front.shakes().len() > shakes + 1);
    assert_eq!(weir.get("/").status(), 200);
    let shown: Vec<_> = front.shakes().split_off(shakes + 1);
    assert!(shown.iter().all(|shake| shake.client == Some(new.der())), "{shown:?}");
    let probes = backend.count_of("/health");
    eventually(TIMEOUT, "they pass", || backend.count_of("/health") > probes);
}
