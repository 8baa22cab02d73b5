//! Transport to backends.

use super::super::file;
use super::super::limits;
use super::super::listener::Certificate;
use super::super::meaning::Backend;
use super::super::problem::{Diagnostics, Origin, Problem, Spanned};
use super::super::read::KeywordValue;
use super::super::terms::{BackendAddress, FilePath, Protocol};
use super::super::transport::{Transport, TransportHttp2, TransportTls};
use super::super::value::{BackendUrl, DurationOrOff, ServerName, Text};
use super::Range;

/// The transport of a pool, without the PROXY protocol.
pub(super) fn transport(
    tls: Option<Spanned<file::PoolTls>>,
    protocol: Option<Spanned<KeywordValue<Protocol>>>,
    http2: Option<Spanned<file::PoolHttp2>>,
    backends: &[Backend],
    found: &mut Diagnostics,
) -> Transport {
    let word = protocol.as_ref().map_or(Protocol::Http1, |protocol| protocol.value.0);
    if let Some(protocol) = protocol {
        fits(protocol.at, word, backends, found);
    }
    if let Some(http2) = http2.as_ref().filter(|_| word == Protocol::Http1) {
        let problem =
            Problem::new(http2.at, "`http2` has no effect, because this pool uses HTTP/1.1");
        found.add(problem.help("add `protocol: h2`, `h2c` or `auto`, or remove `http2`"));
    }
    let tls = tls.map(|tls| self::tls(tls, backends, found)).unwrap_or_default();
    Transport { protocol: word, http2: self::http2(http2, found), proxy_protocol: false, tls }
}

/// Reports a backend that cannot use `protocol`.
fn fits(at: Origin, protocol: Protocol, backends: &[Backend], found: &mut Diagnostics) {
    let odd = |tls: bool| backends.iter().find(|it| it.server_name.is_some() == tls);
    let wrong = match protocol {
        Protocol::H2 => odd(false).map(|it| (it, "`h2` is over TLS", "`https://` or `h2c`")),
        Protocol::H2c => odd(true).map(|it| (it, "`h2c` is without TLS", "`http://` or `h2`")),
        Protocol::Http1 | Protocol::Auto => None,
    };
    if let Some((backend, what, write)) = wrong {
        let what = format!("{what}, but the backend `{}` is not", backend.address);
        found.add(Problem::new(at, what).help(format!("write {write}")));
    }
}

fn http2(typed: Option<Spanned<file::PoolHttp2>>, found: &mut Diagnostics) -> TransportHttp2 {
    let typed = typed.map(|typed| typed.value).unwrap_or_default();
    let range = Range { name: "streams", first: 1, last: u64::from(limits::STREAMS_MAX) };
    let ping = match typed.ping {
        None | Some(Spanned { value: DurationOrOff::Off, .. }) => None,
        Some(Spanned { at, value: DurationOrOff::Duration(value) }) => {
            if value.is_zero() {
                let problem =
                    Problem::new(at, "an interval of 0 would send PING frames without a pause");
                found.add(problem.help("write `ping: off` for no PING frames"));
            }
            Some(value)
        }
    };
    TransportHttp2 { streams: range.count(typed.streams, 100, found), ping }
}

fn tls(
    typed: Spanned<file::PoolTls>,
    backends: &[Backend],
    found: &mut Diagnostics,
) -> TransportTls {
    let Spanned { at, value: typed } = typed;
    if !backends.is_empty() && backends.iter().all(|backend| backend.server_name.is_none()) {
        let problem =
            Problem::new(at, "`tls` has no effect, because no backend of this pool uses TLS");
        found.add(problem.help("write `https://` in their URLs, or remove `tls`"));
    }
    let verify = typed.verify.is_none_or(|verify| verify.value.0 == file::Verify::On);
    if let Some(ca) = typed.ca.as_ref().filter(|_| !verify) {
        let problem = Problem::new(ca.at, "`ca` has no effect, because `verify` is off");
        found.add(problem.help("remove one of the two"));
    }
    let identity = identity(typed.cert, typed.key, &typed.refused, found);
    TransportTls { verify, ca: typed.ca.map(path), identity }
}

fn identity(
    cert: Option<Spanned<Text>>,
    key: Option<Spanned<Text>>,
    refused: &[&str],
    found: &mut Diagnostics,
) -> Option<Certificate> {
    match (cert, key) {
        (Some(cert), Some(key)) => Some(Certificate { cert: path(cert), key: path(key) }),
        (Some(alone), None) if !refused.contains(&"key") => {
            let problem = Problem::new(alone.at, "`key` is missing: `cert` needs its private key");
            found.add(problem.help("add `key: client.key`"));
            None
        }
        (None, Some(alone)) if !refused.contains(&"cert") => {
            let problem =
                Problem::new(alone.at, "`cert` is missing: `key` belongs to a certificate");
            found.add(problem.help("add `cert: client.crt`"));
            None
        }
        _ => None,
    }
}

/// Server name that a backend's certificate is verified for; `None` without TLS.
pub(super) fn server_name(
    url: &BackendUrl,
    own: Option<Spanned<ServerName>>,
    of_pool: Option<&ServerName>,
    found: &mut Diagnostics,
) -> Option<String> {
    if !url.tls {
        if let Some(own) = own {
            let problem = Problem::new(
                own.at,
                "`server_name` has no effect, because this backend does not use TLS",
            );
            found.add(problem.help("write `https://` in its URL, or remove `server_name`"));
        }
        return None;
    }
    let own = own.map(|own| own.value);
    let name = own.as_ref().or(of_pool).map(|name| name.0.clone());
    Some(name.unwrap_or_else(|| match &url.address {
        BackendAddress::Socket(address) => address.ip().to_string(),
        BackendAddress::Name(name, _) => name.trim_end_matches('.').to_owned(),
    }))
}

fn path(typed: Spanned<Text>) -> FilePath {
    FilePath { path: typed.value.0.into(), at: typed.at.position() }
}
