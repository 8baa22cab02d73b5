//! TLS to backends: verified, or not at all where that is written.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client};
use crate::support::ports;
use crate::support::tls::{Authority, Identity};
use crate::support::tls_front::TlsFront;
use crate::support::weir::{Weir, run_to_end};
use crate::support::{TIMEOUT, eventually, now};

/// An authority, a backend, and TLS before it with a certificate for `names`.
fn world(names: &[&str]) -> (Authority, Backend, TlsFront) {
    let authority = Authority::new();
    let backend = Backend::start("one");
    let front = TlsFront::start(backend.address(), &authority.identity("site", names));
    (authority, backend, front)
}

/// A pool of these servers, without probes.
fn pool(urls: &[String], tls: &str) -> String {
    format!(
        "pools:\n  - {{name: web, health_check: off, backends: [{}], tls: {{{tls}}}}}\n",
        urls.join(", ")
    )
}

fn ca(authority: &Authority) -> String {
    format!("ca: {}", authority.ca().display())
}

fn show(identity: &Identity) -> String {
    format!("cert: {}, key: {}", identity.cert.display(), identity.key.display())
}

/// The reason in the log's last line.
#[track_caller]
fn reason(weir: &Weir) -> String {
    let line = weir.until_logged("a reason", |line| line["reason"].is_string());
    line["reason"].as_str().unwrap().to_owned()
}

/// That nothing came of it: 502, for this reason, and not one request at the backend.
#[track_caller]
fn assert_refused(weir: &Weir, backend: &Backend, why: &str, kind: &str) {
    assert_eq!(weir.get("/").status(), 502);
    assert_eq!(reason(weir), why);
    let errors = weir.metrics().sum("lb_errors_total", &[("type", kind)]);
    assert!(errors > 0.0, "lb_errors_total has no `{kind}`");
    assert_eq!(backend.count(), 0, "a backend that is not to be trusted got a request");
}

// ── who is trusted ──

#[test]
fn a_backend_with_a_good_certificate_is_used_and_its_connection_is_kept() {
    let (authority, backend, front) = world(&["web.internal"]);
    let tls = format!("{}, server_name: Web.Internal", ca(&authority));
    let weir = Weir::start(&pool(&[front.url()], &tls));
    let mut client = Client::connect(weir.address());
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "one");
    }
    assert_eq!(backend.count(), 3);
    let shakes = front.shakes();
    assert_eq!(shakes.len(), 1, "one connection is enough: {shakes:?}");
    assert_eq!(shakes[0].name.as_deref(), Some("web.internal"));
    assert_eq!(weir.status()["backends"][0]["url"], front.url());
}

#[test]
fn an_untrusted_certificate_is_rejected() {
    let (_, backend, front) = world(&["web.internal"]);
    let other = Authority::new();
    let tls = format!("{}, server_name: web.internal", ca(&other));
    let weir = Weir::start(&pool(&[front.url()], &tls));
    assert_refused(&weir, &backend, "certificate_invalid", "certificate");
    let error = weir.status()["backends"][0]["last_error"].clone();
    for words in ["invalid peer certificate", "`tls.ca`"] {
        assert!(error.as_str().is_some_and(|it| it.contains(words)), "{error}");
    }
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let (authority, backend, front) = world(&["other.internal"]);
    let tls = format!("{}, server_name: web.internal", ca(&authority));
    let weir = Weir::start(&pool(&[front.url()], &tls));
    assert_refused(&weir, &backend, "certificate_invalid", "certificate");
    let error = weir.status()["backends"][0]["last_error"].clone();
    let error = error.as_str().unwrap();
    assert!(error.contains("other.internal") && !error.contains('"'), "{error}");
}

#[test]
fn a_certificate_that_has_expired_is_refused() {
    let authority = Authority::new();
    let backend = Backend::start("one");
    let old = authority.identity_with("old", &["web.internal"], |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let front = TlsFront::start(backend.address(), &old);
    let tls = format!("{}, server_name: web.internal", ca(&authority));
    let weir = Weir::start(&pool(&[front.url()], &tls));
    assert_refused(&weir, &backend, "certificate_invalid", "certificate");
}

#[test]
fn an_expired_certificate_to_show_is_a_problem_for_check_and_a_warning_for_what_runs() {
    let (authority, _backend, front) = world(&["web.internal"]);
    let old = authority.identity_with("old", &["weir"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let tls = format!("{}, {}, server_name: web.internal", ca(&authority), show(&old));
    let weir = Weir::start(&pool(&[front.url()], &tls));
    weir.until_said("has expired on 2020-01-01");
    assert_eq!(weir.get("/").status(), 200, "this backend does not look");
    let checked = weir.command(&["check", weir.config_path().to_str().unwrap()]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    assert_eq!(
        checked.stderr.matches("has expired on 2020-01-01").count(),
        1,
        "{}",
        checked.stderr
    );
}

#[test]
fn an_address_is_a_name_that_the_certificate_must_have() {
    let authority = Authority::new();
    let backend = Backend::start("one");
    let address = ports::own_socket(3443);
    let with = authority.identity("with", &[&address.ip().to_string()]);
    let front = TlsFront::with(address, backend.address(), &with, None, &[]);
    let weir = Weir::start(&pool(&[front.url()], &ca(&authority)));
    assert_eq!(weir.get("/").status(), 200);
    drop(weir);

    let (authority, backend, front) = world(&["web.internal"]);
    let weir = Weir::start(&pool(&[front.url()], &ca(&authority)));
    assert_refused(&weir, &backend, "certificate_invalid", "certificate");
}

#[test]
fn each_backend_may_have_a_name_of_its_own() {
    let (authority, _backend, front) = world(&["a.internal"]);
    let own = format!("{{url: {}, server_name: a.internal}}", front.url());
    let tls = format!("{}, server_name: b.internal", ca(&authority));
    let weir = Weir::start(&pool(&[own], &tls));
    assert_eq!(weir.get("/").status(), 200);
}

#[test]
fn verify_off_takes_any_certificate() {
    let (_, _backend, front) = world(&["other.internal"]);
    let weir = Weir::start(&pool(&[front.url()], "verify: off"));
    assert_eq!(weir.get("/").status(), 200);
    assert_eq!(front.shakes()[0].name, None, "an address is no name to ask for");
}

#[test]
fn a_backend_without_tls_never_gets_a_plaintext_request() {
    let address = ports::own_socket(3443);
    let listener = TcpListener::bind(address).unwrap();
    let first_bytes = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut bytes = [0; 3];
        socket.read_exact(&mut bytes).unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nclear").unwrap();
        // Nothing else may come, whatever it says.
        let mut rest = Vec::new();
        drop(socket.read_to_end(&mut rest));
        assert!(!rest.windows(4).any(|it| it == b"GET "), "a clear request came");
        bytes
    });
    let weir = Weir::start(&format!(
        "pools: [{{name: web, health_check: off, retry: {{attempts: 1}}, tls: {{verify: off}}, \
         backends: [\"https://{address}\"]}}]"
    ));
    assert_eq!(weir.get("/").status(), 502);
    assert_eq!(reason(&weir), "tls_failed");
    let error = weir.status()["backends"][0]["last_error"].clone();
    assert_eq!(error, "it does not speak TLS; is its URL `http://`?");
    assert_eq!(first_bytes.join().unwrap()[0], 0x16, "a TLS handshake");
}

#[test]
fn a_handshake_that_comes_to_no_end_is_504() {
    let address = ports::own_socket(3443);
    // It accepts by its queue alone, and never says a word.
    let _silent = TcpListener::bind(address).unwrap();
    let weir = Weir::start(&format!(
        "pools: [{{name: web, health_check: off, retry: {{attempts: 1}}, tls: {{verify: off}}, \
         timeouts: {{connect: 500ms}}, backends: [\"https://{address}\"]}}]"
    ));
    let start = now();
    assert_eq!(weir.get("/").status(), 504);
    assert!(now() - start < TIMEOUT, "{:?}", now() - start);
    assert_eq!(reason(&weir), "connect_timeout");
}

// ── who we are ──

#[test]
fn a_backend_that_asks_is_shown_our_certificate() {
    let authority = Authority::new();
    let backend = Backend::start("one");
    let ours = authority.identity("weir", &["weir.internal"]);
    let site = authority.identity("site", &["web.internal"]);
    let clients = Some(&authority);
    let front = TlsFront::with(ports::own_socket(3443), backend.address(), &site, clients, &[]);
    let tls = format!("{}, server_name: web.internal", ca(&authority));
    let weir = Weir::start(&pool(&[front.url()], &format!("{tls}, {}", show(&ours))));
    assert_eq!(weir.get("/").status(), 200);
    assert_eq!(front.shakes()[0].client, Some(ours.der()));
    drop(weir);

    let weir = Weir::start(&pool(&[front.url()], &tls));
    assert_eq!(
        weir.get("/").status(),
        502,
        "without a certificate the backend rejects the connection"
    );
    assert_eq!(backend.count(), 1);
}

// ── connections are not shared ──

#[test]
fn pools_that_trust_others_never_share_a_connection() {
    let (authority, backend, front) = world(&["web.internal"]);
    let other = Authority::new();
    let url = front.url();
    let (good, bad) = (ca(&authority), ca(&other));
    let weir = Weir::start(&format!(
        "routes: [{{path: /good, pool: good}}, {{path: /bad, pool: bad}}, {{path: /off, pool: off}}]\n\
         pools:\n\
         - {{name: good, health_check: off, backends: [{url}], tls: {{{good}, server_name: web.internal}}}}\n\
         - {{name: bad, health_check: off, backends: [{url}], tls: {{{bad}, server_name: web.internal}}}}\n\
         - {{name: off, health_check: off, backends: [{url}], tls: {{verify: off, server_name: web.internal}}}}\n"
    ));
    let mut client = Client::connect(weir.address());
    for _ in 0..3 {
        assert_eq!(client.get("/good").status(), 200);
        assert_eq!(client.get("/off").status(), 200);
        assert_eq!(client::get(weir.address(), "/bad").status(), 502);
    }
    assert_eq!(backend.count_of("/bad"), 0);
    assert_eq!(backend.count_of("/good"), 3);
    assert_eq!(front.shakes().len(), 2, "one for each pool that may");
}

#[test]
fn a_request_goes_elsewhere_when_a_certificate_is_bad_whatever_its_method() {
    let (authority, backend, front) = world(&["web.internal"]);
    let other = Authority::new();
    let bad = TlsFront::start(backend.address(), &other.identity("bad", &["web.internal"]));
    let tls = format!("{}, server_name: web.internal", ca(&authority));
    let weir = Weir::start(&pool(&[bad.url(), front.url()], &tls));
    for _ in 0..4 {
        let answer = Client::connect(weir.address()).request("POST", "/", &[], b"once").unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(backend.count(), 4);
    assert!(bad.failed() > 0, "it was tried");
    let failed = weir.until_logged("an attempt", |line| line["attempts"][1].is_object());
    assert_eq!(failed["attempts"][0]["failure"], "certificate");
}

// ── probes ──

#[test]
fn probes_speak_tls_in_the_same_way() {
    for check in ["type: tcp", "path: /health"] {
        let (authority, backend, front) = world(&["web.internal"]);
        let other = Authority::new();
        let bad = TlsFront::start(backend.address(), &other.identity("bad", &["web.internal"]));
        let ca = ca(&authority);
        let weir = Weir::start(&format!(
            "pools: [{{name: web, backends: [{}, {}], health_check: {{{check}, interval: 200ms}}, \
             tls: {{{ca}, server_name: web.internal}}}}]",
            front.url(),
            bad.url()
        ));
        let status = weir.status();
        assert_eq!(status["backends"][0]["state"], "healthy", "{check}: {status}");
        assert_eq!(status["backends"][1]["state"], "unhealthy", "{check}: {status}");
        let error = status["backends"][1]["last_error"].as_str().unwrap();
        assert!(error.contains("invalid peer certificate"), "{check}: {error}");
        for _ in 0..4 {
            assert_eq!(weir.get("/").status(), 200);
        }
    }
}

// ── the system's roots ──

fn with_roots(config: &str, file: &str) -> Weir {
    Weir::start_with(config, &[("SSL_CERT_FILE", file), ("SSL_CERT_DIR", "/nowhere")])
}

#[test]
fn the_system_says_who_is_trusted_unless_the_pool_does() {
    let (authority, _backend, front) = world(&["web.internal"]);
    let config = pool(&[front.url()], "server_name: web.internal");
    let file = authority.ca().display().to_string();
    assert_eq!(with_roots(&config, &file).get("/").status(), 200);
    let other = Authority::new();
    let file = other.ca().display().to_string();
    assert_eq!(with_roots(&config, &file).get("/").status(), 502);
}

#[test]
fn a_system_without_roots_serves_what_needs_none() {
    let (authority, backend, front) = world(&["web.internal"]);
    let missing = authority.path("missing.crt").display().to_string();
    let clear = format!("pools: [{{name: web, backends: [{}]}}]", backend.url());
    assert_eq!(with_roots(&clear, &missing).get("/").status(), 200);
    let off = pool(&[front.url()], "verify: off");
    assert_eq!(with_roots(&off, &missing).get("/").status(), 200);
    let own = pool(&[front.url()], &format!("{}, server_name: web.internal", ca(&authority)));
    assert_eq!(with_roots(&own, &missing).get("/").status(), 200);
}

// ── files ──

#[test]
fn files_are_opened_by_check_and_before_a_reload() {
    let (authority, backend, front) = world(&["web.internal"]);
    let good = pool(&[front.url()], &format!("{}, server_name: web.internal", ca(&authority)));
    let weir = Weir::start(&good);
    assert_eq!(weir.get("/").status(), 200);
    let strange = authority.identity("strange", &["a"]);
    let site = authority.path("site.crt");
    let mixed = format!("cert: {}, key: {}", site.display(), strange.key.display());
    for (tls, complaint) in [
        ("ca: missing.crt".to_owned(), "missing.crt` does not exist"),
        (format!("ca: {}", strange.key.display()), "has no certificate in PEM"),
        (mixed, "is not the key of the certificate"),
    ] {
        weir.write_config(&pool(&[front.url()], &tls));
        let file = weir.config_path().display().to_string();
        for said in [weir.command(&["check", &file]), weir.command(&["reload"])] {
            assert_eq!(said.code, Some(1), "{tls}: {}{}", said.stdout, said.stderr);
            assert!(said.stderr.contains(complaint), "{complaint}: {}", said.stderr);
        }
        assert_eq!(weir.get("/").status(), 200, "the old one serves on");
    }
    assert_eq!(backend.count(), 4);
}

#[test]
fn a_system_without_roots_is_a_complaint_where_they_are_needed() {
    let (authority, _backend, front) = world(&["web.internal"]);
    let directory = crate::support::weir::Directory::new();
    std::fs::write(directory.path("weir.yaml"), pool(&[front.url()], "server_name: a")).unwrap();
    let missing = authority.path("missing.crt").display().to_string();
    let said = run_to_end(
        &["check", &directory.name("weir.yaml")],
        &[("SSL_CERT_FILE", &missing), ("SSL_CERT_DIR", "/nowhere")],
        TIMEOUT,
    );
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("verified by the system's root certificates, but there are none"),
        "{}",
        said.stderr
    );
}

// ── over TLS like over anything ──

#[test]
fn a_websocket_goes_over_tls() {
    let (authority, backend, front) = world(&["web.internal"]);
    backend.on("/chat", Behaviour::Upgrade("websocket".to_owned()));
    let tls = format!("{}, server_name: web.internal", ca(&authority));
    let weir = Weir::start(&pool(&[front.url()], &tls));
    let mut client = Client::connect(weir.address());
    client.send(
        "GET /chat HTTP/1.1\r\nHost: weir.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(client.read_head(now() + TIMEOUT).expect("an answer").status, 101);
    client.send("over TLS");
    let mut back = Vec::new();
    while back.len() < 8 {
        back.extend(client.read_some().expect("the echo"));
    }
    assert_eq!(back, b"over TLS");
    drop(client);
    eventually(TIMEOUT, "the backend is left", || backend.connections_open() == 0);
}
