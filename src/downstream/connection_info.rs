//! What is known about a client connection once it may carry HTTP.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use http::{HeaderValue, header};

use crate::exchange::Head;
use crate::http::proxy_protocol::Addresses;
use crate::http::scheme::Scheme;
use crate::http::{address, host};
use crate::tls::handshake_info::HandshakeInfo;
use crate::tls::terminator::Terminator;

/// A client's connection, once it may speak HTTP.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    /// The other end of the socket.
    pub(crate) peer: SocketAddr,
    /// Our end of the socket.
    pub(crate) local: SocketAddr,
    /// Whom a PROXY header named: the client and what it connected to.
    pub(crate) proxied: Option<Addresses>,
    /// `None` if the connection is clear.
    pub(crate) tls: Option<Tls>,
    forwarded: OnceLock<Option<ForwardedValues>>,
}

/// What backends are told of a connection with every request, put into words once.
#[derive(Debug)]
pub(crate) struct ForwardedValues {
    /// The address of whoever connected.
    pub(crate) client: HeaderValue,
    /// The port that they connected to.
    pub(crate) port: HeaderValue,
}

/// Of a connection over TLS.
#[derive(Debug)]
pub(crate) struct Tls {
    /// What the handshake found out.
    pub(crate) facts: HandshakeInfo,
    /// Where it ends.
    pub(crate) terminator: Arc<Terminator>,
}

impl ConnectionInfo {
    /// A clear one without a PROXY header.
    pub(crate) fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self { peer, local, proxied: None, tls: None, forwarded: OnceLock::new() }
    }

    /// Who connected: by the PROXY header, else the other end of the socket.
    pub(crate) fn client(&self) -> SocketAddr {
        self.proxied.map_or(self.peer, |addresses| addresses.source)
    }

    /// Both ends of the client's connection, as a PROXY header to a backend tells them.
    pub(crate) fn addresses(&self) -> Addresses {
        self.proxied.unwrap_or(Addresses { source: self.peer, destination: self.local })
    }

    /// Its address as limits, hashes and logs know it.
    pub(crate) fn client_ip(&self) -> IpAddr {
        self.client().ip().to_canonical()
    }

    /// Whether a request is for a host that has another certificate than this connection was made
    /// with, where clients are asked for theirs: what was proven to one host is not proven to the
    /// other (RFC 9110 §7.4).
    pub(crate) fn is_misdirected(&self, head: &Head<'_>) -> bool {
        let Some(tls) = &self.tls else { return false };
        let named = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // What is no host is refused as such.
        let Some(Ok(host)) = named.map(host::canonical) else { return false };
        tls.terminator.is_misdirected(tls.facts.server_name.as_deref(), &host)
    }

    /// The port that the client connected to: a proxy's, if that says so.
    pub(crate) fn port(&self) -> u16 {
        self.proxied.map_or(self.local, |addresses| addresses.destination).port()
    }

    /// What backends are told of it. Of an address nothing is known that could not be written.
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
    fn the_client_is_whom_the_proxy_header_names() {
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
