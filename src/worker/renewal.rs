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
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Everything that uses TLS files.
pub(super) struct Files {
    terminators: Vec<Arc<Terminator>>,
    upstreams: Arc<UpstreamPeers>,
    kept: Mutex<LastGoodFiles>,
}

impl Files {
    pub(super) fn new(terminators: Vec<Arc<Terminator>>, upstreams: Arc<UpstreamPeers>) -> Self {
        let files = Self { terminators, upstreams, kept: Mutex::default() };
        files.keep();
        files
    }

    fn refresh(&self, now: SystemTime) -> Vec<RefreshReport> {
        let of_clients = self.terminators.iter().map(|terminator| terminator.refresh(now));
        let renewals: Vec<_> = of_clients.chain(self.upstreams.refresh(now)).collect();
        if renewals.iter().any(|renewals| !renewals.reloaded.is_empty()) {
            self.keep();
        }
        renewals
    }

    fn keep(&self) {
        let mut kept = LastGoodFiles::default();
        self.terminators.iter().for_each(|terminator| terminator.export(&mut kept));
        self.upstreams.export(&mut kept);
        *self.kept.lock() = kept;
    }

    /// The status of each file. Several may use the same one.
    fn statuses(&self) -> BTreeMap<String, FileStatus> {
        let of_clients = self.terminators.iter().flat_map(|terminator| terminator.statuses());
        let mut statuses: BTreeMap<String, FileStatus> = BTreeMap::new();
        for one in of_clients.chain(self.upstreams.statuses()) {
            match statuses.entry(one.file.clone()) {
                Entry::Vacant(place) => drop(place.insert(one)),
                Entry::Occupied(mut place) => {
                    let other = place.get_mut();
                    other.broken |= one.broken;
                    other.missing |= one.missing;
                    other.expires = other.expires.into_iter().chain(one.expires).min();
                }
            }
        }
        statuses
    }

    /// The contents that are used, for the next worker. It does not wait for a file that is being read.
    pub(super) fn kept(&self) -> LastGoodFiles {
        self.kept.lock().clone()
    }
}

/// Shows the status of the files at once. The task that it returns checks them from then on, and
/// rotates the keys of tickets. A scrape that comes before the task runs must miss no series.
pub(super) fn watch_certificates(
    files: Arc<Files>,
    tickets: Arc<Tickets>,
    metrics: ConnectionMetrics,
    clock: Clock,
) -> impl Future<Output = ()> {
    record_statuses(&files, &metrics);
    look_again_and_again(files, tickets, metrics, clock)
}

async fn look_again_and_again(
    files: Arc<Files>,
    tickets: Arc<Tickets>,
    metrics: ConnectionMetrics,
    clock: Clock,
) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let now = clock.wall(clock.now());
        tickets.rotate(now);
        let all = Arc::clone(&files);
        let looked = tokio::task::spawn_blocking(move || all.refresh(now));
        match looked.await {
            Ok(renewals) => {
                renewals.iter().for_each(|renewals| tell(renewals, &metrics));
                record_statuses(&files, &metrics);
            }
            Err(error) => log::error!("certificates were not checked: error=\"{error}\""),
        }
    }
}

fn tell(renewals: &RefreshReport, metrics: &ConnectionMetrics) {
    for file in &renewals.reloaded {
        log::info!("certificate renewed: file={file}");
        metrics.certificate_renewals.with_label_values(&["done"]).inc();
    }
    warn(renewals);
    let failed = u64::try_from(renewals.failed.len()).unwrap_or(u64::MAX);
    metrics.certificate_renewals.with_label_values(&["failed"]).inc_by(failed);
}

/// Logs what cannot be used, and what follows from that.
pub(super) fn warn(renewals: &RefreshReport) {
    for FileFailure { problem, missing } in &renewals.failed {
        let what = &problem.what;
        match (missing, &renewals.owner) {
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

fn record_statuses(files: &Files, metrics: &ConnectionMetrics) {
    for status in files.statuses().into_values() {
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
    fn how_things_stand_with_the_files_is_shown_before_the_task_runs() {
        let directory = std::env::temp_dir().join(format!("weir-renewal-{}", std::process::id()));
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
        let kept = LastGoodFiles::default();
        let (doors, tickets) = worker::doors(&config, None, &kept).unwrap();
        let terminators = doors.into_iter().filter_map(|door| door.terminator).collect();
        let clock = Clock::process();
        let trust = upstream::open(&config, &kept, clock.wall(clock.now()));
        let upstreams = Arc::new(UpstreamPeers::new(&config.pools, trust).unwrap());
        let files = Arc::new(Files::new(terminators, upstreams));
        let registry = Registry::new();
        let metrics = Metrics::new(&registry, &fixture::web()).unwrap();
        let renewal = watch_certificates(files, tickets, metrics.connections().clone(), clock);
        drop(renewal);
        let shown = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for name in ["expiry_timestamp_seconds", "reload_failed", "unavailable"] {
            let series = format!("lb_certificate_{name}{{certificate=\"{cert}\"}}");
            assert!(shown.contains(&series), "{series} is not in\n{shown}");
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
