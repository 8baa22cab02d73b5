//! What `weir check` and every reload find in the files of certificates.

use std::time::{Duration, SystemTime};

use super::client::Clients;
use super::files::{self, Material};
use super::kept::Kept;
use super::upstream;
use super::watched::Broken;
use crate::config::{Certificate, Config, Draft, HostPattern, Problem, Tls};

/// A certificate that ends sooner is worth a warning.
const SOON: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// What to do about a certificate whose time is over, or has not come. It is a problem for who asks
/// whether all is well. It keeps nobody from a start or a reload: one of many certificates would
/// then keep an operator from changing anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// It is a problem like others.
    Refused,
    /// It is a warning.
    Told,
}

/// Opens every file that the configuration names, also where something else is wrong with it, and
/// adds what is wrong with them.
pub fn look_at_files(draft: &mut Draft, now: SystemTime, expired: Expired) {
    let (config, is_whole) = (draft.config(), draft.is_whole());
    let mut found = Found::default();
    let all: Vec<&Tls> = config.listeners.iter().filter_map(|it| it.tls.as_ref()).collect();
    for tls in &all {
        for files in &tls.certificates {
            match Material::read_or_tell_all(files) {
                Ok(material) => {
                    found.look_at_dates(&material, files, now, expired);
                    found.materials.push(material);
                }
                Err(problems) => found.problems.extend(problems),
            }
        }
        if let Some(authority) = tls.client_auth.authority() {
            let read = files::read(authority);
            let clients = read.and_then(|it| Clients::of(&tls.client_auth, authority, &[it]));
            found.problems.extend(clients.err());
        }
    }
    // Where some listener speaks clear, a host without a certificate may be meant for that one.
    let compares = is_whole && found.problems.is_empty();
    if compares && !all.is_empty() && all.len() == config.listeners.len() {
        found.compare(config);
    }
    for files in config.pools.iter().filter_map(|pool| pool.dial.tls.identity.as_ref()) {
        match Material::read_or_tell_all(files) {
            Ok(material) => found.look_at_dates(&material, files, now, expired),
            Err(problems) => found.problems.extend(problems),
        }
    }
    let trust = upstream::open(config, &Kept::default(), now);
    for Broken { problem, .. } in trust.found.into_iter().flat_map(|found| found.refused) {
        // What is not about a file is about the whole, which must be there to say so.
        let certain = is_whole || problem.at.is_some();
        // Of a certificate and its key, the first problem was told above with the other.
        if certain && !found.problems.contains(&problem) {
            found.problems.push(problem);
        }
    }
    found.problems.into_iter().for_each(|problem| draft.refuse(problem));
    found.warnings.into_iter().for_each(|warning| draft.warn(warning));
}

#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    materials: Vec<Material>,
}

impl Found {
    fn look_at_dates(
        &mut self,
        material: &Material,
        files: &Certificate,
        now: SystemTime,
        expired: Expired,
    ) {
        match (material.untimely(&files.cert, now), expired) {
            (Some(problem), Expired::Refused) => self.problems.push(problem),
            (Some(problem), Expired::Told) => self.warnings.push(problem),
            (None, _) if material.not_after < now + SOON => {
                let what = format!("expires on {}", spell(material.not_after));
                let problem = files::problem(&files.cert, what);
                self.warnings.push(Problem { help: Some("renew it".to_owned()), ..problem });
            }
            (None, _) => {}
        }
    }

    /// Every host of a route should have a certificate.
    fn compare(&mut self, config: &Config) {
        let mut hosts: Vec<String> = Vec::new();
        for route in &config.routes {
            let host = match &route.host {
                HostPattern::Exact(host) => host.clone(),
                // Any one label in front of it will do to ask for.
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
                self.warnings.push(Problem { at: None, what, help: None });
            }
        }
    }
}

fn spell(time: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(time)
}
