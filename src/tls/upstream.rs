//! What pools need to speak TLS with their backends: who vouches for a backend, and what we show.
//!
//! Files are read once, before a worker serves and before a reload begins, so that nothing can be
//! missing later. Pingora's own loading of the system's roots panics where there are none, or a bad
//! one; so ours are read here, and Pingora gets what is left.

use std::fmt;
use std::sync::Arc;

use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use xxhash_rust::xxh3::xxh3_64;

use super::files::{self, Material};
use crate::config::{Certificate, Config, DialTls, FilePath, Pool, Problem, Problems};

/// A certificate whose key nobody has. Where certificates are not looked at, Pingora wants to know
/// somebody who vouches all the same.
const NOBODY: &[u8] = include_bytes!("nobody.der");

/// What was in the files of all pools.
#[derive(Debug, Default)]
pub struct Trust {
    /// Of each pool, in the order of the configuration.
    pub pools: Vec<PoolTrust>,
    /// Whom this system trusts; empty unless a pool needs to know.
    pub system: Vec<CertificateDer<'static>>,
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
}

impl fmt::Debug for PoolTrust {
    /// There is a private key in it, so it does not get into logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PoolTrust").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Reads every file that the pools name, and the system's roots if a pool needs them.
///
/// # Errors
/// Every file that cannot be used.
pub fn load(config: &Config) -> Result<Trust, Problems> {
    let mut problems = Vec::new();
    let mut pools = Vec::with_capacity(config.pools.len());
    for pool in &config.pools {
        match PoolTrust::read(&pool.dial.tls) {
            Ok(trust) => pools.push(trust),
            Err(of_pool) => problems.extend(of_pool),
        }
    }
    let needs = config.pools.iter().find(|pool| needs_system(pool));
    let system = needs.map(|_| system_roots()).unwrap_or_default();
    if let Some(pool) = needs.filter(|_| system.is_empty()) {
        problems.push(Problem {
            at: None,
            what: format!(
                "the https backends of pool `{}` are to be vouched for by whom this system trusts, \
                 which is nobody",
                pool.name
            ),
            help: Some(
                "install ca-certificates, or name a file: `tls: {ca: backends-ca.crt}`".to_owned(),
            ),
        });
    }
    match Problems::of(problems) {
        Some(problems) => Err(problems),
        None => Ok(Trust { pools, system }),
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

impl PoolTrust {
    fn read(tls: &DialTls) -> Result<Self, Vec<Problem>> {
        let mut read = Vec::new();
        let ca = match (&tls.ca, tls.verify) {
            (Some(file), true) => authorities(file).map(Some),
            (None, true) => Ok(None),
            (_, false) => Ok(Some(vec![NOBODY.to_vec()])),
        };
        let (ca, identity) = match (ca, tls.identity.as_ref().map(identity).transpose()) {
            (Ok(ca), Ok(identity)) => (ca, identity),
            (ca, identity) => {
                return Err(ca
                    .err()
                    .into_iter()
                    .chain(identity.err().into_iter().flatten())
                    .collect());
            }
        };
        read.extend(ca.iter().flatten().flatten());
        if let Some((chain, key)) = &identity {
            read.extend(chain.iter().chain([key]).flatten());
        }
        let digest = xxh3_64(&read);
        let wrap = |der: Vec<u8>| WrappedX509::new(der, parse_x509);
        Ok(Self {
            ca: ca.map(|all| all.into_iter().map(wrap).collect()),
            identity: identity.map(|(chain, key)| Arc::new(CertKey::new(chain, key))),
            digest,
        })
    }
}

/// Certificates that Pingora can take without a panic, and rustls as roots.
fn authorities(file: &FilePath) -> Result<Vec<Vec<u8>>, Problem> {
    let all = files::certificates(file)?;
    let mut authorities = Vec::with_capacity(all.len());
    for one in all {
        let unusable = |why: String| files::problem(file, format!("vouches for nobody: {why}"));
        X509Certificate::from_der(&one).map_err(|error| unusable(error.to_string()))?;
        RootCertStore::empty().add(one.clone()).map_err(|error| unusable(error.to_string()))?;
        authorities.push(one.to_vec());
    }
    Ok(authorities)
}

/// A chain and its key.
type Identity = (Vec<Vec<u8>>, Vec<u8>);

/// The chain and the key, which were seen to fit.
fn identity(files: &Certificate) -> Result<Identity, Vec<Problem>> {
    let material = Material::read_or_tell_all(files)?;
    let chain = material.key.cert.iter().map(|one| one.to_vec()).collect::<Vec<_>>();
    for one in &chain {
        X509Certificate::from_der(one).map_err(|error| {
            vec![files::problem(&files.cert, format!("is not a certificate: {error}"))]
        })?;
    }
    let key = files::private_key(&files.key).map_err(|problem| vec![problem])?;
    Ok((chain, key.secret_der().to_vec()))
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
        let off = PoolTrust::read(&DialTls { verify: false, ..DialTls::default() }).unwrap();
        let on = PoolTrust::read(&DialTls::default()).unwrap();
        assert!(off.ca.is_some());
        assert!(on.ca.is_none());
        assert_ne!(off.digest, on.digest);
    }
}
