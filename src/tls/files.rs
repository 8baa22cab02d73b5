//! Certificates and keys, from their files.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::kept::Contents;
use super::provider;
use super::watched::Unfit;
use crate::config::{Certificate, FilePath, Problem};

/// A certificate, its key, and what it says of itself.
#[derive(Debug, Clone)]
pub(super) struct Material {
    pub(super) key: Arc<CertifiedKey>,
    /// The names that it is for, in lower case; `*.` at the start stands for one label.
    pub(super) names: Vec<String>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Material {
    /// Reads both files.
    pub(super) fn read(files: &Certificate) -> Result<Self, Problem> {
        Self::of(files, &[read(&files.cert)?, read(&files.key)?])
    }

    /// What is in both files.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the list of errors is open")]
    pub(super) fn of(files: &Certificate, contents: &[Contents]) -> Result<Self, Problem> {
        let chain = certificates(&files.cert, part(contents, 0))?;
        let key = private_key(&files.key, part(contents, 1))?;
        let leaf = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let (_, leaf) = X509Certificate::from_der(&leaf)
            .map_err(|error| problem(&files.cert, format!("is not a certificate: {error}")))?;
        let names = names(&leaf);
        let not_before = time(leaf.validity().not_before.timestamp());
        let not_after = time(leaf.validity().not_after.timestamp());
        drop(leaf);
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let cert = files.cert.path.display();
                problem(&files.key, format!("is not the key of the certificate `{cert}`"))
            }
            other => problem(&files.key, format!("is a key that cannot be used: {other}")),
        })?;
        Ok(Self { key: Arc::new(key), names, not_before, not_after })
    }

    /// Reads both files, and says of each what is wrong with it.
    pub(super) fn read_or_tell_all(files: &Certificate) -> Result<Self, Vec<Problem>> {
        Self::read(files).map_err(|first| {
            let cert = read(&files.cert).and_then(|it| certificates(&files.cert, it.bytes()));
            let key = read(&files.key).and_then(|it| private_key(&files.key, it.bytes()));
            let each: Vec<Problem> = cert.err().into_iter().chain(key.err()).collect();
            if each.is_empty() { vec![first] } else { each }
        })
    }

    /// The same as [`Self::of`], to be used instead of `old`. One whose time is over, or has not
    /// come, is worse than one that is still good.
    pub(super) fn renew(
        files: &Certificate,
        contents: &[Contents],
        old: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, Unfit> {
        let new = Self::of(files, contents)?;
        let old = old.filter(|old| old.untimely(&files.cert, now).is_none());
        if let (Some(problem), Some(old)) = (new.untimely(&files.cert, now), old) {
            let begins = Some(new.not_before).filter(|begins| now < *begins);
            // It expires at the end of this second.
            let ends = old.not_after + Duration::from_secs(1);
            let until = Some(begins.map_or(ends, |begins| begins.min(ends)));
            return Err(Unfit { problem, until });
        }
        Ok(new)
    }

    /// What is wrong with it now, if its time is over or has not come.
    pub(super) fn untimely(&self, file: &FilePath, now: SystemTime) -> Option<Problem> {
        let spell = humantime::format_rfc3339_seconds;
        let (what, help) = if now < self.not_before {
            let what = format!("is not valid before {}", spell(self.not_before));
            (what, "look at the clock of this machine")
        } else if self.not_after < now {
            (format!("has expired on {}", spell(self.not_after)), "renew it")
        } else {
            return None;
        };
        Some(Problem { help: Some(help.to_owned()), ..problem(file, what) })
    }

    /// Whether `host` (lower case, without port) is one of its names.
    pub(super) fn covers(&self, host: &str) -> bool {
        let suffix = host.split_once('.').map(|(_, suffix)| suffix);
        self.names
            .iter()
            .any(|name| name == host || (suffix.is_some() && name.strip_prefix("*.") == suffix))
    }
}

/// What is in the file at this place of a group; nothing if it has fewer.
pub(super) fn part(contents: &[Contents], place: usize) -> &[u8] {
    contents.get(place).map_or(&[], Contents::bytes)
}

/// The certificates of a file with these bytes.
pub(super) fn certificates(
    file: &FilePath,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let all = all.map_err(|error| not_pem(file, &error))?;
    if all.is_empty() {
        return Err(problem(file, "has no certificate in PEM".to_owned()));
    }
    Ok(all)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the list of errors is open")]
pub(super) fn private_key(
    file: &FilePath,
    bytes: &[u8],
) -> Result<PrivateKeyDer<'static>, Problem> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            let encrypted = bytes.windows(9).any(|window| window == b"ENCRYPTED");
            let mut problem = problem(file, "has no private key in PEM".to_owned());
            if encrypted {
                problem.what = problem.what.replace("no private key", "no unencrypted private key");
                problem.help = Some("`openssl pkey -in KEY -out PLAIN` decrypts it".to_owned());
            }
            problem
        }
        other => not_pem(file, &other),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the list of errors is open")]
fn not_pem(file: &FilePath, error: &pem::Error) -> Problem {
    match error {
        // A file that was cut off. The library spells the line as a list of numbers.
        pem::Error::MissingSectionEnd { .. } => {
            problem(file, "is not PEM: the `-----END …-----` line is missing".to_owned())
        }
        other => problem(file, format!("is not PEM: {other}")),
    }
}

pub(super) fn read(file: &FilePath) -> Result<Contents, Problem> {
    fs::read(&file.path).map(Contents::new).map_err(|error| {
        match error.kind() == io::ErrorKind::NotFound {
            true => problem(file, "does not exist".to_owned()),
            false => problem(file, format!("cannot be read: {error}")),
        }
    })
}

/// What is wrong with a file.
pub(super) fn problem(file: &FilePath, what: String) -> Problem {
    let what = format!("`{}` {what}", file.path.display());
    Problem { at: file.at, what, help: None }
}

/// Of its alternative names those that a client can ask for; of a certificate without any, the
/// common name.
#[expect(clippy::wildcard_enum_match_arm, reason = "of other kinds of names nobody asks")]
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let Some(alternative) = alternative else {
        let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        return common.map(str::to_ascii_lowercase).collect();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => ip(bytes).map(|ip| ip.to_string()),
        _ => None,
    };
    alternative.value.general_names.iter().filter_map(name).collect()
}

/// An address of 4 or 16 bytes.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four: Result<[u8; 4], _> = bytes.try_into();
    four.map(IpAddr::from).ok().or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

fn time(unix_seconds: i64) -> SystemTime {
    u64::try_from(unix_seconds)
        .map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}

/// What tells a changed file from an unchanged one, without reading it. Links are followed, so a
/// link that now leads elsewhere is a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, u64, SystemTime)>);

impl Stamp {
    pub(super) fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(path).ok();
        Self(metadata.and_then(|is| Some((is.dev(), is.ino(), is.len(), is.modified().ok()?))))
    }
}
