//! What is known about a client connection after its handshake.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use http::{HeaderValue, header};

use crate::exchange::Head;
use crate::http::proxy_protocol::Addresses;
use crate::http::scheme::Scheme;
use crate::http::{address, host};
use crate::tls::handshake_info::HandshakeInfo;
use crate::tls::terminator::Terminator;

/// A client connection after its handshake.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    /// The client's address of the socket.
    pub(crate) peer: SocketAddr,
    /// Weir's address of the socket.
    pub(crate) local: SocketAddr,
    /// The addresses that a PROXY header named: of the client, and what it connected to.
    pub(crate) proxied: Option<Addresses>,
    /// `None` for plaintext.
    pub(crate) tls: Option<ClientTls>,
    forwarded: OnceLock<Option<ForwardedValues>>,
}

/// Header values that each request of the connection sends to its backend, made once.
#[derive(Debug)]
pub(crate) struct ForwardedValues {
    /// The client's IP address.
    pub(crate) client: HeaderValue,
    /// The port that the client connected to.
    pub(crate) port: HeaderValue,
}

/// The TLS session of a connection.
#[derive(Debug)]
pub(crate) struct ClientTls {
    /// The results of the handshake.
    pub(crate) facts: HandshakeInfo,
    /// What terminated it.
    pub(crate) terminator: Arc<Terminator>,
}

impl ConnectionInfo {
    /// A plaintext connection without a PROXY header.
    pub(crate) fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self { peer, local, proxied: None, tls: None, forwarded: OnceLock::new() }
    }

    /// The client's address: from the PROXY header, or else of the socket.
    pub(crate) fn client(&self) -> SocketAddr {
        self.proxied.map_or(self.peer, |addresses| addresses.source)
    }

    /// Both addresses, as a PROXY header to a backend carries them.
    pub(crate) fn addresses(&self) -> Addresses {
        self.proxied.unwrap_or(Addresses { source: self.peer, destination: self.local })
    }

    /// The client's IP address, as limits, hashes and logs use it.
    pub(crate) fn client_ip(&self) -> IpAddr {
        self.client().ip().to_canonical()
    }

    /// Whether the request is for a host with another certificate, where clients have to show
    /// theirs. What a client has proved to one host, it has not proved to the other (RFC 9110
    /// §7.4).
    pub(crate) fn is_misdirected(&self, head: &Head<'_>) -> bool {
        let Some(tls) = &self.tls else { return false };
        let named = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // An invalid host is rejected elsewhere.
        let Some(Ok(host)) = named.map(host::canonical) else { return false };
        tls.terminator.is_misdirected(tls.facts.server_name.as_deref(), &host)
    }

    /// The port that the client connected to, at the proxy in front of Weir if a PROXY header names
    /// it.
    pub(crate) fn port(&self) -> u16 {
        self.proxied.map_or(self.local, |addresses| addresses.destination).port()
    }

    /// The header values for backends; `None` if the address cannot be one.
    pub(crate) fn forwarded_values(&self) -> Option<&ForwardedValues> {
        let write = || {
            let client = HeaderValue::try_from(address::text(self.client_ip())).ok()?;
            Some(ForwardedValues { client, port: HeaderValue::from(self.port()) })
        };
        self.forwarded.get_or_init(write).as_ref()
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_address_is_the_one_in_the_proxy_header() {
        let peer = "10.0.0.1:1".parse().unwrap();
        let mut connection = ConnectionInfo::new(peer, "10.0.0.2:443".parse().unwrap());
        assert_eq!(connection.client(), peer);
        assert_eq!(connection.addresses().source, peer);
        let source = "[::ffff:192.0.2.1]:4711".parse().unwrap();
        let destination = "198.51.100.2:443".parse().unwrap();
        connection.proxied = Some(Addresses { source, destination });
        assert_eq!(connection.client(), source);
        assert_eq!(connection.addresses(), Addresses { source, destination });
        assert_eq!(connection.client_ip(), "192.0.2.1".parse::<IpAddr>().unwrap());
        let forwarded = connection.forwarded_values().unwrap();
        assert_eq!(
            (&forwarded.client, &forwarded.port),
            (&"192.0.2.1".parse().unwrap(), &443.into())
        );
    }
}
