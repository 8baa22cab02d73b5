//! The system's root certificates, as a file that Pingora can read.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::{MemfdFlags, memfd_create};
use rustls_pki_types::CertificateDer;

/// A file without certificates, if there is a `/dev`.
const NONE: &str = "/dev/null";

/// Certificates in a file in memory. Nothing is written to the disk, which may be read-only.
#[derive(Debug)]
pub(super) struct Roots(Option<File>);

impl Roots {
    pub(super) fn new(certificates: &[CertificateDer<'_>]) -> io::Result<Self> {
        if certificates.is_empty() && File::open(NONE).is_ok() {
            return Ok(Self(None));
        }
        let mut file = File::from(memfd_create("weir-roots", MemfdFlags::CLOEXEC)?);
        for certificate in certificates {
            file.write_all(pem(certificate).as_bytes())?;
        }
        let roots = Self(Some(file));
        // Pingora would panic if it could not open the file.
        File::open(roots.path())?;
        Ok(roots)
    }

    /// The path of the file, valid until this is dropped. Without certificates, an empty file.
    pub(super) fn path(&self) -> String {
        match &self.0 {
            Some(file) => format!("/proc/self/fd/{}", file.as_raw_fd()),
            None => NONE.to_owned(),
        }
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64.encode(certificate);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject as _;

    #[test]
    fn certificates_can_be_read_from_the_file() {
        let one = CertificateDer::from((0..200_u8).collect::<Vec<_>>());
        let roots = Roots::new(&[one.clone(), one.clone()]).unwrap();
        let read: Vec<_> =
            CertificateDer::pem_file_iter(roots.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, [one.clone(), one]);
    }

    #[test]
    fn without_certificates_the_file_is_empty() {
        assert_eq!(std::fs::read(Roots::new(&[]).unwrap().path()).unwrap(), b"");
    }
}
