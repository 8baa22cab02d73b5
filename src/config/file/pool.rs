//! Pools and their backends as typed.

use std::time::Duration;

use super::super::read::Presence::{Default as Same, Otherwise, Required};
use super::super::read::{Keyword, KeywordValue, List, OffOr, section};
use super::super::value::{
    BackendUrl, DurationOrOff, Failure, HostName, ProbePath, ServerName, Statuses, Text,
};
use super::super::{Algorithm, PoolName, Protocol};
use super::RateLimit;

section! {
    /// A group of interchangeable backends.
    Pool at "pools[]", later ["breaker"];

    /// What routes, metrics and logs call it: letters, digits, `-`, `_` and `.`, at most 63.
    name: PoolName = Required, "web";
    /// How a backend is picked. `round_robin`: in turn, smooth by weight. `least_conn`: the fewest
    /// requests in flight for its weight. `ip_hash`: the same client to the same backend;
    /// a client of IPv6 is its /64, as for limits.
    /// `random`: two at random, the less busy of them.
    algorithm: KeywordValue<Algorithm> = Same("round_robin"), "least_conn";
    /// The servers. A bare URL stands for `{url: …}`.
    backends: List<Backend> = Otherwise("`--backend` must give them"),
        "[http://10.0.0.1:3000, http://10.0.0.2:3000]";
    /// How backends are probed. `off` counts every backend as healthy.
    health_check: OffOr<HealthCheck> = Same("{type: tcp}"), "{path: /health}";
    /// When a request is tried again.
    retry: Retry = Otherwise("the defaults below"), "{attempts: 2}";
    /// How long to wait for a backend.
    timeouts: Timeouts = Otherwise("the defaults below"), "{response: 10s}";
    /// Which HTTP the backends speak. `http1`: HTTP/1.1. `h2`: HTTP/2 over TLS, so all are
    /// `https://`. `h2c`: HTTP/2 without TLS, so all are `http://`. `auto`: HTTP/2 or HTTP/1.1 as each
    /// `https://` backend prefers (ALPN), HTTP/1.1 with all others. gRPC needs `h2` or `h2c`; WebSocket
    /// needs HTTP/1.1, and with `auto` gets it.
    protocol: KeywordValue<Protocol> = Same("http1"), "auto";
    /// How HTTP/2 is spoken to backends.
    http2: PoolHttp2 = Otherwise("the defaults below"), "{streams: 50}";
    /// `v2`: every connection to a backend begins with a PROXY header of version 2, ahead of TLS, which
    /// says whose requests come: the address and port that the client's connection came from (or that
    /// its own PROXY header names), and what it connected to. So a connection is for one connection of
    /// one client, and kept unused for 10s at most. Probes say that they come from the balancer itself.
    proxy_protocol: KeywordValue<ProxyVersion> = Otherwise("no such header is sent"), "v2";
    /// How to speak with backends that are `https://`.
    tls: PoolTls = Otherwise("verified by whoever this system trusts"), "{ca: backends-ca.crt}";
    /// How much one client may ask of this pool, after the limits of the whole file and the route.
    rate_limit: RateLimit = Otherwise("no further limit"), "{requests_per_second: 50}";
}

section! {
    /// How a pool speaks with its `https://` backends. Names of files are relative to the directory
    /// of this file, and looked at every few seconds: what was renewed is used for new connections,
    /// without a reload; what cannot be used is told in the log, and the old one stays. A backend whose
    /// certificate is not as it must be gets no request, and the client 502.
    PoolTls at "pools[].tls", later [];

    /// Who vouches for the certificates of backends: a file of certificates in PEM.
    ca: Text = Otherwise("whoever this system trusts"), "backends-ca.crt";
    /// A certificate to show to backends: a file with it, then those that lead to its root, in PEM.
    /// One that has expired is a problem for `weir check`, and a warning in the log elsewhere.
    cert: Text = Otherwise("none is shown"), "client.crt";
    /// A file with the private key of `cert`, in PEM (PKCS #8, PKCS #1 or SEC 1).
    key: Text = Otherwise("none is shown"), "client.key";
    /// `on`: a backend's certificate must be valid, for its name, and by somebody who is trusted.
    /// `off`: any certificate will do, and whoever is on the way can read and change everything.
    verify: KeywordValue<Verify> = Same("on"), "off";
    /// The name (or IP address) that the certificates must be for, which is also the one that the
    /// backends are asked for (SNI).
    server_name: ServerName = Otherwise("the host of each backend's URL"), "web.internal";
}

section! {
    /// How HTTP/2 is spoken to backends.
    PoolHttp2 at "pools[].http2", later [];

    /// Requests at once on one connection, at most as many as the backend allows: 1 to 1000. One more
    /// gets another connection.
    streams: u64 = Same("100"), "50";
    /// How often a connection is asked whether it still works; one that does not answer within 5s is
    /// given up. Some gRPC servers allow it no more often than every five minutes.
    ping: DurationOrOff = Same("off"), "5m";
}

section! {
    /// One server. A bare URL stands for `{url: …}`.
    Backend at "pools[].backends[]" or url: BackendUrl, later ["backup", "max_requests"];

    /// Where it listens: `http://` or `https://`, then an IPv4 address, an IPv6 address in brackets
    /// or a name, then the port (80, or 443 with TLS, if left out). A name is looked up by each new worker;
    /// one that has no address takes no requests, and is looked up again until it has.
    url: BackendUrl = Required, "http://10.0.0.1:3000";
    /// Its share of the requests, relative to the other backends of the pool: 1 to 1000.
    weight: u64 = Same("1"), "3";
    /// The name (or IP address) that its certificate must be for, which is also the one that it is
    /// asked for (SNI). Only with `https://`.
    server_name: ServerName = Otherwise("that of the pool's `tls`, else the host of its URL"),
        "web.internal";
}

section! {
    /// How backends are probed. Each is probed at its own random moment of the interval.
    HealthCheck at "pools[].health_check", later [];

    /// `tcp`: it accepts a connection, and shakes hands if it is `https://`. `http`: it answers
    /// `GET path` as expected. `grpc`: it says that it serves (`grpc.health.v1.Health`), over HTTP/2
    /// whatever the pool speaks.
    kind as "type": KeywordValue<ProbeType> = Otherwise("`http` if `path` is there, else `tcp`"), "http";
    /// What an HTTP probe asks for. May have a query.
    path: ProbePath = Same("/"), "/health";
    /// The `Host` that an HTTP probe sends.
    host: HostName = Otherwise("the backend's own address"), "web.internal";
    /// Which answers pass an HTTP probe: a status, a range, or a list of both.
    status: Statuses = Same("200-299"), "[200, 300-399]";
    /// A text that the first 64 KiB of the answer to an HTTP probe must have.
    body: Text = Otherwise("any body passes"), "ready";
    /// Which service a gRPC probe asks about.
    service: Text = Otherwise("the server as a whole"), "shop.Cart";
    /// From the start of one probe to the start of the next.
    interval: Duration = Same("10s"), "5s";
    /// For a whole probe. Not longer than the interval.
    timeout: Duration = Otherwise("`3s`, or the interval if that is shorter"), "1s";
    /// So many failures in a row make a healthy backend unhealthy: 1 to 1000.
    unhealthy_after: u64 = Same("2"), "3";
    /// So many passes in a row make an unhealthy backend healthy: 1 to 1000.
    healthy_after: u64 = Same("2"), "3";
}

section! {
    /// When a request is tried again. Whatever was sent already is only sent again if the method
    /// is idempotent, so that no `POST` is ever done twice.
    Retry at "pools[].retry", later ["budget"];

    /// Attempts in all, the first included: 1 to 16. `1` switches retries off.
    attempts: u64 = Same("3"), "2";
    /// The longest wait before a backend that failed is tried a second time; doubled each time,
    /// at most 10s. A backend that was not tried yet is tried at once.
    backoff: Duration = Same("50ms"), "100ms";
    /// For which failures. `connect`: no connection could be made, or TLS over it, or the backend sent
    /// the request back untouched. `reset`: the connection broke
    /// before the answer. `timeout`: no answer in time. Or a status: 429 or 500 to 599.
    on: List<Failure> = Same("[connect, reset, timeout, 502, 503, 504]"), "[connect, 503]";
}

section! {
    /// How long to wait for a backend.
    Timeouts at "pools[].timeouts", later [];

    /// For a connection, and as long again for its TLS handshake.
    connect: Duration = Same("2s"), "500ms";
    /// For all headers of the response, from the last piece of the request on (else 504, or the next
    /// backend); then between two pieces of its body. A request body of more than 64 KiB gives the backend
    /// twice as long for the headers, because some of it is still being sent then.
    response: Duration = Same("30s"), "10s";
    /// For the whole request: every attempt, every wait between them, and the last byte of the
    /// answer. `off` is for streams and large files that may take as long as they like.
    request: DurationOrOff = Same("60s"), "2m";
    /// How long an unused connection to a backend is kept. Keep it shorter than the backend does.
    idle: Duration = Same("55s"), "20s";
    /// How long a WebSocket may be silent in both directions before it is closed. `request` ends
    /// with the backend's 101 and `response` with it, so this is all that bounds a WebSocket.
    tunnel: Duration = Same("1h"), "10m";
}

/// What a probe is.
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

impl Keyword for Protocol {
    const NOUN: &'static str = "a protocol of backends";
    const WORDS: &'static [(&'static str, Self)] =
        &[("http1", Self::Http1), ("h2", Self::H2), ("h2c", Self::H2c), ("auto", Self::Auto)];
}

/// Which PROXY header is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ProxyVersion {
    V2,
}

impl Keyword for ProxyVersion {
    const NOUN: &'static str = "a version of the PROXY header that is sent";
    const WORDS: &'static [(&'static str, Self)] = &[("v2", Self::V2)];
}

/// Whether certificates are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Verify {
    On,
    Off,
}

impl Keyword for Verify {
    const NOUN: &'static str = "a way to look at certificates";
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
