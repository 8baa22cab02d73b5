//! Header names with an underscore, which some backends read as the name with dashes.

#![expect(
    clippy::expect_used,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use crate::support::backend::{Backend, Seen};
use crate::support::client::Client;
use crate::support::http2::Http2;
use crate::support::weir::{LISTENER_KEYS, Weir};

const SENT: [(&str, &str); 7] = [
    ("Content_Length", "5"),
    ("Transfer_Encoding", "chunked"),
    ("X_Forwarded_For", "6.6.6.6"),
    ("X_Client_Cert_Verified", "yes"),
    ("X_Env", "forged"),
    ("x_custom", "kept"),
    ("X-Plain", "kept"),
];

fn weir(backend: &Backend, policy: &str) -> Weir {
    let url = backend.url();
    Weir::start(&format!(
        "{LISTENER_KEYS}http2: true\n\
         routes: [{{pool: web, request_headers: {{set: {{X-Env: prod}}}}}}]\n\
         limits: {{{policy}}}\n\
         pools: [{{name: web, health_check: off, backends: [{url}]}}]\n"
    ))
}

/// The statuses over HTTP/1 and HTTP/2, and what the backend got.
fn sent(policy: &str) -> (Vec<u16>, Vec<Seen>, Weir) {
    let backend = Backend::start("one");
    let weir = weir(&backend, policy);
    let mut client = Client::connect(weir.address());
    let first = client.request("GET", "/", &SENT, b"").expect("an answer").status();
    let second = Http2::connect(weir.address()).get("/", &SENT).expect("an answer").status();
    (vec![first, second], backend.requests(), weir)
}

/// Of those that were sent, the names with an underscore.
fn left(request: &Seen) -> Vec<&str> {
    let names = SENT.iter().map(|(name, _)| *name).filter(|name| name.contains('_'));
    names.filter(|name| request.header(&name.to_lowercase()).is_some()).collect()
}

#[test]
fn by_default_no_underscore_says_what_only_weir_may_say() {
    let (statuses, requests, _weir) = sent("");
    assert_eq!(statuses, [200, 200]);
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!(left(request), ["x_custom"]);
        assert_eq!(request.header("x-plain"), Some("kept"));
        assert_eq!(request.header("x-env"), Some("prod"));
    }
}

#[test]
fn an_operator_may_drop_all_or_let_all_pass() {
    let (_, dropped, _weir) = sent("underscore_headers: drop");
    assert!(dropped.iter().all(|request| left(request).is_empty()));
    assert_eq!(dropped.len(), 2);
    let (_, passed, _weir) = sent("underscore_headers: pass");
    assert_eq!(passed.len(), 2);
    for request in &passed {
        // Who the client is, is never for the client to say.
        assert_eq!(left(request), ["Content_Length", "Transfer_Encoding", "X_Env", "x_custom"]);
    }
}

#[test]
fn an_operator_may_refuse_them_and_the_log_says_so() {
    let (statuses, requests, weir) = sent("underscore_headers: refuse");
    assert_eq!((statuses, requests.len()), (vec![400, 400], 0));
    let line = weir.until_logged("the detail", |line| line["detail"] == "underscore");
    assert_eq!((&line["path"], &line["method"]), (&"/".into(), &"GET".into()));
}
