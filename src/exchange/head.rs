//! The head of a request: who asks, and for which host.

use std::borrow::Cow;
use std::net::IpAddr;

use ::http::header::{HOST, HeaderMap, HeaderName};
use ::http::{Method, Version};
use ipnet::IpNet;

use crate::exchange::refusal::Refusal;
use crate::http::{forwarded, path};

/// Where proxies in front of us put the client's address.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The client by the trust rules: the key of limits and hashes, the address in the log.
    pub address: IpAddr,
}

/// The head of a request, as far as decisions need it.
#[derive(Debug)]
pub struct Head<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// As sent.
    pub method: &'a Method,
    /// As sent.
    pub version: Version,
    /// The authority of an absolute-form target, which overrides `Host` (RFC 9112 §3.2.2).
    pub authority: Option<&'a str>,
    /// The target's path, without the query.
    pub path: &'a str,
    /// Every field.
    pub headers: &'a HeaderMap,
}

/// Stands for the host of an HTTP/1.0 request that names none; no route can name it (RFC 2606).
const NO_HOST: &str = "host.invalid";

impl<'a> Head<'a> {
    /// Who asks, by the trust rules.
    pub(super) fn client(&self, trusted: &[IpNet]) -> Client {
        let lines = self.headers.get_all(X_FORWARDED_FOR);
        // A line that is not text ends the walk, as an element that is no address does.
        let lines = lines.iter().map(|line| line.to_str().unwrap_or("?"));
        Client { peer: self.peer, address: forwarded::client_ip(self.peer, lines, trusted) }
    }

    /// The host that the request names. Only HTTP/1.0 may go without one (RFC 9112 §3.2).
    pub(super) fn host(&self) -> Result<&'a str, Refusal> {
        if let Some(authority) = self.authority {
            return Ok(authority);
        }
        let mut hosts = self.headers.get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().map_err(|_not_text| Refusal::BadRequest),
            (None, _) if self.version == Version::HTTP_10 => Ok(NO_HOST),
            _ => Err(Refusal::BadRequest),
        }
    }

    /// The path that routes are matched against. `*` asks about the server as a whole and is for
    /// OPTIONS alone (RFC 9112 §3.2.4); everything else is a path from the root.
    pub(super) fn routing_path(&self) -> Result<Cow<'a, str>, Refusal> {
        match self.path {
            "*" if self.method == Method::OPTIONS => Ok(Cow::Borrowed("/")),
            path if path.starts_with('/') => Ok(path::for_routing(path)),
            _ => Err(Refusal::BadRequest),
        }
    }
}
