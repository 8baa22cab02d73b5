//! How backends are reached: the same way for requests and for probes.
//!
//! Each backend has a template of Pingora's `HttpPeer`, made once. Pingora keeps idle connections
//! under a hash of some of a peer's fields, and `ca` and ALPN are not among them; so everything in
//! which pools can differ goes into `group_key`.

pub mod bounded;
pub mod handshake;
pub mod http2;
pub mod ours;
pub mod proxied;
mod roots;
pub mod shortages;
mod shut;

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
use self::shortages::Shortages;
use crate::config::{self, Protocol};
use crate::runtime::ids::{BackendId, PoolId, PoolMap};
use crate::tls::last_good::LastGoodFiles;
use crate::tls::reloadable::{FileStatus, RefreshReport};
use crate::tls::upstream::{PoolFiles, PoolTrust, Trust};

/// Stands for the address in a template.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// How much of an answer may be on its way before its client has taken any of it. Pingora's own
/// 8 MiB would be 800 MiB for the streams of one connection.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Every backend, with how it is reached.
#[derive(Debug)]
pub struct Upstreams {
    pools: PoolMap<Reach>,
    roots: Roots,
    /// For connectors that need none.
    nobody: Roots,
    shortages: Shortages,
}

/// How the members of one pool are reached.
#[derive(Debug)]
struct Reach {
    /// Without what is in files.
    bare: Vec<HttpPeer>,
    files: Mutex<PoolFiles>,
    peers: ArcSwap<Vec<HttpPeer>>,
}

impl Upstreams {
    /// Of these pools, with what `trust` has of their files.
    ///
    /// # Errors
    /// The system's roots could not be handed on.
    pub fn new(configs: &[config::Pool], trust: Trust) -> io::Result<Self> {
        let mut files = trust.pools.into_iter();
        let reach = |pool: &config::Pool| {
            let bare = pool.backends.iter().map(|backend| template(pool, backend));
            Reach::new(bare.collect(), files.next().unwrap_or_default())
        };
        let pools = configs.iter().map(reach).collect();
        let (roots, nobody) = (Roots::new(&trust.system)?, Roots::new(&[])?);
        Ok(Self { pools, roots, nobody, shortages: Shortages::new() })
    }

    /// Logs what this machine lacks for connections.
    #[must_use]
    pub const fn shortages(&self) -> &Shortages {
        &self.shortages
    }

    /// How a member of a pool is reached at this address, without any limit of time.
    #[must_use]
    pub fn peer(
        &self,
        pool: PoolId,
        backend: BackendId,
        address: SocketAddr,
    ) -> Option<Box<HttpPeer>> {
        let mut peer =
            self.pools.get(pool)?.peers.load().get(backend.position()).cloned().map(Box::new)?;
        peer._address = address.into();
        Some(peer)
    }

    /// Looks whether files have changed, and uses those that have. Blocks while it reads.
    pub fn refresh(&self, now: SystemTime) -> Vec<RefreshReport> {
        self.pools.iter().map(|pool| pool.refresh(now)).collect()
    }

    /// How things stand with each file.
    #[must_use]
    pub fn statuses(&self) -> Vec<FileStatus> {
        let statuses = |pool: &Reach| pool.files.lock().statuses().collect::<Vec<_>>();
        self.pools.iter().flat_map(statuses).collect()
    }

    /// What is used, for the next worker.
    pub fn export(&self, last_good: &mut LastGoodFiles) {
        self.pools.iter().for_each(|pool| pool.files.lock().export(last_good));
    }

    /// A file with whom the system trusts. Pingora must always be given one: left alone it looks for
    /// one itself, for every connector, and panics if it finds something wrong.
    #[must_use]
    pub fn roots(&self) -> String {
        self.roots.path()
    }

    /// For a connector of one's own to the members of a pool, that keeps no connection.
    #[must_use]
    pub fn connector_options(&self, pool: PoolId) -> ConnectorOptions {
        let needs_roots = |peer: &HttpPeer| peer.is_tls() && peer.options.ca.is_none();
        // They take milliseconds to be read, and a file may have a thousand pools.
        let needs_roots =
            self.pools.get(pool).is_some_and(|pool| pool.peers.load().iter().any(needs_roots));
        let roots = if needs_roots { self.roots() } else { self.nobody.path() };
        let mut options = ConnectorOptions::new(1);
        options.ca_file = Some(roots);
        options
    }
}

impl Reach {
    fn new(bare: Vec<HttpPeer>, files: PoolFiles) -> Self {
        let peers = ArcSwap::from_pointee(trusting(&bare, &files.trust()));
        Self { bare, files: Mutex::new(files), peers }
    }

    fn refresh(&self, now: SystemTime) -> RefreshReport {
        let mut files = self.files.lock();
        let renewals = files.refresh(now);
        if !renewals.reloaded.is_empty() {
            self.peers.store(Arc::new(trusting(&self.bare, &files.trust())));
        }
        renewals
    }
}

/// How a backend is reached, but for what is in files and for its address, which may not be known
/// yet.
fn template(pool: &config::Pool, backend: &config::Backend) -> HttpPeer {
    let name = backend.server_name.as_deref();
    let tls = name.is_some();
    let mut peer = HttpPeer::new(NOWHERE, tls, name.unwrap_or_default().to_owned());
    let options = &mut peer.options;
    // Without ALPN, Pingora would verify even what is not to be verified, and the other way round.
    options.alpn = match (pool.transport.protocol, tls) {
        (Protocol::H2 | Protocol::H2c, _) => ALPN::H2,
        (Protocol::Auto, true) => ALPN::H2H1,
        (Protocol::Http1, _) | (Protocol::Auto, false) => ALPN::H1,
    };
    let streams = pool.transport.http2.streams;
    options.max_h2_streams = usize::try_from(streams.get()).unwrap_or(usize::MAX);
    options.h2_stream_window_size = Some(STREAM_WINDOW);
    // As much as all streams together, or else some slow clients would hold up all others.
    options.h2_connection_window_size = Some(STREAM_WINDOW.saturating_mul(streams.get()));
    options.h2_ping_interval = pool.transport.http2.ping;
    // All about hops is for `hop_by_hop` and `proxy::tunnel` to judge: Pingora would take `Cookie` or
    // `X-Request-Id` where `Connection` nominates them, and look for each field of the list before
    // we do.
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    if tls {
        options.verify_cert = pool.transport.tls.verify;
        options.verify_hostname = pool.transport.tls.verify;
    }
    peer.group_key = speech(pool);
    if pool.transport.proxy_protocol {
        proxied::speak_for_us(&mut peer);
    }
    peer
}

/// The same with what is in files. A connection that was made with something else is not used again.
fn trusting(bare: &[HttpPeer], trust: &PoolTrust) -> Vec<HttpPeer> {
    let mut peers = bare.to_vec();
    for peer in &mut peers {
        peer.group_key = group(peer.group_key, trust);
        if peer.is_tls() {
            peer.options.ca.clone_from(&trust.ca);
            peer.client_cert_key.clone_from(&trust.identity);
            if let Some(why) = &trust.missing {
                shut::shut(peer, why);
            }
        }
    }
    peers
}

/// Equal for pools that may share connections.
fn group(speech: u64, trust: &PoolTrust) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&speech.to_le_bytes());
    hash.update(&trust.digest.to_le_bytes());
    hash.digest()
}

/// Equal for pools that speak alike.
fn speech(pool: &config::Pool) -> u64 {
    let mut hash = Xxh3::new();
    // What is not looked at here does not decide who answers, and how.
    hash.update(format!("{:?} {:?}", pool.transport.protocol, pool.transport.http2).as_bytes());
    hash.update(&[u8::from(pool.transport.tls.verify), u8::from(pool.transport.proxy_protocol)]);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, TransportTls, load};
    use crate::tls::upstream;
    use pingora_core::upstreams::peer::Peer as _;

    fn peers(pools: &str) -> Vec<HttpPeer> {
        let text =
            format!("pools: [{pools}]\nroutes: [{{path: /a, pool: a}}, {{path: /b, pool: b}}]");
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let trust = upstream::open(&config, &LastGoodFiles::default(), SystemTime::UNIX_EPOCH);
        let upstreams = Upstreams::new(&config.pools, trust).unwrap();
        (0..2)
            .map(|pool| {
                *upstreams
                    .peer(PoolId::new(pool), BackendId::new(0), "10.0.0.1:1".parse().unwrap())
                    .unwrap()
            })
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
    fn another_authority_is_another_group() {
        let text = "pools: [{name: a, backends: [https://10.0.0.1:1]}]";
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let trust = |digest| PoolTrust { digest, ..PoolTrust::default() };
        let spoken = speech(&config.pools[0]);
        assert_ne!(group(spoken, &trust(1)), group(spoken, &trust(2)));
        let mut off = config.pools[0].clone();
        off.transport.tls = TransportTls { verify: false, ..TransportTls::default() };
        assert_ne!(group(spoken, &trust(1)), group(speech(&off), &trust(1)));
    }
}
