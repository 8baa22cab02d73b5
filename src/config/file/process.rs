//! The admin port, the access log and the shutdown, as written in the file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use super::super::read::{Keyword, KeywordValue, section, whole};
use super::super::terms::{LogFormat, LogTarget};
use super::super::value::{AdminAddress, ReadyWhen, secs};

const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

section! {
    /// The admin port.
    RawAdmin at "admin"
        later ["tls"];

    /// IP address and port of the admin port.
    address: AdminAddress = default(AdminAddress(DEFAULT_ADMIN)), "127.0.0.1:9090", MovesSockets;
    /// Which pools need a healthy backend for `/readyz` to return 200. `any_pool`: at least one pool.
    /// `all_pools`: every pool. A list: every pool that it names. A load balancer in front of several Weirs
    /// asks `/readyz`; with `all_pools`, one pool that is down takes all of them out of service together.
    ready_when: ReadyWhen = default(ReadyWhen::AnyPool), "[web]";
}

section! {
    /// The access log: one line for each request. A plain format is short for `{format: …}`.
    RawAccessLog at "access_log"
        or (format: KeywordValue<LogFormat>)
        means [Copy, Eq] AccessLog;

    /// Format of a line. `json`: one JSON object. `text`: plain text. `off`: no access log.
    format: KeywordValue<LogFormat> = default(LogFormat::Json), "text";
    /// Where the lines go: `stdout` or `stderr`.
    target: KeywordValue<LogTarget> = default(LogTarget::Stdout) where writes_lines, "stderr";
}

section! {
    /// Graceful shutdown, and draining of old workers after a reload.
    RawShutdown at "shutdown"
        means [Copy, Eq] Shutdown;

    /// How long Weir still accepts connections after `/readyz` has changed to 503, so that a load balancer
    /// in front of it can react. May be `0s`.
    pre_stop: Duration = default(Duration::ZERO), "5s";
    /// How long requests in flight may take to finish. What is left then is aborted. May be `0s`.
    drain: Duration = default(secs(30)), "1m";
    /// How long WebSockets may stay open while a worker drains, after a reload and at shutdown. They do not
    /// end by themselves, so an open WebSocket delays the shutdown by this time. May be `0s`.
    tunnels: Duration = computed("the value of `drain`", |it| it.drain()), "5m";
    /// Maximum number of old workers that drain at the same time. Each reload leaves one. When there is one
    /// more, the oldest is stopped and the requests that it still serves are aborted. The oldest is also
    /// stopped when the machine or the cgroup has less free memory than the largest worker uses.
    draining_workers: NonZeroUsize [whole(1, 256)] = default(16), "64";
}

impl Shutdown {
    /// The longest time that a worker may drain.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.drain.max(self.tunnels)
    }
}

impl RawAccessLog {
    fn writes_lines(&self) -> bool {
        self.format().0 != LogFormat::Off
    }
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
    const ADVICE: &'static [(&'static str, &'static str)] = &[
        ("off", "write `access_log: off`"),
        ("none", "write `access_log: off`"),
        ("false", "write `access_log: off`"),
    ];
}
