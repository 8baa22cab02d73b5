//! Pools and their backends as written in the file.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use super::super::problem::{Origin, Spanned};
use super::super::read::{Bounds, Keyword, KeywordValue, List, OffOr, section, whole};
use super::super::terms::{AddressFamily, Algorithm, Probe, Protocol};
use super::super::value::{
    BackendUrl, DurationOrOff, FileName, HostName, ProbePath, ServerName, ServiceName, Statuses,
    Text, secs,
};
use super::breaker::RawBreaker;
use super::queue::RawQueue;
use super::rate_limit::RawRateLimit;
use super::retry::RawRetry;
use crate::name::PoolName;

/// Each stream may use a flow-control window of its own.
pub(super) const STREAMS_MAX: u64 = 1000;
/// More than any process can have in flight.
pub(super) const REQUESTS_MAX: u64 = 1_000_000;

section! {
    /// A group of interchangeable backends.
    RawPool at "pools[]"
        named "pool" by ["name"];

    /// Name of the pool in routes, metrics and logs: letters, digits, `-`, `_` and `.`, at most 63 characters.
    name: PoolName = required, "web";
    /// Load balancing algorithm. `round_robin`: in turn, in proportion to the weights. `least_conn`: the
    /// backend with the fewest requests in flight relative to its weight. `ip_hash`: the same client address
    /// always goes to the same backend (IPv6: one /64 counts as one client). `random`: two backends at
    /// random, of which the one with fewer requests in flight relative to its weight.
    algorithm: KeywordValue<Algorithm> = default(Algorithm::RoundRobin), "least_conn";
    /// Backends of the pool. A plain URL is short for `{url: …}`.
    backends: List<RawBackend> = optional("they must be given by `--backend`"), "[http://10.0.0.1:3000, http://10.0.0.2:3000]";
    /// Active health checks. `off`: every backend counts as healthy.
    health_check: OffOr<RawHealthCheck> = default(OffOr::Value(RawHealthCheck::tcp())), "{path: /health}";
    /// Circuit breaker: takes a backend out that fails, or is far slower, more often than the others of the
    /// pool. `off`: only health checks take backends out.
    breaker: OffOr<RawBreaker> = default(OffOr::Value(RawBreaker::usual())), "{failures: 5}";
    /// When a failed request is retried.
    retry: RawRetry = section, "{attempts: 2}";
    /// Requests that wait for a place at a backend with `max_requests`.
    queue: RawQueue = section, "{length: 40}";
    /// Slow start: over this time, a backend that is new or has recovered (by its health checks, its
    /// circuit breaker, or `weir enable`) gets a growing share of requests. It starts with 1/256 of its usual share and
    /// doubles in each eighth of the time, while the backend responds at most twice as slowly as the pool's
    /// median backend (or 20ms slower); otherwise the share shrinks. After four times as long it ends in any
    /// case. The others get at most twice their usual share meanwhile, and less if several start slowly.
    /// With `breaker: off` or its `slower: off` only the time counts. Backends that start together with Weir
    /// have their whole share at once. `off`: no slow start.
    slow_start: DurationOrOff [Bounds::NotZero("a time of 0 would be no slow start; write `off`")] = default(DurationOrOff::Off), "30s";
    /// Timeouts towards the backends.
    timeouts: RawTimeouts = section, "{response: 10s}";
    /// HTTP version that the backends speak. `http1`: HTTP/1.1. `h2`: HTTP/2 over TLS; every URL must be
    /// `https://`. `h2c`: HTTP/2 in plaintext; every URL must be `http://`. `auto`: with `https://` backends
    /// whatever ALPN negotiates, with others HTTP/1.1. gRPC needs `h2` or `h2c`. WebSockets need HTTP/1.1,
    /// which `auto` uses for them.
    protocol: KeywordValue<Protocol> = default(Protocol::Http1), "auto", ForgetsHealth;
    /// HTTP/2 with the backends.
    http2: RawPoolHttp2 = section where uses_http2, "{streams: 50}";
    /// Sends a PROXY header (version 2) at the start of every connection to a backend, before TLS. It
    /// carries the address and port of the client (those of the PROXY header that Weir received, if there was
    /// one) and the address that the client connected to. A connection is therefore used for one client
    /// connection only, and stays idle for at most 10s. Health checks send a header without addresses
    /// (`LOCAL`).
    proxy_protocol: KeywordValue<ProxyVersion> = optional("no PROXY header is sent"), "v2", ForgetsHealth;
    /// TLS with `https://` backends.
    tls: RawPoolTls = optional("certificates are verified against the CAs of the system"), "{ca: backends-ca.crt}", ForgetsHealth;
    /// Rate limit for each client on this pool, after the limits of the whole file and of the route.
    rate_limit: RawRateLimit = optional("no further limit"), "{requests_per_second: 50}";
}

section! {
    /// TLS with `https://` backends. File names are relative to the directory of the configuration file.
    /// Weir checks the files every few seconds. New contents are used for new connections, without a reload.
    /// If a file cannot be used, Weir logs an error and keeps the previous contents. A backend whose
    /// certificate fails verification gets no request, and the client gets 502.
    RawPoolTls at "pools[].tls";

    /// File with the CA certificates that backend certificates are verified against, in PEM.
    ca: FileName = optional("the CAs of the system"), "backends-ca.crt", ForgetsHealth;
    /// Client certificate for backends that ask for one (mutual TLS): a file with the certificate, followed
    /// by the intermediate certificates, in PEM. An expired one is a problem for `weir check`, and elsewhere a
    /// warning in the log.
    cert: FileName = optional("no certificate is sent"), "client.crt", ForgetsHealth;
    /// File with the private key of `cert`, in PEM (PKCS #8, PKCS #1 or SEC 1).
    key: FileName = optional("no certificate is sent"), "client.key";
    /// Whether backend certificates are verified. `on`: a certificate must be valid, issued for the server
    /// name, and signed by a trusted CA. `off`: any certificate is accepted, so anyone on the network path can
    /// read and change the traffic.
    verify: KeywordValue<Verify> = default(Verify::On), "off", ForgetsHealth;
    /// Server name (or IP address) that backend certificates must be issued for. It is also sent as SNI.
    server_name: ServerName = optional("the host of each backend's URL"), "web.internal", ForgetsHealth;
}

section! {
    /// HTTP/2 with the backends.
    RawPoolHttp2 at "pools[].http2"
        means [Copy, Eq] TransportHttp2;

    /// Maximum number of concurrent requests (streams) on one connection. A backend may allow fewer. Further
    /// requests open another connection.
    streams: NonZeroU32 [whole(1, STREAMS_MAX)] = default(100), "50";
    /// Interval of HTTP/2 PING frames that test whether a connection still works. A connection without a
    /// reply within 5s is closed. Some gRPC servers allow a PING only every five minutes. `off`: none are sent.
    ping: DurationOrOff [Bounds::NotZero("an interval of 0 would send PING frames without a pause")] = default(DurationOrOff::Off), "5m";
}

section! {
    /// A backend: one server (`url`), or any number of servers that are looked up (`dns`, `srv` or `file`).
    /// A plain URL is short for `{url: …}`.
    RawBackend at "pools[].backends[]"
        or (url: BackendUrl)
        named "backend" by ["url", "dns", "srv", "file"]
        later ["backup"];

    /// Address of the backend: `http://` or `https://`, then an IPv4 address, an IPv6 address in brackets or
    /// a host name, then the port (default 80, or 443 with TLS). A host name is one backend: it uses one
    /// address as long as the name has it. A name without an address gets no requests and is resolved again
    /// until it has one.
    url: BackendUrl = optional("`dns`, `srv` or `file` must be given"), "http://10.0.0.1:3000";
    /// Host name of which every address (A and AAAA record) is a backend, with scheme and port as in `url`.
    /// It is looked up again when the TTL of the records ends. While lookups fail, the last known addresses
    /// are used.
    dns: BackendUrl = optional("one server"), "http://api.internal:8080";
    /// Name of a service of which every SRV record with the lowest priority is a backend. The records have the
    /// ports and the weights. The servers use TLS if the name begins with `_https`.
    srv: ServiceName = optional("one server"), "_http._tcp.api.internal";
    /// File with a backend in each line: a URL with an IP address and, if wanted, a weight. `#` begins a
    /// comment. The file is read every second; while a line is invalid, the last good contents are used.
    file: FileName = optional("one server"), "backends.txt";
    /// Which addresses of the host name of `dns` are used.
    family: KeywordValue<AddressFamily> = default(AddressFamily::Any) where is_dns, "ipv4";
    /// How often `dns` or `srv` is looked up.
    refresh: RawRefresh = section where is_looked_up, "{max: 30s}";
    /// Maximum number of backends that `dns`, `srv` or `file` gives. Others are left out, and a warning is
    /// logged.
    backends_max: NonZeroU32 [whole(1, 1024)] = default(64) where is_discovered, "200";
    /// Share of the requests, relative to the other backends of the pool. With `dns`, of each address.
    weight: NonZeroU32 [whole(1, 1000).zero("to send a backend no requests, run `weir disable`, or remove it")] = default(1) where has_weight, "3";
    /// Maximum number of requests in flight at this backend, those of draining workers included as far as
    /// they are known. A request that finds no free place at any eligible backend waits in the `queue` of the
    /// pool; without one it gets 503 with `Retry-After`. Retries and trials of the circuit breaker need a
    /// place, health checks do not. A WebSocket needs a place for as long as it is open.
    max_requests: NonZeroU32 [whole(1, REQUESTS_MAX).zero("to send a backend no requests, run `weir disable`, or remove it")] = optional("no limit"), "100";
    /// Server name (or IP address) that the certificate of this backend must be issued for. It is also sent
    /// as SNI. Only for `https://`.
    server_name: ServerName = optional("the one of the pool's `tls`, else the host of the URL"), "web.internal", ForgetsHealth;
}

section! {
    /// Bounds of the time between two lookups. Within them the TTL of the records decides.
    RawRefresh at "pools[].backends[].refresh";

    /// Shortest time between two lookups, for records with a shorter TTL.
    min: Duration [Bounds::NotZero("without a pause, lookups would load the name server")] = default(secs(1)), "5s";
    /// Longest time between two lookups, for records with a longer TTL.
    max: Duration [Bounds::NotZero("without a pause, lookups would load the name server")] = default(secs(60)), "30s";
}

section! {
    /// Active health checks. Each backend is checked at its own random offset within the interval.
    RawHealthCheck at "pools[].health_check"
        means [Eq] HealthCheck { probe: Probe };

    combined {
        /// Type of health check. `tcp`: the backend accepts a connection, and completes a TLS handshake if it is
        /// `https://`. `http`: it returns an expected response to `GET path`. `grpc`: it reports `SERVING`
        /// (`grpc.health.v1.Health`), over HTTP/2 whatever `protocol` the pool uses.
        kind as "type": KeywordValue<ProbeType> = computed("`http` if there is a `path`, else `tcp`", |it| it.default_kind()), "http";
        /// Path that an HTTP health check requests. May have a query.
        path: ProbePath = default(ProbePath::root()) where is_http, "/health";
        /// `Host` header of an HTTP health check.
        host: HostName = optional("the address of the backend"), "web.internal";
        /// Statuses with which an HTTP health check passes: a status, a range, or a list of both.
        status: Statuses = default(Statuses::success()) where is_http, "[200, 300-399]";
        /// Text that the first 64 KiB of the response body of an HTTP health check must contain.
        body: Text = optional("any body passes"), "ready";
        /// Service that a gRPC health check asks about.
        service: Text = optional("the server as a whole (an empty service name)"), "shop.Cart";
    }

    /// TCP port that health checks connect to, on the addresses of the backends. Requests go to the port of
    /// each URL. TLS and the PROXY header are the same at both ports.
    port: NonZeroU16 [whole(1, 65_535).zero("without it, health checks go to the port of the backend")] = optional("the port of the backend"), "9000";
    /// Time from the start of one health check of a backend to the start of its next one.
    interval: Duration [Bounds::NotZero("an interval of 0 would send health checks without a pause")] = default(secs(10)), "5s";
    /// Time limit for one whole health check. Not longer than `interval`.
    timeout: Duration [Bounds::NotZero("a timeout of 0 would fail every health check")] = computed("`3s`, or the interval if that is shorter", |it| secs(3).min(it.interval())), "1s";
    /// Consecutive failed health checks after which a healthy backend becomes unhealthy.
    unhealthy_after: NonZeroU32 [whole(1, 1000)] = default(2), "3";
    /// Consecutive successful health checks after which an unhealthy backend becomes healthy.
    healthy_after: NonZeroU32 [whole(1, 1000)] = default(2), "3";
}

section! {
    /// Timeouts towards the backends.
    RawTimeouts at "pools[].timeouts"
        means [Copy, Eq] Timeouts;

    /// Time limit for a TCP connection to a backend, and again for its TLS handshake.
    connect: Duration [Bounds::NotZero("a timeout of 0 would fail every connection")] = default(secs(2)), "500ms";
    /// Time limit for the response headers, counted from the last part of the request; then for each pause
    /// in the response body. Without response headers in time the request is retried, or the client gets 504.
    /// For a request body of more than 64 KiB the limit for the headers is doubled, because some of it may
    /// still be in transit.
    response: Duration [Bounds::NotZero("a timeout of 0 would fail every request")] = default(secs(30)), "10s";
    /// Time limit for the whole request: all attempts, the waits between them, and the response to its last
    /// byte. `off`: no limit, for streams and large files.
    request: DurationOrOff [Bounds::NotZero("a timeout of 0 would fail every request")] = default(DurationOrOff::Duration(secs(60))), "2m";
    /// How long an idle keep-alive connection to a backend stays open. It should be shorter than the
    /// backend's own keep-alive timeout.
    idle: Duration [Bounds::NotZero("a timeout of 0 would close every backend connection after its request")] = default(secs(55)), "20s";
    /// How long a WebSocket may be silent in both directions before it is closed. After the backend's 101
    /// response, `request` and `response` no longer apply; this is then the only time limit.
    tunnel: Duration [Bounds::NotZero("a timeout of 0 would close every WebSocket")] = default(secs(60 * 60)), "10m";
}

impl RawPool {
    /// Whether any backend may use HTTP/2.
    fn uses_http2(&self) -> bool {
        self.protocol().0 != Protocol::Http1
    }
}

impl Default for HealthCheck {
    /// By TCP, with every default.
    fn default() -> Self {
        RawHealthCheck::default().configuration(Probe::Tcp)
    }
}

impl RawHealthCheck {
    /// The default of a pool.
    fn tcp() -> Self {
        let kind = Spanned { at: Origin::START, value: KeywordValue(ProbeType::Tcp) };
        Self { kind: Some(kind), ..Self::default() }
    }

    fn default_kind(&self) -> KeywordValue<ProbeType> {
        KeywordValue(if self.path.is_some() { ProbeType::Http } else { ProbeType::Tcp })
    }

    fn is_http(&self) -> bool {
        self.kind().0 == ProbeType::Http
    }
}

/// Type of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ProbeType {
    Tcp,
    Http,
    Grpc,
}

impl Keyword for ProbeType {
    const NOUN: &'static str = "a type of health check";
    const WORDS: &'static [(&'static str, Self)] =
        &[("tcp", Self::Tcp), ("http", Self::Http), ("grpc", Self::Grpc)];
}

impl RawBackend {
    fn is_dns(&self) -> bool {
        self.dns.is_some()
    }

    fn has_weight(&self) -> bool {
        self.srv.is_none() && self.file.is_none()
    }

    fn is_looked_up(&self) -> bool {
        self.dns.is_some() || self.srv.is_some()
    }

    fn is_discovered(&self) -> bool {
        self.is_looked_up() || self.file.is_some()
    }
}

impl Keyword for AddressFamily {
    const NOUN: &'static str = "an address family";
    const WORDS: &'static [(&'static str, Self)] =
        &[("any", Self::Any), ("ipv4", Self::Ipv4), ("ipv6", Self::Ipv6)];
}

impl Keyword for Protocol {
    const NOUN: &'static str = "a protocol for backends";
    const WORDS: &'static [(&'static str, Self)] =
        &[("http1", Self::Http1), ("h2", Self::H2), ("h2c", Self::H2c), ("auto", Self::Auto)];
}

/// Version of the PROXY header that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ProxyVersion {
    V2,
}

impl Keyword for ProxyVersion {
    const NOUN: &'static str = "a PROXY header version that can be sent";
    const WORDS: &'static [(&'static str, Self)] = &[("v2", Self::V2)];
}

/// Whether certificates are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Verify {
    On,
    Off,
}

impl Keyword for Verify {
    const NOUN: &'static str = "a way to verify certificates";
    const WORDS: &'static [(&'static str, Self)] = &[("on", Self::On), ("off", Self::Off)];
}

impl Keyword for Algorithm {
    const NOUN: &'static str = "an algorithm";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("round_robin", Self::RoundRobin),
        ("least_conn", Self::LeastConnections),
        ("ip_hash", Self::IpHash),
        ("random", Self::Random),
    ];
    // Weights are those of the backends, whatever the algorithm.
    const ELSEWHERE: &'static [(&'static str, &'static str)] = &[
        ("weighted_round_robin", "round_robin"),
        ("wrr", "round_robin"),
        ("rr", "round_robin"),
        ("static_rr", "round_robin"),
        ("least_connection", "least_conn"),
        ("least_connections", "least_conn"),
        ("leastconn", "least_conn"),
        ("least_request", "least_conn"),
        ("lc", "least_conn"),
        ("weighted_least_connection", "least_conn"),
        ("source", "ip_hash"),
        ("source_hash", "ip_hash"),
        ("source_ip", "ip_hash"),
        ("iphash", "ip_hash"),
        ("hash", "ip_hash"),
        ("consistent_hash", "ip_hash"),
        ("p2c", "random"),
        ("power_of_two", "random"),
        ("power_of_two_choices", "random"),
    ];
}
