//! Connections to backends that begin with a PROXY header, for one client or for Weir itself.

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

/// How long a connection for one client may stay idle. Other clients cannot use it, and this one may not
/// come back.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Connects, and sends a PROXY header first.
#[derive(Debug)]
struct ProxyHeaderConnect {
    header: Vec<u8>,
    /// Pingora limits the time of its own connector only.
    timeout: Option<Duration>,
}

/// Makes connections to this peer begin with a PROXY header for Weir itself.
pub(super) fn for_self(peer: &mut HttpPeer) {
    peer.options.custom_l4 =
        Some(Arc::new(ProxyHeaderConnect { header: version_2_header(None), timeout: None }));
}

/// If connections to this peer begin with a PROXY header, makes it the header of a client. The connection
/// is used for this client only.
pub fn for_client(peer: &mut HttpPeer, ends: Option<Addresses>) {
    if peer.options.custom_l4.is_none() {
        return;
    }
    let header = version_2_header(ends);
    let mut hash = Xxh3::new();
    hash.update(&peer.group_key.to_le_bytes());
    hash.update(&header);
    peer.group_key = hash.digest();
    let timeout = peer.options.connection_timeout;
    peer.options.custom_l4 = Some(Arc::new(ProxyHeaderConnect { header, timeout }));
    peer.options.idle_timeout = peer.options.idle_timeout.map(|idle| idle.min(IDLE_MAX));
}

#[async_trait]
impl L4Connect for ProxyHeaderConnect {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(address) = address.as_inet().copied() else {
            return Err(Error::explain(ErrorType::InternalError, "a backend without an address"));
        };
        let connect = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&self.header).await?;
            io::Result::Ok(stream)
        };
        let connected = match self.timeout {
            Some(timeout) => match tokio::time::timeout(timeout, connect).await {
                Ok(connected) => connected,
                Err(_late) => {
                    return Err(Error::explain(
                        ErrorType::ConnectTimedout,
                        "connecting with a PROXY header timed out",
                    ));
                }
            },
            None => connect.await,
        };
        connected
            .map(Stream::from)
            .map_err(|error| Error::because(kind(&error), "connecting with a PROXY header", error))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the system's list of errors is open")]
fn kind(error: &io::Error) -> ErrorType {
    match error.kind() {
        ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
        ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        _ => ErrorType::ConnectError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr as Inet;

    use crate::upstream::NO_ADDRESS;

    fn for_one(client: &str, idle: u64) -> HttpPeer {
        let mut peer = HttpPeer::new(NO_ADDRESS, false, String::new());
        for_self(&mut peer);
        peer.options.idle_timeout = Some(Duration::from_secs(idle));
        let source: Inet = client.parse().unwrap();
        let destination = "10.0.0.1:80".parse().unwrap();
        for_client(&mut peer, Some(Addresses { source, destination }));
        peer
    }

    #[test]
    fn a_connection_is_reused_for_the_same_client_only() {
        let keys =
            ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1"].map(|it| for_one(it, 60).group_key);
        assert_eq!(for_one("192.0.2.1:1", 60).group_key, keys[0]);
        assert!(keys[0] != keys[1] && keys[0] != keys[2], "{keys:?}");
    }

    #[test]
    fn such_a_connection_is_not_idle_for_long() {
        let idle = |seconds| for_one("192.0.2.1:1", seconds).options.idle_timeout.unwrap();
        assert_eq!(idle(60), IDLE_MAX);
        assert_eq!(idle(3), Duration::from_secs(3));
    }

    #[test]
    fn a_peer_without_the_header_stays_as_it_is() {
        let mut peer = HttpPeer::new(NO_ADDRESS, false, String::new());
        peer.options.idle_timeout = Some(Duration::from_secs(60));
        let before = peer.group_key;
        for_client(&mut peer, None);
        assert!(peer.options.custom_l4.is_none() && peer.group_key == before);
        assert_eq!(peer.options.idle_timeout, Some(Duration::from_secs(60)));
    }
}
