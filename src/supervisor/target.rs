//! Which backend an operator means.

use std::net::SocketAddr;

use crate::config::{Backend, BackendAddress, Config, nearest};
use crate::policy::operator::BackendKey;

/// How many backends or pools an error message names.
const NAMED_MAX: usize = 8;

/// Whether a configuration has this backend. A pool whose backends are looked up may have any.
pub(super) fn has_backend(config: &Config, key: &BackendKey) -> bool {
    let mut pools = config.pools.iter().filter(|pool| pool.name.as_str() == key.pool);
    pools.any(|pool| {
        pool.backends.iter().any(|one| match &one.address {
            BackendAddress::Discovered(_) => true,
            BackendAddress::Socket(_) | BackendAddress::Name(..) => {
                one.address.to_string() == key.backend
            }
        })
    })
}

/// The backend that an operator means.
///
/// # Errors
/// There is none, or more than one.
pub(super) fn find(config: &Config, target: &str) -> Result<BackendKey, String> {
    let (pool, backend) = split(target);
    if let Some(name) = pool
        && !config.pools.iter().any(|pool| pool.name.as_str() == name)
    {
        return Err(unknown_pool(config, name));
    }
    let all = keys(config).filter(|key| pool.is_none_or(|pool| pool == key.pool));
    let all: Vec<BackendKey> = all.collect();
    let exact: Vec<&BackendKey> = all.iter().filter(|key| key.backend == backend).collect();
    let of_host = |key: &&BackendKey| host(&key.backend) == backend;
    let found = if exact.is_empty() { all.iter().filter(of_host).collect() } else { exact };
    match found.as_slice() {
        [only] => Ok((*only).clone()),
        [] => {
            looked_up(config, pool, backend).ok_or_else(|| unknown_backend(&all, target, backend))
        }
        several => {
            let names = named(several.iter().map(ToString::to_string));
            Err(format!("`{target}` is ambiguous (help: write one of {names})"))
        }
    }
}

/// The pool, if one is given, and the backend without its scheme.
fn split(target: &str) -> (Option<&str>, &str) {
    let (pool, backend) = match target.split_once('/') {
        Some((pool, backend)) if after_scheme(target).is_none() => (Some(pool), backend),
        _ => (None, target),
    };
    (pool, after_scheme(backend).unwrap_or(backend).trim_end_matches('/'))
}

fn after_scheme(text: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme))
}

fn host(backend: &str) -> &str {
    let host = backend.rsplit_once(':').map_or(backend, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

/// A backend that a pool may find by a lookup: it is written in full, by its address.
fn looked_up(config: &Config, pool: Option<&str>, backend: &str) -> Option<BackendKey> {
    let key = BackendKey { pool: pool?.to_owned(), backend: backend.to_owned() };
    let is_address = backend.parse::<SocketAddr>().is_ok();
    (is_address && has_backend(config, &key)).then_some(key)
}

fn keys(config: &Config) -> impl Iterator<Item = BackendKey> {
    config.pools.iter().flat_map(|pool| {
        let is_fixed =
            |backend: &&Backend| !matches!(backend.address, BackendAddress::Discovered(_));
        pool.backends.iter().filter(is_fixed).map(|backend| BackendKey {
            pool: pool.name.to_string(),
            backend: backend.address.to_string(),
        })
    })
}

pub(super) fn unknown_pool(config: &Config, name: &str) -> String {
    let pools = || config.pools.iter().map(|pool| pool.name.as_str());
    let help = match nearest(name, pools()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the pools are {}", named(pools().map(str::to_owned))),
    };
    format!("there is no pool `{name}` (help: {help})")
}

fn unknown_backend(all: &[BackendKey], target: &str, backend: &str) -> String {
    let near = nearest(backend, all.iter().map(|key| key.backend.as_str()));
    let near = near.and_then(|near| all.iter().find(|key| key.backend == near));
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None if all.is_empty() => "`weir backends` shows those that were looked up; write one of \
                                   them in full, such as `web/10.0.0.1:80`"
            .to_owned(),
        None => format!("write one of {}", named(all.iter().map(ToString::to_string))),
    };
    format!("there is no backend `{target}` (help: {help})")
}

fn named(mut names: impl Iterator<Item = String>) -> String {
    let first: Vec<String> =
        names.by_ref().take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
    let more = names.count();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{self, Overrides};

    /// Two pools with a backend in common.
    pub(in super::super) fn config() -> Config {
        let text = "pools:\n  - {name: web, backends: [http://10.0.0.1:80, http://10.0.0.2:80]}\n  \
                    - {name: api, backends: [http://10.0.0.1:80, http://10.0.0.1:81]}\n\
                    listeners: [\"127.0.0.1:8080\"]\nroutes: [{host: a.test, pool: web}, {pool: api}]\n";
        config::load(Some(text.as_bytes()), &Overrides::default()).unwrap()
    }

    fn found(target: &str) -> Result<String, String> {
        find(&config(), target).map(|key| key.to_string())
    }

    #[test]
    fn a_backend_is_found_by_its_pool_and_address_or_by_what_of_it_is_unique() {
        for target in ["web/10.0.0.2:80", "10.0.0.2:80", "10.0.0.2", "web/10.0.0.2"] {
            assert_eq!(found(target).unwrap(), "web/10.0.0.2:80", "{target}");
        }
        for target in ["web/http://10.0.0.1:80", "web/http://10.0.0.1:80/", "web/10.0.0.1"] {
            assert_eq!(found(target).unwrap(), "web/10.0.0.1:80", "{target}");
        }
        assert_eq!(found("http://10.0.0.2:80").unwrap(), "web/10.0.0.2:80");
    }

    #[test]
    fn an_ambiguous_backend_is_answered_with_what_it_can_mean() {
        let help = "(help: write one of `web/10.0.0.1:80`, `api/10.0.0.1:80`)";
        assert_eq!(found("10.0.0.1:80").unwrap_err(), format!("`10.0.0.1:80` is ambiguous {help}"));
        assert!(found("api/10.0.0.1").unwrap_err().contains("`api/10.0.0.1:81`"));
    }

    #[test]
    fn a_backend_that_is_looked_up_is_written_by_its_address() {
        let text = "pools: [{name: dns, backends: [{dns: 'http://localhost:80'}]}]";
        let config = config::load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let found = |target| find(&config, target).map(|key| key.to_string());
        assert_eq!(found("dns/127.0.0.1:80").unwrap(), "dns/127.0.0.1:80");
        assert_eq!(found("dns/[::1]:80").unwrap(), "dns/[::1]:80");
        for name in ["dns/localhost:80", "dns/127.0.0.1", "127.0.0.1:80"] {
            assert!(found(name).unwrap_err().contains("write one of them in full"), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_one() {
        let near = "there is no pool `wbe` (help: did you mean `web`?)";
        assert_eq!(found("wbe/10.0.0.1:80").unwrap_err(), near);
        let all = found("sql/10.0.0.1:80").unwrap_err();
        assert_eq!(all, "there is no pool `sql` (help: the pools are `web`, `api`)");
        let near = "there is no backend `web/10.0.0.3:80` (help: did you mean `web/10.0.0.1:80`?)";
        assert_eq!(found("web/10.0.0.3:80").unwrap_err(), near);
        let none = found("web/db:5432").unwrap_err();
        assert!(
            none.ends_with("(help: write one of `web/10.0.0.1:80`, `web/10.0.0.2:80`)"),
            "{none}"
        );
        assert!(found("").is_err() && found("/").is_err());
    }
}
