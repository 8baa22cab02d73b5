use ::http::header::HOST;
use ::http::{HeaderMap, HeaderValue, Method, Version};
use parking_lot::Mutex;

use super::refusal::Scope;
use super::*;
use crate::config::{self, Overrides};
use crate::http::scheme::Scheme;
use crate::policy::breaker::Transition;
use crate::runtime::endpoint::Lookup;
use crate::runtime::pool::Ask;

/// Records all events.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Observer for Recorder {
    fn observe(&self, event: &ExchangeEvent<'_>) {
        let note = match event {
            ExchangeEvent::Connected { backend, took, .. } => {
                let backend = backend.position();
                format!("connected {backend} {took:?}")
            }
            ExchangeEvent::AttemptFailed { backend, failure, retried, .. } => {
                let backend = backend.position();
                format!("failed {backend} {failure:?} retried={retried}")
            }
            ExchangeEvent::Breaker { change, .. } => {
                let backend = change.backend.position();
                let what = match change.change {
                    Transition::Opened { why, .. } => why.cause.as_str(),
                    Transition::HalfOpened => "half-open",
                    Transition::Closed => "closed",
                };
                format!("breaker {backend} {what}")
            }
            ExchangeEvent::RetryBudgetExhausted { pool } => {
                format!("budget of {} exhausted", pool.position())
            }
            ExchangeEvent::Queued { waited, .. } => format!("queued {waited:?}"),
            ExchangeEvent::QueueRefused { reason, .. } => format!("no place {reason:?}"),
            ExchangeEvent::Upgraded { pool } => format!("tunnel in {}", pool.position()),
            ExchangeEvent::RateLimited(scope) => format!("limited {}", scope.as_str()),
            ExchangeEvent::Shed => "shed".to_owned(),
            ExchangeEvent::Finished(summary) => format!("finished {:?}", summary.ending),
        };
        self.0.lock().push(note);
    }
}

pub(super) fn observer(recorder: &Arc<Recorder>) -> Arc<dyn Observer> {
    recorder.clone()
}

const TWO: &str = "
trusted_proxies: [10.0.0.0/8]
routes: [{host: a.test, path: /api, pool: web}, {host: b.test, pool: web}]
pools:
  - name: web
    health_check: off
    backends: [http://10.1.0.1:80, http://10.1.0.2:80]
    breaker: off
    retry: {attempts: 3, backoff: 100ms, on: [connect, reset, 503]}
    timeouts: {connect: 2s, response: 30s, request: 10s}
";

pub(super) fn snapshot(text: &str) -> Arc<Snapshot> {
    let config = config::load(Some(text.as_bytes()), &Overrides::default()).unwrap();
    Arc::new(Snapshot::new(&config, "v1", 1, |_, _| Lookup::Failed("no names".to_owned())))
}

pub(super) fn at(millis: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_millis(millis)
}

pub(super) struct Request {
    pub(super) method: Method,
    version: Version,
    path: &'static str,
    peer: &'static str,
    headers: HeaderMap,
}

pub(super) fn get(host: &'static str, path: &'static str) -> Request {
    Request {
        method: Method::GET,
        version: Version::HTTP_11,
        path,
        peer: "192.0.2.1",
        headers: HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]),
    }
}

impl Request {
    pub(super) fn admit(
        &self,
        exchange: &mut Exchange,
        now: Timestamp,
    ) -> Result<Admitted, Refusal> {
        let head = Head {
            peer: self.peer.parse().unwrap(),
            method: &self.method,
            version: self.version,
            scheme: Scheme::Http,
            query: None,
            path: self.path,
            headers: &self.headers,
        };
        exchange.admit(&head, now)
    }

    /// Admits it to a new exchange of a new snapshot.
    fn ask(&self) -> Result<Admitted, Refusal> {
        self.admit(&mut Exchange::new(snapshot(TWO), Arc::new(Recorder::default()), at(0)), at(0))
    }
}

pub(super) fn admitted(snapshot: &Arc<Snapshot>) -> (Exchange, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let mut exchange = Exchange::new(Arc::clone(snapshot), observer(&recorder), at(0));
    get("b.test", "/").admit(&mut exchange, at(0)).unwrap();
    (exchange, recorder)
}

pub(super) const SAFE: Replay =
    Replay { idempotent: true, response_started: false, body_whole: true, half_closed: false };

#[test]
fn a_request_without_host_is_rejected_unless_it_is_http_1_0() {
    let mut request = get("", "/");
    request.headers.clear();
    assert_eq!(request.ask(), Err(Refusal::BadRequest));
    request.version = Version::HTTP_10;
    assert_eq!(request.ask(), Err(Refusal::NoRoute), "both routes name a host");
}

#[test]
fn two_hosts_are_rejected() {
    let mut request = get("b.test", "/");
    request.headers.append(HOST, HeaderValue::from_static("b.test"));
    assert_eq!(request.ask(), Err(Refusal::BadRequest));
}

#[test]
fn a_host_is_matched_without_case_port_and_final_dot() {
    assert_eq!(get("B.Test.:8080", "/").ask(), Ok(Admitted::Forward));
}

#[test]
fn trace_and_connect_are_rejected() {
    for method in [Method::TRACE, Method::CONNECT] {
        let request = Request { method, ..get("b.test", "/") };
        assert_eq!(request.ask(), Err(Refusal::MethodNotAllowed));
    }
}

#[test]
fn an_asterisk_is_only_allowed_with_options() {
    assert_eq!(get("b.test", "*").ask(), Err(Refusal::BadRequest));
    let options = Request { method: Method::OPTIONS, ..get("b.test", "*") };
    assert_eq!(options.ask(), Ok(Admitted::Forward));
}

#[test]
fn a_dot_segment_cannot_bypass_a_route() {
    assert_eq!(get("a.test", "/api/x").ask(), Ok(Admitted::Forward));
    assert_eq!(get("a.test", "/api/../secret").ask(), Err(Refusal::NoRoute));
}

#[test]
fn an_ambiguous_path_is_rejected_unless_it_is_configured_to_pass() {
    let rejected = get("a.test", "/api/..;/secret");
    assert_eq!(rejected.ask(), Err(Refusal::AmbiguousPath));
    let passing = snapshot(&format!("limits: {{ambiguous_paths: pass}}{TWO}"));
    let mut exchange = Exchange::new(passing, Arc::new(Recorder::default()), at(0));
    assert_eq!(rejected.admit(&mut exchange, at(0)), Ok(Admitted::Forward));
    assert_eq!(get("b.test", "/api/..;/secret").ask(), Ok(Admitted::Forward), "one route");
}

#[test]
fn only_a_trusted_peer_can_set_the_clients_address() {
    let from = |peer| {
        let (mut exchange, _) =
            (Exchange::new(snapshot(TWO), Arc::new(Recorder::default()), at(0)), ());
        let mut request = Request { peer, ..get("b.test", "/") };
        request.headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("6.6.6.6, 198.51.100.9"));
        request.admit(&mut exchange, at(0)).unwrap();
        exchange.client().unwrap().address.to_string()
    };
    assert_eq!(from("192.0.2.1"), "192.0.2.1");
    assert_eq!(from("10.0.0.7"), "198.51.100.9");
}

#[test]
fn a_client_over_its_limit_gets_the_exact_wait() {
    let snapshot = snapshot(&format!("{TWO}\nrate_limit: {{requests_per_second: 10, burst: 1}}\n"));
    let ask = |now| {
        let mut exchange = Exchange::new(Arc::clone(&snapshot), Arc::new(Recorder::default()), now);
        get("b.test", "/").admit(&mut exchange, now)
    };
    assert_eq!(ask(at(0)), Ok(Admitted::Forward));
    let wait = Duration::from_millis(60);
    assert_eq!(ask(at(40)), Err(Refusal::RateLimited(Scope::Global, wait)));
    assert_eq!(ask(at(100)), Ok(Admitted::Forward));
}

#[test]
fn a_pools_own_limit_is_checked_after_the_global_one() {
    let text = TWO.replace(
        "health_check: off",
        "health_check: off\n    rate_limit: {requests_per_second: 1}",
    );
    let snapshot = snapshot(&text);
    let recorder = Arc::new(Recorder::default());
    for _ in 0..2 {
        let mut exchange = Exchange::new(Arc::clone(&snapshot), observer(&recorder), at(0));
        let _first_is_admitted = get("b.test", "/").admit(&mut exchange, at(0));
    }
    assert_eq!(recorder.take(), ["finished Abandoned", "limited pool", "finished Abandoned"]);
}

#[test]
fn an_attempt_after_a_failure_goes_elsewhere_and_at_once() {
    let (mut exchange, recorder) = admitted(&snapshot(TWO));
    let first = exchange.pick(at(0), Rolls { backoff: u64::MAX, ..Rolls::default() }).unwrap();
    assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", SAFE, at(1)));
    assert_eq!(first.backend.in_flight(), 0, "the lease is back before the next pick");
    let second = exchange.pick(at(1), Rolls { backoff: u64::MAX, ..Rolls::default() }).unwrap();
    assert_ne!(first.backend.address(), second.backend.address());
    assert_eq!(second.backoff, Duration::ZERO);
    assert_eq!(recorder.take(), ["failed 0 Connect retried=true"]);
}

#[test]
fn a_recovering_backend_is_preferred_to_one_that_failed_this_request() {
    let checked = TWO.replace("health_check: off", "health_check: {healthy_after: 3}");
    let snapshot = snapshot(&checked);
    let [dead, recovering] = &snapshot.pools[0].members[..] else { panic!("two backends") };
    dead.backend.probed(Ok(()), at(0));
    for passed in [false, true] {
        let result = if passed { Ok(()) } else { Err("refused".to_owned()) };
        recovering.backend.probed(result, at(0));
    }
    let (mut exchange, recorder) = admitted(&snapshot);
    let backend =
        |exchange: &mut Exchange| exchange.pick(at(1), Rolls::default()).map(|to| to.id.position());
    assert_eq!(backend(&mut exchange), Ok(0), "a first attempt goes to a healthy one");
    assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", SAFE, at(1)));
    assert_eq!(backend(&mut exchange), Ok(1));
    assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", SAFE, at(1)));
    assert_eq!(backend(&mut exchange), Ok(0), "both have failed it, and this one is healthy");
    assert_eq!(recorder.take().len(), 2);
}

#[test]
fn a_request_whose_backend_dies_goes_to_one_that_recovers_although_none_is_healthy() {
    let snapshot = snapshot(&TWO.replace("health_check: off", "health_check: {healthy_after: 3}"));
    let [dead, recovering] = &snapshot.pools[0].members[..] else { panic!("two backends") };
    dead.backend.probed(Ok(()), at(0));
    recovering.backend.probed(Err("refused".to_owned()), at(0));
    recovering.backend.probed(Ok(()), at(0));
    let (mut exchange, _) = admitted(&snapshot);
    assert_eq!(exchange.pick(at(1), Rolls::default()).map(|to| to.id.position()), Ok(0));
    dead.backend.probed(Err("refused".to_owned()), at(1));
    dead.backend.probed(Err("refused".to_owned()), at(1));
    assert!(!dead.backend.is_healthy());
    assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", SAFE, at(1)));
    assert_eq!(exchange.pick(at(1), Rolls::default()).map(|to| to.id.position()), Ok(1));
    let first = Ask {
        tried: &BackendSet::EMPTY,
        unreachable: &BackendSet::EMPTY,
        key: 0,
        roll: 0,
        may_try: true,
        measured: true,
        now: at(1),
    };
    assert!(snapshot.pools[0].pick(&first).is_err(), "for a first attempt");
}

#[test]
fn retries_take_no_turn_of_the_first_attempts() {
    let snapshot = snapshot(TWO);
    let firsts = [0; 4].map(|_| {
        let (mut exchange, _) = admitted(&snapshot);
        let first = exchange.pick(at(0), Rolls::default()).unwrap();
        assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", SAFE, at(0)));
        exchange.pick(at(0), Rolls::default()).unwrap();
        first.backend.label.to_string()
    });
    assert_eq!(firsts, ["10.1.0.1:80", "10.1.0.2:80", "10.1.0.1:80", "10.1.0.2:80"]);
}

#[test]
fn a_second_attempt_at_the_same_backend_waits() {
    let (mut exchange, _) = admitted(&snapshot(TWO));
    for _ in 0..2 {
        assert!(
            exchange
                .pick(at(0), Rolls { backoff: u64::MAX, ..Rolls::default() })
                .unwrap()
                .backoff
                .is_zero()
        );
        assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", SAFE, at(0)));
    }
    let third = exchange.pick(at(0), Rolls { backoff: u64::MAX, ..Rolls::default() }).unwrap();
    assert!(third.backoff > Duration::from_millis(99), "{:?}", third.backoff);
    assert!(third.backoff <= Duration::from_millis(100), "{:?}", third.backoff);
    assert!(
        !exchange.attempt_failed(AttemptFailure::Connect, "refused", SAFE, at(0)),
        "three attempts are all"
    );
}

#[test]
fn no_wait_and_no_attempt_goes_beyond_the_deadline() {
    let (mut exchange, _) = admitted(&snapshot(TWO));
    let target = exchange.pick(at(9_000), Rolls::default()).unwrap();
    assert_eq!(target.connect_timeout, Duration::from_secs(1));
    assert_eq!(target.response_timeout, Duration::from_secs(1));
    assert!(!exchange.attempt_failed(AttemptFailure::Connect, "timed out", SAFE, at(10_000)));
    assert_eq!(exchange.pick(at(10_000), Rolls::default()).unwrap_err(), Refusal::RequestTimeout);
}

#[test]
fn the_wait_for_headers_is_one_deadline_and_ends_with_them() {
    let (mut exchange, _) = admitted(&snapshot(&TWO.replace("request: 10s", "request: off")));
    exchange.pick(at(0), Rolls::default()).unwrap();
    assert_eq!(exchange.head_by(at(0)), at(30_000));
    exchange.body_received(64 * 1024).unwrap();
    assert_eq!(exchange.head_by(at(1_000)), at(31_000), "from the last piece of the request on");
    exchange.body_received(1).unwrap();
    assert_eq!(exchange.head_by(at(1_000)), at(61_000), "some of it is still being sent");
    assert!(!exchange.response_head(200, SAFE, at(2_000)));
    assert_eq!(exchange.head_by(at(2_000)), Timestamp::MAX);
}

#[test]
fn without_a_deadline_each_attempt_has_its_full_timeout() {
    let (mut exchange, _) = admitted(&snapshot(&TWO.replace("request: 10s", "request: off")));
    let target = exchange.pick(at(1_000_000_000), Rolls::default()).unwrap();
    assert_eq!(exchange.deadline(), Timestamp::MAX);
    assert_eq!(target.response_timeout, Duration::from_secs(30));
}

#[test]
fn a_status_is_retried_only_while_the_client_has_seen_nothing() {
    let (mut exchange, _) = admitted(&snapshot(TWO));
    exchange.pick(at(0), Rolls::default()).unwrap();
    let begun = Replay { response_started: true, ..SAFE };
    assert!(!exchange.response_head(503, begun, at(1)));
    assert!(exchange.response_head(503, SAFE, at(1)));
    exchange.pick(at(1), Rolls::default()).unwrap();
    assert!(!exchange.response_head(500, SAFE, at(1)), "500 is not in the list");
    assert_eq!(exchange.first_byte(), Some(at(1)));
}

#[test]
fn nothing_is_retried_for_a_client_that_has_closed_its_side() {
    let (mut exchange, _) = admitted(&snapshot(TWO));
    let half_closed = Replay { half_closed: true, ..SAFE };
    exchange.pick(at(0), Rolls::default()).unwrap();
    assert!(!exchange.response_head(503, half_closed, at(1)));
    assert!(!exchange.attempt_failed(AttemptFailure::Connect, "refused", half_closed, at(1)));
}

#[test]
fn only_a_new_connection_is_timed() {
    let (mut exchange, recorder) = admitted(&snapshot(TWO));
    exchange.pick(at(5), Rolls::default()).unwrap();
    exchange.connected(true, at(6));
    exchange.connected(false, at(8));
    assert_eq!(recorder.take(), ["connected 0 3ms"]);
}

#[test]
fn without_a_healthy_backend_the_request_is_rejected_at_once() {
    let snapshot = snapshot(&TWO.replace("health_check: off", "health_check: {type: tcp}"));
    let mut exchange = Exchange::new(snapshot, Arc::new(Recorder::default()), at(0));
    assert_eq!(get("b.test", "/").admit(&mut exchange, at(0)), Err(Refusal::NoBackend));
}

#[test]
fn all_backends_are_down_once_each_of_them_failed_to_connect() {
    let (mut exchange, _recorder) = admitted(&snapshot(TWO));
    assert!(!exchange.is_all_down(), "nothing was tried");
    let fail = |exchange: &mut Exchange, failure| {
        exchange.pick(at(0), Rolls::default()).unwrap();
        exchange.attempt_failed(failure, "why", SAFE, at(0));
        exchange.is_all_down()
    };
    assert!(!fail(&mut exchange, AttemptFailure::Connect), "the other one was not tried");
    assert!(fail(&mut exchange, AttemptFailure::Connect));
    let (mut exchange, _recorder) = admitted(&snapshot(TWO));
    assert!(!fail(&mut exchange, AttemptFailure::Reset), "it was connected");
    assert!(!fail(&mut exchange, AttemptFailure::Connect), "one of the two was connected");
}

#[test]
fn the_outcome_is_reported_once_even_if_the_exchange_is_dropped_afterwards() {
    let (mut exchange, recorder) = admitted(&snapshot(TWO));
    exchange.finished(Outcome::Completed, None, at(1));
    exchange.finished(Outcome::UpstreamAborted, None, at(2));
    drop(exchange);
    assert_eq!(recorder.take(), ["finished Completed"]);
}

#[test]
fn an_exchange_dropped_in_flight_releases_its_lease_and_reports_its_outcome() {
    let (mut exchange, recorder) = admitted(&snapshot(TWO));
    let target = exchange.pick(at(0), Rolls::default()).unwrap();
    assert_eq!(target.backend.in_flight(), 1);
    drop(exchange);
    assert_eq!(target.backend.in_flight(), 0);
    assert_eq!(recorder.take(), ["finished Abandoned"]);
}

const SMALL: &str = "
limits: {body: 10}
pools: [{name: web, health_check: off, backends: [http://10.1.0.1:80, http://10.1.0.2:80]}]
";

#[test]
fn a_declared_body_that_is_too_long_is_rejected_at_once() {
    let ask = |length| {
        let mut request = get("a.test", "/");
        request.headers.insert("content-length", HeaderValue::from_static(length));
        let mut exchange = Exchange::new(snapshot(SMALL), Arc::new(Recorder::default()), at(0));
        request.admit(&mut exchange, at(0))
    };
    assert_eq!(ask("10"), Ok(Admitted::Forward));
    assert_eq!(ask("11"), Err(Refusal::BodyTooLarge));
    assert_eq!(ask("99999999999999999999999"), Err(Refusal::BadRequest));
}

#[test]
fn a_length_above_the_limit_is_judged_after_names_loops_and_expectations() {
    let world = snapshot(&SMALL.replace("body: 10", "body: 10, underscore_headers: refuse"));
    let ask = |lengths: &[&'static str], others: &[(&'static str, &str)]| {
        let mut request = get("a.test", "/");
        for length in lengths {
            request.headers.append("content-length", HeaderValue::from_static(length));
        }
        for (name, value) in others {
            request.headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let mut exchange = Exchange::new(Arc::clone(&world), Arc::new(Recorder::default()), at(0));
        request.admit(&mut exchange, at(0))
    };
    let (underscore, expectation) = (("x_one", "1"), ("expect", "200-ok"));
    let passes = &*["1.1 weir"; 9].join(", ");
    for length in ["11", "99999999999999999999999"] {
        assert_eq!(ask(&[length], &[("via", passes)]), Err(Refusal::LoopDetected), "{length}");
        assert_eq!(ask(&[length], &[expectation]), Err(Refusal::ExpectationFailed), "{length}");
    }
    assert_eq!(ask(&["11"], &[underscore, expectation]), Err(Refusal::BadRequest));
    // Two lengths make the framing doubtful, which comes before all of these.
    assert_eq!(ask(&["1", "1"], &[("via", passes), expectation]), Err(Refusal::BadRequest));
    assert_eq!(ask(&["1,1"], &[("via", passes), expectation]), Err(Refusal::BadRequest));
    // A second host is found after the length.
    assert_eq!(ask(&["11"], &[("host", "b.test")]), Err(Refusal::BodyTooLarge));
}

#[test]
fn a_received_body_that_is_too_long_is_rejected_and_each_attempt_counts_from_zero() {
    let mut exchange = Exchange::new(snapshot(SMALL), Arc::new(Recorder::default()), at(0));
    get("a.test", "/").admit(&mut exchange, at(0)).unwrap();
    exchange.pick(at(0), Rolls::default()).unwrap();
    assert_eq!((exchange.body_received(6), exchange.body_received(4)), (Ok(()), Ok(())));
    exchange.pick(at(0), Rolls::default()).unwrap();
    assert_eq!((exchange.body_received(10), exchange.refusal()), (Ok(()), None));
    assert_eq!(exchange.body_received(1), Err(Refusal::BodyTooLarge));
    assert_eq!(exchange.refusal(), Some(Refusal::BodyTooLarge));
}

#[test]
fn the_only_supported_expectation_is_100_continue() {
    let ask = |version, expects| {
        let mut request = get("b.test", "/");
        request.version = version;
        request.headers.insert("expect", HeaderValue::from_static(expects));
        request.ask()
    };
    assert_eq!(ask(Version::HTTP_11, "100-Continue"), Ok(Admitted::Forward));
    assert_eq!(ask(Version::HTTP_11, "200-ok"), Err(Refusal::ExpectationFailed));
    assert_eq!(ask(Version::HTTP_10, "200-ok"), Ok(Admitted::Forward));
}

#[test]
fn all_addresses_of_an_ipv6_client_go_to_one_backend() {
    let pool =
        TWO.replace("    health_check: off", "    algorithm: ip_hash\n    health_check: off");
    let snapshot = snapshot(&pool);
    let picked = |peer: &'static str| {
        let mut exchange =
            Exchange::new(Arc::clone(&snapshot), Arc::new(Recorder::default()), at(0));
        Request { peer, ..get("b.test", "/") }.admit(&mut exchange, at(0)).unwrap();
        exchange.pick(at(0), Rolls::default()).unwrap();
        exchange.backend().unwrap().label.clone()
    };
    let first = picked("2001:db8:0:7::1");
    for peer in
        ["2001:db8:0:7::2", "2001:db8:0:7:ffff::", "2001:db8:0:7:1:2:3:4", "2001:db8:0:7::9"]
    {
        assert_eq!(picked(peer), first, "{peer}");
    }
    let others = [
        "2001:db8:0:1::1",
        "2001:db8:0:2::1",
        "2001:db8:0:3::1",
        "2001:db8:0:4::1",
        "2001:db8:0:5::1",
    ];
    assert!(others.into_iter().any(|peer| picked(peer) != first), "other networks are others");
}
