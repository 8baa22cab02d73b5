//! What listeners mean.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::problem::SourcePosition;
use super::terms::{FilePath, TlsVersion};

/// An address that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// IP address and port.
    pub address: SocketAddr,
    /// Networks from which every connection must start with a PROXY header; from elsewhere none may.
    pub proxy_protocol: Vec<IpNet>,
    /// `None` is plaintext.
    pub tls: Option<Tls>,
    /// Whether clients may use HTTP/2.
    pub http2: bool,
    /// Where its address is defined in the file.
    pub defined_at: SourcePosition,
}

impl Listener {
    /// A listener for plaintext HTTP/1 without the PROXY protocol.
    #[must_use]
    pub fn plaintext(address: SocketAddr) -> Self {
        Self {
            address,
            proxy_protocol: Vec::new(),
            tls: None,
            http2: false,
            defined_at: SourcePosition::default(),
        }
    }
}

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// At least one. The first is used if no other matches the server name that the client asks for.
    pub certificates: Vec<Certificate>,
    /// Oldest version that is accepted.
    pub min_version: TlsVersion,
    /// Whether clients must present a certificate.
    pub client_auth: ClientAuth,
}

/// A certificate of Weir and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate and its intermediate certificates, in PEM.
    pub cert: FilePath,
    /// Its private key, in PEM.
    pub key: FilePath,
}

/// Whether clients must present a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for one.
    Off,
    /// A certificate is optional; backends learn whether these CAs verify it.
    Request(FilePath),
    /// A certificate that these CAs verify is required.
    Require(FilePath),
}

impl ClientAuth {
    /// The file of CA certificates that client certificates are verified against.
    #[must_use]
    pub fn authority(&self) -> Option<&FilePath> {
        match self {
            Self::Off => None,
            Self::Request(authority) | Self::Require(authority) => Some(authority),
        }
    }
}
