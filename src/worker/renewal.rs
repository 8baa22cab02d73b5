//! Certificates that are renewed on disk are used without a reload.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::metrics::ConnectionMetrics;
use crate::tls::terminator::{Renewals, Terminator};
use crate::tls::tickets::Tickets;

/// How often the files are looked at. A certificate is renewed days before it expires, so this is
/// for the operator who waits to see it; links that Kubernetes swaps are seen like any change.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Looks at the files for ever, and rolls the keys of tickets.
pub(super) async fn keep_renewed(
    terminators: Arc<[Arc<Terminator>]>,
    tickets: Arc<Tickets>,
    metrics: ConnectionMetrics,
    clock: Clock,
) {
    for outcome in ["done", "refused"] {
        metrics.certificate_renewals.with_label_values(&[outcome]).inc_by(0);
    }
    tell_expiries(&terminators, &metrics);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let now = clock.wall(clock.now());
        tickets.rotate(now);
        let all = Arc::clone(&terminators);
        let looked = tokio::task::spawn_blocking(move || {
            all.iter().map(|terminator| terminator.refresh(now)).collect::<Vec<_>>()
        });
        match looked.await {
            Ok(renewals) => {
                renewals.iter().for_each(|renewals| tell(renewals, &metrics));
                if renewals.iter().any(|renewals| !renewals.done.is_empty()) {
                    tell_expiries(&terminators, &metrics);
                }
            }
            Err(error) => log::error!("certificates were not looked at: error=\"{error}\""),
        }
    }
}

fn tell(renewals: &Renewals, metrics: &ConnectionMetrics) {
    for file in &renewals.done {
        log::info!("certificate renewed: file={file}");
        metrics.certificate_renewals.with_label_values(&["done"]).inc();
    }
    for problem in &renewals.refused {
        log::warn!("certificate not renewed, the old one stays: error=\"{}\"", problem.what);
        metrics.certificate_renewals.with_label_values(&["refused"]).inc();
    }
}

fn tell_expiries(terminators: &[Arc<Terminator>], metrics: &ConnectionMetrics) {
    for (file, expiry) in terminators.iter().flat_map(|terminator| terminator.expiries()) {
        metrics.certificate_expiry.with_label_values(&[&file]).set(unix(expiry));
    }
}

fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
