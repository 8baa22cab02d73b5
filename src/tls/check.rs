//! Checks the certificate files for `weir check` and for every reload.

use std::time::{Duration, SystemTime};

use super::client::ClientVerifier;
use super::files::{self, CertificateAndKey};
use super::last_good::LastGoodFiles;
use super::reloadable::FileFailure;
use super::upstream;
use crate::config::{Certificate, Config, ConfigBuilder, HostPattern, Problem, Tls};

/// A certificate that expires within this time causes a warning.
const SOON: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// What to do about a certificate that has expired or is not valid yet. `weir check` reports it as
/// an error. A start or a reload only warns: otherwise one certificate of many would prevent every
/// other change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExpired {
    /// Report an error.
    Reject,
    /// Only warn.
    Warn,
}

/// Opens every file that the configuration names, even if the configuration has other errors, and
/// adds the errors found.
pub fn check_files(builder: &mut ConfigBuilder, now: SystemTime, expired: OnExpired) {
    let (config, is_whole) = (builder.config(), builder.is_whole());
    let mut found = CheckedFiles::default();
    let all: Vec<&Tls> = config.listeners.iter().filter_map(|it| it.tls.as_ref()).collect();
    for tls in &all {
        for files in &tls.certificates {
            match CertificateAndKey::read_or_tell_all(files) {
                Ok(material) => {
                    found.check_dates(&material, files, now, expired);
                    found.materials.push(material);
                }
                Err(problems) => found.problems.extend(problems),
            }
        }
        if let Some(authority) = tls.client_auth.authority() {
            let read = files::read(authority);
            let clients =
                read.and_then(|it| ClientVerifier::of(&tls.client_auth, authority, &[it]));
            found.problems.extend(clients.err());
        }
    }
    // If some listener is plaintext, a host without a certificate may belong to that one.
    let compares = is_whole && found.problems.is_empty();
    if compares && !all.is_empty() && all.len() == config.listeners.len() {
        found.compare(config);
    }
    for files in config.pools.iter().filter_map(|pool| pool.transport.tls.identity.as_ref()) {
        match CertificateAndKey::read_or_tell_all(files) {
            Ok(material) => found.check_dates(&material, files, now, expired),
            Err(problems) => found.problems.extend(problems),
        }
    }
    let trust = upstream::open(config, &LastGoodFiles::default(), now);
    for FileFailure { problem, .. } in trust.found.into_iter().flat_map(|found| found.failed) {
        // An error without a position concerns the whole configuration, which must be complete for
        // that.
        let certain = is_whole || problem.at.is_some();
        // The first error of a certificate or its key was already reported above.
        if certain && !found.problems.contains(&problem) {
            found.problems.push(problem);
        }
    }
    found.problems.into_iter().for_each(|problem| builder.refuse(problem));
    found.warnings.into_iter().for_each(|warning| builder.warn(warning));
}

#[derive(Default)]
struct CheckedFiles {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    materials: Vec<CertificateAndKey>,
}

impl CheckedFiles {
    fn check_dates(
        &mut self,
        material: &CertificateAndKey,
        files: &Certificate,
        now: SystemTime,
        expired: OnExpired,
    ) {
        match (material.untimely(&files.cert, now), expired) {
            (Some(problem), OnExpired::Reject) => self.problems.push(problem),
            (Some(problem), OnExpired::Warn) => self.warnings.push(problem),
            (None, _) if material.not_after < now + SOON => {
                let what = format!("expires on {}", spell(material.not_after));
                self.warnings.push(files::problem(&files.cert, what, "renew it"));
            }
            (None, _) => {}
        }
    }

    /// Warns about hosts of routes without a certificate.
    fn compare(&mut self, config: &Config) {
        let mut hosts: Vec<String> = Vec::new();
        for route in &config.routes {
            let host = match &route.host {
                HostPattern::Exact(host) => host.clone(),
                // A certificate for the wildcard covers any label, so `*` can be looked up as one.
                HostPattern::Suffix(suffix) => format!("*.{suffix}"),
                HostPattern::Any => continue,
            };
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        for host in hosts {
            if !self.materials.iter().any(|material| material.covers(&host)) {
                let what = format!("no certificate is for the host `{host}` of a route");
                let help = "add one that covers it to `certificates` of a listener's `tls`";
                self.warnings.push(Problem { at: None, what, help: Some(help.to_owned()) });
            }
        }
    }
}

fn spell(time: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(time)
}
