//! Checks the file as typed and makes the configuration.
//!
//! An invalid value counts as left out from then on, so that each mistake is reported once and the rest of
//! the file is still checked. The result is discarded if there was any problem.

mod action;
mod admin;
mod backend;
mod bindings;
mod conditions;
mod listener;
mod pool;
mod rate;
mod route;
mod shadowing;
mod transport;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use ipnet::IpNet;

use super::file::{self, File};
use super::forwarding::Forwarding;
use super::limits;
use super::listener::Listener;
use super::meaning::{AccessLog, Admin, Config, Http2, Limits, Threads};
use super::problem::{Diagnostics, Problem, SourcePosition, Spanned};
use super::read::List;
use super::shutdown::Shutdown;
use super::terms::{LogFormat, LogTarget, ResponseBuffers};
use super::value::{Size, SizeOrOff, Threads as TypedThreads, spell, spell_size};
use crate::http::scan::Limits as HeadLimits;
use crate::policy::transfer_rate::MinTransferRate;
use bindings::{Bindings, Bound};

const DEFAULT_LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// The configuration of `file`.
pub(super) fn check(file: File, found: &mut Diagnostics) -> Config {
    let mut bound = Bindings::default();
    let unclear = may_come_by_https(&file);
    let probes = pool::grpc_probes(file.pools.as_ref());
    let (address, ready_when) = admin::address(file.admin, &file.refused, &mut bound, found);
    let listeners = if file.refused.contains(&"listeners") {
        Vec::new()
    } else {
        listeners(file.listeners, &mut bound, found)
    };
    if !listeners.is_empty() && !listeners.iter().any(|listener| listener.http2) {
        let what = "health checks use gRPC, but no listener accepts HTTP/2, which gRPC needs";
        let warn = |at| Problem::new(at, what).help("add `http2: true`, or `tls`, to a listener");
        found.warnings.extend(probes.into_iter().map(warn));
    }
    let (pools, names) = pool::pools(file.pools, &bound, found);
    let ready_when = admin::ready_when(ready_when, &names, found);
    let admin = Admin { address, ready_when };
    if !unclear && listeners.iter().all(|one| one.tls.is_none()) {
        route::all_come_by_http(file.routes.as_ref(), found);
    }
    let routes = if file.refused.contains(&"routes") {
        Vec::new()
    } else {
        route::routes(file.routes, &names, found)
    };
    Config {
        listeners,
        admin,
        threads: threads(file.threads, found),
        trusted_proxies: networks(file.trusted_proxies),
        forwarded: forwarding(file.forwarded.map(|fields| fields.value).unwrap_or_default()),
        routes,
        pools,
        rate_limit: file.rate_limit.and_then(|rate| rate::rate_limit(rate.value, found)),
        limits: limits(file.limits.map(|limits| limits.value).unwrap_or_default(), found),
        access_log: access_log(file.access_log.map(|log| log.value).unwrap_or_default(), found),
        shutdown: shutdown(file.shutdown.map(|it| it.value).unwrap_or_default(), found),
    }
}

/// Whether clients may use https although no valid listener has TLS.
fn may_come_by_https(file: &File) -> bool {
    let refused = |key| file.refused.contains(&key);
    let listeners = file.listeners.as_ref().map(|listeners| &listeners.value);
    let unclear = |one: &Spanned<file::Listener>| one.value.refused.contains(&"tls");
    refused("trusted_proxies")
        || file.trusted_proxies.as_ref().is_some_and(|proxies| proxies.value.typed > 0)
        || refused("listeners")
        || listeners.is_some_and(|listeners| {
            listeners.entries.len() < listeners.typed || listeners.entries.iter().any(unclear)
        })
}

fn listeners(
    typed: Option<Spanned<List<file::Listener>>>,
    bound: &mut Bindings,
    found: &mut Diagnostics,
) -> Vec<Listener> {
    let Some(typed) = typed else {
        bound.add(Bound { address: DEFAULT_LISTENER, at: None, admin: false }, found);
        return vec![Listener::plaintext(DEFAULT_LISTENER)];
    };
    if typed.value.typed == 0 {
        let problem = Problem::new(typed.at, "`listeners` is empty, so no client could connect");
        found.add(problem.help("remove `listeners` for the default, 0.0.0.0:8080"));
    }
    if typed.value.typed > limits::LISTENERS_MAX {
        let what =
            format!("{} listeners, but {} are the most", typed.value.typed, limits::LISTENERS_MAX);
        found.add(Problem::new(typed.at, what));
        return Vec::new();
    }
    let mut listeners = Vec::new();
    for typed in typed.value.entries {
        // Without a valid address the rest is still looked at.
        let address = typed.value.address.map_or(DEFAULT_LISTENER, |address| {
            let at = Some(address.at);
            bound.add(Bound { address: address.value, at, admin: false }, found);
            address.value
        });
        let proxy_protocol = listener::proxy_protocol(typed.value.proxy_protocol, found);
        let tls = typed.value.tls.map(|tls| listener::tls(tls, found));
        let http2 = typed.value.http2.map_or(tls.is_some(), |http2| http2.value);
        listeners.push(Listener { address, proxy_protocol, tls, http2 });
    }
    listeners
}

fn threads(typed: Option<Spanned<TypedThreads>>, found: &mut Diagnostics) -> Threads {
    let Some(typed) = typed else { return Threads::Auto };
    let count = match typed.value {
        TypedThreads::Auto => return Threads::Auto,
        TypedThreads::Count(count) => Some(Spanned { at: typed.at, value: count }),
    };
    let range = Range { name: "threads", first: 1, last: size(limits::THREADS_MAX) };
    Threads::Count(range.count(count, 1, found))
}

fn limits(typed: file::Limits, found: &mut Diagnostics) -> Limits {
    let range = Range { name: "connections", first: 1, last: size(limits::CONNECTIONS_MAX) };
    let of_client = Range { name: "connections_per_client", ..range };
    let last = u64::from(limits::REQUESTS_PER_CONNECTION_MAX);
    let requests = Range { name: "requests_per_connection", first: 1, last };
    let headers = Range { name: "headers", first: 1, last: size(limits::HEADERS_MAX) };
    let why = |what| format!("a timeout of 0 would {what}");
    let defined_at = typed.connections.as_ref().and_then(|typed| typed.at.position());
    Limits {
        connections_defined_at: SourcePosition(defined_at),
        connections: range.count(typed.connections, limits::CONNECTIONS_DEFAULT, found),
        connections_per_client: of_client
            .pick(typed.connections_per_client, found)
            .and_then(NonZeroUsize::from_u64),
        requests_per_connection: requests
            .pick(typed.requests_per_connection, found)
            .and_then(NonZeroU32::from_u64),
        head: HeadLimits {
            target_bytes: bytes(
                ("target_bytes", typed.target_bytes),
                (1, limits::TARGET_BYTES_MAX, 8 * 1024),
                found,
            ),
            header_bytes: bytes(
                ("header_bytes", typed.header_bytes),
                (limits::HEADER_BYTES_MIN, limits::HEADER_BYTES_MAX, 64 * 1024),
                found,
            ),
            headers: headers.count::<NonZeroUsize>(typed.headers, 100, found).get(),
        },
        ambiguous_paths: typed.ambiguous_paths.map_or_else(Default::default, |word| word.value.0),
        half_closed: typed.half_closed.map_or_else(Default::default, |word| word.value.0),
        underscore_headers: typed
            .underscore_headers
            .map_or_else(Default::default, |word| word.value.0),
        min_rate: min_rate(typed.body_rate, typed.body_grace, found),
        response_buffers: match typed.response_buffers.map(|buffers| buffers.value) {
            None => ResponseBuffers::OfMemory,
            Some(SizeOrOff::Off) => ResponseBuffers::Off,
            Some(SizeOrOff::Bytes(bytes)) => ResponseBuffers::Bytes(bytes),
        },
        body: match typed.body.map(|body| body.value) {
            None | Some(SizeOrOff::Off) => None,
            Some(SizeOrOff::Bytes(bytes)) => Some(bytes),
        },
        header_timeout: positive(
            typed.header_timeout,
            secs(10),
            &why("reject every request"),
            found,
        ),
        keepalive: positive(
            typed.keepalive,
            secs(75),
            &why("close every connection after its first request"),
            found,
        ),
        http2: http2(typed.http2.map(|http2| http2.value).unwrap_or_default(), found),
    }
}

fn min_rate(
    rate: Option<Spanned<SizeOrOff>>,
    grace: Option<Spanned<Duration>>,
    found: &mut Diagnostics,
) -> Option<MinTransferRate> {
    let grace =
        positive(grace, secs(10), "a grace period of 0 would disconnect every client", found);
    match rate?.value {
        SizeOrOff::Off => None,
        SizeOrOff::Bytes(bytes) => NonZeroU64::new(bytes)
            .map(|bytes_per_second| MinTransferRate { bytes_per_second, grace }),
    }
}

/// A size that has its bounds, both included, and its default.
fn bytes(
    (name, typed): (&str, Option<Spanned<Size>>),
    (least, most, default): (usize, usize, usize),
    found: &mut Diagnostics,
) -> usize {
    let Some(Spanned { at, value: Size(bytes) }) = typed else { return default };
    match usize::try_from(bytes) {
        Ok(bytes) if (least..=most).contains(&bytes) => bytes,
        _ => {
            let (least, most) = (spell_size(size(least)), spell_size(size(most)));
            let problem = Problem::new(at, format!("`{name}` cannot be {}", spell_size(bytes)));
            found.add(problem.help(format!("a size from {least} to {most}")));
            default
        }
    }
}

fn http2(typed: file::Http2, found: &mut Diagnostics) -> Http2 {
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    let streams = Range { name: "streams", first: 1, last: u64::from(limits::STREAMS_MAX) };
    let window = |typed, range, found: &mut Diagnostics| {
        u32::try_from(bytes(typed, range, found)).unwrap_or(u32::MAX)
    };
    Http2 {
        streams: streams.count::<NonZeroU32>(typed.streams, 100, found).get(),
        stream_window: window(
            ("stream_window", typed.stream_window),
            (16 * KIB, 16 * MIB, 64 * KIB),
            found,
        ),
        connection_window: window(
            ("connection_window", typed.connection_window),
            (64 * KIB, 64 * MIB, MIB),
            found,
        ),
    }
}

fn access_log(typed: file::AccessLog, found: &mut Diagnostics) -> AccessLog {
    let is_off = typed.format.as_ref().is_some_and(|format| format.value.0 == LogFormat::Off);
    if let (true, Some(target)) = (is_off, &typed.target) {
        let what = "`target` has no effect, because `format: off` disables the access log";
        found.add(Problem::new(target.at, what).help("remove it, or choose a format"));
    }
    AccessLog {
        format: typed.format.map_or(LogFormat::Json, |format| format.value.0),
        target: typed.target.map_or(LogTarget::Stdout, |target| target.value.0),
    }
}

fn shutdown(typed: file::Shutdown, found: &mut Diagnostics) -> Shutdown {
    let last = size(limits::DRAINING_WORKERS_MAX);
    let workers = Range { name: "draining_workers", first: 1, last };
    let drain = typed.drain.map_or(secs(30), |drain| drain.value);
    Shutdown {
        pre_stop: typed.pre_stop.map_or(Duration::ZERO, |pre_stop| pre_stop.value),
        drain,
        tunnels: typed.tunnels.map_or(drain, |tunnels| tunnels.value),
        draining_workers: workers.count(typed.draining_workers, 16, found),
    }
}

fn forwarding(typed: file::Forwarding) -> Forwarding {
    let default = Forwarding::default();
    Forwarding {
        accept: typed.accept.map_or(default.accept, |accept| accept.value.0),
        send: typed.send.map_or(default.send, |send| send.value.0),
    }
}

fn networks(typed: Option<Spanned<List<IpNet>>>) -> Vec<IpNet> {
    let networks = typed.map(|networks| networks.value.entries).unwrap_or_default();
    networks.into_iter().map(|network| network.value).collect()
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A limit as the whole numbers of a file are kept.
fn size(limit: usize) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

/// A duration that must not be 0, and `why` not.
fn positive(
    typed: Option<Spanned<Duration>>,
    default: Duration,
    why: &str,
    found: &mut Diagnostics,
) -> Duration {
    let Some(Spanned { at, value }) = typed else { return default };
    if value.is_zero() {
        let help = format!("remove it for the default, {}", spell(default));
        found.add(Problem::new(at, why).help(help));
        return default;
    }
    value
}

/// Which whole numbers a key takes.
#[derive(Debug, Clone, Copy)]
struct Range {
    name: &'static str,
    first: u64,
    last: u64,
}

impl Range {
    /// The number, if it was given and is in the range.
    fn pick(self, typed: Option<Spanned<u64>>, found: &mut Diagnostics) -> Option<u64> {
        let Spanned { at, value } = typed?;
        if (self.first..=self.last).contains(&value) {
            return Some(value);
        }
        let what = format!("`{}` cannot be {value}", self.name);
        let help = format!("a whole number from {} to {}", self.first, self.last);
        found.add(Problem::new(at, what).help(help));
        None
    }

    /// The number, or `default`. The type holds the whole range, so nothing is lost on the way.
    fn count<T: NonZero>(
        self,
        typed: Option<Spanned<u64>>,
        default: u32,
        found: &mut Diagnostics,
    ) -> T {
        let number = self.pick(typed, found).unwrap_or(u64::from(default));
        T::from_u64(number).unwrap_or(T::LEAST)
    }
}

/// A number type that has no 0.
trait NonZero: Sized {
    /// Stands in for what the type cannot hold, which no range lets pass.
    const LEAST: Self;

    fn from_u64(number: u64) -> Option<Self>;
}

macro_rules! non_zero {
    ($($type:ty),+) => {$(
        impl NonZero for $type {
            const LEAST: Self = Self::MIN;

            fn from_u64(number: u64) -> Option<Self> {
                Self::new(number.try_into().ok()?)
            }
        }
    )+};
}
non_zero!(NonZeroU8, NonZeroU32, NonZeroUsize);
