//! Connections that begin with a PROXY header: they speak for one client, or for ourselves.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use xxhash_rust::xxh3::Xxh3;

use crate::http::proxy_protocol::{Addresses, version_2_header};

/// How long a connection that speaks for one client is kept without a request. Nobody else can use
/// it, and whether the client comes back nobody knows.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Connects, and says whom it speaks for before anything else.
#[derive(Debug)]
struct Proxied {
    header: Vec<u8>,
    /// Pingora times its own way of connecting alone.
    patience: Option<Duration>,
}

/// Whether connections to this peer begin with a PROXY header.
pub(super) fn speak_for_us(peer: &mut HttpPeer) {
    peer.options.custom_l4 =
        Some(Arc::new(Proxied { header: version_2_header(None), patience: None }));
}

/// Where a peer's connections begin with a PROXY header, lets this one speak for a client. The
/// connection is for this client alone then.
pub fn speak_for(peer: &mut HttpPeer, ends: Option<Addresses>) {
    if peer.options.custom_l4.is_none() {
        return;
    }
    let header = version_2_header(ends);
    let mut hash = Xxh3::new();
    hash.update(&peer.group_key.to_le_bytes());
    hash.update(&header);
    peer.group_key = hash.digest();
    let patience = peer.options.connection_timeout;
    peer.options.custom_l4 = Some(Arc::new(Proxied { header, patience }));
    peer.options.idle_timeout = peer.options.idle_timeout.map(|idle| idle.min(IDLE_MAX));
}

#[async_trait]
impl L4Connect for Proxied {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(address) = address.as_inet().copied() else {
            return Err(Error::explain(ErrorType::InternalError, "a backend without an address"));
        };
        let connect = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&self.header).await?;
            io::Result::Ok(stream)
        };
        let connected = match self.patience {
            Some(patience) => match tokio::time::timeout(patience, connect).await {
                Ok(connected) => connected,
                Err(_late) => return Err(Error::explain(ErrorType::ConnectTimedout, "too late")),
            },
            None => connect.await,
        };
        connected
            .map(Stream::from)
            .map_err(|error| Error::because(kind(&error), "connecting with a PROXY header", error))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the list is open")]
fn kind(error: &io::Error) -> ErrorType {
    match error.kind() {
        ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
        ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        _ => ErrorType::ConnectError,
    }
}
