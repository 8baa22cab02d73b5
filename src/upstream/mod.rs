//! Connections to backends, for requests and health checks alike.
//!
//! Each backend has a template of Pingora's `HttpPeer`, built once. Pingora finds idle connections by a
//! hash of some of a peer's fields, without `ca` and ALPN. So everything in which pools can differ goes
//! into `group_key`.

mod blocked;
pub mod bounded;
pub mod connector;
pub mod error_kinds;
pub mod http2;
pub mod proxy_header;
mod roots;
pub mod shortage;
pub mod shortage_log;
pub mod tls_error;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::upstreams::peer::{ALPN, HttpPeer, HttpUpstreamRequestPolicy};
use xxhash_rust::xxh3::Xxh3;

use self::roots::Roots;
use self::shortage_log::ShortageLog;
use crate::config::{self, Protocol};
use crate::runtime::backend::Backend;
use crate::runtime::ids::{PoolId, PoolMap};
use crate::tls::last_good::LastGoodFiles;
use crate::tls::reloadable::{FileStatus, RefreshReport};
use crate::tls::upstream::{PoolFiles, PoolTrust, Trust};

/// The placeholder for the address in a template.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// How many bytes of a response a backend may send before the client reads any of it. Pingora's default
/// of 8 MiB would be 800 MiB for the streams of one connection.
const STREAM_WINDOW: u32 = 256 * 1024;

/// How to reach all backends: a peer for each entry of the configuration.
#[derive(Debug)]
pub struct UpstreamPeers {
    pools: PoolMap<PoolPeers>,
    system_roots: Roots,
    /// For connectors that need no roots.
    no_roots: Roots,
    shortage_log: ShortageLog,
}

/// The peers of one pool.
#[derive(Debug)]
struct PoolPeers {
    /// How many entries the configuration of the pool has.
    entries: usize,
    /// Whether there are peers with TLS behind those without: each line of a file has a scheme.
    has_both: bool,
    /// Without the contents of files.
    templates: Vec<HttpPeer>,
    files: Mutex<PoolFiles>,
    peers: ArcSwap<Vec<HttpPeer>>,
}

impl UpstreamPeers {
    /// Builds the peers of these pools, with the files in `trust`.
    ///
    /// # Errors
    /// The system's root certificates could not be put into a file for Pingora.
    pub fn new(configs: &[config::Pool], trust: Trust) -> io::Result<Self> {
        let mut files = trust.pools.into_iter();
        let peers = |pool: &config::Pool| {
            let of = |backend: &config::Backend, tls: bool| {
                template(pool, backend.server_name.as_deref().filter(|_| tls), tls)
            };
            let configured = pool.backends.iter().map(|it| of(it, it.server_name.is_some()));
            let mut templates: Vec<_> = configured.collect();
            if pool.backends.iter().any(config::Backend::is_from_file) {
                templates = pool.backends.iter().map(|it| of(it, false)).collect();
                templates.extend(pool.backends.iter().map(|it| of(it, true)));
            }
            PoolPeers::new(pool.backends.len(), templates, files.next().unwrap_or_default())
        };
        let pools = configs.iter().map(peers).collect();
        let (system_roots, no_roots) = (Roots::new(&trust.system)?, Roots::new(&[])?);
        Ok(Self { pools, system_roots, no_roots, shortage_log: ShortageLog::new() })
    }

    /// Logs which resources of this machine are used up.
    #[must_use]
    pub const fn shortage_log(&self) -> &ShortageLog {
        &self.shortage_log
    }

    /// The peer of a backend at this address, without timeouts.
    #[must_use]
    pub fn peer(
        &self,
        pool: PoolId,
        backend: &Backend,
        address: SocketAddr,
    ) -> Option<Box<HttpPeer>> {
        let pool = self.pools.get(pool)?;
        let mut position = backend.origin.entry.position();
        if pool.has_both && backend.transport.tls {
            position += pool.entries;
        }
        let mut peer = pool.peers.load().get(position).cloned().map(Box::new)?;
        peer._address = address.into();
        if let Some(name) = &backend.origin.own_name {
            peer.sni = String::from(&**name);
        }
        Some(peer)
    }

    /// Reloads files that have changed. Blocks while it reads them.
    pub fn refresh(&self, now: SystemTime) -> Vec<RefreshReport> {
        self.pools.iter().map(|pool| pool.refresh(now)).collect()
    }

    /// The status of each file.
    #[must_use]
    pub fn statuses(&self) -> Vec<FileStatus> {
        let statuses = |pool: &PoolPeers| pool.files.lock().statuses().collect::<Vec<_>>();
        self.pools.iter().flat_map(statuses).collect()
    }

    /// Exports the files in use, for the next worker.
    pub fn export(&self, last_good: &mut LastGoodFiles) {
        self.pools.iter().for_each(|pool| pool.files.lock().export(last_good));
    }

    /// The path of a file with the system's root certificates. Pingora must always get one: otherwise each
    /// connector searches for one itself, and panics if it is invalid.
    #[must_use]
    pub fn roots(&self) -> String {
        self.system_roots.path()
    }

    /// The options of a separate connector to the backends of a pool, for health checks.
    #[must_use]
    pub fn connector_options(&self, pool: PoolId) -> ConnectorOptions {
        let needs_roots = |peer: &HttpPeer| peer.is_tls() && peer.options.ca.is_none();
        // Reading them takes milliseconds, and a configuration may have a thousand pools.
        let needs_roots =
            self.pools.get(pool).is_some_and(|pool| pool.peers.load().iter().any(needs_roots));
        let roots = if needs_roots { self.roots() } else { self.no_roots.path() };
        // Room for one idle connection. It stays unused, because each check closes its connection.
        let mut options = ConnectorOptions::new(1);
        options.ca_file = Some(roots);
        options
    }
}

impl PoolPeers {
    fn new(entries: usize, templates: Vec<HttpPeer>, files: PoolFiles) -> Self {
        let has_both = templates.len() > entries;
        let peers = ArcSwap::from_pointee(with_trust(&templates, &files.trust()));
        Self { entries, has_both, templates, files: Mutex::new(files), peers }
    }

    fn refresh(&self, now: SystemTime) -> RefreshReport {
        let mut files = self.files.lock();
        let report = files.refresh(now);
        if !report.reloaded.is_empty() {
            self.peers.store(Arc::new(with_trust(&self.templates, &files.trust())));
        }
        report
    }
}

/// The peer of a backend, without the contents of files and without its address, which may not be known
/// yet.
fn template(pool: &config::Pool, name: Option<&str>, tls: bool) -> HttpPeer {
    let mut peer = HttpPeer::new(NO_ADDRESS, tls, name.unwrap_or_default().to_owned());
    let options = &mut peer.options;
    // Pingora ignores `verify_cert` for a peer without ALPN, own certificate or CA.
    options.alpn = match (pool.transport.protocol, tls) {
        (Protocol::H2 | Protocol::H2c, _) => ALPN::H2,
        (Protocol::Auto, true) => ALPN::H2H1,
        (Protocol::Http1, _) | (Protocol::Auto, false) => ALPN::H1,
    };
    let streams = pool.transport.http2.streams;
    options.max_h2_streams = usize::try_from(streams.get()).unwrap_or(usize::MAX);
    options.h2_stream_window_size = Some(STREAM_WINDOW);
    // The sum of all streams; with less, a few slow clients would stop all others.
    options.h2_connection_window_size = Some(STREAM_WINDOW.saturating_mul(streams.get()));
    options.h2_ping_interval = pool.transport.http2.ping;
    // `hop_by_hop` and `proxy::websocket` remove hop-by-hop headers. Pingora would remove `Cookie` or
    // `X-Request-Id` if `Connection` nominates them, and search for each name before we do.
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    if tls {
        options.verify_cert = pool.transport.tls.verify;
        options.verify_hostname = pool.transport.tls.verify;
    }
    peer.group_key = transport_hash(pool);
    if pool.transport.proxy_protocol {
        proxy_header::for_self(&mut peer);
    }
    peer
}

/// The peers with the contents of files. Connections made with other contents are not reused.
fn with_trust(templates: &[HttpPeer], trust: &PoolTrust) -> Vec<HttpPeer> {
    let mut peers = templates.to_vec();
    for peer in &mut peers {
        peer.group_key = group_key(peer.group_key, trust);
        if peer.is_tls() {
            peer.options.ca.clone_from(&trust.ca);
            peer.client_cert_key.clone_from(&trust.identity);
            if let Some(why) = &trust.missing {
                blocked::block_peer(peer, why);
            }
        }
    }
    peers
}

/// Equal for pools that may share connections.
fn group_key(transport: u64, trust: &PoolTrust) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&transport.to_le_bytes());
    hash.update(&trust.digest.to_le_bytes());
    hash.digest()
}

/// Equal for pools with the same transport.
fn transport_hash(pool: &config::Pool) -> u64 {
    let mut hash = Xxh3::new();
    // Other settings do not change which server responds, or how.
    hash.update(format!("{:?} {:?}", pool.transport.protocol, pool.transport.http2).as_bytes());
    hash.update(&[u8::from(pool.transport.tls.verify), u8::from(pool.transport.proxy_protocol)]);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, TransportTls, load};
    use crate::runtime::endpoint::Endpoint;
    use crate::runtime::ids::EntryId;
    use crate::runtime::members::new_backend;
    use crate::tls::upstream;
    use pingora_core::upstreams::peer::Peer as _;

    fn peers(pools: &str) -> Vec<HttpPeer> {
        let text =
            format!("pools: [{pools}]\nroutes: [{{path: /a, pool: a}}, {{path: /b, pool: b}}]");
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let trust = upstream::open(&config, &LastGoodFiles::default(), SystemTime::UNIX_EPOCH);
        let upstreams = UpstreamPeers::new(&config.pools, trust).unwrap();
        let address = "10.0.0.1:1".parse().unwrap();
        let backend = |pool: usize| {
            let of = &config.pools[pool];
            new_backend(of, EntryId::new(0), "a", Endpoint::fixed(address), None).unwrap()
        };
        (0..2)
            .map(|pool| *upstreams.peer(PoolId::new(pool), &backend(pool), address).unwrap())
            .collect()
    }

    #[test]
    fn pools_that_differ_in_verification_share_no_connection() {
        let both = peers(
            "{name: a, backends: [https://10.0.0.1:1], tls: {verify: off}}, \
             {name: b, backends: [http://10.0.0.1:1]}",
        );
        assert_ne!(both[0].reuse_hash(), both[1].reuse_hash());
        let same = peers(
            "{name: a, backends: [https://10.0.0.1:1], tls: {verify: off}}, \
             {name: b, backends: [https://10.0.0.1:1], tls: {verify: off}}",
        );
        assert_eq!(same[0].reuse_hash(), same[1].reuse_hash());
    }

    #[test]
    fn each_line_of_a_file_has_its_own_scheme_and_name() {
        let text = "pools: [{name: a, backends: [{file: a.txt}], tls: {verify: off}}]";
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let trust = upstream::open(&config, &LastGoodFiles::default(), SystemTime::UNIX_EPOCH);
        let upstreams = UpstreamPeers::new(&config.pools, trust).unwrap();
        let address = "10.0.0.1:1".parse().unwrap();
        let peer = |name: Option<&str>| {
            let endpoint = Endpoint::fixed(address);
            let backend = new_backend(&config.pools[0], EntryId::new(0), "a", endpoint, name);
            upstreams.peer(PoolId::new(0), &backend.unwrap(), address).unwrap()
        };
        let (plain, tls) = (peer(None), peer(Some("a.test")));
        assert!(!plain.is_tls() && tls.is_tls());
        assert_eq!(tls.sni, "a.test");
    }

    #[test]
    fn a_tls_peer_always_has_a_name_and_alpn() {
        let both = peers(
            "{name: a, backends: [https://10.0.0.1:1], tls: {verify: off}}, \
             {name: b, backends: [{url: https://10.0.0.1:1, server_name: web.internal}], \
             tls: {verify: off}}",
        );
        assert_eq!(both[0].sni, "10.0.0.1");
        assert_eq!(both[1].sni, "web.internal");
        assert!(both.iter().all(|peer| peer.get_alpn().is_some()));
    }

    #[test]
    fn connections_verified_by_different_authorities_are_not_shared() {
        let text = "pools: [{name: a, backends: [https://10.0.0.1:1]}]";
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let trust = |digest| PoolTrust { digest, ..PoolTrust::default() };
        let transport = transport_hash(&config.pools[0]);
        assert_ne!(group_key(transport, &trust(1)), group_key(transport, &trust(2)));
        let mut off = config.pools[0].clone();
        off.transport.tls = TransportTls { verify: false, ..TransportTls::default() };
        assert_ne!(group_key(transport, &trust(1)), group_key(transport_hash(&off), &trust(1)));
    }
}
