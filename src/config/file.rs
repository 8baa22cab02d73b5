//! The file as typed.
//!
//! Every key of the file, in the order of the manual, and nothing about what the values mean
//! together; that is `check`'s. The words on each key are the manual: docs/CONFIG.md is made of
//! them. A key reads
//!
//! ```text
//! name: type = what leaving it out means, an example;
//! ```

mod action;
mod forwarding;
mod pool;
mod route;

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::problem::{Diagnostics, Problem};
use super::read::Presence::{Default as Same, Otherwise, Required};
use super::read::{FromNode, KeyContext, Keyword, KeywordValue, List, Section, section};
use super::value::{AdminAddress, ReadyWhen, Size, SizeOrOff, Text, Threads};
use super::yaml::{Node, Value};
use super::{AmbiguousPaths, HalfClosed, LogFormat, LogTarget, TlsVersion, UnderscoreHeaders};
pub(super) use action::{Fields, QueryFate, Redirect, Respond, Rewrite, Share};
pub(super) use forwarding::Forwarding;
pub(super) use pool::{
    Backend, HealthCheck, Pool, PoolHttp2, PoolTls, ProbeType, Retry, Timeouts, Verify,
};
pub(super) use route::{Match, Route};

/// Each section, in the order of the manual.
pub(super) const SECTIONS: &[Section] = &[
    File::SECTION,
    Listener::SECTION,
    Tls::SECTION,
    Certificate::SECTION,
    ProxyProtocol::SECTION,
    Admin::SECTION,
    Forwarding::SECTION,
    Route::SECTION,
    Match::SECTION,
    Share::SECTION,
    Rewrite::SECTION,
    Redirect::SECTION,
    Respond::SECTION,
    Fields::SECTION,
    Pool::SECTION,
    PoolTls::SECTION,
    PoolHttp2::SECTION,
    Backend::SECTION,
    HealthCheck::SECTION,
    Retry::SECTION,
    Timeouts::SECTION,
    RateLimit::SECTION,
    Limits::SECTION,
    Http2::SECTION,
    AccessLog::SECTION,
    Shutdown::SECTION,
];

/// What to write when there is nothing yet.
pub(super) const SMALLEST: &str =
    "the smallest file is `pools: [{name: web, backends: [http://10.0.0.1:3000]}]`";

impl File {
    /// The file whose root is `root`. Only a root that is no map at all is an end.
    pub(super) fn read(root: &Node, found: &mut Diagnostics) -> Result<Self, Problem> {
        if matches!(root.value, Value::Null) {
            return Err(Problem::new(root.at, "the file is empty").help(SMALLEST));
        }
        if !matches!(root.value, Value::Map(_)) {
            let problem = Problem::new(root.at, "a configuration is a map of keys");
            return Err(problem.help(SMALLEST));
        }
        let whole = KeyContext { name: "file", example: "", entry: false };
        Ok(Self::from_node(root, whole, found).unwrap_or_default())
    }
}

section! {
    /// Only `pools` must be there, and even that can be given by `--backend`.
    File at "", later [];

    /// Where clients connect. A bare address stands for `{address: …}`.
    listeners: List<Listener> = Same("[0.0.0.0:8080]"), "[0.0.0.0:80]";
    /// The operator's port: metrics, status and health. Never open it to clients.
    admin: Admin = Same("{address: 127.0.0.1:9090}"), "{address: 127.0.0.1:9090}";
    /// How many threads serve requests. `auto` takes as many as the processors that the process
    /// may use.
    threads: Threads = Same("auto"), "4";
    /// Whose `X-Forwarded-For` or `Forwarded` is believed: the proxies in front of this one. From
    /// anybody else both are removed, and so are `X-Forwarded-…` and `X-Real-IP`. Name your own proxies alone: whoever is in here can pretend to be any
    /// client.
    trusted_proxies: List<IpNet> = Same("[]"), "[10.0.0.0/8]";
    /// By which fields balancers tell who the client is.
    forwarded: Forwarding = Otherwise("the defaults below"), "{send: both}";
    /// Which requests go to which pool. The most specific host wins, then the most specific path,
    /// then the most conditions; see `routes[]` below.
    routes: List<Route> = Otherwise("every request goes to the only pool"),
        "[{path: /api, pool: web}]";
    /// Groups of interchangeable backends.
    pools: List<Pool> = Otherwise("one pool named `default` of what `--backend` gives"),
        "[{name: web, backends: [http://10.0.0.1:3000]}]";
    /// How much one client may ask for, whatever the route.
    rate_limit: RateLimit = Otherwise("no limit"), "{requests_per_second: 100, burst: 200}";
    /// What clients may ask of the balancer itself.
    limits: Limits = Otherwise("the defaults below"), "{connections: 20000}";
    /// One line for each request.
    access_log: AccessLog = Otherwise("the defaults below"), "{format: json, target: stdout}";
    /// How to stop.
    shutdown: Shutdown = Otherwise("the defaults below"), "{pre_stop: 5s, drain: 30s}";
}

section! {
    /// An address that clients connect to. A bare address stands for `{address: …}`.
    Listener at "listeners[]" or address: SocketAddr, later [];

    /// IP address and port. `0.0.0.0` is every IPv4 address of the machine, `[::]`
    /// every IPv6 address.
    address: SocketAddr = Required, "0.0.0.0:8080";
    /// Speaks TLS with clients. Names of files are relative to the directory of this file.
    tls: Tls = Otherwise("clear"), "{certificates: [{cert: site.crt, key: site.key}]}";
    /// Whether HTTP/2 is spoken with clients that want to: over TLS by ALPN, clear by those who begin
    /// with it (h2c with prior knowledge).
    http2: bool = Otherwise("`true` with `tls`, else `false`"), "true";
    /// Whether proxies in front of this one say by the PROXY protocol who the client is.
    proxy_protocol: ProxyProtocol = Otherwise("nobody may say so"), "{from: [10.0.0.0/8]}";
}

section! {
    /// TLS with clients. Its files are looked at every few seconds: what was renewed is used for new
    /// connections, without a reload; what cannot be used is told in the log, and the old one stays.
    /// So does one that is still good where the new one has expired or is not valid yet. A start and
    /// a reload take such a certificate with a warning in the log; `weir check` tells it as a problem.
    Tls at "listeners[].tls", later [];

    /// The certificates. A client gets the one for the name that it asks for (SNI): one with that
    /// very name, else one with a `*` for its first label. The first of the list is for all others.
    certificates: List<Certificate> = Required, "[{cert: site.crt, key: site.key}]";
    /// The oldest version of TLS that is spoken: 1.2 or 1.3.
    min_version: KeywordValue<TlsVersion> = Same("\"1.2\""), "\"1.3\"";
    /// Who vouches for the certificates of clients: a file of certificates in PEM.
    client_ca: Text = Otherwise("clients are not asked for a certificate"), "clients.crt";
    /// `require`: only clients with a certificate that `client_ca` vouches for get in. `request`:
    /// clients may show one, and backends are told whether `client_ca` vouches for it. `off`: they
    /// are not asked. Backends get `X-Client-Cert-Verified` (`yes` or `no`), `-Fingerprint`
    /// (SHA-256), `-Subject` and `-San`, and never what a client sends under such a name.
    client_auth: KeywordValue<ClientAuthMode> = Otherwise("`require` if there is a `client_ca`, else `off`"),
        "request";
}

section! {
    /// A certificate and its key.
    Certificate at "listeners[].tls.certificates[]", later [];

    /// A file with the certificate, then those that lead to its root, in PEM.
    cert: Text = Required, "site.crt";
    /// A file with its private key, in PEM (PKCS #8, PKCS #1 or SEC 1).
    key: Text = Required, "site.key";
}

section! {
    /// The PROXY protocol, version 1 or 2, ahead of anything else on a connection.
    ProxyProtocol at "listeners[].proxy_protocol", later [];

    /// From these networks every connection must begin with a PROXY header within
    /// `limits.header_timeout`, or it is closed. The address that it names takes the place of the
    /// connection's other end: for limits, hashes, logs and `trusted_proxies`. From anywhere else a
    /// PROXY header is a bad request.
    from: List<IpNet> = Required, "[10.0.0.0/8]";
}

section! {
    /// The operator's port.
    Admin at "admin", later ["tls"];

    /// IP address and port.
    address: AdminAddress = Same("127.0.0.1:9090"), "127.0.0.1:9090";
    /// Which pools need a healthy backend for `/readyz` to be 200: `any_pool`, `all_pools`, or a list
    /// of pools, each of which needs one. What balances between several Weirs asks `/readyz`; with
    /// `all_pools`, one dead pool takes all of them out of service together.
    ready_when: ReadyWhen = Same("any_pool"), "[web]";
}

section! {
    /// How much one client may ask for: a bucket of tokens for each client. A request without a
    /// token is answered 429 with `Retry-After`.
    RateLimit at "rate_limit", later [];

    /// Tokens earned each second: 0.001 to 1000000. May be a fraction.
    requests_per_second: f64 = Required, "10";
    /// Tokens that a bucket holds, so many requests may come at once: 1 to 1000000.
    burst: u64 = Otherwise("`requests_per_second`, rounded up"), "20";
    /// IPv6 clients are told apart by so many bits of their address: 1 to 128.
    ipv6_prefix: u64 = Same("64"), "56";
    /// How many clients are remembered at once: 1 to 10000000.
    clients_max: u64 = Same("100000"), "500000";
    /// Networks that are not limited.
    exempt: List<IpNet> = Same("[]"), "[10.0.0.0/8, 192.0.2.7]";
}

section! {
    /// What clients may ask of the balancer itself.
    Limits at "limits", later [];

    /// Client connections at once: 1 to 1048576. One more is answered 503 and closed. A worker takes no
    /// more than its limit of file descriptors carries, two for each connection.
    connections: u64 = Same("20000"), "5000";
    /// Connections of one client at once, by its address (IPv6: by its /64): 1 to 1048576. One more is
    /// answered 429 and closed; over TLS it is closed before the handshake. `trusted_proxies` have as
    /// many as they like.
    connections_per_client: u64 = Otherwise("no bound"), "100";
    /// Requests on one connection: 1 to 1000000000. The answer to the last one says that it is the last.
    requests_per_connection: u64 = Otherwise("no bound"), "10000";
    /// From the first byte of a request's head to its end; also how long a new connection may be
    /// silent, how long a PROXY header and a TLS handshake may take together, and how long a client may
    /// take for an answer that no backend gives.
    header_timeout: Duration = Same("10s"), "5s";
    /// The longest request target, in bytes: 1 to 65534. A longer one is answered 414.
    target_bytes: Size = Same("8KiB"), "4KiB";
    /// All fields of a request in bytes, line ends included: 256 to 512KiB. More are answered 431.
    header_bytes: Size = Same("64KiB"), "16KiB";
    /// How many fields a request may have: 1 to 250. More are answered 431.
    headers: u64 = Same("100"), "50";
    /// The longest body of a request. A longer one is answered 413: at once if its length is told,
    /// otherwise as soon as it has come, and the backend is cut off. `off` is for no limit.
    body: SizeOrOff = Same("off"), "10MiB";
    /// The slowest that a client may send a body (else 408) or take an answer (else it is cut off), in
    /// bytes a second. Only time in which it is waited for counts, over HTTP/2 stream by stream. Set it
    /// where `timeouts.response` or `timeouts.request` of a pool, which bound this otherwise, are long or
    /// `off`. Tunnels, and calls of gRPC over HTTP/2, may be silent as long as they like.
    body_rate: SizeOrOff = Same("off"), "500B";
    /// How long a client may do nothing, or fall behind `body_rate`, before it is too slow.
    body_grace: Duration = Same("10s"), "20s";
    /// What becomes of a request whose path leads to one route as Weir reads it, and to another route (or
    /// to none) as a backend may read it: because of dot segments, `//`, `;`, `\`, or an escape such as
    /// `%2F`, `%5C` or `%00`. `refuse`: 400, so no spelling passes by a route that denies. `pass`: it takes
    /// the route of Weir's reading, and the backend gets the path as the client wrote it. Where one route
    /// takes all paths of a host, nothing is refused, unless its `rewrite` would be left by `..`.
    ambiguous_paths: KeywordValue<AmbiguousPaths> = Same("refuse"), "pass";
    /// What becomes of a request over HTTP/1 whose client closes its side of the connection (a FIN; over
    /// TLS a `close_notify`) before the response has ended. `abort`: the client has left. The backend's
    /// request is cancelled at once, nothing is tried again, and 499 is logged. Tools that send a request,
    /// close their side and wait (`printf … | nc -N`) get nothing; with curl and browsers that does not
    /// happen. `serve`: the request runs on and the client gets the response, but it is not tried again.
    /// Of several requests that were sent before the close (pipelining), `abort` cancels the last one, and
    /// `serve` none. A reset, and the end of an HTTP/2 stream or connection, always cancel the request.
    half_closed: KeywordValue<HalfClosed> = Same("abort"), "serve";
    /// How much memory responses and WebSockets may hold that are not read, in all. Each counts as the most
    /// that it can hold: 448KiB, and 64KiB more where the client speaks TLS, and 256KiB more where the backend
    /// speaks HTTP/2, or 480KiB more for a large response (from 512KiB on) of a backend over HTTP/1. One client connection may hold a quarter of the value, but always one response. Where
    /// more is held, those end whose reader has taken nothing for 10 s, the longest first, and first on
    /// connections above their quarter. Where all hold twice the value, 5 s are enough; at four times, 1 s.
    /// A reader that takes something more often is never ended. The reason is `client_write_timeout`, or
    /// `tunnel_idle` for a WebSocket whose backend does not read; the detail is `response_buffers`. The
    /// memory is that of the container (cgroup), or else of the machine. Sockets' buffers are the kernel's,
    /// and come on top.
    response_buffers: SizeOrOff = Otherwise("an eighth of the memory that Weir may use, but at least 32MiB"),
        "1GiB";
    /// What becomes of a request header whose name has an underscore. CGI, WSGI and FastCGI backends read
    /// `Content_Length` as `Content-Length`. `guard`: it is removed if its name with dashes frames or
    /// routes a request, says who the client is, or is set or removed by Weir or by the route's
    /// `request_headers`. `drop`: it is removed in any case, as nginx does. `refuse`: 400. `pass`: it goes on;
    /// `X_Forwarded_…`, `X_Real_IP` and `X_Client_Cert_…` are removed all the same.
    underscore_headers: KeywordValue<UnderscoreHeaders> = Same("guard"), "drop";
    /// How long a client connection is kept between two requests.
    keepalive: Duration = Same("75s"), "30s";
    /// What an HTTP/2 connection may ask for.
    http2: Http2 = Otherwise("the defaults below"), "{streams: 50}";
}

section! {
    /// What an HTTP/2 connection may ask for. What costs a client nothing is bounded beside it: resets,
    /// pings, settings, priorities and empty frames, 1000 at once and then 100 each second; one more
    /// ends the connection with `ENHANCE_YOUR_CALM`.
    Http2 at "limits.http2", later [];

    /// Requests at once on one connection: 1 to 1000.
    streams: u64 = Same("100"), "50";
    /// How much of a body a client may send before it is taken, by request: 16KiB to 16MiB. It is
    /// what a slow backend makes us keep.
    stream_window: Size = Same("64KiB"), "256KiB";
    /// The same for all requests of a connection together: 64KiB to 64MiB.
    connection_window: Size = Same("1MiB"), "4MiB";
}

section! {
    /// One line for each request.
    AccessLog at "access_log", later [];

    /// `json`: one object. `text`: words for people. `off`: no lines.
    format: KeywordValue<LogFormat> = Same("json"), "text";
    /// `stdout` or `stderr`.
    target: KeywordValue<LogTarget> = Same("stdout"), "stderr";
}

section! {
    /// How to stop.
    Shutdown at "shutdown", later [];

    /// How long to go on accepting after `/readyz` has turned 503, so that whoever sends clients
    /// here can notice. May be `0s`.
    pre_stop: Duration = Same("0s"), "5s";
    /// How long what is in flight may take to finish. May be `0s`.
    drain: Duration = Same("30s"), "1m";
    /// How long WebSockets may go on while a worker drains, at a reload as at a stop. They never
    /// end by themselves, so at a stop it takes as long as this while one is open. May be `0s`.
    tunnels: Duration = Otherwise("as long as `drain`"), "5m";
    /// Each reload leaves a worker that drains. How many may drain at once: 1 to 256. When there is
    /// one more, the oldest is ended, and with it what it still serves. So it is where less memory
    /// is left, by the machine or by the cgroup, than the largest worker takes.
    draining_workers: u64 = Same("16"), "64";
}

impl Keyword for TlsVersion {
    const NOUN: &'static str = "a version of TLS";
    const WORDS: &'static [(&'static str, Self)] = &[("1.2", Self::V1_2), ("1.3", Self::V1_3)];
}

/// What is wanted of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuthMode {
    Off,
    Request,
    Require,
}

impl Keyword for ClientAuthMode {
    const NOUN: &'static str = "a way to ask for certificates";
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("request", Self::Request), ("require", Self::Require)];
}

impl Keyword for AmbiguousPaths {
    const NOUN: &'static str = "a way to treat ambiguous paths";
    const WORDS: &'static [(&'static str, Self)] =
        &[("refuse", Self::Refuse), ("pass", Self::Pass)];
}

impl Keyword for HalfClosed {
    const NOUN: &'static str = "a way to treat half-closed connections";
    const WORDS: &'static [(&'static str, Self)] =
        &[("abort", Self::Abort), ("serve", Self::Serve)];
}

impl Keyword for UnderscoreHeaders {
    const NOUN: &'static str = "a way to treat underscores";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("guard", Self::Guard),
        ("drop", Self::Drop),
        ("refuse", Self::Refuse),
        ("pass", Self::Pass),
    ];
}

impl Keyword for LogFormat {
    const NOUN: &'static str = "a format of the access log";
    const WORDS: &'static [(&'static str, Self)] =
        &[("json", Self::Json), ("text", Self::Text), ("off", Self::Off)];
}

impl Keyword for LogTarget {
    const NOUN: &'static str = "a target of the access log";
    const WORDS: &'static [(&'static str, Self)] =
        &[("stdout", Self::Stdout), ("stderr", Self::Stderr)];
}
