//! What a worker knows does not end with it: buckets, health, counts.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client, Failure, Response};
use crate::support::configs::pool;
use crate::support::load_generator::Load;
use crate::support::metrics::Metrics;
use crate::support::ports::own_address;
use crate::support::weir::{Weir, kill};
use crate::support::{TIMEOUT, eventually};

fn status_for(weir: &Weir, from: Ipv4Addr) -> u16 {
    Client::connect_from(from, weir.address()).get("/").status()
}

/// A balancer and a client that has spent its tokens, of which none comes back in time.
fn spent(backends: &[Backend]) -> (Weir, Ipv4Addr) {
    let limit = "rate_limit: {requests_per_second: 0.001, burst: 3}\n";
    let weir = Weir::start(&(limit.to_owned() + &pool(backends, "")));
    let client = own_address();
    let statuses: Vec<u16> = (0..4).map(|_| status_for(&weir, client)).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    (weir, client)
}

#[test]
fn a_client_with_an_empty_bucket_is_still_refused_after_reloads() {
    let backends = Backend::start_many(1);
    let (weir, client) = spent(&backends);
    for _ in 0..3 {
        weir.reload();
        assert_eq!(status_for(&weir, client), 429);
        assert_eq!(status_for(&weir, own_address()), 200, "another one is not");
    }
    assert_eq!(backends[0].count(), 6);
}

#[test]
fn a_client_with_an_empty_bucket_is_still_refused_after_an_upgrade_and_a_reload() {
    let backends = Backend::start_many(1);
    let (weir, client) = spent(&backends);
    weir.signal("USR2");
    eventually(TIMEOUT, "it is replaced", || weir.stderr().contains("supervisor replaced"));
    assert_eq!(status_for(&weir, client), 429);
    weir.reload();
    assert_eq!(status_for(&weir, client), 429);
    assert_eq!(backends[0].count(), 3);
}

#[test]
fn a_client_with_an_empty_bucket_is_still_refused_after_a_crash() {
    let backends = Backend::start_many(1);
    let (weir, client) = spent(&backends);
    weir.until_checkpoint();
    let requests = weir.metrics().sum("lb_requests_total", &[]);
    kill("KILL", &[weir.worker_pid()]).unwrap();
    assert_eq!(status_for(&weir, client), 429);
    assert_eq!(backends[0].count(), 3);
    eventually(TIMEOUT, "no total is forgotten", || {
        let answer = client::get(weir.admin(), "/metrics");
        // It serves before it is ready.
        answer.status() == 200
            && Metrics::parse(&answer.text()).sum("lb_requests_total", &[]) >= requests + 1.0
    });
}

/// Backends that are probed like this.
fn probed(backends: &[Backend], check: &str) -> String {
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let urls = urls.join(", ");
    let check = format!("health_check: {{type: http, path: /health, {check}}}");
    format!("pools: [{{name: web, backends: [{urls}], {check}, retry: {{attempts: 1}}}}]")
}

fn until_healthy(weir: &Weir, count: usize) {
    eventually(TIMEOUT, "the number of healthy backends is reached", || {
        weir.status()["healthy_backends"] == count
    });
}

#[test]
fn after_a_crash_a_pass_of_the_new_worker_is_newer_than_the_checkpoint() {
    let backends = Backend::start_many(3);
    let (failing, hung) = (&backends[1], &backends[2]);
    failing.on("/health", Behaviour::status(500));
    // Of this one nothing is ever known: a worker that starts waits for half of its time to be ready.
    hung.on("/health", Behaviour::NeverAnswer);
    let check = "interval: 60s, timeout: 60s, healthy_after: 1";
    let weir = Weir::start_flagged(&probed(&backends, check), &["--ready-timeout", "4s"]);
    until_healthy(&weir, 1);
    weir.until_checkpoint();
    failing.on("/health", Behaviour::Good);
    weir.replace_by_kill();
    assert_eq!(weir.status()["healthy_backends"], 2);
    let healthy = format!("backend healthy: pool=web backend={}", failing.address());
    assert_eq!(weir.stderr().matches(&healthy).count(), 1);
}

#[test]
fn an_unhealthy_backend_gets_no_request_over_reloads_until_it_has_passed_its_probes() {
    let backends = Backend::start_many(2);
    let check = "interval: 300ms, unhealthy_after: 2, healthy_after: 5";
    let weir = Weir::start(&probed(&backends, check));
    let bad = &backends[1];
    bad.on("/health", Behaviour::status(500));
    until_healthy(&weir, 1);
    let load = Load { threads: 2, ..Load::on(weir.address()) }.start();
    bad.forget();
    (0..4).for_each(|_| drop(weir.reload()));
    assert_eq!(bad.count(), 0, "it fails its probes");
    bad.forget();
    bad.on("/health", Behaviour::status(200));
    (0..2).for_each(|_| drop(weir.reload()));
    bad.until_count(1);
    let seen = bad.seen();
    let passed = seen.iter().take_while(|seen| seen.target == "/health").count();
    assert!(passed >= 5, "a request came after {passed} probes");
    assert_eq!(load.stop().failed(), 0);
}

#[test]
fn a_backend_that_has_just_become_unhealthy_gets_no_request_of_a_new_worker() {
    let backends = Backend::start_many(2);
    let check = "interval: 200ms, unhealthy_after: 5";
    let weir = Weir::start(&probed(&backends, check));
    let bad = &backends[1];
    let load = Load { threads: 2, ..Load::on(weir.address()) }.start();
    for _ in 0..2 {
        until_healthy(&weir, 2);
        weir.until_checkpoint();
        bad.on("/health", Behaviour::status(500));
        until_healthy(&weir, 1);
        // A request that was sent to it before may still be under way.
        let (metrics, address) = ("lb_active_connections", bad.address().to_string());
        eventually(TIMEOUT, "it has no request in flight", || {
            weir.metrics().sum(metrics, &[("backend", &address)]) == 0.0
        });
        bad.forget();
        weir.reload();
        eventually(TIMEOUT, "the new worker has probed it", || bad.count_of("/health") >= 3);
        assert_eq!(bad.count(), 0, "it was known to be unhealthy");
        bad.on("/health", Behaviour::status(200));
    }
    assert_eq!(load.stop().failed(), 0);
}

#[test]
fn one_failed_probe_of_a_new_worker_does_not_make_a_healthy_backend_unhealthy() {
    let backends = Backend::start_many(1);
    let check = "interval: 10m, unhealthy_after: 3";
    let weir = Weir::start(&probed(&backends, check));
    // The first health check of each worker fails. With a status of its own, so that we know when
    // its result was taken in: a reload stops a check that is still under way.
    for status in [500, 501] {
        backends[0].on("/health", Behaviour::status(status));
        weir.reload();
        let failed = format!("status {status}, expected 200-299");
        eventually(TIMEOUT, "the health check has failed", || {
            weir.status()["backends"][0]["last_error"] == failed.as_str()
        });
        assert_eq!(weir.get("/").status(), 200);
    }
    backends[0].on("/health", Behaviour::status(502));
    weir.reload();
    // For a moment the worker before accepts as well, and it knows of two failures.
    eventually(TIMEOUT, "the third worker finds one too many", || weir.get("/").status() == 503);
    assert_eq!(backends[0].count_of("/health"), 4);
}

/// A scraper that knows what it saw last, and complains when a total goes backwards or is gone.
struct Scraper {
    admin: SocketAddr,
    kept: Option<Client>,
    keeps: bool,
    last: BTreeMap<(String, BTreeMap<String, String>), f64>,
    status: BTreeMap<String, u64>,
    complaints: Vec<String>,
    scrapes: usize,
}

impl Scraper {
    fn new(admin: SocketAddr, keeps: bool) -> Self {
        let (last, status) = (BTreeMap::new(), BTreeMap::new());
        Self { admin, kept: None, keeps, last, status, complaints: Vec::new(), scrapes: 0 }
    }

    fn ask(&mut self, path: &str) -> Result<Response, Failure> {
        let kept = self.kept.take();
        let was_kept = kept.is_some();
        let mut client = kept.unwrap_or_else(|| Client::connect(self.admin));
        match client.request("GET", path, &[], b"") {
            // As every client does: an idle connection may end at any time.
            Err(Failure::NoAnswer | Failure::Reset { got: 0 }) if was_kept => self.ask(path),
            Ok(answer) => {
                if self.keeps && !answer.head.is_last() {
                    self.kept = Some(client);
                }
                Ok(answer)
            }
            Err(failure) => Err(failure),
        }
    }

    fn scrape(&mut self) {
        match self.ask("/metrics") {
            Ok(answer) => self.compare(&Metrics::parse(&answer.text())),
            Err(failure) => self.complaints.push(format!("/metrics: {failure:?}")),
        }
        match self.ask("/status") {
            Ok(answer) => self.compare_status(&answer),
            Err(failure) => self.complaints.push(format!("/status: {failure:?}")),
        }
        self.scrapes += 1;
    }

    fn compare(&mut self, now: &Metrics) {
        let is_total = |name: &str| {
            let of_the_process = name.starts_with("process_");
            let endings = ["_total", "_count", "_sum", "_bucket"];
            !of_the_process && endings.iter().any(|ending| name.ends_with(ending))
        };
        let totals = now.samples.iter().filter(|sample| is_total(&sample.name));
        let now: BTreeMap<_, _> =
            totals.map(|one| ((one.name.clone(), one.labels.clone()), one.value)).collect();
        for (series, before) in &self.last {
            match now.get(series) {
                Some(now) if now >= before => {}
                other => self.complaints.push(format!("{series:?}: {before}, then {other:?}")),
            }
        }
        self.last = now;
    }

    fn compare_status(&mut self, answer: &Response) {
        let status = answer.json();
        let names = [
            "total_requests",
            "success_requests",
            "failed_requests",
            "retry_attempts",
            "rate_limited_requests",
        ];
        for name in names {
            let now = status[name].as_u64().unwrap();
            let before = self.status.insert(name.to_owned(), now).unwrap_or(0);
            if now < before {
                self.complaints.push(format!("/status {name}: {before}, then {now}"));
            }
        }
    }
}

#[test]
fn no_total_goes_backwards_over_twenty_reloads_and_none_is_lost() {
    let backends = Backend::start_many(2);
    crate::support::mixed_clients::pace(&backends);
    let weir = Weir::start(&pool(&backends, ""));
    let load = Load { threads: 3, ..Load::on(weir.address()) }.start();
    let done = AtomicBool::new(false);
    let scrapers = std::thread::scope(|scope| {
        let scrape = |keeps| {
            let mut scraper = Scraper::new(weir.admin(), keeps);
            let done = &done;
            scope.spawn(move || {
                while !done.load(SeqCst) {
                    scraper.scrape();
                }
                scraper
            })
        };
        let scrapers = [scrape(false), scrape(true)];
        (0..20).for_each(|_| drop(weir.reload()));
        done.store(true, SeqCst);
        scrapers.map(|scraper| scraper.join().unwrap())
    });
    for scraper in &scrapers {
        assert_eq!(scraper.complaints, Vec::<String>::new());
        assert!(scraper.scrapes >= 20, "{} scrapes", scraper.scrapes);
    }
    let tally = load.stop();
    assert_eq!(tally.errors, [].into());
    let expected = u32::try_from(tally.total()).unwrap();
    let counted = || weir.metrics().sum("lb_requests_total", &[]);
    eventually(TIMEOUT, "every request is counted", || counted() >= f64::from(expected));
    eventually(TIMEOUT, "no worker drains", || weir.workers().len() == 1);
    assert!((counted() - f64::from(expected)).abs() < 0.5, "{} of {expected}", counted());
    assert_eq!(client::get(weir.admin(), "/status").json()["total_requests"], expected);
}

#[test]
fn the_uptime_is_the_services_and_not_a_workers() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let uptime = || weir.status()["uptime_seconds"].as_u64().unwrap();
    eventually(TIMEOUT, "some time has passed", || uptime() >= 2);
    weir.reload();
    assert!(uptime() >= 2, "after a reload: {}", uptime());
    let before = uptime();
    weir.signal("USR2");
    let replaced = || weir.stderr().contains("supervisor replaced: ");
    eventually(TIMEOUT, "the supervisor is replaced", replaced);
    weir.replace_by_kill();
    assert!(uptime() >= before, "after an upgrade and a crash: {}", uptime());
}
