//! Backends that are looked up.

use super::super::file::RawBackend;
use super::super::problem::{Diagnostics, Origin, Problem, Spanned};
use super::super::read::{FromText as _, IntoMeaning as _};
use super::super::terms::{BackendAddress, Discovery, DiscoveryFrom};
use super::super::value::{BackendUrl, ServerName};
use super::transport;
use crate::policy::refresh::RefreshBounds;

/// An entry of `backends`.
pub(super) struct CheckedBackend {
    pub(super) address: BackendAddress,
    pub(super) server_name: Option<String>,
    pub(super) at: Origin,
}

/// The address of an entry, and the name of its certificate.
pub(super) fn backend(
    typed: Spanned<RawBackend>,
    of_pool: Option<&ServerName>,
    found: &mut Diagnostics,
) -> Option<CheckedBackend> {
    let Spanned { at, value: typed } = typed;
    if !has_one_source(&typed, at, found) {
        return None;
    }
    unused(&typed, found);
    let own = typed.server_name.clone();
    if let Some(Spanned { at, value: url }) = &typed.url {
        let server_name = transport::server_name(url, own, of_pool, found);
        return Some(CheckedBackend { address: url.address.clone(), server_name, at: *at });
    }
    let mut own_names = false;
    let (from, server_name, at) = if let Some(Spanned { at, value: url }) = &typed.dns {
        let server_name = transport::server_name(url, own, of_pool, found);
        (host(url, *at, found)?, server_name, *at)
    } else if let Some(Spanned { at, value: service }) = &typed.srv {
        let own = own.map(|own| own.value);
        let name = own.as_ref().or(of_pool);
        own_names = name.is_none();
        let name = name.map_or(&service.0, |name| &name.0);
        (DiscoveryFrom::Srv(service.0.clone()), service.is_tls().then(|| name.clone()), *at)
    } else {
        let Spanned { at, value: file } = typed.file.clone()?;
        let own = own.map(|own| own.value);
        let name = own.as_ref().or(of_pool).map(|name| name.0.clone());
        own_names = name.is_none();
        (DiscoveryFrom::File(file.meaning()), name, at)
    };
    let discovery = Discovery {
        from,
        own_names,
        family: typed.family().meaning(),
        refresh: refresh(&typed, found),
        backends_max: usize::try_from(typed.backends_max().get()).unwrap_or(usize::MAX),
    };
    Some(CheckedBackend {
        address: BackendAddress::Discovered(Box::new(discovery)),
        server_name,
        at,
    })
}

/// Whether exactly one key says where the backend is; otherwise reports it.
fn has_one_source(typed: &RawBackend, at: Origin, found: &mut Diagnostics) -> bool {
    let given = [
        ("url", typed.url.as_ref().map(|it| it.at)),
        ("dns", typed.dns.as_ref().map(|it| it.at)),
        ("srv", typed.srv.as_ref().map(|it| it.at)),
        ("file", typed.file.as_ref().map(|it| it.at)),
    ];
    let is_refused = given.iter().any(|(key, _)| typed.refused.contains(key));
    let mut given = given.into_iter().filter_map(|(key, at)| Some((key, at?)));
    match (given.next(), given.next()) {
        (Some(_), None) => !is_refused,
        (Some((one, _)), Some((other, at))) => {
            let what = format!("`{one}` and `{other}` cannot be combined");
            found
                .add(Problem::new(at, what).help("keep one of them, or make two backends of them"));
            false
        }
        (None, _) => {
            if !is_refused {
                let problem = Problem::new(at, "`url` is missing");
                found.add(problem.help("for example `url: http://10.0.0.1:3000`"));
            }
            false
        }
    }
}

fn host(url: &BackendUrl, at: Origin, found: &mut Diagnostics) -> Option<DiscoveryFrom> {
    match &url.address {
        BackendAddress::Name(name, port) => Some(DiscoveryFrom::Dns(name.clone(), *port)),
        BackendAddress::Socket(_) | BackendAddress::Discovered(_) => {
            let what = format!("`dns` needs a host name, but `{}` has an address", url.to_text());
            found.add(Problem::new(at, what).help("for one server write `url`"));
            None
        }
    }
}

fn refresh(typed: &RawBackend, found: &mut Diagnostics) -> RefreshBounds {
    let typed = typed.refresh();
    let (min, max) = (typed.min(), typed.max());
    let given = typed.max.as_ref().or(typed.min.as_ref());
    if let Some(at) = given.map(|it| it.at).filter(|_| min > max) {
        let (min, max) = (min.to_text(), max.to_text());
        let what = format!("`min` ({min}) is longer than `max` ({max})");
        found.add(Problem::new(at, what).help("raise `max` or lower `min`"));
    }
    RefreshBounds { min, max }
}

/// Reports keys that have no effect with this source.
fn unused(typed: &RawBackend, found: &mut Diagnostics) {
    let (is_dns, is_srv, is_file) =
        (typed.dns.is_some(), typed.srv.is_some(), typed.file.is_some());
    let keys = [
        ("family", typed.family.as_ref().map(|it| it.at), is_dns, "it is about `dns`"),
        (
            "refresh",
            typed.refresh.as_ref().map(|it| it.at),
            is_dns || is_srv,
            "it is about `dns` and `srv`",
        ),
        (
            "backends_max",
            typed.backends_max.as_ref().map(|it| it.at),
            is_dns || is_srv || is_file,
            "it is about `dns`, `srv` and `file`",
        ),
        (
            "weight",
            typed.weight.as_ref().map(|it| it.at),
            !(is_srv || is_file),
            "each record of `srv`, and each line of `file`, has a weight of its own",
        ),
    ];
    for (key, at, has_effect, why) in keys {
        if let Some(at) = at.filter(|_| !has_effect) {
            let problem = Problem::new(at, format!("`{key}` has no effect here"));
            found.add(problem.help(format!("remove it: {why}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::problems;

    fn one(entry: &str, part: &str) {
        let found = problems(&format!("pools: [{{name: web, backends: [{entry}]}}]"));
        assert!(found.len() == 1 && found[0].contains(part), "{entry}: {found:?}");
    }

    #[test]
    fn an_entry_has_one_source() {
        one("{weight: 2}", "`url` is missing");
        one("{url: http://a:1, dns: http://b:1}", "`url` and `dns` cannot be combined");
        one("{dns: http://b:1, file: a.txt}", "`dns` and `file` cannot be combined");
    }

    #[test]
    fn a_source_is_what_its_key_says() {
        one("{dns: http://10.0.0.1:80}", "needs a host name");
        one("{dns: api.internal}", "is not a URL");
        one("{dns: tcp://api.internal}", "is not a scheme");
        one("{srv: api.internal}", "is not the name of a service");
        one("{srv: http://_http._tcp.api.internal}", "is not the name of a service");
        one("{srv: _http._udp.api.internal}", "is not the name of a service");
    }

    #[test]
    fn keys_of_another_source_are_reported() {
        one("{url: http://a:1, family: ipv4}", "`family` has no effect");
        one("{url: http://a:1, backends_max: 4}", "`backends_max` has no effect");
        one("{file: a.txt, refresh: {min: 2s}}", "`refresh` has no effect");
        one("{srv: _http._tcp.a.test, weight: 2}", "`weight` has no effect");
        one(
            "{dns: http://a:1, refresh: {min: 2s, max: 1s}}",
            "`min` (2s) is longer than `max` (1s)",
        );
    }
}
