//! Transport to the backends of a pool.

use super::file::TransportHttp2;
use super::listener::Certificate;
use super::terms::{FilePath, Protocol};

/// Transport to the backends of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transport {
    /// HTTP version.
    pub protocol: Protocol,
    /// HTTP/2 settings, where it is used.
    pub http2: TransportHttp2,
    /// Whether connections start with a PROXY header of version 2.
    pub proxy_protocol: bool,
    /// TLS, for backends that are `https://`.
    pub tls: TransportTls,
}

/// TLS with the backends of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportTls {
    /// Whether backend certificates are verified: trusted CA and server name.
    pub verify: bool,
    /// File of CA certificates; `None` uses those of the system.
    pub ca: Option<FilePath>,
    /// Client certificate for backends that ask for one.
    pub identity: Option<Certificate>,
}

impl Default for TransportTls {
    fn default() -> Self {
        Self { verify: true, ca: None, identity: None }
    }
}

impl TransportTls {
    /// Every file that is named here.
    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut FilePath> {
        let identity = self.identity.iter_mut().flat_map(|one| [&mut one.cert, &mut one.key]);
        self.ca.iter_mut().chain(identity)
    }
}
