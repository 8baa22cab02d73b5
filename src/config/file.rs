//! The file as written: every key, in the order of the manual.
//!
//! What the values mean together is decided in `check`. The doc comments are the manual: docs/CONFIG.md
//! is generated from them. conf/weir.yaml is written by hand; `example_tests.rs` holds it to the schema: a
//! new key needs a line there. See `section!` for how a key is written.

mod action;
mod breaker;
mod foreign_keys;
mod forwarding;
mod limits;
mod listener;
mod missing_features;
mod pool;
mod process;
mod queue;
mod rate_limit;
mod retry;
mod route;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::problem::{Diagnostics, Origin, Problem, SMALLEST, Spanned};
use super::read::{FromNode as _, KeyContext, List, ROOT, Schema, section};
use super::value::Threads;
use super::yaml::{Node, Value};
pub(super) use action::{QueryFate, RawFields, RawRedirect, RawRespond, RawRewrite, RawShare};
pub use breaker::Breaker;
pub(super) use breaker::RawBreaker;
pub use forwarding::Forwarding;
pub(super) use forwarding::RawForwarding;
pub(super) use limits::RawLimits;
pub use limits::{Http2, Limits};
pub(super) use listener::{ClientAuthMode, RawCertificate, RawListener, RawProxyProtocol, RawTls};
pub use pool::{HealthCheck, Timeouts, TransportHttp2};
pub(super) use pool::{
    ProbeType, RawBackend, RawHealthCheck, RawPool, RawPoolTls, RawTimeouts, Verify,
};
pub use process::{AccessLog, Shutdown};
pub(super) use process::{RawAccessLog, RawAdmin, RawShutdown};
pub use queue::RequestQueue;
pub use rate_limit::RateLimit;
pub(super) use rate_limit::RawRateLimit;
pub(super) use retry::RawRetry;
pub use retry::{Retry, RetryBudget};
pub(super) use route::{RawMatch, RawRoute};

/// Everything that the reader has to know about the file.
pub(super) static SCHEMA: Schema = Schema {
    root: &RawFile::SECTION,
    foreign_keys: foreign_keys::WORDS,
    missing_features: missing_features::WORDS,
};

pub(super) const DEFAULT_LISTENER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// The listener of a file without `listeners`.
fn default_listeners() -> List<RawListener> {
    let at = Origin::START;
    let address = Some(Spanned { at, value: DEFAULT_LISTENER });
    let listener = RawListener { address, ..RawListener::default() };
    List { entries: vec![Spanned { at, value: listener }], typed: 1 }
}

impl RawFile {
    /// Reads the file whose root node is `root`. Fails only if the root is not a map.
    pub(super) fn read(root: &Node, found: &mut Diagnostics) -> Result<Self, Problem> {
        if matches!(root.value, Value::Null) {
            return Err(Problem::new(root.at, "the file is empty").help(SMALLEST));
        }
        if !matches!(root.value, Value::Map(_)) {
            let problem = Problem::new(root.at, "a configuration must be a map of keys");
            return Err(problem.help(SMALLEST));
        }
        let key = KeyContext::new(&ROOT, &SCHEMA);
        Ok(Self::from_node(root, key, found).unwrap_or_default())
    }
}

section! {
    /// The top level of the file. Only `pools` is required, and `--backend` can replace even that.
    RawFile at "";

    /// Addresses on which Weir accepts client connections. A plain address is short for `{address: …}`.
    listeners: List<RawListener> = default(default_listeners()), "[0.0.0.0:80]", MovesSockets;
    /// The admin port: metrics, status and health. Clients must not be able to reach it.
    admin: RawAdmin = section, "{address: 127.0.0.1:9090}";
    /// Number of threads that serve requests. `auto` starts one thread for each processor that the
    /// process may use (CPU affinity and cgroup quota).
    threads: Threads = default(Threads::Auto), "4";
    /// Networks of the proxies in front of Weir whose `X-Forwarded-For` or `Forwarded` header is trusted.
    /// From any other peer these headers are removed, and so are `X-Forwarded-…` and `X-Real-IP`. List only
    /// your own proxies: a peer in one of these networks can claim any client address.
    trusted_proxies: List<IpNet> = default(List::empty()), "[10.0.0.0/8]";
    /// Headers that carry the client's address from proxy to proxy.
    forwarded: RawForwarding = section, "{send: both}";
    /// Which requests go to which pool. The most specific host wins, then the most specific path, then the
    /// route with the most conditions; see `routes[]` below.
    routes: List<RawRoute> = optional("every request goes to the only pool"), "[{path: /api, pool: web}]";
    /// Groups of interchangeable backends.
    pools: List<RawPool> = optional("one pool named `default`, of the backends given by `--backend`"), "[{name: web, backends: [http://10.0.0.1:3000]}]";
    /// Rate limit for each client, over all routes.
    rate_limit: RawRateLimit = optional("no limit"), "{requests_per_second: 100, burst: 200}";
    /// Limits on client connections and requests.
    limits: RawLimits = section, "{connections: 20000}";
    /// The access log: one line for each request.
    access_log: RawAccessLog = section, "{format: json, target: stdout}";
    /// Graceful shutdown, and draining of old workers after a reload.
    shutdown: RawShutdown = section, "{pre_stop: 5s, drain: 30s}";
}
