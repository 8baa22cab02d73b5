//! What pools need for TLS to their backends: trusted CAs and client certificates.
//!
//! Files are read before a worker serves and before a reload begins, and again when they have
//! changed. If a file cannot be used and its last good contents are unknown, no backend of the pool
//! gets requests over TLS, because an unverified backend must not get a request. Pingora's own
//! loading of the system's roots panics if there are none, or an invalid one. So they are loaded
//! here, and Pingora gets the usable ones.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use xxhash_rust::xxh3::xxh3_64;

use super::files::{self, CertificateAndKey, LoadError};
use super::last_good::{Contents, LastGoodFiles};
use super::reloadable::{FileFailure, FileStatus, Owner, RefreshReport, ReloadableFiles};
use crate::config::{self, Certificate, Config, FilePath, Pool, Problem, TransportTls};

/// A certificate whose private key does not exist. Pingora requires a CA even if verification is
/// off.
const KEYLESS: &[u8] = include_bytes!("keyless.der");

/// The TLS files of all pools.
#[derive(Default)]
pub struct Trust {
    /// Those of each pool, in the order of the configuration.
    pub pools: Vec<PoolFiles>,
    /// The system's root certificates; empty unless a pool needs them.
    pub system: Vec<CertificateDer<'static>>,
    /// Errors.
    pub found: Vec<RefreshReport>,
}

/// The TLS files of one pool.
#[derive(Default)]
pub struct PoolFiles {
    name: String,
    tls: TransportTls,
    ca: Option<ReloadableFiles<Authorities>>,
    identity: Option<ReloadableFiles<Identity>>,
    /// Backends must be verified by the system's roots, but there are none.
    rootless: bool,
}

/// The CA certificates for backends.
type Authorities = Vec<Vec<u8>>;

/// The client certificate for backends.
struct Identity {
    material: CertificateAndKey,
    key: Vec<u8>,
}

/// The contents of the TLS files of one pool.
#[derive(Clone, Default)]
pub struct PoolTrust {
    /// The CA certificates; `None` means the system's roots.
    pub ca: Option<Arc<CaType>>,
    /// The client certificate.
    pub identity: Option<Arc<CertKey>>,
    /// A hash of both.
    pub digest: u64,
    /// Why backends cannot be reached over TLS: the contents of one of both are not known.
    pub missing: Option<String>,
}

impl fmt::Debug for PoolTrust {
    /// Contains a private key, so `Debug` does not show the contents.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PoolTrust").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Reads every file that the pools name, and the system's roots if a pool needs them. For a file
/// that cannot be used, the contents in `last_good` are used.
#[must_use]
pub fn open(config: &Config, last_good: &LastGoodFiles, now: SystemTime) -> Trust {
    let needs = config.pools.iter().any(needs_system);
    let system = if needs { system_roots() } else { Vec::new() };
    let mut trust = Trust { system, ..Trust::default() };
    for pool in &config.pools {
        let (mut files, mut found) = PoolFiles::open(pool, last_good, now);
        files.rootless = needs_system(pool) && trust.system.is_empty();
        let is_reported = pool.backends.iter().any(|it| it.server_name.is_some());
        // Whether a line of a file is `https://` is not known yet.
        if files.rootless && is_reported {
            found.failed.push(FileFailure { problem: rootless(pool), missing: true });
        }
        trust.pools.push(files);
        trust.found.push(found);
    }
    trust
}

fn rootless(pool: &Pool) -> Problem {
    Problem {
        at: None,
        what: format!(
            "the https backends of pool `{}` are verified by the system's root certificates, \
             but there are none",
            pool.name
        ),
        help: Some(
            "install ca-certificates, or name a file: `tls: {ca: backends-ca.crt}`".to_owned(),
        ),
    }
}

fn needs_system(pool: &Pool) -> bool {
    let tls = &pool.transport.tls;
    let speaks_tls = pool.backends.iter().any(config::Backend::may_use_tls);
    speaks_tls && tls.verify && tls.ca.is_none()
}

/// The system's root certificates (`SSL_CERT_FILE`, `SSL_CERT_DIR` or the usual paths), without
/// unusable ones.
fn system_roots() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("a root certificate of the system cannot be read: error=\"{error}\"");
    }
    let usable = |root: &CertificateDer<'static>| RootCertStore::empty().add(root.clone()).is_ok();
    found.certs.into_iter().filter(usable).collect()
}

impl PoolFiles {
    fn open(pool: &Pool, last_good: &LastGoodFiles, now: SystemTime) -> (Self, RefreshReport) {
        let tls = pool.transport.tls.clone();
        let mut found = RefreshReport::new(Owner::Pool(pool.name.to_string()));
        let ca = tls.ca.as_ref().filter(|_| tls.verify).map(|file| {
            let read = |contents: &[Contents], _: Option<&Authorities>| authorities(file, contents);
            let (reloadable, broken) = ReloadableFiles::open(&[file], last_good, read);
            found.failed.extend(broken);
            reloadable
        });
        let identity = tls.identity.as_ref().map(|files| {
            let read = |contents: &[Contents], old: Option<&Identity>| {
                Identity::renew(files, contents, old, now)
            };
            let (reloadable, broken) =
                ReloadableFiles::open(&[&files.cert, &files.key], last_good, read);
            found.failed.extend(broken);
            reloadable
        });
        (Self { name: pool.name.to_string(), tls, ca, identity, rootless: false }, found)
    }

    /// Checks whether files have changed. Blocks while it reads.
    pub fn refresh(&mut self, now: SystemTime) -> RefreshReport {
        let mut report = RefreshReport::new(Owner::Pool(self.name.clone()));
        if let (Some(reloadable), Some(file)) = (&mut self.ca, &self.tls.ca) {
            let outcome = reloadable.refresh(now, |contents, _| authorities(file, contents));
            report.note(reloadable, outcome);
        }
        if let (Some(reloadable), Some(files)) = (&mut self.identity, &self.tls.identity) {
            let outcome =
                reloadable.refresh(now, |contents, old| Identity::renew(files, contents, old, now));
            report.note(reloadable, outcome);
        }
        report
    }

    /// What connections to the backends use.
    #[must_use]
    pub fn trust(&self) -> PoolTrust {
        let missing = self.missing();
        let ca = match (&self.ca, self.tls.verify) {
            (Some(reloadable), _) => Some(reloadable.value().cloned().unwrap_or_default()),
            (None, true) => None,
            (None, false) => Some(vec![KEYLESS.to_vec()]),
        };
        let mut read: Vec<u8> = ca.iter().flatten().flatten().copied().collect();
        let identity = self.identity.as_ref().and_then(ReloadableFiles::value).map(Identity::der);
        if let Some((chain, key)) = &identity {
            read.extend(chain.iter().chain([key]).flatten());
        }
        let wrap = |der: Vec<u8>| WrappedX509::new(der, parse_x509);
        PoolTrust {
            ca: ca.map(|all| all.into_iter().map(wrap).collect()),
            identity: identity.map(|(chain, key)| Arc::new(CertKey::new(chain, key))),
            digest: xxh3_64(&read),
            missing,
        }
    }

    fn missing(&self) -> Option<String> {
        let ca = self.ca.as_ref().and_then(ReloadableFiles::missing);
        let identity = self.identity.as_ref().and_then(ReloadableFiles::missing);
        let missing = ca.or(identity).map(str::to_owned);
        missing.or_else(|| self.rootless.then(|| "the system has no root certificates".to_owned()))
    }

    /// The status of each file.
    pub fn statuses(&self) -> impl Iterator<Item = FileStatus> {
        let expires = |identity: &Identity| Some(identity.material.not_after);
        let ca = self.ca.iter().map(|one| one.status(|_| None));
        ca.chain(self.identity.iter().map(move |one| one.status(expires)))
    }

    /// Adds the contents in use, for the next worker.
    pub fn export(&self, last_good: &mut LastGoodFiles) {
        self.ca.iter().for_each(|one| one.export(last_good));
        self.identity.iter().for_each(|one| one.export(last_good));
    }
}

impl fmt::Debug for PoolFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PoolFiles").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Checks that both Pingora and rustls accept the certificates; Pingora would panic otherwise.
fn authorities(file: &FilePath, contents: &[Contents]) -> Result<Authorities, LoadError> {
    let all = files::certificates(file, files::part(contents, 0))?;
    let mut authorities = Vec::with_capacity(all.len());
    for one in all {
        let unusable = |why: String| {
            files::problem(
                file,
                format!("cannot be used to verify backends: {why}"),
                files::AUTHORITY,
            )
        };
        X509Certificate::from_der(&one).map_err(|error| unusable(error.to_string()))?;
        RootCertStore::empty().add(one.clone()).map_err(|error| unusable(error.to_string()))?;
        authorities.push(one.to_vec());
    }
    Ok(authorities)
}

impl Identity {
    /// Like [`CertificateAndKey::renew`], and checks that Pingora accepts the certificates without
    /// a panic.
    fn renew(
        files: &Certificate,
        contents: &[Contents],
        old: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, LoadError> {
        let old = old.map(|old| &old.material);
        let material = CertificateAndKey::renew(files, contents, old, now)?;
        for one in &material.key.cert {
            X509Certificate::from_der(one).map_err(|error| {
                files::problem(&files.cert, format!("is not a certificate: {error}"), files::ISSUE)
            })?;
        }
        let key = files::private_key(&files.key, files::part(contents, 1))?;
        Ok(Self { material, key: key.secret_der().to_vec() })
    }

    /// The chain and the key.
    fn der(&self) -> (Vec<Vec<u8>>, Vec<u8>) {
        (self.material.key.cert.iter().map(|one| one.to_vec()).collect(), self.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustls_accepts_the_certificate_without_a_key() {
        let keyless = CertificateDer::from(KEYLESS.to_vec());
        assert!(RootCertStore::empty().add(keyless).is_ok());
        assert!(X509Certificate::from_der(KEYLESS).is_ok());
    }

    #[test]
    fn an_unverified_pool_needs_no_roots_and_has_another_digest() {
        let trust = |verify| {
            let tls = TransportTls { verify, ..TransportTls::default() };
            PoolFiles { tls, ..PoolFiles::default() }.trust()
        };
        let (off, on) = (trust(false), trust(true));
        assert!(off.ca.is_some());
        assert!(on.ca.is_none());
        assert_ne!(off.digest, on.digest);
    }
}
