//! The file as typed: every key, in the order of the manual.
//!
//! What the values mean together is decided in `check`. The doc comments are the manual: docs/CONFIG.md
//! is generated from them. The first sentence of a key says what it is. A key is written as
//!
//! ```text
//! name: type = what it means if it is left out, an example;
//! ```

mod action;
mod forwarding;
mod limits;
mod listener;
mod pool;
mod route;

use std::time::Duration;

use ipnet::IpNet;

use super::problem::{Diagnostics, Problem};
use super::read::Presence::{Default as Same, Otherwise, Required};
use super::read::{FromNode, KeyContext, Keyword, KeywordValue, List, Section, section};
use super::terms::{LogFormat, LogTarget};
use super::value::{AdminAddress, ReadyWhen, Threads};
use super::yaml::{Node, Value};
pub(super) use action::{Fields, QueryFate, Redirect, Respond, Rewrite, Share};
pub(super) use forwarding::Forwarding;
pub(super) use limits::{Http2, Limits};
pub(super) use listener::{Certificate, ClientAuthMode, Listener, ProxyProtocol, Tls};
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

/// Shown where a file is empty or unusable.
pub(super) const SMALLEST: &str =
    "the smallest file is `pools: [{name: web, backends: [http://10.0.0.1:3000]}]`";

impl File {
    /// Reads the file whose root node is `root`. Fails only if the root is not a map.
    pub(super) fn read(root: &Node, found: &mut Diagnostics) -> Result<Self, Problem> {
        if matches!(root.value, Value::Null) {
            return Err(Problem::new(root.at, "the file is empty").help(SMALLEST));
        }
        if !matches!(root.value, Value::Map(_)) {
            let problem = Problem::new(root.at, "a configuration must be a map of keys");
            return Err(problem.help(SMALLEST));
        }
        let whole = KeyContext { name: "file", example: "", entry: false };
        Ok(Self::from_node(root, whole, found).unwrap_or_default())
    }
}

section! {
    /// The top level of the file. Only `pools` is required, and `--backend` can replace even that.
    File at "", later [];

    /// Addresses on which Weir accepts client connections. A plain address is short for `{address: …}`.
    listeners: List<Listener> = Same("[0.0.0.0:8080]"), "[0.0.0.0:80]";
    /// The admin port: metrics, status and health. Clients must not be able to reach it.
    admin: Admin = Same("{address: 127.0.0.1:9090}"), "{address: 127.0.0.1:9090}";
    /// Number of threads that serve requests. `auto` starts one thread for each processor that the
    /// process may use (CPU affinity and cgroup quota).
    threads: Threads = Same("auto"), "4";
    /// Networks of the proxies in front of Weir whose `X-Forwarded-For` or `Forwarded` header is trusted.
    /// From any other peer these headers are removed, and so are `X-Forwarded-…` and `X-Real-IP`. List only
    /// your own proxies: a peer in one of these networks can claim any client address.
    trusted_proxies: List<IpNet> = Same("[]"), "[10.0.0.0/8]";
    /// Headers that carry the client's address from proxy to proxy.
    forwarded: Forwarding = Otherwise("the defaults below"), "{send: both}";
    /// Which requests go to which pool. The most specific host wins, then the most specific path, then the
    /// route with the most conditions; see `routes[]` below.
    routes: List<Route> = Otherwise("every request goes to the only pool"),
        "[{path: /api, pool: web}]";
    /// Groups of interchangeable backends.
    pools: List<Pool> = Otherwise("one pool named `default`, of the backends given by `--backend`"),
        "[{name: web, backends: [http://10.0.0.1:3000]}]";
    /// Rate limit for each client, over all routes.
    rate_limit: RateLimit = Otherwise("no limit"), "{requests_per_second: 100, burst: 200}";
    /// Limits on client connections and requests.
    limits: Limits = Otherwise("the defaults below"), "{connections: 20000}";
    /// The access log: one line for each request.
    access_log: AccessLog = Otherwise("the defaults below"), "{format: json, target: stdout}";
    /// Graceful shutdown, and draining of old workers after a reload.
    shutdown: Shutdown = Otherwise("the defaults below"), "{pre_stop: 5s, drain: 30s}";
}

section! {
    /// The admin port.
    Admin at "admin", later ["tls"];

    /// IP address and port of the admin port.
    address: AdminAddress = Same("127.0.0.1:9090"), "127.0.0.1:9090";
    /// Which pools need a healthy backend for `/readyz` to return 200. `any_pool`: at least one pool.
    /// `all_pools`: every pool. A list: every pool that it names. A load balancer in front of several Weirs
    /// asks `/readyz`; with `all_pools`, one pool that is down takes all of them out of service together.
    ready_when: ReadyWhen = Same("any_pool"), "[web]";
}

section! {
    /// A rate limit for each client: one token bucket per client address. A request without a token gets
    /// 429 with `Retry-After`.
    RateLimit at "rate_limit", later [];

    /// Tokens added to each bucket per second. A fraction is allowed. 0.001 to 1000000.
    requests_per_second: f64 = Required, "10";
    /// Capacity of a bucket, in tokens: this many requests may come at once. 1 to 1000000.
    burst: u64 = Otherwise("`requests_per_second`, rounded up"), "20";
    /// Prefix length by which IPv6 clients are told apart, in bits. All addresses of one prefix share a
    /// bucket. 1 to 128.
    ipv6_prefix: u64 = Same("64"), "56";
    /// Maximum number of buckets in memory, 16 bytes each. When the table is full, the fullest bucket makes
    /// room for a new client. 1 to 10000000.
    clients_max: u64 = Same("100000"), "500000";
    /// Networks that are not limited.
    exempt: List<IpNet> = Same("[]"), "[10.0.0.0/8, 192.0.2.7]";
}

section! {
    /// The access log: one line for each request.
    AccessLog at "access_log", later [];

    /// Format of a line. `json`: one JSON object. `text`: plain text. `off`: no access log.
    format: KeywordValue<LogFormat> = Same("json"), "text";
    /// Where the lines go: `stdout` or `stderr`.
    target: KeywordValue<LogTarget> = Same("stdout"), "stderr";
}

section! {
    /// Graceful shutdown, and draining of old workers after a reload.
    Shutdown at "shutdown", later [];

    /// How long Weir still accepts connections after `/readyz` has changed to 503, so that a load balancer
    /// in front of it can react. May be `0s`.
    pre_stop: Duration = Same("0s"), "5s";
    /// How long requests in flight may take to finish. What is left then is aborted. May be `0s`.
    drain: Duration = Same("30s"), "1m";
    /// How long WebSockets may stay open while a worker drains, after a reload and at shutdown. They do not
    /// end by themselves, so an open WebSocket delays the shutdown by this time. May be `0s`.
    tunnels: Duration = Otherwise("the value of `drain`"), "5m";
    /// Maximum number of old workers that drain at the same time. Each reload leaves one. When there is one
    /// more, the oldest is stopped and the requests that it still serves are aborted. The oldest is also
    /// stopped when the machine or the cgroup has less free memory than the largest worker uses. 1 to 256.
    draining_workers: u64 = Same("16"), "64";
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
