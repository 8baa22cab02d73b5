//! How backends are spoken to.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Certificate, FilePath};

/// How a pool speaks to its backends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transport {
    /// Which HTTP.
    pub protocol: Protocol,
    /// How HTTP/2 is spoken, where it is.
    pub http2: TransportHttp2,
    /// Whether connections begin with a PROXY header of version 2.
    pub proxy_protocol: bool,
    /// With those that are `https://`.
    pub tls: TransportTls,
}

/// Which HTTP a pool's backends speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
    /// Over TLS what the backend prefers; else HTTP/1.1.
    Auto,
}

impl Protocol {
    /// Whether it is HTTP/2 and nothing else.
    #[must_use]
    pub const fn is_http2_alone(self) -> bool {
        matches!(self, Self::H2 | Self::H2c)
    }
}

/// How HTTP/2 is spoken to backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportHttp2 {
    /// Requests at once on a connection.
    pub streams: NonZeroU32,
    /// How often a connection is asked whether it still works; `None` is never.
    pub ping: Option<Duration>,
}

impl Default for TransportHttp2 {
    fn default() -> Self {
        Self { streams: NonZeroU32::new(100).unwrap_or(NonZeroU32::MIN), ping: None }
    }
}

/// How a pool speaks TLS to its backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportTls {
    /// Whether a backend's certificate must be one for its name that somebody vouches for.
    pub verify: bool,
    /// Who vouches; `None` is whoever this system trusts.
    pub ca: Option<FilePath>,
    /// What we show to backends.
    pub identity: Option<Certificate>,
}

impl Default for TransportTls {
    fn default() -> Self {
        Self { verify: true, ca: None, identity: None }
    }
}

impl TransportTls {
    /// Every file that it names.
    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut FilePath> {
        let identity = self.identity.iter_mut().flat_map(|one| [&mut one.cert, &mut one.key]);
        self.ca.iter_mut().chain(identity)
    }
}
