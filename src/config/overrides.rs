//! Values from the command line and the environment, which override the file.
//!
//! They are put into the file as typed before it is checked, so the same rules hold for both, and a message
//! about `--listen` reads like one about `listeners`.

use super::file::{
    RawAdmin, RawBackend, RawFile, RawHealthCheck, RawListener, RawPool, RawTimeouts, SCHEMA,
};
use super::problem::{Diagnostics, Origin, Problem, Source, Spanned};
use super::read::{FromNode, KeyContext, List, OffOr, Section};
use super::yaml::{Node, Value};
use crate::name::PoolName;

/// A value that overrides the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// As typed.
    pub value: String,
    /// Where it comes from.
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

/// The values that override the file. The caller leaves out environment variables that are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// Replace all listeners.
    pub listen: Vec<Override>,
    /// URLs. They replace the backends of the only pool, or create a pool named `default`.
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

    /// Names of the flags and variables that gave a value, separated by commas; each once.
    #[must_use]
    pub fn names(&self) -> String {
        let mut names: Vec<String> = Vec::new();
        for (_, given) in self.each() {
            let name = given.source.to_string();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(",")
    }

    /// Writes the values into the nodes of a file, where [`Self::apply`] puts them. Where that is impossible,
    /// `apply` reports a problem, and the node stays as typed.
    pub(super) fn write(&self, root: &mut Node) {
        if let Some(first) = self.listen.first() {
            root.set(
                "listeners",
                Node::list(origin(first), self.listen.iter().map(text).collect()),
            );
        }
        if let Some(given) = &self.admin {
            root.set("admin", Node::map(origin(given), vec![("address", text(given))]));
        }
        self.write_backends(root);
        let pools = root.get_mut("pools").map(|pools| &mut pools.value);
        let Some(Value::List(pools)) = pools else { return };
        for pool in pools {
            if let Some(given) = &self.algorithm {
                pool.set("algorithm", text(given));
            }
            if let Some(given) = &self.request_timeout {
                write_in(pool, ("timeouts", "request"), given);
            }
            if let Some(given) = &self.health_interval {
                write_in(pool, ("health_check", "interval"), given);
            }
        }
    }

    fn write_backends(&self, root: &mut Node) {
        let Some(first) = self.backends.first() else { return };
        let at = origin(first);
        let backends = Node::list(at, self.backends.iter().map(text).collect());
        let typed = root.get_mut("pools").map(|pools| &mut pools.value);
        match typed {
            Some(Value::List(pools)) if !pools.is_empty() => {
                if let [only] = pools.as_mut_slice() {
                    only.set("backends", backends);
                }
            }
            None | Some(Value::List(_)) => {
                let name = Node::given(at, "default");
                let pool = Node::map(at, vec![("name", name), ("backends", backends)]);
                root.set("pools", Node::list(at, vec![pool]));
            }
            Some(_) => {}
        }
    }

    /// Puts the values into `file`.
    pub(super) fn apply(&self, file: &mut RawFile, found: &mut Diagnostics) {
        self.listen(file, found);
        self.backends(file, found);
        let admin = self.admin.as_ref();
        if let Some(address) =
            admin.and_then(|given| read(given, (&RawAdmin::SECTION, "address"), found))
        {
            let at = address.at;
            let value = RawAdmin { address: Some(address), ..RawAdmin::default() };
            file.admin = Some(Spanned { at, value });
        }
        let algorithm = self
            .algorithm
            .as_ref()
            .and_then(|given| read(given, (&RawPool::SECTION, "algorithm"), found));
        let request = self
            .request_timeout
            .as_ref()
            .and_then(|given| read(given, (&RawTimeouts::SECTION, "request"), found));
        let interval = self
            .health_interval
            .as_ref()
            .and_then(|given| read(given, (&RawHealthCheck::SECTION, "interval"), found));
        for pool in file.pools.iter_mut().flat_map(|pools| &mut pools.value.entries) {
            let pool = &mut pool.value;
            if let Some(algorithm) = &algorithm {
                pool.algorithm = Some(algorithm.clone());
            }
            if let Some(request) = &request {
                let none = Spanned { at: request.at, value: RawTimeouts::default() };
                pool.timeouts.get_or_insert(none).value.request = Some(request.clone());
            }
            if let Some(interval) = &interval {
                let none =
                    Spanned { at: interval.at, value: OffOr::Value(RawHealthCheck::default()) };
                if let OffOr::Value(check) = &mut pool.health_check.get_or_insert(none).value {
                    check.interval = Some(interval.clone());
                }
            }
        }
    }

    fn listen(&self, file: &mut RawFile, found: &mut Diagnostics) {
        let Some(first) = self.listen.first() else { return };
        let listener = |given| {
            let address = read(given, (&RawListener::SECTION, "address"), found)?;
            Some(Spanned {
                at: address.at,
                value: RawListener { address: Some(address), ..RawListener::default() },
            })
        };
        let entries = self.listen.iter().filter_map(listener).collect();
        let value = List { entries, typed: self.listen.len() };
        file.listeners = Some(Spanned { at: origin(first), value });
    }

    fn backends(&self, file: &mut RawFile, found: &mut Diagnostics) {
        let Some(first) = self.backends.first() else { return };
        let at = origin(first);
        let backend = |given| {
            let url = read(given, (&RawBackend::SECTION, "url"), found)?;
            Some(Spanned {
                at: url.at,
                value: RawBackend { url: Some(url), ..RawBackend::default() },
            })
        };
        let entries = self.backends.iter().filter_map(backend).collect();
        let value = List { entries, typed: self.backends.len() };
        let backends = Some(Spanned { at, value });
        let typed = file.pools.as_ref().map_or(0, |pools| pools.value.typed);
        let pools = file.pools.as_mut().map(|pools| pools.value.entries.as_mut_slice());
        match (typed, pools) {
            (2.., _) => {
                let what = "the file has several pools, so it is unclear to which one these backends belong";
                found.add(Problem::new(at, what).help("write the backends into the file"));
            }
            (1, Some([only])) => only.value.backends = backends,
            // The pools of the file are invalid, and that was reported.
            (1, _) => {}
            (0, _) if file.refused.contains(&"pools") => {}
            (0, _) => {
                let name = PoolName::new("default").ok().map(|value| Spanned { at, value });
                let pool = Spanned { at, value: RawPool { name, backends, ..RawPool::default() } };
                file.pools = Some(Spanned { at, value: List { entries: vec![pool], typed: 1 } });
            }
        }
    }
}

/// A value as it would be typed into a file.
fn text(given: &Override) -> Node {
    Node::given(origin(given), &given.value)
}

/// Sets a key of a section of `pool`. A health check that is off stays off.
fn write_in(pool: &mut Node, (section, key): (&str, &str), given: &Override) {
    match pool.get_mut(section) {
        Some(section) => section.set(key, text(given)),
        None => pool.set(section, Node::map(origin(given), vec![(key, text(given))])),
    }
}

fn origin(given: &Override) -> Origin {
    Origin::Override(given.source)
}

/// Reads a value as that of a key.
fn read<T: FromNode>(
    given: &Override,
    (section, name): (&'static Section, &str),
    found: &mut Diagnostics,
) -> Option<Spanned<T>> {
    let at = origin(given);
    let key = section.key(name)?;
    if given.value.is_empty() {
        let problem = Problem::new(at, "the value is empty");
        found.add(problem.help(format!("for example `{}`", key.example)));
        return None;
    }
    let context = KeyContext::new(key, &SCHEMA);
    let value = T::from_node(&Node::given(at, &given.value), context, found)?;
    Some(Spanned { at, value })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Problems, load};
    use super::*;

    const TWO: &str = "listeners: [{address: '127.0.0.1:1', http2: true}]\n\
        pools: [{name: a, backends: [http://10.0.0.1:1], health_check: off}, \
        {name: b, backends: [http://10.0.0.2:1]}]\nroutes: [{path: /a, pool: a}, {pool: b}]";

    fn flag(value: &str) -> Override {
        Override::flag("--x", value)
    }

    fn with(text: Option<&str>, overrides: &Overrides) -> Result<Config, Problems> {
        load(text.map(str::as_bytes), overrides)
    }

    #[test]
    fn backends_of_flags_make_a_pool_or_replace_those_of_the_only_one() {
        let overrides =
            Overrides { backends: vec![flag("http://10.9.0.1:1")], ..Overrides::default() };
        assert_eq!(with(None, &overrides).unwrap().pools[0].name.as_str(), "default");
        let one = "pools: [{name: a, backends: [http://10.0.0.1:1, http://10.0.0.2:1]}]";
        let config = with(Some(one), &overrides).unwrap();
        assert_eq!((config.pools[0].name.as_str(), config.pools[0].backends.len()), ("a", 1));
        let problems = with(Some(TWO), &overrides).unwrap_err();
        assert!(problems.to_string().contains("several pools"), "{problems}");
    }

    #[test]
    fn flags_for_all_pools_leave_a_health_check_off() {
        let overrides = Overrides {
            request_timeout: Some(flag("7s")),
            health_interval: Some(flag("20s")),
            ..Overrides::default()
        };
        let config = with(Some(TWO), &overrides).unwrap();
        let [a, b] = config.pools.as_slice() else { panic!() };
        assert_eq!(a.timeouts.request, b.timeouts.request);
        assert_eq!(b.timeouts.request, Some(std::time::Duration::from_secs(7)));
        assert!(a.health_check.is_none());
        let interval = b.health_check.as_ref().map(|check| check.interval);
        assert_eq!(interval, Some(std::time::Duration::from_secs(20)));
    }

    #[test]
    fn listeners_of_flags_replace_those_of_the_file_with_all_their_keys() {
        let listen = vec![flag("127.0.0.1:7"), flag("127.0.0.1:8")];
        let config = with(Some(TWO), &Overrides { listen, ..Overrides::default() }).unwrap();
        let shown: Vec<_> =
            config.listeners.iter().map(|one| (one.address.port(), one.http2)).collect();
        assert_eq!(shown, [(7, false), (8, false)]);
    }

    #[test]
    fn an_empty_value_is_a_problem_of_its_flag() {
        let overrides = Overrides { algorithm: Some(flag("")), ..Overrides::default() };
        let problems = with(Some(TWO), &overrides).unwrap_err().to_string();
        assert!(problems.contains("--x") && problems.contains("the value is empty"), "{problems}");
    }

    #[test]
    fn each_flag_or_variable_is_named_once() {
        let overrides = Overrides {
            listen: vec![flag("1"), flag("2")],
            admin: Some(Override::environment("WEIR_ADMIN", "3")),
            ..Overrides::default()
        };
        assert_eq!(overrides.names(), "--x,WEIR_ADMIN");
    }
}
