//! Reloads certificates that were renewed on disk, without a reload of the configuration.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::metrics::ConnectionMetrics;
use crate::tls::last_good::LastGoodFiles;
use crate::tls::reloadable::{FileFailure, FileStatus, Owner, RefreshReport};
use crate::tls::terminator::Terminator;
use crate::tls::tickets::Tickets;
use crate::upstream::UpstreamPeers;

/// How often the files are checked. A certificate is renewed days before it expires; the short interval
/// is for an operator who waits to see it. Links that Kubernetes swaps are noticed like any change.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// All that uses TLS files.
pub(super) struct CertWatcher {
    terminators: Vec<Arc<Terminator>>,
    upstreams: Arc<UpstreamPeers>,
    last_good: Mutex<LastGoodFiles>,
}

impl CertWatcher {
    pub(super) fn new(terminators: Vec<Arc<Terminator>>, upstreams: Arc<UpstreamPeers>) -> Self {
        let watcher = Self { terminators, upstreams, last_good: Mutex::default() };
        watcher.save_last_good();
        watcher
    }

    fn refresh(&self, now: SystemTime) -> Vec<RefreshReport> {
        let listeners = self.terminators.iter().map(|terminator| terminator.refresh(now));
        let reports: Vec<_> = listeners.chain(self.upstreams.refresh(now)).collect();
        if reports.iter().any(|report| !report.reloaded.is_empty()) {
            self.save_last_good();
        }
        reports
    }

    fn save_last_good(&self) {
        let mut last_good = LastGoodFiles::default();
        self.terminators.iter().for_each(|terminator| terminator.export(&mut last_good));
        self.upstreams.export(&mut last_good);
        *self.last_good.lock() = last_good;
    }

    /// The status of each file. Several may use the same one.
    fn statuses(&self) -> BTreeMap<String, FileStatus> {
        let listeners = self.terminators.iter().flat_map(|terminator| terminator.statuses());
        let mut statuses: BTreeMap<String, FileStatus> = BTreeMap::new();
        for status in listeners.chain(self.upstreams.statuses()) {
            match statuses.entry(status.file.clone()) {
                Entry::Vacant(entry) => drop(entry.insert(status)),
                Entry::Occupied(mut entry) => {
                    let other = entry.get_mut();
                    other.broken |= status.broken;
                    other.missing |= status.missing;
                    other.expires = other.expires.into_iter().chain(status.expires).min();
                }
            }
        }
        statuses
    }

    /// The contents that are used, for the next worker. It does not wait for a file that is being read.
    pub(super) fn last_good(&self) -> LastGoodFiles {
        self.last_good.lock().clone()
    }
}

/// Shows the status of the files at once: a scrape before the task runs must miss no series. The task
/// that it returns checks them from then on, and rotates the keys of tickets.
pub(super) fn run(
    watcher: Arc<CertWatcher>,
    tickets: Arc<Tickets>,
    metrics: ConnectionMetrics,
    clock: Clock,
) -> impl Future<Output = ()> {
    record_statuses(&watcher, &metrics);
    check_repeatedly(watcher, tickets, metrics, clock)
}

async fn check_repeatedly(
    watcher: Arc<CertWatcher>,
    tickets: Arc<Tickets>,
    metrics: ConnectionMetrics,
    clock: Clock,
) {
    let mut check = interval(CHECK_INTERVAL);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        check.tick().await;
        let now = clock.wall(clock.now());
        tickets.rotate(now);
        let files = Arc::clone(&watcher);
        match tokio::task::spawn_blocking(move || files.refresh(now)).await {
            Ok(reports) => {
                reports.iter().for_each(|report| record_refresh(report, &metrics));
                record_statuses(&watcher, &metrics);
            }
            Err(error) => log::error!("certificates were not checked: error=\"{error}\""),
        }
    }
}

fn record_refresh(report: &RefreshReport, metrics: &ConnectionMetrics) {
    for file in &report.reloaded {
        log::info!("certificate renewed: file={file}");
        metrics.certificate_renewals.with_label_values(&["done"]).inc();
    }
    warn(report);
    let failed = u64::try_from(report.failed.len()).unwrap_or(u64::MAX);
    metrics.certificate_renewals.with_label_values(&["failed"]).inc_by(failed);
}

/// Logs what cannot be used, and what follows from that.
pub(super) fn warn(report: &RefreshReport) {
    for FileFailure { problem, missing } in &report.failed {
        let what = &problem.what;
        match (missing, &report.owner) {
            (false, _) => {
                log::warn!("certificate not renewed, the old one stays: error=\"{what}\"");
            }
            (true, Owner::Listener(address)) => log::warn!(
                "certificate missing, handshakes that need it fail until it is repaired: \
                 listener={address} error=\"{what}\""
            ),
            (true, Owner::Pool(pool)) => log::warn!(
                "certificate missing, its pool's TLS backends get no request until it is repaired: \
                 pool={pool} error=\"{what}\""
            ),
        }
    }
}

fn record_statuses(watcher: &CertWatcher, metrics: &ConnectionMetrics) {
    for status in watcher.statuses().into_values() {
        let file = [status.file.as_str()];
        let gauges = (&metrics.certificate_reload_failed, &metrics.certificate_unavailable);
        gauges.0.with_label_values(&file).set(i64::from(status.broken));
        gauges.1.with_label_values(&file).set(i64::from(status.missing));
        if let Some(expiry) = status.expires {
            metrics.certificate_expiry.with_label_values(&file).set(unix(expiry));
        }
    }
}

fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use prometheus::{Registry, TextEncoder};

    use super::*;
    use crate::config::{Overrides, load};
    use crate::metrics::Metrics;
    use crate::tls::upstream;
    use crate::{fixture, worker};

    #[test]
    fn the_status_of_the_files_is_shown_before_the_task_runs() {
        let directory =
            std::env::temp_dir().join(format!("weir-cert-watcher-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let (cert, key) = (cert.display(), key.display());
        let text = format!(
            "listeners: [{{address: '127.0.0.1:1', tls: {{certificates: [{{cert: {cert}, key: {key}}}]}}}}]\n\
             pools: [{{name: web, backends: ['http://10.0.0.1:80']}}]"
        );
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let last_good = LastGoodFiles::default();
        let (listeners, tickets) = worker::listeners(&config, None, &last_good).unwrap();
        let terminators = listeners.into_iter().filter_map(|it| it.terminator).collect();
        let clock = Clock::process();
        let trust = upstream::open(&config, &last_good, clock.wall(clock.now()));
        let upstreams = Arc::new(UpstreamPeers::new(&config.pools, trust).unwrap());
        let watcher = Arc::new(CertWatcher::new(terminators, upstreams));
        let registry = Registry::new();
        let metrics = Metrics::new(&registry, &fixture::web()).unwrap();
        let task = run(watcher, tickets, metrics.connections().clone(), clock);
        drop(task);
        let shown = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for name in ["expiry_timestamp_seconds", "reload_failed", "unavailable"] {
            let series = format!("lb_certificate_{name}{{certificate=\"{cert}\"}}");
            assert!(shown.contains(&series), "{series} is not in\n{shown}");
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn every_file_of_a_check_is_counted_as_renewed_or_failed() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry, &fixture::web()).unwrap();
        let metrics = metrics.connections();
        let report = RefreshReport {
            owner: Owner::Pool("web".to_owned()),
            reloaded: vec!["a.crt".to_owned(), "b.crt".to_owned()],
            failed: Vec::new(),
        };
        record_refresh(&report, metrics);
        let count = |result| metrics.certificate_renewals.with_label_values(&[result]).get();
        assert_eq!((count("done"), count("failed")), (2, 0));
    }
}
