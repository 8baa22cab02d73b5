//! Asks the name servers of `/etc/resolv.conf`.
//!
//! Each query has a socket of its own, so its port is random as its id is. The files are read for each
//! lookup, because they are short and change while a worker runs. Names that neither `/etc/hosts` nor
//! DNS has are looked up by the C library, if `/etc/nsswitch.conf` names another source.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::conf::{self, ResolvConf};
use super::library::Library;
use super::message::{DnsResponse, Query, RecordType, RecordValue};
use crate::config::AddressFamily;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long the addresses of `/etc/hosts` and of the C library are valid.
const LOCAL_TTL: Duration = Duration::from_secs(5);
/// The largest response over UDP: no larger one is asked for.
const DATAGRAM_MAX: usize = 4096;

/// Why there are no records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LookupFailure {
    /// The name does not exist, or has no such record.
    Empty,
    /// No answer, for this reason.
    Failed(String),
}

impl fmt::Display for LookupFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str(super::NO_ADDRESS),
            Self::Failed(why) => formatter.write_str(why),
        }
    }
}

/// The addresses of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HostAddresses {
    pub(super) found: Vec<IpAddr>,
    pub(super) ttl: Duration,
    /// Which addresses are missing because their lookup failed, and why.
    pub(super) missing: Option<(AddressFamily, String)>,
    /// Who has answered.
    pub(super) by: String,
}

/// The servers of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Servers {
    pub(super) found: Vec<RecordValue>,
    pub(super) ttl: Duration,
    pub(super) by: String,
}

/// Records, how long they are valid, and which server has them.
type Answer = (Vec<RecordValue>, Duration, SocketAddr);

/// Looks names up. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct DnsClient {
    library: Library,
}

impl DnsClient {
    /// The addresses of a host name, within `limit`.
    pub(super) async fn addresses(
        &self,
        name: &str,
        family: AddressFamily,
        limit: Duration,
    ) -> Result<HostAddresses, LookupFailure> {
        let local = conf::hosts(&text("/etc/hosts"), name);
        let local: Vec<IpAddr> = local.into_iter().filter(|ip| family.has(*ip)).collect();
        if !local.is_empty() {
            let by = "/etc/hosts".to_owned();
            return Ok(HostAddresses { found: local, ttl: LOCAL_TTL, missing: None, by });
        }
        timeout(limit, self.by_dns_or_library(name, family, limit))
            .await
            .unwrap_or_else(|_| late(limit))
    }

    async fn by_dns_or_library(
        &self,
        name: &str,
        family: AddressFamily,
        limit: Duration,
    ) -> Result<HostAddresses, LookupFailure> {
        let result = self.by_dns(name, family).await;
        let is_missing = result.as_ref().is_err_and(|why| *why == LookupFailure::Empty);
        if !is_missing || !conf::has_other_sources(&text("/etc/nsswitch.conf")) {
            return result;
        }
        let found = self.library.look_up(name.to_owned(), limit).await.unwrap_or_default();
        let found: Vec<IpAddr> = found.into_iter().filter(|ip| family.has(*ip)).collect();
        if found.is_empty() {
            return result;
        }
        let by = "/etc/nsswitch.conf".to_owned();
        Ok(HostAddresses { found, ttl: LOCAL_TTL, missing: None, by })
    }

    /// The servers of a service, within `limit`.
    pub(super) async fn servers(
        &self,
        name: &str,
        limit: Duration,
    ) -> Result<Servers, LookupFailure> {
        let conf = ResolvConf::parse(&text(RESOLV_CONF));
        let asked = timeout(limit, self.search(&conf, name, RecordType::Srv)).await;
        let (found, ttl, by) = asked.unwrap_or_else(|_| late(limit))?;
        Ok(Servers { found, ttl, by: by.to_string() })
    }

    async fn by_dns(
        &self,
        name: &str,
        family: AddressFamily,
    ) -> Result<HostAddresses, LookupFailure> {
        let conf = ResolvConf::parse(&text(RESOLV_CONF));
        let of = |wanted: bool, of: RecordType| {
            let conf = &conf;
            async move { if wanted { Some(self.search(conf, name, of).await) } else { None } }
        };
        let (v4, v6) = tokio::join!(
            of(family != AddressFamily::Ipv6, RecordType::A),
            of(family != AddressFamily::Ipv4, RecordType::Aaaa)
        );
        let mut addresses = HostAddresses { ttl: Duration::MAX, ..HostAddresses::default() };
        let mut failure = None;
        for (of, result) in [(AddressFamily::Ipv4, v4), (AddressFamily::Ipv6, v6)] {
            match result {
                None | Some(Err(LookupFailure::Empty)) => {}
                Some(Err(LookupFailure::Failed(why))) => failure = Some((of, why)),
                Some(Ok((records, ttl, by))) => {
                    addresses.ttl = addresses.ttl.min(ttl);
                    addresses.by = by.to_string();
                    addresses.found.extend(records.into_iter().filter_map(|it| match it {
                        RecordValue::Address(ip) => Some(ip),
                        RecordValue::Server { .. } => None,
                    }));
                }
            }
        }
        match (addresses.found.is_empty(), failure) {
            (true, Some((_, why))) => Err(LookupFailure::Failed(why)),
            (true, None) => Err(LookupFailure::Empty),
            (false, missing) => Ok(HostAddresses { missing, ..addresses }),
        }
    }

    /// Asks for each name that a short one may mean, until one has records.
    async fn search(
        &self,
        conf: &ResolvConf,
        name: &str,
        of: RecordType,
    ) -> Result<Answer, LookupFailure> {
        let mut failure = None;
        for name in conf.candidates(name) {
            match self.ask_servers(conf, &name, of).await {
                Ok(answer) => return Ok(answer),
                Err(LookupFailure::Empty) => {}
                // Another name may be a different host.
                Err(failed) => {
                    failure.get_or_insert(failed);
                }
            }
        }
        Err(failure.unwrap_or(LookupFailure::Empty))
    }

    /// Asks one server after the other, until one responds.
    async fn ask_servers(
        &self,
        conf: &ResolvConf,
        name: &str,
        of: RecordType,
    ) -> Result<Answer, LookupFailure> {
        let mut last = "there is no name server".to_owned();
        for _ in 0..conf.attempts {
            for server in &conf.servers {
                let Some(query) = Query::new(name, of, fastrand::u16(..)) else {
                    return Err(LookupFailure::Failed("the name is not valid in DNS".to_owned()));
                };
                let asked = timeout(conf.timeout, ask(*server, &query, conf.tcp_only)).await;
                match asked {
                    Ok(Ok(DnsResponse::Records(records, ttl))) => {
                        return Ok((records, ttl, *server));
                    }
                    Ok(Ok(DnsResponse::Empty)) => return Err(LookupFailure::Empty),
                    Ok(Ok(DnsResponse::Failed(code))) => last = format!("{server}: {code}"),
                    Ok(Ok(DnsResponse::Truncated)) => {
                        last = format!("{server}: truncated over TCP")
                    }
                    Ok(Err(error)) => last = format!("{server}: {error}"),
                    Err(_late) => last = format!("{server}: no response"),
                }
            }
        }
        Err(LookupFailure::Failed(last))
    }
}

fn late<T>(limit: Duration) -> Result<T, LookupFailure> {
    let limit = humantime::format_duration(limit);
    Err(LookupFailure::Failed(format!("no response within {limit}")))
}

async fn ask(server: SocketAddr, query: &Query, tcp_only: bool) -> io::Result<DnsResponse> {
    if !tcp_only {
        match ask_by_udp(server, query).await? {
            DnsResponse::Truncated => {}
            response @ (DnsResponse::Records(..) | DnsResponse::Empty | DnsResponse::Failed(_)) => {
                return Ok(response);
            }
        }
    }
    ask_by_tcp(server, query).await
}

async fn ask_by_udp(server: SocketAddr, query: &Query) -> io::Result<DnsResponse> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Only datagrams of this server are received from now on.
    socket.connect(server).await?;
    socket.send(query.bytes()).await?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else may be forged: wait for the real one.
        if let Some(response) = buffer.get(..length).and_then(|bytes| query.read(bytes)) {
            return Ok(response);
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, query: &Query) -> io::Result<DnsResponse> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&query.framed()).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    let unrelated = || io::Error::new(io::ErrorKind::InvalidData, "an unrelated response");
    query.read(&bytes).ok_or_else(unrelated)
}

/// The text of a file; empty if it cannot be read.
fn text(path: &str) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
