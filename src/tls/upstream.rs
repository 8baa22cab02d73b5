//! What pools need to speak TLS with their backends: who vouches for a backend, and what we show.
//!
//! Files are read before a worker serves and before a reload begins, and again when they have
//! changed. Where one cannot be used and nobody knows what was in it before, no backend of its pool
//! is spoken to over TLS: one that is not verified must get no request. Pingora's own loading of the system's roots panics where there are none, or a bad
//! one; so ours are read here, and Pingora gets what is left.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use xxhash_rust::xxh3::xxh3_64;

use super::files::{self, Material};
use super::kept::{Contents, Kept};
use super::watched::{Broken, Owner, Renewals, Standing, Unfit, Watched};
use crate::config::{Certificate, Config, DialTls, FilePath, Pool, Problem};

/// A certificate whose key nobody has. Where certificates are not looked at, Pingora wants to know
/// somebody who vouches all the same.
const NOBODY: &[u8] = include_bytes!("nobody.der");

/// The files of all pools.
#[derive(Default)]
pub struct Trust {
    /// Of each pool, in the order of the configuration.
    pub pools: Vec<PoolFiles>,
    /// Whom this system trusts; empty unless a pool needs to know.
    pub system: Vec<CertificateDer<'static>>,
    /// What is wrong.
    pub found: Vec<Renewals>,
}

/// The files of one pool.
#[derive(Default)]
pub struct PoolFiles {
    name: String,
    tls: DialTls,
    ca: Option<Watched<Authorities>>,
    identity: Option<Watched<Identity>>,
    /// Backends are to be vouched for by whom the system trusts, which is nobody.
    rootless: bool,
}

/// Who vouches for backends.
type Authorities = Vec<Vec<u8>>;

/// What is shown to backends.
struct Identity {
    material: Material,
    key: Vec<u8>,
}

/// What was in the files of one pool.
#[derive(Clone, Default)]
pub struct PoolTrust {
    /// Who vouches; `None` is whoever the system trusts.
    pub ca: Option<Arc<CaType>>,
    /// What is shown to backends.
    pub identity: Option<Arc<CertKey>>,
    /// A hash of both.
    pub digest: u64,
    /// Why no backend may be spoken to over TLS: one of both is not known.
    pub missing: Option<String>,
}

impl fmt::Debug for PoolTrust {
    /// There is a private key in it, so it does not get into logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PoolTrust").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Reads every file that the pools name, or where one cannot be used what was `kept` of it; and the
/// system's roots if a pool needs them.
#[must_use]
pub fn open(config: &Config, kept: &Kept, now: SystemTime) -> Trust {
    let needs = config.pools.iter().any(needs_system);
    let system = if needs { system_roots() } else { Vec::new() };
    let mut trust = Trust { system, ..Trust::default() };
    for pool in &config.pools {
        let (mut files, mut found) = PoolFiles::open(pool, kept, now);
        files.rootless = needs_system(pool) && trust.system.is_empty();
        if files.rootless {
            found.refused.push(Broken { problem: rootless(pool), missing: true });
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
            "the https backends of pool `{}` are to be vouched for by whom this system trusts, \
             which is nobody",
            pool.name
        ),
        help: Some(
            "install ca-certificates, or name a file: `tls: {ca: backends-ca.crt}`".to_owned(),
        ),
    }
}

fn needs_system(pool: &Pool) -> bool {
    let tls = &pool.dial.tls;
    let speaks_tls = pool.backends.iter().any(|backend| backend.server_name.is_some());
    speaks_tls && tls.verify && tls.ca.is_none()
}

/// Whom this system trusts (`SSL_CERT_FILE`, `SSL_CERT_DIR` or the usual places), without what
/// cannot be used.
fn system_roots() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("a root certificate of the system cannot be read: error=\"{error}\"");
    }
    let usable = |root: &CertificateDer<'static>| RootCertStore::empty().add(root.clone()).is_ok();
    found.certs.into_iter().filter(usable).collect()
}

impl PoolFiles {
    fn open(pool: &Pool, kept: &Kept, now: SystemTime) -> (Self, Renewals) {
        let tls = pool.dial.tls.clone();
        let mut found = Renewals::new(Owner::Pool(pool.name.to_string()));
        let ca = tls.ca.as_ref().filter(|_| tls.verify).map(|file| {
            let read = |contents: &[Contents], _: Option<&Authorities>| authorities(file, contents);
            let (watched, broken) = Watched::open(&[file], kept, read);
            found.refused.extend(broken);
            watched
        });
        let identity = tls.identity.as_ref().map(|files| {
            let read = |contents: &[Contents], old: Option<&Identity>| {
                Identity::renew(files, contents, old, now)
            };
            let (watched, broken) = Watched::open(&[&files.cert, &files.key], kept, read);
            found.refused.extend(broken);
            watched
        });
        (Self { name: pool.name.to_string(), tls, ca, identity, rootless: false }, found)
    }

    /// Looks whether files have changed. Blocks while it reads.
    pub fn refresh(&mut self, now: SystemTime) -> Renewals {
        let mut renewals = Renewals::new(Owner::Pool(self.name.clone()));
        if let (Some(watched), Some(file)) = (&mut self.ca, &self.tls.ca) {
            let outcome = watched.refresh(now, |contents, _| authorities(file, contents));
            renewals.note(watched, outcome);
        }
        if let (Some(watched), Some(files)) = (&mut self.identity, &self.tls.identity) {
            let outcome =
                watched.refresh(now, |contents, old| Identity::renew(files, contents, old, now));
            renewals.note(watched, outcome);
        }
        renewals
    }

    /// What its backends are spoken to with.
    #[must_use]
    pub fn trust(&self) -> PoolTrust {
        let missing = self.missing();
        let ca = match (&self.ca, self.tls.verify) {
            (Some(watched), _) => Some(watched.value().cloned().unwrap_or_default()),
            (None, true) => None,
            (None, false) => Some(vec![NOBODY.to_vec()]),
        };
        let mut read: Vec<u8> = ca.iter().flatten().flatten().copied().collect();
        let identity = self.identity.as_ref().and_then(Watched::value).map(Identity::der);
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
        let ca = self.ca.as_ref().and_then(Watched::missing);
        let identity = self.identity.as_ref().and_then(Watched::missing);
        let missing = ca.or(identity).map(str::to_owned);
        missing.or_else(|| self.rootless.then(|| "this system trusts nobody".to_owned()))
    }

    /// How things stand with each file.
    pub fn standings(&self) -> impl Iterator<Item = Standing> {
        let expires = |identity: &Identity| Some(identity.material.not_after);
        let ca = self.ca.iter().map(|one| one.standing(|_| None));
        ca.chain(self.identity.iter().map(move |one| one.standing(expires)))
    }

    /// What is used, for the next worker.
    pub fn keep(&self, kept: &mut Kept) {
        self.ca.iter().for_each(|one| one.keep(kept));
        self.identity.iter().for_each(|one| one.keep(kept));
    }
}

impl fmt::Debug for PoolFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PoolFiles").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Certificates that Pingora can take without a panic, and rustls as roots.
fn authorities(file: &FilePath, contents: &[Contents]) -> Result<Authorities, Unfit> {
    let all = files::certificates(file, files::part(contents, 0))?;
    let mut authorities = Vec::with_capacity(all.len());
    for one in all {
        let unusable = |why: String| files::problem(file, format!("vouches for nobody: {why}"));
        X509Certificate::from_der(&one).map_err(|error| unusable(error.to_string()))?;
        RootCertStore::empty().add(one.clone()).map_err(|error| unusable(error.to_string()))?;
        authorities.push(one.to_vec());
    }
    Ok(authorities)
}

impl Identity {
    /// What Pingora can take without a panic, to be used instead of `old`.
    fn renew(
        files: &Certificate,
        contents: &[Contents],
        old: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, Unfit> {
        let old = old.map(|old| &old.material);
        let material = Material::renew(files, contents, old, now)?;
        for one in &material.key.cert {
            X509Certificate::from_der(one).map_err(|error| {
                files::problem(&files.cert, format!("is not a certificate: {error}"))
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
    fn the_certificate_of_nobody_is_one_that_rustls_takes() {
        let nobody = CertificateDer::from(NOBODY.to_vec());
        assert!(RootCertStore::empty().add(nobody).is_ok());
        assert!(X509Certificate::from_der(NOBODY).is_ok());
    }

    #[test]
    fn an_unverified_pool_needs_no_roots_and_is_told_apart_from_others() {
        let trust = |verify| {
            let tls = DialTls { verify, ..DialTls::default() };
            PoolFiles { tls, ..PoolFiles::default() }.trust()
        };
        let (off, on) = (trust(false), trust(true));
        assert!(off.ca.is_some());
        assert!(on.ca.is_none());
        assert_ne!(off.digest, on.digest);
    }
}
