//! What listeners mean.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::{Config, Position};

/// An address that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// IP address and port.
    pub address: SocketAddr,
    /// Who must begin with a PROXY header. Nobody else may.
    pub proxy_protocol: Vec<IpNet>,
    /// `None` if it speaks clear.
    pub tls: Option<Tls>,
    /// Whether it speaks HTTP/2 with those who want to.
    pub http2: bool,
}

impl Listener {
    /// One that speaks clear HTTP with everybody.
    #[must_use]
    pub fn plaintext(address: SocketAddr) -> Self {
        Self { address, proxy_protocol: Vec::new(), tls: None, http2: false }
    }
}

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// At least one. The first is for whoever asks for no name, or for one that no other has.
    pub certificates: Vec<Certificate>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether clients are asked for a certificate.
    pub client_auth: ClientAuth,
}

/// A certificate of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// It and what leads to its root, in PEM.
    pub cert: FilePath,
    /// Its private key, in PEM.
    pub key: FilePath,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not.
    Off,
    /// They may show one; backends are told whether one of these vouches for it.
    Request(FilePath),
    /// They must show one that one of these vouches for.
    Require(FilePath),
}

impl ClientAuth {
    /// Who vouches for clients.
    #[must_use]
    pub fn authority(&self) -> Option<&FilePath> {
        match self {
            Self::Off => None,
            Self::Request(authority) | Self::Require(authority) => Some(authority),
        }
    }
}

/// A file that the configuration names. Two are equal if they name the same one, wherever that is
/// written.
#[derive(Debug, Clone, Eq)]
pub struct FilePath {
    /// As written, or joined to the directory of the configuration file.
    pub path: PathBuf,
    /// Where it is written; `None` if not in the file.
    pub at: Option<Position>,
}

impl PartialEq for FilePath {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Config {
    /// Takes names of files that are relative as relative to `directory`.
    #[must_use]
    pub fn in_directory(mut self, directory: &Path) -> Self {
        for tls in self.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut()) {
            let certificates = &mut tls.certificates;
            let files = certificates.iter_mut().flat_map(|one| [&mut one.cert, &mut one.key]);
            let authority = match &mut tls.client_auth {
                ClientAuth::Off => None,
                ClientAuth::Request(authority) | ClientAuth::Require(authority) => Some(authority),
            };
            files.chain(authority).for_each(|file| file.path = directory.join(&file.path));
        }
        let backends = self.pools.iter_mut().flat_map(|pool| pool.transport.tls.files_mut());
        backends.for_each(|file| file.path = directory.join(&file.path));
        self
    }
}
