//! TLS with clients: which certificate, which version, who may come in, and what outlives what.

use std::fs;

use rustls::version::{TLS12, TLS13};

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::ports::own_address;
use crate::support::tls::{Authority, Identity, TlsConfig, write_at_once};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

/// The listener's TLS with these certificates and further keys.
fn config(backend: &Backend, identities: &[&Identity], keys: &str, more: &str) -> String {
    let certificates: Vec<String> = identities.iter().map(|one| one.yaml()).collect();
    let tls = format!("tls: {{certificates: [{}]{keys}}}", certificates.join(", "));
    let pools = format!("pools: [{{name: web, health_check: off, backends: [{}]}}]", backend.url());
    format!("{LISTENER_KEYS}{tls}\n{pools}\n{more}")
}

fn failures(weir: &Weir, reason: &str) -> Option<f64> {
    weir.metrics().value("lb_connection_failures_total", &[("reason", reason)])
}

#[test]
fn each_name_gets_its_certificate_and_all_others_the_first() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let first = authority.identity("first", &["first.test"]);
    let exact = authority.identity("exact", &["a.wide.test"]);
    let wide = authority.identity("wide", &["*.wide.test"]);
    let weir = Weir::start(&config(&backend, &[&first, &exact, &wide], "", ""));
    let client = TlsConfig::new(&authority, None);
    for (name, expected) in [
        ("first.test", &first),
        ("a.wide.test", &exact),
        ("A.Wide.Test", &exact),
        ("b.wide.test", &wide),
        ("a.b.wide.test", &first),
        ("wide.test", &first),
        ("other.test", &first),
    ] {
        let shown = client.connect(weir.address(), name).certificate();
        assert_eq!(shown, expected.der(), "{name}");
    }
    let nameless = TlsConfig::new(&authority, None).nameless();
    assert_eq!(nameless.connect(weir.address(), "a.wide.test").certificate(), first.der());
}

#[test]
fn backend_and_log_hear_that_the_client_came_over_tls() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let weir = Weir::start(&config(&backend, &[&identity], "", ""));
    for version in [&TLS12, &TLS13] {
        let client = TlsConfig::of(&authority, None, &[version]).alpn(&["http/1.1"]);
        let mut client = client.connect(weir.address(), "weir.test");
        for _ in 0..3 {
            assert_eq!(client.get("/", &[]).status(), 200, "a connection is kept");
        }
        assert_eq!(client.alpn().as_deref(), Some("http/1.1"));
    }
    let request = backend.requests().pop().unwrap();
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    weir.until_logged("the scheme", |line| line["scheme"] == "https");
    let refused = Client::connect(weir.address()).request("GET", "/", &[], b"");
    assert!(refused.is_err(), "clear HTTP is no TLS: {refused:?}");
    eventually(TIMEOUT, "it is counted", || failures(&weir, "tls_not_tls") == Some(1.0));
}

#[test]
fn an_older_version_than_the_oldest_is_refused() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let weir = Weir::start(&config(&backend, &[&identity], ", min_version: 1.3", ""));
    let old = TlsConfig::of(&authority, None, &[&TLS12]);
    assert!(old.try_connect(weir.address(), "weir.test").is_err());
    eventually(TIMEOUT, "it is counted", || failures(&weir, "tls_incompatible") == Some(1.0));
    let new = TlsConfig::of(&authority, None, &[&TLS13]);
    assert_eq!(new.connect(weir.address(), "weir.test").get("/", &[]).status(), 200);
}

#[test]
fn a_session_is_resumed_whichever_worker_it_meets() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let text = config(&backend, &[&identity], "", "");
    let weir = Weir::start(&text);
    for version in [&TLS12, &TLS13] {
        let client = TlsConfig::of(&authority, None, &[version]);
        let resumed = || {
            let mut client = client.connect(weir.address(), "weir.test");
            client.get("/", &[]); // tickets of TLS 1.3 come behind the handshake
            client.is_resumed()
        };
        assert!(!resumed(), "{version:?}");
        assert!(resumed(), "{version:?}");
        weir.write_config(&format!("{text}\nlimits: {{connections: 1000}}"));
        weir.reload();
        assert!(resumed(), "{version:?} after a reload");
        weir.write_config(&text);
        weir.reload();
    }
}

#[test]
fn who_must_show_a_certificate_gets_in_with_it_alone() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let keys = format!(", client_ca: {}", authority.ca().display());
    let weir = Weir::start(&config(&backend, &[&identity], &keys, ""));
    let friend = authority.identity("friend", &["friend.test", "10.1.2.3"]);
    let others = Authority::new();
    let stranger = others.identity("friend", &["friend.test"]);
    for version in [&TLS12, &TLS13] {
        for shown in [None, Some(&stranger)] {
            let client = TlsConfig::of(&authority, shown, &[version]);
            let answer = client
                .try_connect(weir.address(), "weir.test")
                .and_then(|mut client| client.try_get("/", &[]));
            assert!(answer.is_err(), "{version:?} {shown:?}");
        }
        let client = TlsConfig::of(&authority, Some(&friend), &[version]);
        let forged = [("X-Client-Cert-Subject", "CN=root"), ("X_Client_Cert_Verified", "yes")];
        for _ in 0..2 {
            // The second one resumes the session of the first, and is still who it was.
            let mut client = client.connect(weir.address(), "weir.test");
            assert_eq!(client.get("/", &forged).status(), 200);
        }
        let request = backend.requests().pop().unwrap();
        assert_eq!(request.header_values("x-client-cert-subject"), ["CN=friend"]);
        assert_eq!(request.header_values("x-client-cert-verified"), ["yes"]);
        assert_eq!(request.header("x_client_cert_verified"), None);
        let names = request.header("x-client-cert-san");
        assert_eq!(names, Some("DNS:friend.test, IP:10.1.2.3"));
        let fingerprint = request.header("x-client-cert-fingerprint").unwrap();
        assert!(fingerprint.len() == 64 && !fingerprint.contains(':'), "{fingerprint}");
    }
    eventually(TIMEOUT, "it is counted", || failures(&weir, "tls_client_certificate") == Some(4.0));
    let logged =
        weir.stderr().matches("] connection closed: reason=tls_client_certificate").count();
    assert_eq!(logged, 4, "{}", weir.stderr());
    assert_eq!(backend.count(), 4);
}

#[test]
fn who_may_show_a_certificate_gets_in_anyway_and_backends_hear_what_it_is_worth() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let keys = format!(", client_ca: {}, client_auth: request", authority.ca().display());
    let weir = Weir::start(&config(&backend, &[&identity], &keys, ""));
    let others = Authority::new();
    let (friend, stranger) = (authority.identity("one", &["a"]), others.identity("two", &["b"]));
    for (shown, verified) in
        [(None, None), (Some(&friend), Some("yes")), (Some(&stranger), Some("no"))]
    {
        let client = TlsConfig::new(&authority, shown);
        // Nor may a client have erased what its certificate is worth.
        let forged =
            [("X-Client-Cert-Verified", "yes"), ("Connection", "close, X-Client-Cert-Verified")];
        let answer = client.connect(weir.address(), "weir.test").get("/", &forged);
        assert_eq!(answer.status(), 200);
        let request = backend.requests().pop().unwrap();
        assert_eq!(request.header("x-client-cert-verified"), verified);
    }
}

#[test]
fn a_session_is_not_resumed_after_the_client_ca_has_changed() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let ca = authority.path("clients.crt");
    fs::copy(authority.ca(), &ca).unwrap();
    let keys = format!(", client_ca: {}", ca.display());
    let weir = Weir::start(&config(&backend, &[&identity], &keys, ""));
    let friend = authority.identity("friend", &["friend.test"]);
    let client = TlsConfig::new(&authority, Some(&friend));
    for resumed in [false, true] {
        let mut client = client.connect(weir.address(), "weir.test");
        client.get("/", &[]);
        assert_eq!(client.is_resumed(), resumed);
    }
    write_at_once(&ca, &fs::read_to_string(Authority::new().ca()).unwrap());
    eventually(TIMEOUT, "the new ones vouch", || renewed(&weir, "done") == Some(1.0));
    let answer = client
        .try_connect(weir.address(), "weir.test")
        .and_then(|mut client| client.try_get("/", &[]));
    assert!(answer.is_err(), "{answer:?}");
}

fn renewed(weir: &Weir, outcome: &str) -> Option<f64> {
    weir.metrics().value("lb_certificate_renewals_total", &[("outcome", outcome)])
}

#[test]
fn a_renewed_certificate_is_used_without_a_reload_and_a_broken_one_is_not() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let (old, new) =
        (authority.identity("old", &["a.test"]), authority.identity("new", &["a.test"]));
    // As Kubernetes does it: a link to a directory that is swapped at once.
    let place = authority.path("data");
    for (name, identity) in [("v1", &old), ("v2", &new)] {
        fs::create_dir(authority.path(name)).unwrap();
        fs::copy(&identity.cert, authority.path(name).join("tls.crt")).unwrap();
        fs::copy(&identity.key, authority.path(name).join("tls.key")).unwrap();
    }
    let point = |to: &str| {
        let link = authority.path("data.new");
        std::os::unix::fs::symlink(authority.path(to), &link).unwrap();
        fs::rename(link, &place).unwrap();
    };
    point("v1");
    let files = Identity { cert: place.join("tls.crt"), key: place.join("tls.key") };
    let weir = Weir::start(&config(&backend, &[&files], "", ""));
    let client = TlsConfig::new(&authority, None);
    let shown = || client.connect(weir.address(), "a.test").certificate();
    assert_eq!(shown(), old.der());
    let expiry = weir.metrics().sum("lb_certificate_expiry_timestamp_seconds", &[]);
    assert!(expiry > 1e9, "{expiry}");
    point("v2");
    eventually(TIMEOUT, "the renewed certificate is shown", || shown() == new.der());
    eventually(TIMEOUT, "it is counted", || renewed(&weir, "done") == Some(1.0));
    assert_eq!(weir.workers().len(), 1, "without a reload");

    fs::create_dir(authority.path("v3")).unwrap();
    fs::copy(&old.cert, authority.path("v3").join("tls.crt")).unwrap();
    fs::copy(&new.key, authority.path("v3").join("tls.key")).unwrap();
    point("v3");
    eventually(TIMEOUT, "the broken one is counted", || renewed(&weir, "failed") == Some(1.0));
    assert_eq!(shown(), new.der());
    weir.until_said("is not the key of the certificate");
    point("v1");
    eventually(TIMEOUT, "and it goes on from there", || shown() == old.der());
    assert_eq!(renewed(&weir, "failed"), Some(1.0), "counted once");
}

#[test]
fn a_renewal_takes_no_expired_certificate_in_the_place_of_a_good_one() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let good = authority.identity("site", &["a.test"]);
    let shown_first = good.der();
    let weir = Weir::start(&config(&backend, &[&good], "", ""));
    let client = TlsConfig::new(&authority, None);
    let shown = || client.connect(weir.address(), "a.test").certificate();
    for (number, complaint, year) in
        [(1.0, "has expired on 2020-01-01", 2020), (2.0, "is not valid before 2099-01-01", 2100)]
    {
        authority.identity_with("site", &["a.test"], |params| {
            params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        });
        eventually(TIMEOUT, "it is refused", || renewed(&weir, "failed") == Some(number));
        weir.until_said(complaint);
        assert_eq!(shown(), shown_first, "the good one stays");
    }
    assert_eq!(renewed(&weir, "done"), Some(0.0));
    let renewal = authority.identity("site", &["a.test"]);
    eventually(TIMEOUT, "a good one is taken", || shown() == renewal.der());
}

#[test]
fn a_handshake_that_trickles_is_not_waited_for() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let text = config(&backend, &[&identity], "", "limits: {header_timeout: 300ms}");
    let weir = Weir::start(&text);
    let mut client = Client::connect(weir.address());
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    eventually(TIMEOUT, "the connection is closed", || {
        client.is_closed_within(std::time::Duration::from_millis(100))
            || client.try_send([7]).is_err()
    });
    eventually(TIMEOUT, "it is counted", || failures(&weir, "timeout") == Some(1.0));
}

#[test]
fn a_host_of_another_certificate_needs_a_connection_of_its_own_where_clients_show_theirs() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let a = authority.identity("a", &["a.test", "also-a.test"]);
    let b = authority.identity("b", &["b.test"]);
    let statuses = |keys: &str| {
        let weir = Weir::start(&config(&backend, &[&a, &b], keys, ""));
        let friend = authority.identity("friend", &["friend.test"]);
        let mut client =
            TlsConfig::new(&authority, Some(&friend)).connect(weir.address(), "a.test");
        let hosts = ["a.test", "also-a.test:443", "b.test", "a.test"];
        hosts.map(|host| client.get("/", &[("Host", host)]).status())
    };
    assert_eq!(statuses(""), [200; 4], "without client certificates it does not matter");
    let keys = format!(", client_ca: {}", authority.ca().display());
    assert_eq!(statuses(&keys), [200, 200, 421, 200]);
}

#[test]
fn a_proxy_header_comes_ahead_of_the_handshake() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let (identity, proxy) = (authority.identity("site", &["weir.test"]), own_address());
    let text = config(&backend, &[&identity], "", "");
    let keys = format!("{LISTENER_KEYS}proxy_protocol: {{from: [{proxy}]}}, ");
    let weir = Weir::start(&text.replace(LISTENER_KEYS, &keys));
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.2 4711 443\r\n";
    let client = TlsConfig::new(&authority, None).behind(proxy, line);
    assert_eq!(client.connect(weir.address(), "weir.test").get("/", &[]).status(), 200);
    let request = backend.requests().pop().unwrap();
    assert_eq!(request.header("x-real-ip"), Some("192.0.2.7"));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
}

#[test]
fn an_idle_connection_is_ended_as_tls_asks_for() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let text = config(&backend, &[&identity], "", "limits: {keepalive: 200ms}");
    let weir = Weir::start(&text);
    let mut client = TlsConfig::new(&authority, None).connect(weir.address(), "weir.test");
    assert_eq!(client.get("/", &[]).status(), 200);
    assert!(client.is_ended_cleanly());
}

#[test]
fn check_opens_every_file_and_a_reload_refuses_what_it_finds() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let good = authority.identity("good", &["weir.test"]);
    let other = authority.identity("other", &["weir.test"]);
    let cut = Identity { cert: authority.path("cut.crt"), key: good.key.clone() };
    let whole = fs::read_to_string(&good.cert).unwrap();
    fs::write(&cut.cert, whole.split("-----END").next().unwrap()).unwrap();
    let swapped = Identity { cert: good.cert.clone(), key: other.key.clone() };
    let missing = Identity { cert: authority.path("no.crt"), key: good.key.clone() };
    let no_pem = Identity { cert: good.key.clone(), key: good.cert.clone() };
    let beside = |file: &str, text: &str| {
        let identity = Identity { cert: authority.path(file), key: good.key.clone() };
        fs::write(&identity.cert, text).unwrap();
        identity
    };
    let ca = fs::read_to_string(authority.ca()).unwrap();
    let one_line = beside("one-line.crt", &(whole.trim_end().to_owned() + &ca));
    let half = beside("half.crt", &(whole.clone() + &ca.replacen("MI", "AA", 1)));
    let marked = beside("marked.crt", &format!("\u{FEFF}{whole}"));
    let text = config(&backend, &[&good], "", "");
    let weir = Weir::start(&text);
    for (identity, complaint) in [
        (&one_line, "looks like a `-----BEGIN …-----` or `-----END …-----` line, but is malformed"),
        (&half, "has no certificate on line "),
        (&marked, "begins with a byte order mark"),
        (&swapped, "is not the key of the certificate"),
        (&missing, "does not exist"),
        (&no_pem, "has no certificate in PEM"),
        (&cut, "is not PEM: the `-----END …-----` line is missing"),
    ] {
        weir.write_config(&config(&backend, &[&good, identity], "", ""));
        let file = weir.config_path();
        let checked = weir.command(&["check", file.to_str().unwrap()]);
        assert_eq!(checked.code, Some(1), "{complaint}: {}", checked.stdout);
        assert!(checked.stderr.contains(complaint), "{complaint}: {}", checked.stderr);
        let place = checked.stderr.split(':').nth(1).and_then(|line| line.parse::<u32>().ok());
        assert!(place.is_some(), "the line number is printed: {}", checked.stderr);
        let reloaded = weir.command(&["reload"]);
        assert_eq!(reloaded.code, Some(1), "{complaint}");
        assert!(reloaded.stderr.contains(complaint), "{complaint}: {}", reloaded.stderr);
    }
    let mut client = TlsConfig::new(&authority, None).connect(weir.address(), "weir.test");
    assert_eq!(client.get("/", &[]).status(), 200, "what runs goes on");
}

#[test]
fn an_expired_certificate_is_a_problem_for_check_and_prevents_neither_start_nor_reload() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let good = authority.identity("good", &["weir.test"]);
    let expired = authority.identity_with("expired", &["old.test"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let text = config(&backend, &[&good, &expired], "", "");
    let weir = Weir::start(&text);
    let warnings = || weir.stderr().matches("has expired on 2020-01-01").count();
    assert_eq!(warnings(), 1, "{}", weir.stderr());
    weir.write_config(&format!("{text}\nlimits: {{connections: 1000}}"));
    weir.reload();
    assert_eq!(warnings(), 2, "{}", weir.stderr());
    let mut client = TlsConfig::new(&authority, None).connect(weir.address(), "weir.test");
    assert_eq!(client.get("/", &[]).status(), 200);
    let checked = weir.command(&["check", weir.config_path().to_str().unwrap()]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    assert!(checked.stderr.contains("has expired on 2020-01-01"), "{}", checked.stderr);
}

#[test]
fn check_warns_of_what_will_be_wrong_and_of_hosts_without_a_certificate() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let good = authority.identity("good", &["*.a.test"]);
    let routes = "routes: [{host: x.a.test, pool: web}, {host: b.test, pool: web}]";
    let weir = Weir::start(&config(&backend, &[&good], "", routes));
    let file = weir.config_path();
    let checked = weir.command(&["check", file.to_str().unwrap()]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(
        checked.stderr.contains("no certificate is for the host `b.test`"),
        "{}",
        checked.stderr
    );
    assert!(!checked.stderr.contains("x.a.test"), "{}", checked.stderr);
}

#[test]
fn files_are_looked_for_beside_the_configuration() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let mut weir = Weir::spawn(&config(&backend, &[&identity], "", ""));
    weir.until_ready();
    fs::copy(&identity.cert, weir.path("site.crt")).unwrap();
    fs::copy(&identity.key, weir.path("site.key")).unwrap();
    let beside = Identity { cert: "site.crt".into(), key: "site.key".into() };
    weir.write_config(&config(&backend, &[&beside], "", ""));
    weir.reload();
    let mut client = TlsConfig::new(&authority, None).connect(weir.address(), "weir.test");
    assert_eq!(client.get("/", &[]).status(), 200);
}
