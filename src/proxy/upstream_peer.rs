//! The backend of an attempt, as a peer of Pingora with its timeouts.

use std::future::poll_fn;

use pingora_core::upstreams::peer::{ALPN, HttpPeer};
use pingora_error::{ErrorType, OkOrErr as _, Result};
use pingora_proxy::Session;

use super::local_response;
use crate::clock::Clock;
use crate::downstream::connection_info::ConnectionInfo;
use crate::downstream::disconnect;
use crate::exchange::{Choice, Exchange, Rolls, Target};
use crate::time::Timestamp;
use crate::upstream::{UpstreamPeers, connector, proxy_header};

/// Picks a backend, and returns when. If the request has to wait for a place at one, the wait ends when the
/// client disconnects.
pub(super) async fn pick(
    session: &mut Session,
    exchange: &mut Exchange,
    clock: Clock,
) -> Result<(Target, Timestamp)> {
    let rolls = Rolls { pick: fastrand::u64(..), backoff: fastrand::u64(..) };
    let now = clock.now();
    match exchange.pick_or_wait(now, rolls).map_err(local_response::refusal_error)? {
        Choice::Attempt(target) => Ok((target, now)),
        Choice::Wait(until) => {
            let place = poll_fn(|context| exchange.poll_wait(context));
            disconnect::wait_at_most(session, until.since(now), place).await?;
            let now = clock.now();
            let target = exchange.end_wait(now).map_err(local_response::refusal_error)?;
            Ok((target, now))
        }
    }
}

/// The peer for a target.
pub(super) fn build(
    upstreams: &UpstreamPeers,
    target: &Target,
    of: Option<&ConnectionInfo>,
) -> Result<Box<HttpPeer>> {
    let address = target.backend.address();
    let peer = address.and_then(|at| upstreams.peer(target.pool, &target.backend, at));
    let mut peer = peer.or_err(ErrorType::InternalError, "a backend without an address")?;
    let options = &mut peer.options;
    // Pingora applies the first to TCP and to TLS each, the second to both together.
    options.connection_timeout = Some(target.connect_timeout);
    options.total_connection_timeout = Some(target.connect_timeout * 2);
    if target.tunnel_timeout.is_some() {
        options.alpn = ALPN::H1; // HTTP/2 has no upgrades
    }
    connector::use_connector(&mut peer);
    let options = &mut peer.options;
    let timeout = target.tunnel_timeout.unwrap_or(target.response_timeout);
    options.read_timeout = Some(timeout);
    options.write_timeout = Some(timeout);
    options.idle_timeout = Some(target.idle_timeout);
    proxy_header::for_client(&mut peer, of.map(ConnectionInfo::addresses));
    Ok(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    use crate::config::{self, Overrides};
    use crate::proxy::tests::{ONE_POOL, forwarded, websocket};
    use crate::tls::last_good::LastGoodFiles;

    fn peer(mut exchange: Exchange) -> Box<HttpPeer> {
        let config = config::load(Some(ONE_POOL.as_bytes()), &Overrides::default()).unwrap();
        let files = LastGoodFiles::default();
        let trust = crate::tls::upstream::open(&config, &files, SystemTime::UNIX_EPOCH);
        let upstreams = UpstreamPeers::new(&config.pools, trust).unwrap();
        let target = exchange.pick(Timestamp::ZERO, Rolls::default()).unwrap();
        build(&upstreams, &target, None).unwrap()
    }

    #[test]
    fn a_tunnel_may_be_silent_for_longer_than_a_response() {
        let plain = peer(forwarded(ONE_POOL, "/")).options;
        let tunnel = peer(websocket()).options;
        assert_eq!(plain.read_timeout, Some(Duration::from_secs(30)));
        assert_eq!(plain.write_timeout, plain.read_timeout);
        assert_eq!(tunnel.read_timeout, Some(Duration::from_secs(3600)));
        assert_eq!(tunnel.write_timeout, tunnel.read_timeout);
        assert_eq!(tunnel.connection_timeout, plain.connection_timeout);
    }

    #[test]
    fn tcp_and_tls_together_get_twice_the_connect_timeout() {
        let options = peer(forwarded(ONE_POOL, "/")).options;
        let once = options.connection_timeout.unwrap();
        assert_eq!(options.total_connection_timeout, Some(once * 2));
    }
}
