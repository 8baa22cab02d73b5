//! Helpers for the unit tests of the modules with input and output: snapshots of one or two pools, and
//! exchanges on them.

#![expect(clippy::unwrap_used, reason = "a test's helper may stop the test")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use ::http::header::HOST;
use ::http::{HeaderMap, HeaderValue, Method, Version};

use crate::config::{
    self, AccessLog, Admin, Algorithm, AmbiguousPaths, BackendAddress, Config, HealthCheck, Limits,
    LogFormat, LogTarget, Probe, ReadyWhen, ResponseBuffers, Retry, RetryOn, Shutdown, Threads,
    Timeouts,
};
use crate::exchange::event::{Observer, Wire};
use crate::exchange::{Exchange, Head};
use crate::http::metric_label::MethodLabel;
use crate::http::scan::Limits as HeadLimits;
use crate::http::scheme::Scheme;
use crate::name::PoolName;
use crate::policy::wait_queue::QueueOrder;
use crate::runtime::endpoint::Lookup;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// The client of every exchange here.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// A pool with a backend at each address.
pub(crate) fn pool(
    name: &str,
    addresses: &[SocketAddr],
    health_check: Option<HealthCheck>,
) -> config::Pool {
    let backends = addresses.iter().map(|address| config::Backend {
        address: BackendAddress::Socket(*address),
        weight: NonZeroU32::MIN,
        max_requests: None,
        server_name: None,
        defined_at: config::SourcePosition::default(),
    });
    config::Pool {
        name: PoolName::new(name).unwrap(),
        algorithm: Algorithm::RoundRobin,
        backends: backends.collect(),
        health_check,
        breaker: None,
        retry: Retry {
            attempts: NonZeroU8::new(3).unwrap(),
            backoff: Duration::ZERO,
            on: RetryOn { connect: true, reset: true, timeout: true, status: vec![503] },
            try_timeout: None,
            methods: Vec::new(),
            budget: None,
        },
        queue: config::RequestQueue {
            length: 0,
            timeout: Duration::from_millis(100),
            order: QueueOrder::Lifo,
        },
        slow_start: None,
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(1),
            request: Some(Duration::from_secs(5)),
            idle: Duration::from_secs(1),
            tunnel: Duration::from_secs(3600),
        },
        transport: config::Transport::default(),
        rate_limit: None,
    }
}

/// A health check with an interval short enough for tests that count probes.
pub(crate) fn health_check(probe: Probe) -> HealthCheck {
    HealthCheck {
        probe,
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(20),
        ..HealthCheck::default()
    }
}

/// A snapshot of these pools; every request goes to the first.
pub(crate) fn snapshot(pools: Vec<config::Pool>) -> Snapshot {
    let config = Config {
        listeners: Vec::new(),
        admin: Admin {
            address: address("127.0.0.1:9090"),
            ready_when: ReadyWhen::AnyPool,
            defined_at: config::SourcePosition::default(),
        },
        threads: Threads::Auto,
        trusted_proxies: Vec::new(),
        forwarded: config::Forwarding::default(),
        routes: vec![config::Route::for_all(0)],
        pools,
        rate_limit: None,
        limits: Limits {
            ambiguous_paths: AmbiguousPaths::default(),
            half_closed: config::HalfClosed::default(),
            underscore_headers: config::UnderscoreHeaders::default(),
            connections: NonZeroUsize::MIN,
            connections_defined_at: config::SourcePosition::default(),
            connections_per_client: None,
            requests: None,
            requests_per_connection: None,
            head: HeadLimits { target_bytes: 8192, header_bytes: 65_536, headers: 100 },
            body: None,
            response_buffers: ResponseBuffers::Off,
            min_rate: None,
            header_timeout: Duration::from_secs(1),
            keepalive: Duration::from_secs(1),
            http2: config::Http2::default(),
        },
        access_log: AccessLog { format: LogFormat::Off, target: LogTarget::Stdout },
        shutdown: Shutdown {
            pre_stop: Duration::ZERO,
            drain: Duration::ZERO,
            tunnels: Duration::ZERO,
            draining_workers: NonZeroUsize::MIN,
        },
        source: config::ConfigSource::default(),
    };
    Snapshot::new(&config, "v1", 7, |_, _| Lookup::Failed("no names in tests".to_owned()))
}

/// A snapshot of one pool `web` with two backends and no health check.
pub(crate) fn web() -> Arc<Snapshot> {
    let addresses = [address("10.0.0.1:3000"), address("10.0.0.2:3000")];
    Arc::new(snapshot(vec![pool("web", &addresses, None)]))
}

/// Parses an address.
pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An exchange that was admitted at time zero.
pub(crate) fn admitted(snapshot: &Arc<Snapshot>, observer: &Arc<dyn Observer>) -> Exchange {
    let mut exchange = Exchange::new(Arc::clone(snapshot), Arc::clone(observer), Timestamp::ZERO);
    let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("example.com"))]);
    let head = Head {
        peer: CLIENT,
        method: &Method::GET,
        version: Version::HTTP_11,
        scheme: Scheme::Http,
        path: "/",
        query: None,
        headers: &headers,
    };
    exchange.admit(&head, Timestamp::ZERO).unwrap();
    exchange
}

/// The HTTP record of a plain request.
pub(crate) fn wire(status: u16) -> Wire<'static> {
    Wire {
        method_label: MethodLabel::Get,
        method: "GET",
        scheme: "http",
        host: "example.com",
        path: "/a",
        query: None,
        protocol: "HTTP/1.1",
        user_agent: None,
        request_id: "id-1",
        status,
        bytes_in: 0,
        bytes_out: 12,
    }
}
