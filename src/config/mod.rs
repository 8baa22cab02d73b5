//! The configuration: from text to meaning.
//!
//! A configuration has three forms: the file as typed (`file`), its meaning (`meaning`), and what runs
//! (`runtime`). All problems are found on the way from the first to the second, and are reported together.
//! In the second form every name resolves, every number is in range, and an `Option` is something that
//! may really be absent.

mod action;
mod builder;
mod check;
mod diff;
#[cfg(test)]
mod example_tests;
mod file;
mod foreign;
pub mod limits;
mod listener;
mod manual;
mod meaning;
mod overrides;
pub mod pem;
mod problem;
mod read;
mod route;
mod show;
mod source;
mod terms;
mod transport;
mod value;
mod yaml;

use xxhash_rust::xxh3::Xxh3;

pub use action::{Action, Forward, Header, HeaderChanges, Respond, Rewrite, Share};
pub use builder::{ConfigBuilder, Report, Warning, load};
pub use diff::diff;
pub use file::{
    AccessLog, Breaker, Forwarding, HealthCheck, Http2, Limits, RateLimit, RequestQueue, Retry,
    RetryBudget, Shutdown, Timeouts, TransportHttp2,
};
pub use listener::{Certificate, ClientAuth, Listener, Tls};
pub use manual::manual;
pub use meaning::{Admin, Backend, Config, Pool, ReadyWhen, Threads};
pub use overrides::{Override, Overrides};
pub use problem::{Position, Problem, Problems, Source, SourcePosition, nearest};
pub use route::{Condition, Conditions, PathPattern, Route, Test, precedence};
pub use show::show;
pub use source::ConfigSource;
pub use terms::{
    AddressFamily, Algorithm, AmbiguousPaths, BackendAddress, Discovery, DiscoveryFrom, FailureSet,
    FilePath, ForwardingHeader, HalfClosed, HostPattern, LogFormat, LogTarget, Probe, Protocol,
    ResponseBuffers, RetryOn, SentHeaders, StatusSet, TlsVersion, UnderscoreHeaders,
};
pub use transport::{Transport, TransportTls};
pub use value::{parse_backend_url, parse_duration};

/// A short name for a file and its overrides: equal for equal bytes.
#[must_use]
pub fn version(text: Option<&[u8]>, overrides: &Overrides) -> String {
    let mut hash = Xxh3::new();
    // Each part with its length, so that no two different lists run together to the same bytes.
    let mut part = |bytes: &[u8]| {
        hash.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(bytes);
    };
    part(text.unwrap_or_default());
    for (name, given) in overrides.each() {
        part(name.as_bytes());
        part(given.value.as_bytes());
    }
    let digits = format!("{:016x}", hash.digest());
    digits.chars().take(12).collect()
}
