//! Values from the command line and the environment, which win over the file.
//!
//! They are put into the file as typed, before anything is checked, so one set of rules holds for
//! both and a complaint about `--listen` reads like one about `listeners`.

use super::file::{Backend, File, HealthCheck, Listener, Pool, Timeouts};
use super::problem::{Found, Origin, Problem, Source, Spanned};
use super::read::{Field, FromNode, List, Switch};
use super::yaml::Node;
use super::{PoolName, file};

/// A value that wins over the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// As typed.
    pub value: String,
    /// Where it was typed.
    pub source: Source,
}

impl Override {
    /// A value of the flag `name`, which has its dashes.
    #[must_use]
    pub fn flag(name: &'static str, value: impl Into<String>) -> Self {
        Self { value: value.into(), source: Source::Flag(name) }
    }

    /// A value of the environment variable `name`.
    #[must_use]
    pub fn environment(name: &'static str, value: impl Into<String>) -> Self {
        Self { value: value.into(), source: Source::Environment(name) }
    }
}

/// The values that win over the file. An environment variable that is set to nothing counts as
/// not set; leaving it out is the caller's part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// Replace all listeners.
    pub listen: Vec<Override>,
    /// URLs. They replace the backends of the only pool, or make a pool named `default`.
    pub backends: Vec<Override>,
    /// For every pool.
    pub algorithm: Option<Override>,
    /// For every pool: `timeouts.request`.
    pub request_timeout: Option<Override>,
    /// For every pool that has a health check: `health_check.interval`.
    pub health_interval: Option<Override>,
    /// Replaces `admin.address`.
    pub admin: Option<Override>,
}

impl Overrides {
    /// Each value with the name of what it overrides, in a fixed order.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &Override)> {
        [
            ("listen", self.listen.as_slice()),
            ("backends", self.backends.as_slice()),
            ("algorithm", self.algorithm.as_slice()),
            ("request_timeout", self.request_timeout.as_slice()),
            ("health_interval", self.health_interval.as_slice()),
            ("admin", self.admin.as_slice()),
        ]
        .into_iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
    }

    /// Puts the values into `file`.
    pub(super) fn apply(&self, file: &mut File, found: &mut Found) {
        self.listen(file, found);
        self.backends(file, found);
        if let Some(given) = &self.admin {
            if let Some(address) = read(given, "address", "127.0.0.1:9090", found) {
                file.admin = Some(Spanned {
                    at: address.at,
                    value: file::Admin { address: Some(address), ..file::Admin::default() },
                });
            }
        }
        let algorithm =
            self.algorithm.as_ref().and_then(|given| read(given, "algorithm", "least_conn", found));
        let request =
            self.request_timeout.as_ref().and_then(|given| read(given, "request", "60s", found));
        let interval =
            self.health_interval.as_ref().and_then(|given| read(given, "interval", "10s", found));
        for pool in file.pools.iter_mut().flat_map(|pools| &mut pools.value.entries) {
            let pool = &mut pool.value;
            if let Some(algorithm) = &algorithm {
                pool.algorithm = Some(algorithm.clone());
            }
            if let Some(request) = &request {
                let none = Spanned { at: request.at, value: Timeouts::default() };
                pool.timeouts.get_or_insert(none).value.request = Some(request.clone());
            }
            if let Some(interval) = &interval {
                let none = Spanned { at: interval.at, value: Switch::On(HealthCheck::default()) };
                if let Switch::On(check) = &mut pool.health_check.get_or_insert(none).value {
                    check.interval = Some(interval.clone());
                }
            }
        }
    }

    fn listen(&self, file: &mut File, found: &mut Found) {
        let Some(first) = self.listen.first() else { return };
        let listener = |given| {
            let address = read(given, "address", "0.0.0.0:8080", found)?;
            Some(Spanned {
                at: address.at,
                value: Listener { address: Some(address), ..Listener::default() },
            })
        };
        let entries = self.listen.iter().filter_map(listener).collect();
        let value = List { entries, typed: self.listen.len() };
        file.listeners = Some(Spanned { at: origin(first), value });
    }

    fn backends(&self, file: &mut File, found: &mut Found) {
        let Some(first) = self.backends.first() else { return };
        let at = origin(first);
        let backend = |given| {
            let url = read(given, "url", "http://10.0.0.1:3000", found)?;
            Some(Spanned { at: url.at, value: Backend { url: Some(url), ..Backend::default() } })
        };
        let entries = self.backends.iter().filter_map(backend).collect();
        let value = List { entries, typed: self.backends.len() };
        let backends = Some(Spanned { at, value });
        match file.pools.as_mut().map(|pools| pools.value.entries.as_mut_slice()) {
            Some([only]) => only.value.backends = backends,
            Some([_, _, ..]) => found.add(
                Problem::new(
                    at,
                    "the file has several pools, so it is not clear whose backends these are",
                )
                .help("write the backends into the file"),
            ),
            Some([]) | None => {
                let name = PoolName::new("default").ok().map(|value| Spanned { at, value });
                let pool = Spanned { at, value: Pool { name, backends, ..Pool::default() } };
                file.pools = Some(Spanned { at, value: vec![pool].into() });
            }
        }
    }
}

fn origin(given: &Override) -> Origin {
    Origin::Override(given.source)
}

fn read<T: FromNode>(
    given: &Override,
    name: &'static str,
    example: &'static str,
    found: &mut Found,
) -> Option<Spanned<T>> {
    let at = origin(given);
    let field = Field { name, example, entry: false };
    let value = T::from_node(&Node::given(at, &given.value), field, found)?;
    Some(Spanned { at, value })
}
