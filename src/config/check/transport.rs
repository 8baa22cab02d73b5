//! Transport to backends.

use super::super::file::{RawPoolTls, TransportHttp2, Verify};
use super::super::listener::Certificate;
use super::super::meaning::Backend;
use super::super::problem::{Diagnostics, Origin, Problem, Spanned};
use super::super::read::{IntoMeaning as _, KeywordValue};
use super::super::terms::Protocol;
use super::super::transport::{Transport, TransportTls};
use super::super::value::{BackendUrl, FileName, ServerName};

/// The transport of a pool, without the PROXY protocol and the settings
/// of HTTP/2; `http2` is where those are.
pub(super) fn transport(
    tls: Option<Spanned<RawPoolTls>>,
    protocol: Option<Spanned<KeywordValue<Protocol>>>,
    http2: Option<Origin>,
    backends: &[Backend],
    found: &mut Diagnostics,
) -> Transport {
    let word = protocol.as_ref().map_or(Protocol::Http1, |protocol| protocol.value.0);
    if let Some(protocol) = protocol {
        fits(protocol.at, word, backends, found);
    }
    if let Some(at) = http2.filter(|_| word == Protocol::Http1) {
        let problem = Problem::new(at, "`http2` has no effect, because this pool uses HTTP/1.1");
        found.add(problem.help("add `protocol: h2`, `h2c` or `auto`, or remove `http2`"));
    }
    let tls = tls.map(|tls| self::tls(tls, backends, found)).unwrap_or_default();
    Transport { protocol: word, http2: TransportHttp2::default(), proxy_protocol: false, tls }
}

/// Reports a backend that cannot use `protocol`.
fn fits(at: Origin, protocol: Protocol, backends: &[Backend], found: &mut Diagnostics) {
    let odd = |tls: bool| {
        // Each line of a file has a scheme of its own.
        let mut known = backends.iter().filter(|it| !it.is_from_file());
        known.find(|it| it.server_name.is_some() == tls)
    };
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

fn tls(typed: Spanned<RawPoolTls>, backends: &[Backend], found: &mut Diagnostics) -> TransportTls {
    let Spanned { at, value: typed } = typed;
    if !backends.is_empty() && backends.iter().all(|it| !it.may_use_tls()) {
        let problem =
            Problem::new(at, "`tls` has no effect, because no backend of this pool uses TLS");
        found.add(problem.help("write `https://` in their URLs, or remove `tls`"));
    }
    let verify = typed.verify().0 == Verify::On;
    if let Some(ca) = typed.ca.as_ref().filter(|_| !verify) {
        let problem = Problem::new(ca.at, "`ca` has no effect, because `verify` is off");
        found.add(problem.help("remove one of the two"));
    }
    let identity = identity(typed.cert, typed.key, &typed.refused, found);
    TransportTls { verify, ca: typed.ca.map(|ca| ca.value.meaning()), identity }
}

fn identity(
    cert: Option<Spanned<FileName>>,
    key: Option<Spanned<FileName>>,
    refused: &[&str],
    found: &mut Diagnostics,
) -> Option<Certificate> {
    match (cert, key) {
        (Some(cert), Some(key)) => {
            Some(Certificate { cert: cert.value.meaning(), key: key.value.meaning() })
        }
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
    name.or_else(|| url.server_name())
}
