//! A TLS stream that implements Pingora's traits.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::l4::stream::Stream as Socket;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};

use super::handshake_info::HandshakeInfo;
use crate::delegate::delegate_write;

/// A TLS connection. Pingora only knows its own stream type, so this type forwards to the socket
/// below.
pub(super) struct TlsStream {
    inner: tokio_rustls::server::TlsStream<Box<Socket>>,
    digest: Arc<SslDigest>,
    http2: bool,
}

impl TlsStream {
    pub(super) fn new(
        inner: tokio_rustls::server::TlsStream<Box<Socket>>,
        info: &HandshakeInfo,
    ) -> Self {
        let digest = SslDigest::new(info.cipher, info.version, None, None, Vec::new());
        Self { inner, digest: Arc::new(digest), http2: info.http2 }
    }

    fn socket(&self) -> &Socket {
        self.inner.get_ref().0
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsStream").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(context, buffer)
    }
}

delegate_write!(TlsStream);

#[async_trait]
impl Shutdown for TlsStream {
    async fn shutdown(&mut self) {
        if let Err(error) = self.inner.shutdown().await {
            log::debug!("a connection could not be closed: error=\"{error}\"");
        }
    }
}

impl UniqueID for TlsStream {
    fn id(&self) -> UniqueIDType {
        self.socket().id()
    }
}

impl Ssl for TlsStream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        Some(Arc::clone(&self.digest))
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.http2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for TlsStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.socket().get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.socket().get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.socket().get_write_pending_time()
    }
}

impl GetProxyDigest for TlsStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.socket().get_proxy_digest()
    }
}

impl GetSocketDigest for TlsStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.socket().get_socket_digest()
    }
}

impl Peek for TlsStream {}
