//! Reads certificates and keys from files.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::sign::CertifiedKey;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

use super::last_good::Contents;
use super::provider;
use crate::config::pem::{self, Block};
use crate::config::{Certificate, FilePath, Problem};

/// Why the contents of a file cannot be used.
pub(super) struct LoadError {
    pub(super) problem: Problem,
    /// When they may become usable.
    pub(super) retry_at: Option<SystemTime>,
}

impl From<Problem> for LoadError {
    fn from(problem: Problem) -> Self {
        Self { problem, retry_at: None }
    }
}

/// A certificate chain with its key, its names and its validity.
#[derive(Debug, Clone)]
pub(super) struct CertificateAndKey {
    pub(super) key: Arc<CertifiedKey>,
    /// The names it covers, in lower case; `*.` at the start matches one label.
    pub(super) names: Vec<String>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl CertificateAndKey {
    /// Reads both files.
    pub(super) fn read(files: &Certificate) -> Result<Self, Problem> {
        Self::of(files, &[read(&files.cert)?, read(&files.key)?])
    }

    /// Parses the contents of both files.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the list of errors is open")]
    pub(super) fn of(files: &Certificate, contents: &[Contents]) -> Result<Self, Problem> {
        let chain = certificates(&files.cert, part(contents, 0))?;
        let key = private_key(&files.key, part(contents, 1))?;
        let leaf = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|error| {
            problem(&files.cert, format!("is not a certificate: {error}"), ISSUE)
        })?;
        if leaf.version() != X509Version::V3 {
            return Err(outdated(&files.cert, leaf.version()));
        }
        let names = names(&leaf);
        let not_before = time(leaf.validity().not_before.timestamp());
        let not_after = time(leaf.validity().not_after.timestamp());
        drop(leaf);
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let cert = files.cert.path.display();
                let what = format!("is not the key of the certificate `{cert}`");
                problem(&files.key, what, "give the two files that were issued together")
            }
            other => {
                let what = format!("is a key that cannot be used: {other}");
                problem(&files.key, what, "use an RSA key of 2048 bits or more, or ECDSA P-256")
            }
        })?;
        Ok(Self { key: Arc::new(key), names, not_before, not_after })
    }

    /// Reads both files, and reports the error of each.
    pub(super) fn read_or_tell_all(files: &Certificate) -> Result<Self, Vec<Problem>> {
        Self::read(files).map_err(|first| {
            let cert = read(&files.cert).and_then(|it| certificates(&files.cert, it.bytes()));
            let key = read(&files.key).and_then(|it| private_key(&files.key, it.bytes()));
            let each: Vec<Problem> = cert.err().into_iter().chain(key.err()).collect();
            if each.is_empty() { vec![first] } else { each }
        })
    }

    /// Like [`Self::of`], as a replacement for `old`. A certificate that has expired or is not
    /// valid yet does not replace one that is valid.
    pub(super) fn renew(
        files: &Certificate,
        contents: &[Contents],
        old: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, LoadError> {
        let new = Self::of(files, contents)?;
        let old = old.filter(|old| old.untimely(&files.cert, now).is_none());
        if let (Some(problem), Some(old)) = (new.untimely(&files.cert, now), old) {
            let begins = Some(new.not_before).filter(|begins| now < *begins);
            // It expires at the end of this second.
            let ends = old.not_after + Duration::from_secs(1);
            let until = Some(begins.map_or(ends, |begins| begins.min(ends)));
            return Err(LoadError { problem, retry_at: until });
        }
        Ok(new)
    }

    /// The error to report if it has expired or is not valid yet.
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
        Some(problem(file, what, help))
    }

    /// Whether it covers `host` (lower case, without port).
    pub(super) fn covers(&self, host: &str) -> bool {
        let suffix = host.split_once('.').map(|(_, suffix)| suffix);
        self.names
            .iter()
            .any(|name| name == host || (suffix.is_some() && name.strip_prefix("*.") == suffix))
    }
}

/// No client can verify such a certificate: its purpose is in extensions, which only version 3 has.
fn outdated(file: &FilePath, version: X509Version) -> Problem {
    let version = version.0.saturating_add(1);
    let what = format!("is an X.509 v{version} certificate, TLS needs v3");
    let help = "issue it with extensions, such as subjectAltName: `openssl x509 -req -extfile …`";
    problem(file, what, help)
}

/// The contents of the file at this index of a group; empty if there are fewer files.
pub(super) fn part(contents: &[Contents], place: usize) -> &[u8] {
    contents.get(place).map_or(&[], Contents::bytes)
}

/// What to do about a file that does not exist.
const MISSING: &str =
    "check the path; a relative one starts at the directory of the configuration file";
/// What to do about certificates that cannot verify others.
pub(super) const AUTHORITY: &str = "give the certificates of the CAs that issue them, in PEM";
/// What to do about a certificate that cannot be parsed.
pub(super) const ISSUE: &str =
    "issue it anew, or copy the file again: `openssl x509 -in FILE -text` shows it";

/// PEM blocks that are allowed in a certificate file but not used: the file may contain the key
/// too.
const IGNORED_BLOCKS: [&str; 3] = ["DH PARAMETERS", "EC PARAMETERS", "EC PRIVATE KEY"];

/// Parses the certificates in the bytes of a file. One invalid certificate makes the whole file
/// invalid, and so does a block that looks as if it were meant to be used.
pub(super) fn certificates(
    file: &FilePath,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let mut all = Vec::new();
    for block in blocks(file, bytes)? {
        let Block { label, line, der, .. } = block;
        if label == "CERTIFICATE" {
            let wrong = |why: String| {
                problem(file, format!("has no certificate on line {line}: {why}"), ISSUE)
            };
            let (rest, _) =
                X509Certificate::from_der(&der).map_err(|error| wrong(error.to_string()))?;
            if !rest.is_empty() {
                return Err(wrong(format!("{} bytes follow it in its block", rest.len())));
            }
            all.push(CertificateDer::from(der));
        } else if !label.ends_with("PRIVATE KEY") && !IGNORED_BLOCKS.contains(&label.as_str()) {
            let what = format!("has a `{label}` on line {line}, which is not used");
            return Err(problem(file, what, "remove it; a certificate is a `CERTIFICATE`"));
        }
    }
    if all.is_empty() {
        return Err(none_in_pem(file, bytes, "certificate"));
    }
    Ok(all)
}

pub(super) fn private_key(
    file: &FilePath,
    bytes: &[u8],
) -> Result<PrivateKeyDer<'static>, Problem> {
    let mut found: Option<(usize, PrivateKeyDer<'static>)> = None;
    let mut encrypted = false;
    for Block { label, line, headers, der } in blocks(file, bytes)? {
        let key: PrivateKeyDer<'static> = match label.as_str() {
            "ENCRYPTED PRIVATE KEY" => {
                encrypted = true;
                continue;
            }
            "PRIVATE KEY" => PrivatePkcs8KeyDer::from(der).into(),
            "RSA PRIVATE KEY" if !headers => PrivatePkcs1KeyDer::from(der).into(),
            "EC PRIVATE KEY" if !headers => PrivateSec1KeyDer::from(der).into(),
            other => {
                encrypted |= headers && other.ends_with("PRIVATE KEY");
                continue;
            }
        };
        if let Some((first, _)) = found {
            let what = format!("has two private keys, on lines {first} and {line}");
            return Err(problem(file, what, "leave the one of the certificate"));
        }
        found = Some((line, key));
    }
    match found {
        Some((_, key)) => Ok(key),
        None if encrypted => {
            let what = "has no unencrypted private key in PEM".to_owned();
            Err(problem(file, what, "`openssl pkey -in KEY -out PLAIN` decrypts it"))
        }
        None => Err(none_in_pem(file, bytes, "private key")),
    }
}

fn blocks(file: &FilePath, bytes: &[u8]) -> Result<Vec<Block>, Problem> {
    pem::blocks(bytes).map_err(|error| problem(file, error.to_string(), error.help()))
}

fn none_in_pem(file: &FilePath, bytes: &[u8], what: &str) -> Problem {
    // A DER structure begins with this byte (a sequence, X.690), so the file was probably not
    // converted to PEM.
    let is_der = bytes.first() == Some(&0x30);
    let help = if is_der {
        "it may be DER: `openssl … -inform DER` makes PEM of it".to_owned()
    } else {
        format!("give a file with a `-----BEGIN {}-----` line", what.to_uppercase())
    };
    problem(file, format!("has no {what} in PEM"), &help)
}

pub(super) fn read(file: &FilePath) -> Result<Contents, Problem> {
    fs::read(&file.path).map(Contents::new).map_err(|error| {
        match error.kind() == io::ErrorKind::NotFound {
            true => problem(file, "does not exist".to_owned(), MISSING),
            false => {
                let help = "give a file that the user who runs Weir may read";
                problem(file, format!("cannot be read: {error}"), help)
            }
        }
    })
}

/// An error about a file, and what to do.
pub(super) fn problem(file: &FilePath, what: String, help: &str) -> Problem {
    let what = format!("`{}` {what}", file.path.display());
    Problem { at: file.at, what, help: Some(help.to_owned()) }
}

/// The subject alternative names that a client can request; the common name if there are none.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these kinds of names are used")]
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

/// An IP address from 4 or 16 bytes.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four: Result<[u8; 4], _> = bytes.try_into();
    four.map(IpAddr::from).ok().or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

fn time(unix_seconds: i64) -> SystemTime {
    u64::try_from(unix_seconds)
        .map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Detects that a file has changed without reading it. Symbolic links are followed, so a link to
/// another file counts as a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, u64, SystemTime)>);

impl Stamp {
    pub(super) fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(path).ok();
        Self(metadata.and_then(|is| Some((is.dev(), is.ino(), is.len(), is.modified().ok()?))))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};

    use super::*;

    /// Made by `openssl x509 -req` without extensions.
    const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBIzCBywIUUObgGPQJPKotW2otuZiSWM1KqLswCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJd2Vpci50ZXN0MCAXDTI2MTEyODIwMTgwNFoYDzIxMjYxMTA0MjAxODA0
WjAUMRIwEAYDVQQDDAl3ZWlyLnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AASPBzGJctVMC0Uv3Or5PI+t4yehrBS9Sq6goupuXSFUflFUznNWYETVG97MFcYW
XIpjsgdi4FGGr48QODDZV/rsMAoGCCqGSM49BAMCA0cAMEQCICN1A6Ajo7QEi4ZY
qcP9AqIfY6Qkeo/1HArtLXpa/Z3kAiBLkw6OK8VX858q4ZOxPr24wAsQOcCdC/th
l+KI363OKg==
-----END CERTIFICATE-----
";

    fn file(name: &str) -> FilePath {
        FilePath { path: name.into(), at: None }
    }

    /// A certificate and its key.
    fn made() -> (String, String) {
        let Made { cert, signing_key } = generate_simple_self_signed(["weir.test".into()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    fn material(cert: &str, key: &str) -> Result<CertificateAndKey, Problem> {
        let files = Certificate { cert: file("a.crt"), key: file("a.key") };
        let contents = [cert, key].map(|text| Contents::new(text.as_bytes().to_vec()));
        CertificateAndKey::of(&files, &contents)
    }

    #[track_caller]
    fn refused(cert: &str, key: &str, why: &str) {
        let problem = material(cert, key).unwrap_err();
        assert!(problem.what.contains(why), "{problem}");
        assert!(problem.help.is_some(), "it says what to do: {problem}");
    }

    #[test]
    fn a_chain_is_used_as_a_whole_or_not_at_all() {
        let ((leaf, key), (other, _)) = (made(), made());
        assert_eq!(material(&(leaf.clone() + &other), &key).unwrap().key.cert.len(), 2);
        let both = leaf.trim_end().to_owned() + &other;
        refused(&both, &key, "`a.crt` is not PEM: line ");
        let broken = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
        refused(&(leaf.clone() + broken), &key, "`a.crt` has no certificate on line ");
        let trusted = other.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
        refused(&(leaf.clone() + &trusted), &key, "has a `TRUSTED CERTIFICATE` on line ");
        refused(&(leaf + "-----BEGIN CERTIFICATE-----\nAQID\n"), &key, "line is missing");
    }

    #[test]
    fn one_file_may_hold_a_certificate_and_its_key() {
        let (cert, key) = made();
        let both = format!(
            "{cert}{key}-----BEGIN DH PARAMETERS-----\nAQID\n-----END DH PARAMETERS-----\n"
        );
        assert!(material(&both, &both).is_ok());
    }

    #[test]
    fn an_error_names_the_file_that_caused_it() {
        let (cert, key) = made();
        refused(VERSION_1, &key, "`a.crt` is an X.509 v1 certificate");
        let marked = |text: &str| format!("\u{FEFF}{text}");
        refused(&marked(&cert), &key, "`a.crt` begins with a byte order mark");
        refused(&cert, &marked(&key), "`a.key` begins with a byte order mark");
        refused(&cert, &(key.clone() + &made().1), "`a.key` has two private keys, on lines 1 and ");
        let secret = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        refused(&cert, &secret, "`a.key` has no unencrypted private key in PEM");
        refused(&cert, "", "`a.key` has no private key in PEM");
        refused("", &key, "`a.crt` has no certificate in PEM");
        refused(&cert, &made().1, "`a.key` is not the key of the certificate `a.crt`");
    }
}
