//! A reload forgets nothing: what one snapshot knows, the next one goes on with; and no piece of
//! state is forgotten by who adds it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use weir::config::{Overrides, load};
use weir::policy::breaker::{AttemptFault, BreakerPhase, Moment};
use weir::policy::limiter::RateLimiter;
use weir::runtime::backend::{Backend, Eligibility, PastInstant};
use weir::runtime::debits::{Debits, SuccessorBuckets};
use weir::runtime::endpoint::Lookup;
use weir::runtime::handoff::Handoff;
use weir::runtime::ids::BackendId;
use weir::runtime::lease::Lease;
use weir::runtime::snapshot::Snapshot;
use weir::time::Timestamp;

use Fate::{HandedOff, Left};

const SEED: u64 = 0x5EED_5EED_5EED_5EED;
/// When the old worker is asked, on its clock.
const OLD: Timestamp = Timestamp::from_nanos(3_600_000_000_000);
/// The same moment on the new worker's clock.
const NEW: Timestamp = Timestamp::from_nanos(12_345_678);

// ── nothing is forgotten by who adds it ──

/// Types behind which a value changes while others look.
const CHANGEABLE: [&str; 9] = [
    "Mutex",
    "RwLock",
    "OnceLock",
    "LazyLock",
    "OnceCell",
    "RefCell",
    "Cell",
    "UnsafeCell",
    "ArcSwap",
];

/// What happens to a piece of state when a worker is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The successor imports it, through this.
    HandedOff(&'static str),
    /// It is not handed off, for this reason.
    Left(&'static str),
}

/// Every field that can change while a worker runs, by file, type and name.
#[rustfmt::skip]
const STATE: &[(&str, Fate)] = &[
    ("metrics/current.rs CurrentSeries.table", HandedOff("metrics::Counts")),
    ("metrics/mod.rs Metrics.client_errors", HandedOff("metrics::Counts")),
    ("metrics/mod.rs Metrics.failed", HandedOff("metrics::Counts")),
    ("metrics/mod.rs Metrics.inherited", HandedOff("metrics::Counts")),
    ("metrics/mod.rs Metrics.succeeded", HandedOff("metrics::Counts")),
    ("metrics/mod.rs Metrics.supervision", Left("the supervisor sends it to every worker")),
    ("metrics/series.rs LazyCounter.0", HandedOff("metrics::Counts")),
    ("metrics/series.rs RequestSeries.requests", HandedOff("metrics::Counts")),
    ("policy/bucket.rs TokenBucket.full_at_ns", Left("it only limits log lines; the clients' buckets are in `Slot`")),
    ("policy/limiter.rs RateLimiter.clients", HandedOff("counted again while buckets are imported")),
    ("policy/limiter.rs RateLimiter.newcomers", Left("a lock without data")),
    ("policy/limiter.rs ClientSlot.full_at_ns", HandedOff("RateLimiter::export, and runtime::debits while it drains")),
    ("policy/limiter.rs ClientSlot.tag", HandedOff("RateLimiter::export")),
    ("policy/log_throttle.rs LogThrottle.suppressed", Left("a metric has the number of events")),
    ("policy/retry_budget.rs RetryBudget.level", HandedOff("RetryBudget::export")),
    ("policy/retry_budget.rs RetryBudget.stepped_ns", HandedOff("RetryBudget::export, as the level at that time")),
    ("policy/select/round_robin.rs RoundRobin.stride", Left("a function of the weights")),
    ("policy/select/round_robin.rs RoundRobin.turn", Left("restarting a cycle once per reload changes no share")),
    ("runtime/endpoint.rs Endpoint.address", HandedOff("KnownName, in case the name cannot be resolved")),
    ("runtime/endpoint.rs Endpoint.failure", HandedOff("KnownName, so that a reload can report it")),
    ("runtime/backend.rs AttemptCounts.attempts", HandedOff("metrics::Counts")),
    ("runtime/backend.rs Backend.probes", HandedOff("Backend::export_health")),
    ("runtime/backend.rs AttemptCounts.failures", HandedOff("metrics::Counts")),
    ("runtime/standing.rs Standing.0", HandedOff("Backend::export_health; the supervisor sends what operators have set to every worker")),
    ("runtime/overrides.rs CurrentOverrides.list", Left("the supervisor sends it to every worker")),
    ("runtime/backend.rs Backend.other_workers", Left("the supervisor sends it to every worker")),
    ("runtime/backend.rs Backend.in_flight", HandedOff("metrics::Counts, as long as the old worker has the requests")),
    ("policy/penalty.rs Penalty.0", Left("it halves every second, and the failures themselves are handed off")),
    ("runtime/breakers.rs Breakers.calculated_ns", Left("when the next field was calculated")),
    ("runtime/breakers.rs Breakers.stalled_ns", Left("it is about attempts of this worker")),
    ("runtime/breakers.rs Breakers.judging", Left("a lock without data")),
    ("runtime/breakers.rs Breakers.typical_ns", Left("calculated from `Circuit.latency`")),
    ("runtime/circuit.rs Circuit.breaker", HandedOff("Circuit::export")),
    ("runtime/circuit.rs Circuit.heard_ns", Left("it is about attempts of this worker")),
    ("runtime/circuit.rs Circuit.noticed_ns", Left("it is about attempts of this worker")),
    ("runtime/circuit.rs Circuit.noticed", Left("it is about attempts of this worker")),
    ("runtime/circuit.rs Circuit.keeps_out", HandedOff("Circuit::export")),
    ("runtime/circuit.rs Circuit.latency", HandedOff("Circuit::export")),
    ("runtime/circuit.rs Circuit.open_until_ns", HandedOff("Circuit::export")),
    ("runtime/circuit.rs Circuit.refuses", HandedOff("Circuit::export")),
    ("runtime/circuit.rs Circuit.results", HandedOff("Circuit::export")),
    ("runtime/circuit.rs Circuit.slow", HandedOff("Circuit::export")),
    ("runtime/waiting.rs WaitingAttempts.count", Left("the attempts stay with the old worker")),
    ("runtime/waiting.rs WaitingAttempts.movable", Left("the attempts stay with the old worker")),
    ("runtime/waiters.rs PlaceSlot.0", Left("requests that wait stay with the old worker")),
    ("runtime/waiters.rs Waiters.latest_ns", Left("requests that wait stay with the old worker")),
    ("runtime/waiters.rs Waiters.queue", Left("requests that wait stay with the old worker")),
    ("runtime/waiters.rs Waiters.waiting", Left("requests that wait stay with the old worker")),
    ("runtime/request_limit.rs RequestGuard.in_progress", Left("the requests stay with the old worker")),
    ("runtime/request_limit.rs RequestLimit.in_progress", Left("the requests stay with the old worker")),
    ("runtime/weight.rs BackendWeight.thousandths", Left("calculated from the weight and `SlowStart.ramp`")),
    ("runtime/weight.rs BackendWeight.percent", Left("the supervisor sends what operators have set to every worker")),
    ("runtime/weight.rs SlowStart.ramp", HandedOff("BackendWeight::export")),
    ("runtime/weight.rs WeightSchedule.due_ns", Left("the successor calculates its weights at its first pick")),
    ("runtime/tunnels.rs TunnelGuard.open", Left("a tunnel stays with the old worker")),
    ("runtime/tunnels.rs TunnelGauge.open", Left("the tunnels stay with the old worker")),
    ("tls/table.rs CertificateResolver.0", Left("the same as `Terminator.table`")),
    ("tls/terminator.rs Terminator.current", Left("built from the files")),
    ("tls/terminator.rs Terminator.files", HandedOff("tls::last_good::LastGoodFiles, in case the files are broken")),
    ("tls/terminator.rs Terminator.table", Left("built from the files")),
    ("tls/tickets.rs Tickets.keys", HandedOff("link::State")),
    ("upstream/mod.rs PoolPeers.files", HandedOff("tls::last_good::LastGoodFiles, in case the files are broken")),
    ("upstream/mod.rs PoolPeers.peers", Left("built from the files")),
];

#[test]
fn every_piece_of_state_is_handed_off_or_says_why_not() {
    let found = state_of_the_tree();
    let listed: BTreeSet<String> = STATE.iter().map(|(name, _)| (*name).to_owned()).collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "state that a reload would lose: hand it off, or say in STATE why not: \
         {missing:#?}"
    );
    let stale: Vec<_> = listed.difference(&found).collect();
    assert!(stale.is_empty(), "in STATE, but not in the code: {stale:#?}");
}

#[test]
fn every_fate_has_its_reason() {
    for (name, fate) in STATE {
        let (HandedOff(words) | Left(words)) = fate;
        assert!(words.len() > 10, "{name}: `{words}` explains nothing");
    }
    assert_eq!(STATE.iter().map(|one| one.0).collect::<BTreeSet<_>>().len(), STATE.len());
}

#[test]
fn state_is_found_wherever_it_hides() {
    let code = "
        pub struct Plain { a: u64, b: Vec<String> }
        pub struct Named<'a, T> { a: T, pub(crate) b: Vec<std::sync::atomic::AtomicU8>, // Mutex
            #[doc = x] c: Arc<Mutex<(u8, u8)>>, d: &'a str }
        struct Tuple(u8, RwLock<u8>);
        struct Unit;
        enum Either { Left(u8), Right { inner: RefCell<u8> } }
        fn not_a_field(cell: &Cell<u8>) -> OnceLock<u8> { todo() }
        static EVERYWHERE: AtomicBool = AtomicBool::new(true);
        #[cfg(test)]
        mod tests { struct OfATest { a: Mutex<u8> } }
    ";
    let expected = ["Either.Right", "Named.b", "Named.c", "Tuple.1", "static EVERYWHERE"];
    assert_eq!(state(code), expected);
}

fn state_of_the_tree() -> BTreeSet<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    let mut paths = vec![source.join("upstream/mod.rs")];
    for room in ["policy", "runtime", "metrics", "tls"] {
        paths.extend(files(&source.join(room)));
    }
    assert!(paths.len() > 15, "looked in the wrong place: {paths:?}");
    for path in paths {
        let name = path.strip_prefix(&source).unwrap().display().to_string();
        let is_a_test = name.ends_with("/tests.rs") || name.ends_with("/fake.rs");
        if !is_a_test {
            let code = fs::read_to_string(&path).unwrap();
            found.extend(state(&code).into_iter().map(|field| format!("{name} {field}")));
        }
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|has| has == "rs") {
            found.push(path);
        }
    }
    found
}

/// The fields and statics of a source whose type says that they change, in order of their names.
fn state(source: &str) -> Vec<String> {
    let lines = source.lines().map(str::trim);
    let product = lines.take_while(|line| !line.starts_with("mod tests {"));
    let code: Vec<&str> = product.map(|line| line.split("//").next().unwrap()).collect();
    let code = code.join("\n");
    let mut found = BTreeSet::new();
    for keyword in ["struct", "enum", "union"] {
        for after in following(&code, keyword) {
            let name = words(after)[0];
            let Some(at) = after.find(['{', '(', ';']) else { continue };
            let body = after.get(at..).unwrap();
            let fields = body.get(1..end_of_group(body)).unwrap_or_default();
            for (index, field) in split(fields).into_iter().enumerate() {
                let field = without_attributes(field);
                if words(field).into_iter().any(is_changeable) {
                    found.insert(format!("{name}.{}", name_of(field, index)));
                }
            }
        }
    }
    for after in following(&code, "static") {
        let declared = after.split('=').next().unwrap();
        if words(declared).into_iter().any(is_changeable) {
            found.insert(format!("static {}", words(declared)[0]));
        }
    }
    found.into_iter().collect()
}

fn is_changeable(word: &str) -> bool {
    word.starts_with("Atomic") || CHANGEABLE.contains(&word)
}

/// What follows each `keyword` at the start of an item.
fn following<'a>(code: &'a str, keyword: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(keyword) {
        let before = code.get(..at).unwrap();
        let after = code.get(at + keyword.len()..).unwrap();
        let line = before.rsplit('\n').next().unwrap().trim();
        if (line.is_empty() || line.starts_with("pub")) && after.starts_with(' ') {
            found.push(after);
        }
    }
    found
}

/// Where the bracket that `text` begins with is closed; 1 if it begins with none.
fn end_of_group(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        depth += usize::from(matches!(c, '(' | '{' | '['));
        depth -= usize::from(matches!(c, ')' | '}' | ']'));
        if depth == 0 {
            return at.max(1);
        }
    }
    text.len()
}

/// What stands between the outermost commas.
fn split(fields: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let parts = fields.split(|c| {
        depth += i32::from(matches!(c, '(' | '{' | '[' | '<'));
        depth -= i32::from(matches!(c, ')' | '}' | ']' | '>'));
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn without_attributes(mut field: &str) -> &str {
    while let Some(attribute) = field.strip_prefix('#') {
        field = attribute.get(end_of_group(attribute) + 1..).unwrap().trim();
    }
    field
}

/// The name of a field or variant; its place, if it has none.
fn name_of(field: &str, index: usize) -> String {
    let colon = field.find(':').filter(|at| !field.get(at + 1..).unwrap().starts_with(':'));
    let bracket = field.find(['(', '{', '<']);
    let named = match (colon, bracket) {
        (Some(colon), Some(bracket)) if field.starts_with("pub(") => colon > bracket,
        (Some(colon), Some(bracket)) => colon < bracket,
        (colon, _) => colon.is_some(),
    };
    let is_variant = field.starts_with(char::is_uppercase) && bracket.is_some();
    match colon {
        Some(colon) if named => (*words(field.get(..colon).unwrap()).last().unwrap()).to_owned(),
        _ if is_variant && !is_changeable(words(field)[0]) => words(field)[0].to_owned(),
        _ => index.to_string(),
    }
}

fn words(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).collect()
}

// ── what is known goes on ──

fn snapshot(text: &str) -> Snapshot {
    seeded(text, SEED)
}

fn seeded(text: &str, seed: u64) -> Snapshot {
    let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
    let look_up =
        |name: &str, port| Lookup::Found(format!("10.9.9.{}:{port}", name.len()).parse().unwrap());
    Snapshot::new(&config, "v", seed, look_up)
}

/// One pool with two backends, and these keys.
fn web(keys: &str) -> Snapshot {
    snapshot(&format!(
        "pools: [{{name: web, backends: [http://10.0.0.1:80, http://10.0.0.2:80], {keys}}}]"
    ))
}

/// By its name, whose length is the last part of its address.
fn named(text: &str) -> Snapshot {
    snapshot(&format!("pools: [{{name: web, backends: ['http://{text}:80']}}]"))
}

fn limited(keys: &str) -> Snapshot {
    snapshot(&limited_text(keys))
}

fn limited_text(keys: &str) -> String {
    format!("{{rate_limit: {{{keys}}}, pools: [{{name: web, backends: [http://a:80]}}]}}")
}

/// Over the wire, as between two processes.
fn hand(old: &Snapshot, new: &Snapshot) {
    let handoff = Handoff::export(old, OLD);
    let text = serde_json::to_string(&handoff).unwrap();
    let read: Handoff = serde_json::from_str(&text).unwrap();
    assert_eq!(read, handoff);
    read.import(new, NEW);
}

fn backend(snapshot: &Snapshot, index: usize) -> &Arc<Backend> {
    snapshot.pools[0].backend(BackendId::new(index)).unwrap()
}

fn probe(backend: &Backend, results: &[bool]) {
    for passed in results {
        let result = if *passed { Ok(()) } else { Err("refused".to_owned()) };
        backend.probed(result, Timestamp::from_nanos(3_599_000_000_000));
    }
}

fn spend(limiter: Option<&RateLimiter>, now: Timestamp) -> Result<(), Duration> {
    limiter.unwrap().admit(IpAddr::from([192, 0, 2, 7]), now)
}

#[test]
fn an_unhealthy_backend_stays_unhealthy() {
    let (old, new) = (web(""), web(""));
    probe(backend(&old, 0), &[false]);
    probe(backend(&old, 1), &[true]);
    hand(&old, &new);
    assert!(!backend(&new, 0).is_healthy());
    assert!(backend(&new, 0).health().known);
    assert_eq!(backend(&new, 0).health().last_error.as_deref(), Some("refused"));
    assert!(backend(&new, 1).is_healthy());
}

#[test]
fn the_last_probe_was_as_long_ago_as_it_was() {
    let (old, new) = (web(""), web(""));
    probe(backend(&old, 0), &[true]);
    hand(&old, &new);
    let moment = backend(&new, 0).health().last_checked.unwrap();
    assert_eq!(moment.ago(NEW), Duration::from_secs(1));
    assert_eq!(moment.ago(NEW + Duration::from_secs(2)), Duration::from_secs(3));
}

#[test]
fn who_was_never_probed_is_unknown_to_the_next_as_well() {
    let (old, new) = (web(""), web(""));
    hand(&old, &new);
    assert!(!backend(&new, 0).health().known);
    assert!(!backend(&new, 0).is_healthy());
}

#[test]
fn a_run_of_failures_goes_on() {
    let keys = "health_check: {unhealthy_after: 3}";
    let (old, new) = (web(keys), web(keys));
    probe(backend(&old, 0), &[true, false, false]);
    hand(&old, &new);
    assert!(backend(&new, 0).is_healthy());
    assert_eq!(backend(&new, 0).probed(Err("refused".to_owned()), NEW), Some(false));
}

#[test]
fn a_run_that_a_lower_fall_has_passed_needs_one_more_failure() {
    let (old, new) =
        (web("health_check: {unhealthy_after: 9}"), web("health_check: {unhealthy_after: 2}"));
    probe(backend(&old, 0), &[true, false, false, false, false]);
    hand(&old, &new);
    assert!(backend(&new, 0).is_healthy());
    assert_eq!(backend(&new, 0).probed(Err("refused".to_owned()), NEW), Some(false));
}

#[test]
fn without_a_health_check_everyone_counts_as_healthy() {
    let (old, new) = (web(""), web("health_check: off"));
    probe(backend(&old, 0), &[false]);
    hand(&old, &new);
    assert!(backend(&new, 0).is_healthy());
    assert_eq!(backend(&new, 0).health().last_checked, None);
}

#[test]
fn who_was_not_probed_before_must_pass_a_probe_first() {
    let (old, new) = (web("health_check: off"), web(""));
    hand(&old, &new);
    assert!(!backend(&new, 0).is_healthy());
    assert_eq!(backend(&new, 0).probed(Ok(()), NEW), Some(true));
}

#[test]
fn what_our_own_failed_probe_has_found_is_newer() {
    for (unhealthy_after, healthy) in [(1, false), (2, true)] {
        let keys = format!("health_check: {{unhealthy_after: {unhealthy_after}}}");
        let (old, new) = (web(&keys), web(&keys));
        probe(backend(&old, 0), &[true]);
        backend(&new, 0).probed(Err("refused".to_owned()), NEW);
        hand(&old, &new);
        assert_eq!(backend(&new, 0).is_healthy(), healthy);
    }
}

// ── circuit breakers ──

/// The first backend has failed at this time, as often as a breaker allows.
fn break_circuit(snapshot: &Snapshot, now: Timestamp) {
    let pool = &snapshot.pools[0];
    for _ in 0..3 {
        let mut lease = Lease::new(Arc::clone(&pool.members[0].backend));
        let at = Moment { now, roll: 0 };
        pool.record(BackendId::new(0), &mut lease, Err(AttemptFault::Failed), at);
    }
}

#[test]
fn an_open_circuit_breaker_stays_open_for_the_rest_of_its_time() {
    let keys = "health_check: off, breaker: {open: 10s}";
    let (old, new) = (web(keys), web(keys));
    break_circuit(&old, OLD);
    assert!(backend(&old, 0).eligibility() == Eligibility::KeptOut, "it is open");
    let mut handoff = Handoff::export(&old, OLD);
    handoff.add_age(Duration::from_secs(3));
    handoff.import(&new, NEW);
    let circuit = &backend(&new, 0).circuit;
    assert_eq!(circuit.phase(NEW + Duration::from_millis(4900)), BreakerPhase::Open);
    assert_eq!(circuit.phase(NEW + Duration::from_secs(5)), BreakerPhase::HalfOpen);
    assert!(backend(&new, 0).eligibility() == Eligibility::KeptOut);
    assert_eq!(backend(&new, 1).eligibility(), Eligibility::Eligible);
}

#[test]
fn failures_in_a_row_and_latencies_continue() {
    let keys = "health_check: off";
    let (old, new) = (web(keys), web(keys));
    let one = Lease::new(Arc::clone(&old.pools[0].members[0].backend));
    let at = Moment { now: OLD, roll: 0 };
    for _ in 0..2 {
        let mut lease = Lease::new(Arc::clone(one.backend()));
        let fault = Err(AttemptFault::Failed);
        assert!(old.pools[0].record(BackendId::new(0), &mut lease, fault, at).is_none());
    }
    for _ in 0..8 {
        one.backend().circuit.heard(Duration::from_millis(20), OLD);
    }
    hand(&old, &new);
    assert_eq!(backend(&new, 0).circuit.latency(), Some(Duration::from_millis(20)));
    let mut lease = Lease::new(Arc::clone(&new.pools[0].members[0].backend));
    let at = Moment { now: NEW, roll: 0 };
    let third = new.pools[0].record(BackendId::new(0), &mut lease, Err(AttemptFault::Failed), at);
    assert!(third.is_some(), "the third in a row");
}

#[test]
fn a_pool_without_a_circuit_breaker_takes_over_no_open_one() {
    let (old, new) = (web("health_check: off"), web("health_check: off, breaker: off"));
    break_circuit(&old, OLD);
    hand(&old, &new);
    assert_eq!(backend(&new, 0).eligibility(), Eligibility::Eligible);
    let shadow = web("health_check: off, breaker: {shadow: true}");
    hand(&old, &shadow);
    assert_eq!(backend(&shadow, 0).eligibility(), Eligibility::Eligible);
    assert!(backend(&shadow, 0).circuit.is_out(), "it is known, and not used");
}

// ── slow start ──

/// The effective weights at this time.
fn weights(snapshot: &Snapshot, now: Timestamp) -> Vec<u32> {
    let pool = &snapshot.pools[0];
    pool.balancing.refresh(&pool.members, now);
    pool.members.iter().map(|member| member.backend.weight.thousandths()).collect()
}

#[test]
fn a_slow_start_continues_where_it_was() {
    let keys = "health_check: off, slow_start: 8s";
    let (old, new, off) = (web(keys), web(keys), web("health_check: off"));
    let second = Duration::from_secs(1);
    backend(&old, 0).weight.begin_slow_start(OLD);
    assert_eq!(weights(&old, OLD), [3, 1000]);
    let mut handoff = Handoff::export(&old, OLD + 4 * second);
    handoff.add_age(second);
    handoff.import(&new, NEW);
    assert_eq!(weights(&new, NEW), [125, 1000], "five seconds have passed");
    assert_eq!(weights(&new, NEW + 2 * second), [500, 1000]);
    assert_eq!(weights(&new, NEW + 3 * second), [1000, 1000]);
    handoff.import(&off, NEW);
    assert_eq!(weights(&off, NEW), [1000, 1000]);
}

#[test]
fn a_backend_that_the_predecessor_did_not_have_starts_slowly() {
    let two = web("health_check: off, slow_start: 8s");
    let three = snapshot(
        "pools: [{name: web, health_check: off, slow_start: 8s, \
         backends: [http://10.0.0.1:80, http://10.0.0.2:80, http://10.0.0.3:80]}]",
    );
    hand(&two, &three);
    assert_eq!(weights(&three, NEW), [1000, 1000, 3]);
    let first = web("health_check: off, slow_start: 8s");
    Handoff::default().import(&first, NEW);
    assert_eq!(weights(&first, NEW), [1000, 1000], "all of them start with the process");
}

#[test]
fn a_backend_that_is_new_starts_slowly_with_its_first_passed_health_check() {
    let two = web("slow_start: 8s");
    let three = snapshot(
        "pools: [{name: web, slow_start: 8s, \
         backends: [http://10.0.0.1:80, http://10.0.0.2:80, http://10.0.0.3:80]}]",
    );
    probe(backend(&two, 0), &[true]);
    hand(&two, &three);
    for index in 0..3 {
        backend(&three, index).probed(Ok(()), NEW + Duration::from_secs(4));
    }
    // The second one was known, and had no result yet.
    assert_eq!(weights(&three, NEW + Duration::from_secs(4)), [1000, 1000, 3]);
}

/// A successor that starts from a checkpoint, makes `own` health checks while its predecessor makes
/// `late` ones, and takes over.
fn overtaken(early: &[bool], own: &[bool], late: &[bool]) -> Snapshot {
    let keys = "health_check: {unhealthy_after: 3, healthy_after: 2}";
    let (old, new) = (web(keys), web(keys));
    probe(backend(&old, 0), early);
    hand(&old, &new);
    probe(backend(&new, 0), own);
    probe(backend(&old, 0), late);
    hand(&old, &new);
    new
}

#[test]
fn what_the_predecessor_has_found_since_its_checkpoint_is_not_lost() {
    let healed = overtaken(&[false], &[], &[true, true]);
    assert!(backend(&healed, 0).is_healthy(), "the predecessor sends it requests");
    let failing = overtaken(&[true], &[], &[false, false]);
    assert_eq!(backend(&failing, 0).probed(Err("refused".to_owned()), NEW), Some(false));
}

#[test]
fn failures_before_and_after_the_checkpoint_are_one_run() {
    let failing = overtaken(&[true], &[false], &[false]);
    assert_eq!(backend(&failing, 0).probed(Err("refused".to_owned()), NEW), Some(false));
    let fallen = overtaken(&[true], &[false], &[false, false]);
    assert!(!backend(&fallen, 0).is_healthy(), "three failures in a row");
}

#[test]
fn after_a_crash_results_of_our_own_are_newer_than_the_last_checkpoint() {
    let keys = "health_check: {unhealthy_after: 1, healthy_after: 1}";
    for own in [true, false] {
        let (old, new) = (web(keys), web(keys));
        probe(backend(&old, 0), &[!own]);
        // Before the replacement's first health check, and again as it takes over.
        hand(&old, &new);
        probe(backend(&new, 0), &[own]);
        hand(&old, &new);
        assert_eq!(backend(&new, 0).is_healthy(), own);
    }
}

#[test]
fn a_checkpoint_that_is_repeated_does_not_repeat_our_own_results() {
    let keys = "health_check: {unhealthy_after: 3, healthy_after: 3}";
    let (old, new) = (web(keys), web(keys));
    probe(backend(&old, 0), &[true]);
    hand(&old, &new);
    probe(backend(&new, 0), &[true, false]);
    hand(&old, &new);
    assert_eq!(backend(&new, 0).probed(Err("refused".to_owned()), NEW), None);
    assert_eq!(backend(&new, 0).probed(Err("refused".to_owned()), NEW), Some(false));
}

/// What is logged when a successor that has started from `early` and made `own` health checks takes
/// over from a predecessor that has made `late` ones meanwhile.
fn logged(early: &[bool], own: &[bool], late: &[bool]) -> Option<bool> {
    let keys = "health_check: {unhealthy_after: 3, healthy_after: 1}";
    let (old, new) = (web(keys), web(keys));
    let known = || backend(&old, 0).export_health(OLD);
    probe(backend(&old, 0), early);
    let exported = PastInstant { at: NEW, earlier: Duration::ZERO };
    assert_eq!(backend(&new, 0).import_health(&known(), exported), None);
    probe(backend(&new, 0), own);
    let now = Timestamp::from_nanos(OLD.as_nanos() - 1);
    for passed in late {
        let result = if *passed { Ok(()) } else { Err("refused".to_owned()) };
        backend(&old, 0).probed(result, now);
    }
    backend(&new, 0).import_health(&known(), exported)
}

#[test]
fn health_that_neither_worker_has_logged_last_is_logged() {
    assert_eq!(logged(&[true], &[], &[true]), None);
    assert_eq!(logged(&[true], &[], &[false, false, false]), None, "the predecessor has logged it");
    assert_eq!(logged(&[true], &[true], &[false, false, false]), None, "likewise");
    assert_eq!(logged(&[true], &[false], &[false, false]), Some(false), "three in a row");
    let healthy = logged(&[true, false, false], &[false], &[true]);
    assert_eq!(healthy, Some(true), "the successor has logged that it is unhealthy");
    let unhealthy = logged(&[false], &[true], &[false]);
    assert_eq!(unhealthy, Some(false), "the successor has logged that it is healthy");
}

#[test]
fn one_pass_of_our_own_does_not_outweigh_that_it_is_unhealthy() {
    let keys = "health_check: {healthy_after: 2}";
    let (old, new) = (web(keys), web(keys));
    probe(backend(&old, 0), &[false]);
    backend(&new, 0).probed(Ok(()), NEW);
    hand(&old, &new);
    assert!(!backend(&new, 0).is_healthy());
    assert_eq!(backend(&new, 0).probed(Ok(()), NEW), None);
    assert_eq!(backend(&new, 0).probed(Ok(()), NEW), Some(true));
}

#[test]
fn a_name_with_another_address_is_another_server() {
    let old = named("web.internal");
    probe(backend(&old, 0), &[true]);
    let moved = load(
        Some(b"pools: [{name: web, backends: ['http://web.internal:80']}]"),
        &Overrides::default(),
    );
    let new = Snapshot::new(&moved.unwrap(), "v", SEED, |_, port| {
        Lookup::Found(format!("10.9.9.99:{port}").parse().unwrap())
    });
    let same = named("web.internal");
    hand(&old, &new);
    hand(&old, &same);
    assert!(!backend(&new, 0).health().known);
    assert!(backend(&same, 0).is_healthy());
}

#[test]
fn the_last_known_address_of_a_name_travels_with_what_is_known() {
    let old = named("web.internal");
    let text = serde_json::to_string(&Handoff::export(&old, OLD)).unwrap();
    let read: Handoff = serde_json::from_str(&text).unwrap();
    let known = &read.names()[0];
    assert_eq!((known.host.as_str(), known.port), ("web.internal", 80));
    assert_eq!(known.address, Some("10.9.9.12:80".parse().unwrap()));
    assert_eq!(read.report_names(&read), [""; 0]);
}

#[test]
fn a_backend_without_an_address_hands_off_its_name_and_no_health() {
    let config = load(
        Some(b"pools: [{name: web, backends: ['http://web.internal:80']}]"),
        &Overrides::default(),
    );
    let failed = |_: &str, _| Lookup::Failed("no such name".to_owned());
    let (old, new) = (Snapshot::new(&config.unwrap(), "v", SEED, failed), named("web.internal"));
    hand(&old, &new);
    assert!(!backend(&new, 0).health().known);
    let handoff = Handoff::export(&old, OLD);
    assert_eq!(handoff.names()[0].address, None);
    let lines = Handoff::export_names(&new).report_names(&handoff);
    assert!(lines[0].contains("no such name"), "{lines:?}");
}

#[test]
fn a_backend_that_is_spoken_to_otherwise_is_another_server() {
    let pool = |keys: &str| snapshot(&format!("pools: [{{name: web, {keys}}}]"));
    let old = pool("backends: ['https://10.0.0.1:443'], tls: {verify: off}");
    probe(backend(&old, 0), &[true]);
    // Where it stands in the file says nothing of how it is spoken to.
    let same =
        pool("timeouts: {idle: 5s},\n backends: ['https://10.0.0.1:443'], tls: {verify: off}");
    hand(&old, &same);
    assert!(backend(&same, 0).health().known);
    for other in [
        "backends: ['http://10.0.0.1:443']",
        "backends: ['https://10.0.0.1:443']",
        "backends: ['https://10.0.0.1:443'], tls: {verify: off, server_name: a}",
        "backends: ['https://10.0.0.1:443'], tls: {verify: off}, protocol: h2",
        "backends: ['https://10.0.0.1:443'], tls: {verify: off}, proxy_protocol: v2",
    ] {
        let new = pool(other);
        hand(&old, &new);
        assert!(!backend(&new, 0).health().known, "{other}");
    }
}

#[test]
fn backends_are_known_by_pool_and_address_and_not_by_place_or_weight() {
    let old = snapshot(
        "routes: [{pool: a}, {path: /b, pool: b}]\npools: [{name: a, backends: [http://10.0.0.1:80, http://10.0.0.2:80]}, {name: b, backends: [http://10.0.0.1:80]}]",
    );
    let new = snapshot(
        "routes: [{pool: a}, {path: /b, pool: b}]\npools: [{name: b, backends: [http://10.0.0.1:80]}, {name: a, backends: [http://10.0.0.3:80, {url: http://10.0.0.2:80, weight: 9}, http://10.0.0.1:80]}]",
    );
    probe(old.pools[0].backend(BackendId::new(0)).unwrap(), &[true]);
    probe(old.pools[0].backend(BackendId::new(1)).unwrap(), &[false]);
    probe(old.pools[1].backend(BackendId::new(0)).unwrap(), &[false]);
    hand(&old, &new);
    let health = |pool: usize, index: usize| {
        let health = new.pools[pool].backend(BackendId::new(index)).unwrap().health();
        (health.known, health.healthy)
    };
    assert_eq!(health(0, 0), (true, false), "10.0.0.1 of pool b");
    assert_eq!(health(1, 0), (false, false), "10.0.0.3 is new");
    assert_eq!(health(1, 1), (true, false), "10.0.0.2 of pool a");
    assert_eq!(health(1, 2), (true, true), "10.0.0.1 of pool a");
}

#[test]
fn an_empty_bucket_is_refused_exactly_as_long_in_every_scope() {
    let text = "rate_limit: {requests_per_second: 3, burst: 2}\nroutes: [{pool: web}, {host: '*.x.example', path: /a, pool: web, rate_limit: {requests_per_second: 7, burst: 2}}]\npools: [{name: web, backends: [http://a:80], rate_limit: {requests_per_second: 11, burst: 2}}]";
    let (old, new) = (snapshot(text), snapshot(text));
    fn scopes(snapshot: &Snapshot) -> [Option<&RateLimiter>; 3] {
        let route = snapshot.routes[1].limiter.as_ref();
        [snapshot.limiter.as_ref(), route, snapshot.pools[0].limiter.as_ref()]
    }
    let earlier = Timestamp::from_nanos(OLD.as_nanos() - 1_234_567);
    for limiter in scopes(&old) {
        assert_eq!(spend(limiter, earlier), Ok(()));
        assert_eq!(spend(limiter, earlier), Ok(()));
    }
    hand(&old, &new);
    for (old, new) in scopes(&old).into_iter().zip(scopes(&new)) {
        let wait = spend(old, OLD).unwrap_err();
        assert_eq!(spend(new, NEW), Err(wait));
        let early = Timestamp::from_nanos((NEW + wait).as_nanos() - 1);
        assert_eq!(spend(new, early), Err(Duration::from_nanos(1)));
        assert_eq!(spend(new, NEW + wait), Ok(()));
    }
}

const ALL_SCOPES: &str = "rate_limit: {requests_per_second: 3, burst: 9}\nroutes: [{pool: web}, {path: /a, pool: web, rate_limit: {requests_per_second: 7, burst: 9}}]\npools: [{name: web, backends: [http://a:80], rate_limit: {requests_per_second: 11, burst: 9}}]";

fn limiters(snapshot: &Snapshot) -> [Option<&RateLimiter>; 3] {
    let route = snapshot.routes.iter().find_map(|route| route.limiter.as_ref());
    [snapshot.limiter.as_ref(), route, snapshot.pools[0].limiter.as_ref()]
}

/// What an old worker has given since its handoff, by way of the message.
fn given(known: &mut SuccessorBuckets, old: &Snapshot, now: Timestamp) -> Debits {
    let text = serde_json::to_string(&known.debits(old, now)).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_a_draining_worker_gives_is_charged_in_every_scope() {
    let (old, new) = (snapshot(ALL_SCOPES), snapshot(ALL_SCOPES));
    for limiter in limiters(&old) {
        assert_eq!(spend(limiter, OLD), Ok(()));
    }
    let handoff = Handoff::export(&old, OLD);
    let mut known = SuccessorBuckets::from_handoff(&handoff, OLD);
    handoff.import(&new, NEW);
    // Both admit meanwhile: one token before the handoff, three and four after it.
    for (old, new) in limiters(&old).into_iter().zip(limiters(&new)) {
        (0..3).for_each(|_| assert_eq!(spend(old, OLD), Ok(())));
        (0..4).for_each(|_| assert_eq!(spend(new, NEW), Ok(())));
    }
    let debits = given(&mut known, &old, OLD);
    assert!(!debits.is_empty());
    debits.import(&new, NEW);
    for limiter in limiters(&new) {
        assert_eq!(spend(limiter, NEW), Ok(()), "one of nine is left");
        assert!(spend(limiter, NEW).is_err());
    }
    assert!(given(&mut known, &old, OLD).is_empty(), "it is reported once");
}

#[test]
fn debits_of_another_seed_or_prefix_or_of_a_limit_that_is_gone_are_passed_over() {
    let old = limited("requests_per_second: 1, burst: 3");
    let mut known = SuccessorBuckets::from_handoff(&Handoff::export(&old, OLD), OLD);
    assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(()));
    let debits = given(&mut known, &old, OLD);
    let prefix = limited("requests_per_second: 1, burst: 3, ipv6_prefix: 48");
    let (gone, same) = (web(""), limited("requests_per_second: 1, burst: 3"));
    let seed = seeded(&limited_text("requests_per_second: 1, burst: 3"), 1);
    for new in [&prefix, &gone, &seed, &same] {
        debits.import(new, NEW);
    }
    let clients = [&prefix, &seed, &same].map(|new| new.limiter.as_ref().unwrap().clients());
    assert_eq!(clients, [0, 0, 1]);
}

#[test]
fn what_a_client_owes_is_handed_off_and_forgiven_under_another_rate() {
    let old = limited("requests_per_second: 1, burst: 3");
    let first = Handoff::export(&old, OLD);
    let mut known = SuccessorBuckets::from_handoff(&first, OLD);
    (0..3).for_each(|_| assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(())));
    // The next one, which takes over from the one before, gives the whole burst as well.
    let next = limited("requests_per_second: 1, burst: 3");
    first.import(&next, NEW);
    (0..3).for_each(|_| assert_eq!(spend(next.limiter.as_ref(), NEW), Ok(())));
    given(&mut known, &old, OLD).import(&next, NEW);
    let handoff = Handoff::export(&next, NEW);
    let last = limited("requests_per_second: 1, burst: 3");
    handoff.import(&last, OLD);
    assert_eq!(spend(last.limiter.as_ref(), OLD), Err(Duration::from_secs(4)));
    // A bucket of the last one takes as long to fill, but holds twice the tokens.
    for keys in ["requests_per_second: 2, burst: 4", "requests_per_second: 2, burst: 6"] {
        let other = limited(keys);
        handoff.import(&other, OLD);
        let wait = spend(other.limiter.as_ref(), OLD);
        assert_eq!(wait, Err(Duration::from_millis(500)), "{keys}");
    }
}

#[test]
fn after_a_limit_was_raised_a_request_at_the_old_worker_costs_one_token() {
    let old = limited("requests_per_second: 1, burst: 60");
    let new = limited("requests_per_second: 1000, burst: 1000");
    (0..30).for_each(|_| assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(())));
    let handoff = Handoff::export(&old, OLD);
    let mut known = SuccessorBuckets::from_handoff(&handoff, OLD);
    handoff.import(&new, NEW);
    // Two seconds later the new bucket is full, and the old one is not.
    let later = Duration::from_secs(2);
    assert_eq!(spend(old.limiter.as_ref(), OLD + later), Ok(()));
    given(&mut known, &old, OLD + later).import(&new, NEW + later);
    let taken = (0..2000).filter(|_| spend(new.limiter.as_ref(), NEW + later).is_ok()).count();
    assert_eq!(taken, 999);
}

#[test]
fn after_a_limit_was_lowered_a_request_at_the_old_worker_costs_its_time() {
    let old = limited("requests_per_second: 1000, burst: 1000");
    let new = limited("requests_per_second: 1, burst: 5");
    let mut known = SuccessorBuckets::from_handoff(&Handoff::export(&old, OLD), OLD);
    (0..1000).for_each(|_| assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(())));
    given(&mut known, &old, OLD).import(&new, NEW);
    let taken = (0..9).filter(|_| spend(new.limiter.as_ref(), NEW).is_ok()).count();
    assert_eq!(taken, 4, "a thousand tokens are earned in one second");
}

#[test]
fn under_another_rate_a_debit_leaves_no_debt() {
    for keys in ["requests_per_second: 2, burst: 4", "requests_per_second: 2, burst: 6"] {
        let (old, new) = (limited("requests_per_second: 1, burst: 3"), limited(keys));
        let mut known = SuccessorBuckets::from_handoff(&Handoff::export(&old, OLD), OLD);
        (0..3).for_each(|_| assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(())));
        while spend(new.limiter.as_ref(), NEW).is_ok() {}
        given(&mut known, &old, OLD).import(&new, NEW);
        assert_eq!(spend(new.limiter.as_ref(), NEW), Err(Duration::from_millis(500)), "{keys}");
    }
}

#[test]
fn under_a_lower_burst_a_bucket_is_at_most_empty() {
    let old = limited("requests_per_second: 1, burst: 100");
    let new = limited("requests_per_second: 1, burst: 2");
    for _ in 0..100 {
        assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(()));
    }
    hand(&old, &new);
    assert_eq!(spend(new.limiter.as_ref(), NEW), Err(Duration::from_secs(1)));
}

#[test]
fn under_another_rate_a_bucket_is_full_when_it_would_have_been() {
    let old = limited("requests_per_second: 1, burst: 5");
    let new = limited("requests_per_second: 2, burst: 10");
    for _ in 0..3 {
        assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(()));
    }
    hand(&old, &new);
    // 3 s to go until full, which are six of ten tokens.
    let taken = (0..20).filter(|_| spend(new.limiter.as_ref(), NEW).is_ok()).count();
    assert_eq!(taken, 4);
}

#[test]
fn another_size_of_the_table_changes_nothing() {
    let old = limited("requests_per_second: 1, burst: 1, clients_max: 1000");
    let new = limited("requests_per_second: 1, burst: 1, clients_max: 31");
    assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(()));
    hand(&old, &new);
    assert_eq!(spend(new.limiter.as_ref(), NEW), Err(Duration::from_secs(1)));
}

#[test]
fn with_another_prefix_every_client_starts_anew() {
    let old = limited("requests_per_second: 1, burst: 1");
    let new = limited("requests_per_second: 1, burst: 1, ipv6_prefix: 48");
    assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(()));
    hand(&old, &new);
    assert_eq!(spend(new.limiter.as_ref(), NEW), Ok(()));
}

#[test]
fn the_seed_is_told_but_not_shown() {
    let handoff = Handoff::export(&web(""), OLD);
    assert_eq!(handoff.seed(), Some(SEED));
    assert_eq!(Handoff::default().seed(), None);
    let shown = format!("{handoff:?}");
    assert!(!shown.contains(&SEED.to_string()), "{shown}");
}

#[test]
fn buckets_under_another_seed_are_nobodys() {
    let old = limited("requests_per_second: 1, burst: 1");
    let config = load(
        Some(b"{rate_limit: {requests_per_second: 1, burst: 1}, pools: [{name: web, backends: [http://10.0.0.1:80]}]}"),
        &Overrides::default(),
    );
    let new = Snapshot::new(&config.unwrap(), "v", 1, |_, _| Lookup::Failed("no names".to_owned()));
    assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(()));
    Handoff::export(&old, OLD).import(&new, NEW);
    assert_eq!(new.limiter.as_ref().unwrap().clients(), 0);
}

#[test]
fn what_an_older_version_does_not_tell_is_unknown() {
    let handoff: Handoff = serde_json::from_str("{}").unwrap();
    assert_eq!(handoff, Handoff::default());
}

#[test]
fn text_that_is_no_buckets_is_refused() {
    let old = limited("requests_per_second: 1, burst: 1");
    assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(()));
    let text = serde_json::to_string(&Handoff::export(&old, OLD)).unwrap();
    let (head, tail) = text.split_once(r#""buckets":""#).unwrap();
    let broken = |packed: &str| {
        let tail = tail.split_once('"').unwrap().1;
        serde_json::from_str::<Handoff>(&format!(r#"{head}"buckets":"{packed}"{tail}"#))
    };
    assert!(broken("").is_ok());
    assert!(broken("*").is_err(), "not base64");
    assert!(broken("gA").is_err(), "a number without its end");
    assert!(broken("////////////////////").is_err(), "a number without end");
}

#[test]
fn a_hundred_thousand_buckets_are_a_small_message() {
    let old = limited("requests_per_second: 10, burst: 50, clients_max: 1000000");
    let limiter = old.limiter.as_ref().unwrap();
    for client in 0..100_000_u32 {
        let now = Timestamp::from_nanos(OLD.as_nanos() - u64::from(client));
        for _ in 0..=client % 50 {
            assert_eq!(limiter.admit(IpAddr::V4(client.into()), now), Ok(()));
        }
    }
    let handoff = Handoff::export(&old, OLD);
    let text = serde_json::to_string(&handoff).unwrap();
    println!("a handoff of 100,000 buckets has {} bytes", text.len());
    assert!(text.len() < 2_000_000, "{} bytes", text.len());
    let new = limited("requests_per_second: 10, burst: 50, clients_max: 1000000");
    serde_json::from_str::<Handoff>(&text).unwrap().import(&new, NEW);
    assert_eq!(new.limiter.as_ref().unwrap().clients(), 100_000);
}

#[test]
fn a_reload_charges_no_client_for_the_age_of_the_checkpoint() {
    let keys = "requests_per_second: 1, burst: 60";
    let (old, new) = (limited(keys), limited(keys));
    (0..60).for_each(|_| assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(())));
    let checkpoint = Handoff::export(&old, OLD);
    let after = |seconds| Duration::from_secs(seconds);
    // The candidate starts a second after the checkpoint, and takes over a second later.
    checkpoint.import_health(&new, NEW + after(1));
    Handoff::export(&old, OLD + after(2)).import(&new, NEW + after(2));
    let taken = (0..9).filter(|_| spend(new.limiter.as_ref(), NEW + after(2)).is_ok()).count();
    assert_eq!(taken, 2, "a token for each second");
}

/// What happens to one of four backends, or what one of six clients does.
#[derive(Debug, Clone, Copy)]
enum Event {
    Probe(usize, bool),
    Ask(u8),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_usize..4, any::<bool>()).prop_map(|(backend, passed)| Event::Probe(backend, passed)),
        (0_u8..6).prop_map(Event::Ask),
        (0_u64..2_000_000_000).prop_map(Event::Pass),
    ]
}

/// Who is in the pool, with which weights.
fn members() -> impl Strategy<Value = Vec<(usize, u32)>> {
    proptest::collection::btree_map(0_usize..4, 1_u32..9, 1..=4)
        .prop_map(|members| members.into_iter().collect())
}

fn drawn(members: &[(usize, u32)]) -> Snapshot {
    let backend =
        |(id, weight): &(usize, u32)| format!("{{url: 'http://10.0.0.{id}:80', weight: {weight}}}");
    let backends: Vec<String> = members.iter().map(backend).collect();
    snapshot(&format!(
        "{{rate_limit: {{requests_per_second: 1.7, burst: 3}}, pools: [{{name: web, backends: [{}], health_check: {{unhealthy_after: 3, healthy_after: 2}}}}]}}",
        backends.join(", ")
    ))
}

/// What is decided, event by event.
fn run(
    snapshot: &Snapshot,
    ids: &[usize],
    events: &[Event],
    now: &mut Timestamp,
    both: &BTreeSet<usize>,
) -> Vec<String> {
    let mut decisions = Vec::new();
    for event in events {
        match *event {
            Event::Probe(id, passed) if both.contains(&id) => {
                let index = ids.iter().position(|one| *one == id).unwrap();
                let backend = backend(snapshot, index);
                let result = if passed { Ok(()) } else { Err("refused".to_owned()) };
                let flipped = backend.probed(result, *now);
                decisions.push(format!("{id}: {flipped:?} {}", backend.is_healthy()));
            }
            Event::Probe(..) => {}
            Event::Ask(client) => {
                let limiter = snapshot.limiter.as_ref().unwrap();
                let decision = limiter.admit(IpAddr::from([192, 0, 2, client]), *now);
                decisions.push(format!("{client}: {decision:?}"));
            }
            Event::Pass(ns) => *now = *now + Duration::from_nanos(ns),
        }
    }
    decisions
}

#[test]
fn the_age_of_a_checkpoint_counts() {
    let keys = "requests_per_second: 1, burst: 60";
    let (old, new) = (limited(keys), limited(keys));
    probe(backend(&old, 0), &[false]);
    (0..60).for_each(|_| assert_eq!(spend(old.limiter.as_ref(), OLD), Ok(())));
    let mut checkpoint = Handoff::export(&old, OLD);
    // Its worker dies, and the next one starts three seconds after it.
    checkpoint.add_age(Duration::from_secs(1));
    checkpoint.add_age(Duration::from_secs(2));
    let text = serde_json::to_string(&checkpoint).unwrap();
    serde_json::from_str::<Handoff>(&text).unwrap().import(&new, NEW);
    let taken = (0..9).filter(|_| spend(new.limiter.as_ref(), NEW).is_ok()).count();
    assert_eq!(taken, 3, "a token for each second");
    let checked = backend(&new, 0).health().last_checked.unwrap();
    assert_eq!(checked.ago(NEW), Duration::from_secs(4));
}

/// Pauses, in nanoseconds, each of which is followed by a request.
fn pauses() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(0_u64..900_000_000, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_successor_decides_as_its_predecessor_would_have(
        (old, new) in (members(), members()),
        before in proptest::collection::vec(event(), 0..60),
        after in proptest::collection::vec(event(), 0..60),
    ) {
        let ids = |members: &[(usize, u32)]| members.iter().map(|one| one.0).collect::<Vec<_>>();
        let (old_ids, new_ids) = (ids(&old), ids(&new));
        let all: BTreeSet<usize> = old_ids.iter().copied().collect();
        let both = new_ids.iter().copied().filter(|id| all.contains(id)).collect();
        let (old, new) = (drawn(&old), drawn(&new));
        let mut old_now = OLD;
        run(&old, &old_ids, &before, &mut old_now, &all);
        let handoff = Handoff::export(&old, old_now);
        handoff.import(&new, NEW);
        let mut new_now = NEW;
        let expected = run(&old, &old_ids, &after, &mut old_now, &both);
        prop_assert_eq!(run(&new, &new_ids, &after, &mut new_now, &both), expected);
    }

    #[test]
    fn over_any_number_of_reloads_a_client_of_one_worker_at_a_time_gets_neither_more_nor_less(
        reloads in proptest::collection::vec((pauses(), pauses(), 0_u64..900_000_000), 1..5),
    ) {
        let keys = "requests_per_second: 1.7, burst: 3";
        let (single, mut current) = (limited(keys), limited(keys));
        let mut now = OLD;
        let ask = |current: &Snapshot, pauses: &[u64], now: &mut Timestamp| {
            for pause in pauses {
                *now = *now + Duration::from_nanos(*pause);
                let expected = spend(single.limiter.as_ref(), *now);
                prop_assert_eq!(spend(current.limiter.as_ref(), *now), expected);
            }
            Ok(())
        };
        for (before, while_it_starts, pause) in reloads {
            ask(&current, &before, &mut now)?;
            let candidate = limited(keys);
            let checkpoint = Handoff::export(&current, now);
            now = now + Duration::from_nanos(pause);
            checkpoint.import_health(&candidate, now);
            ask(&current, &while_it_starts, &mut now)?;
            let handoff = Handoff::export(&current, now);
            let mut known = SuccessorBuckets::from_handoff(&handoff, now);
            handoff.import(&candidate, now);
            now = now + Duration::from_nanos(pause);
            given(&mut known, &current, now).import(&candidate, now);
            current = candidate;
        }
        ask(&current, &[0, 0, 0, 0], &mut now)?;
    }

    #[test]
    fn what_was_handed_off_can_be_handed_off_again(
        members in members(),
        events in proptest::collection::vec(event(), 0..60),
    ) {
        let ids: Vec<usize> = members.iter().map(|one| one.0).collect();
        let (old, new) = (drawn(&members), drawn(&members));
        let mut now = OLD;
        run(&old, &ids, &events, &mut now, &ids.iter().copied().collect());
        let handoff = Handoff::export(&old, now);
        handoff.import(&new, NEW);
        prop_assert_eq!(Handoff::export(&new, NEW), handoff.clone());
        let text = serde_json::to_string(&handoff).unwrap();
        prop_assert_eq!(serde_json::from_str::<Handoff>(&text).unwrap(), handoff);
    }
}
