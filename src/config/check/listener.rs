//! TLS and the PROXY protocol of listeners.

use ipnet::IpNet;

use super::super::file::{ClientAuthMode, RawCertificate, RawProxyProtocol, RawTls};
use super::super::limits;
use super::super::listener::{Certificate, ClientAuth, Tls};
use super::super::problem::{Diagnostics, Problem, Spanned};
use super::super::read::{IntoMeaning as _, KeywordValue};
use super::super::value::FileName;
use super::networks;

pub(super) fn proxy_protocol(
    typed: Option<Spanned<RawProxyProtocol>>,
    found: &mut Diagnostics,
) -> Vec<IpNet> {
    let from = typed.and_then(|typed| typed.value.from);
    if let Some(from) = from.as_ref().filter(|from| from.value.typed == 0) {
        let problem =
            Problem::new(from.at, "`from` is empty, so no PROXY header would be accepted");
        found.add(problem.help("remove `proxy_protocol`, or list the networks of the proxies"));
    }
    networks(from)
}

pub(super) fn tls(typed: Spanned<RawTls>, found: &mut Diagnostics) -> Tls {
    let Spanned { at: _, value: typed } = typed;
    if let Some(list) = &typed.certificates {
        let count = list.value.typed;
        if count == 0 {
            let problem =
                Problem::new(list.at, "`certificates` is empty, so no client could connect");
            found
                .add(problem.help("for example `certificates: [{cert: site.crt, key: site.key}]`"));
        }
        if count > limits::CERTIFICATES_MAX {
            let most = limits::CERTIFICATES_MAX;
            let what = format!("{count} certificates, but {most} are the most");
            found.add(Problem::new(list.at, what));
        }
    }
    let min_version = typed.min_version().meaning();
    let entries = typed.certificates.map(|list| list.value.entries).unwrap_or_default();
    let certificate = |one: Spanned<RawCertificate>| {
        let (cert, key) = (one.value.cert?.value, one.value.key?.value);
        Some(Certificate { cert: cert.meaning(), key: key.meaning() })
    };
    Tls {
        certificates: entries.into_iter().filter_map(certificate).collect(),
        min_version,
        client_auth: client_auth(typed.client_auth, typed.client_ca, &typed.refused, found),
    }
}

fn client_auth(
    mode: Option<Spanned<KeywordValue<ClientAuthMode>>>,
    authority: Option<Spanned<FileName>>,
    refused: &[&str],
    found: &mut Diagnostics,
) -> ClientAuth {
    let asked = mode.as_ref().map(|mode| mode.value.0);
    match (asked, authority) {
        (Some(ClientAuthMode::Off) | None, None) => ClientAuth::Off,
        (Some(ClientAuthMode::Off), Some(unused)) => {
            let problem = Problem::new(
                unused.at,
                "`client_ca` has no effect, because with `client_auth: off` clients are not asked for a certificate",
            );
            found.add(problem.help("remove `client_ca`, or write `client_auth: require`"));
            ClientAuth::Off
        }
        (Some(ClientAuthMode::Request), Some(authority)) => {
            ClientAuth::Request(authority.value.meaning())
        }
        (Some(ClientAuthMode::Require) | None, Some(authority)) => {
            ClientAuth::Require(authority.value.meaning())
        }
        (Some(ClientAuthMode::Request | ClientAuthMode::Require), None) => {
            if let Some(mode) = mode.filter(|_| !refused.contains(&"client_ca")) {
                let problem =
                    Problem::new(mode.at, "client certificates cannot be verified without a CA");
                found.add(problem.help("add `client_ca: clients.crt`"));
            }
            ClientAuth::Off
        }
    }
}
