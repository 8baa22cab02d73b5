//! Limits on clients, as written in the file.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::super::problem::SourcePosition;
use super::super::read::{Bounds, Keyword, KeywordValue, section, whole};
use super::super::terms::{AmbiguousPaths, HalfClosed, ResponseBuffers, UnderscoreHeaders};
use super::super::value::{CountOrOff, Size, SizeOrOff, bytes, secs};
use super::pool::STREAMS_MAX;
use crate::http::scan::Limits as HeadLimits;
use crate::policy::transfer_rate::MinTransferRate;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// A process on Linux gets no more file descriptors than this unless the kernel is configured otherwise.
const CONNECTIONS: Bounds = whole(1, 1_048_576);

section! {
    /// Limits on client connections and requests.
    RawLimits at "limits"
        means [Copy, Eq] Limits { connections_defined_at: SourcePosition, head: HeadLimits, min_rate: Option<MinTransferRate>, response_buffers: ResponseBuffers };

    combined {
        /// Maximum length of the request target, in bytes. A longer one gets 414.
        target_bytes: Size<usize> [bytes(1, 65_534)] = default(8 * KIB), "4KiB";
        /// Maximum size of all request headers together, in bytes, line ends included. More get 431.
        header_bytes: Size<usize> [bytes(256, 512 * KIB)] = default(64 * KIB), "16KiB";
        /// Maximum number of request headers. More get 431.
        headers: usize [whole(1, 250)] = default(100), "50";
        /// Minimum transfer rate of a client, in bytes per second. A client that sends its body more slowly gets
        /// 408; a client that reads the response more slowly is disconnected. Only time during which Weir waits
        /// for the client counts, for each HTTP/2 stream separately. Set it where `timeouts.response` and
        /// `timeouts.request` of a pool, which otherwise limit slow clients, are long or `off`. WebSockets, and
        /// gRPC calls over HTTP/2, may be silent. `off`: no minimum.
        body_rate: SizeOrOff = default(SizeOrOff::Off), "500B";
        /// How long a client may stay below `body_rate` before it counts as too slow.
        body_grace: Duration [Bounds::NotZero("a grace period of 0 would disconnect every client")] = default(secs(10)), "20s";
        /// Memory limit for responses and WebSocket data that clients do not read, over all connections. Each
        /// response counts with the most that it can hold: 448KiB, plus 64KiB if the client uses TLS, plus
        /// 256KiB if the backend uses HTTP/2, or plus 480KiB for a large response (512KiB or more) of an HTTP/1
        /// backend. One connection may use a quarter of the limit, and at least one response. Above the limit, responses are aborted whose reader has not read anything for 10 s: the
        /// longest-stalled first, and first on connections above their quarter. Above twice the limit 5 s are
        /// enough, above four times 1 s. A client that keeps reading is never disconnected. The access log says
        /// `client_write_timeout`, or `tunnel_idle` for a WebSocket whose backend does not read, with the detail
        /// `response_buffers`. The memory is that of the container (cgroup), else of the machine. Kernel socket
        /// buffers are not included.
        response_buffers: SizeOrOff = optional("an eighth of the memory that Weir may use, at least 32MiB"), "1GiB";
    }

    /// Maximum number of client connections. Further ones get 503 and are closed. Each connection may need
    /// two file descriptors; a worker whose file descriptor limit is too low for this value uses a lower one
    /// and logs that.
    connections: NonZeroUsize [CONNECTIONS] = default(20_000), "5000";
    /// Maximum number of connections of one client address (IPv6: of one /64). Further ones get 429 and are
    /// closed; with TLS they are closed before the handshake. `trusted_proxies` are not limited.
    connections_per_client: NonZeroUsize [CONNECTIONS] = optional("no limit"), "100";
    /// Maximum number of requests that one worker process handles at the same time: on all listeners, for all
    /// pools and for routes without a pool, HTTP/2 streams included. Requests that wait in a `queue` and open
    /// WebSockets count; the admin port does not. Further requests get 503 with `Retry-After` at once, and the
    /// connection stays open. During a reload, each worker has its own limit. `off`: no limit. OPERATIONS.md
    /// has a section "Overload".
    requests: CountOrOff [whole(1, 1_000_000_000).zero("write `off` for no limit")] = default(CountOrOff::Off), "2000";
    /// Maximum number of requests on one connection. The response to the last one closes the connection.
    requests_per_connection: NonZeroU32 [whole(1, 1_000_000_000)] = optional("no limit"), "10000";
    /// Time limit for the request headers, from their first byte to their end. The same limit applies to a
    /// new connection until its first byte, to the PROXY header and the TLS handshake together, and to a
    /// client that reads a response of Weir's own.
    header_timeout: Duration [Bounds::NotZero("a timeout of 0 would reject every request")] = default(secs(10)), "5s";
    /// Maximum size of a request body. A larger one gets 413: at once if `Content-Length` says so, otherwise
    /// as soon as the limit is exceeded, and the request to the backend is aborted. `off`: no limit.
    body: SizeOrOff = default(SizeOrOff::Off), "10MiB";
    /// What happens to an ambiguous path: one that leads to one route as Weir reads it, and to another route
    /// (or none) as a backend may read it, because of dot segments, `//`, `;`, `\`, or an escape such as
    /// `%2F`, `%5C` or `%00`. `refuse`: it gets 400, so that no spelling bypasses a route that denies access.
    /// `pass`: the route of Weir's reading is used, and the backend gets the path as the client wrote it.
    /// Where a single route takes all paths of a host, no path is ambiguous, unless `..` would leave the
    /// prefix that its `rewrite` sets.
    ambiguous_paths: KeywordValue<AmbiguousPaths> = default(AmbiguousPaths::Refuse), "pass";
    /// What happens to an HTTP/1 request whose client closes its side of the connection (FIN, or
    /// `close_notify` with TLS) before the response has ended. `abort`: the client is taken to have left. The
    /// request to the backend is cancelled, it is not retried, and 499 is logged. Tools that send a request,
    /// close their side and wait (`printf … | nc -N`) then get no response; curl and browsers do not do that.
    /// `serve`: the request runs on and the client gets the response, but it is not retried. Of several
    /// pipelined requests, `abort` cancels only the last one. A connection reset, and the end of an HTTP/2
    /// stream or connection, always cancel the request.
    half_closed: KeywordValue<HalfClosed> = default(HalfClosed::Abort), "serve";
    /// What happens to a request header with an underscore in its name. CGI, WSGI and FastCGI backends read
    /// `Content_Length` as `Content-Length`. `guard`: it is removed if the same name with dashes is used for
    /// framing or routing, identifies the client, or is set or removed by Weir or by the route's
    /// `request_headers`. `drop`: it is always removed, as nginx does. `refuse`: the request gets 400.
    /// `pass`: it is forwarded, except `X_Forwarded_…`, `X_Real_IP` and `X_Client_Cert_…`.
    underscore_headers: KeywordValue<UnderscoreHeaders> = default(UnderscoreHeaders::Guard), "drop";
    /// How long an idle keep-alive connection of a client stays open between two requests.
    keepalive: Duration [Bounds::NotZero("a timeout of 0 would close every connection after its first request")] = default(secs(75)), "30s";
    /// Limits on HTTP/2 connections with clients.
    http2: RawHttp2 = section, "{streams: 50}";
}

section! {
    /// Limits on HTTP/2 connections with clients. Frames that cost a client nothing are limited as well:
    /// RST_STREAM, PING, SETTINGS, PRIORITY and empty frames, 1000 at once and then 100 per second. One more
    /// closes the connection with `ENHANCE_YOUR_CALM`.
    RawHttp2 at "limits.http2"
        means [Copy, Eq] Http2;

    /// Maximum number of concurrent requests (streams) on one connection.
    streams: u32 [whole(1, STREAMS_MAX)] = default(100), "50";
    /// Flow-control window of one stream: how much of a request body a client may send before Weir has
    /// forwarded it. It bounds the memory that a slow backend costs.
    stream_window: Size<u32> [bytes(16 * KIB, 16 * MIB)] = default(64 * KIB), "256KiB";
    /// Flow-control window of all streams of a connection together.
    connection_window: Size<u32> [bytes(64 * KIB, 64 * MIB)] = default(MIB), "4MiB";
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
