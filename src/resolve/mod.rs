//! Finds the backends of host names, services and files, and follows them while a worker runs.
//!
//! `source.rs` says what is looked up; `client.rs` asks DNS; `follow.rs` replaces the members of the
//! pools. Every wait has a timeout, and nothing here is on the path of a request.

mod client;
mod conf;
mod file;
mod follow;
mod library;
mod message;
mod repeat;
mod source;
mod status;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime;
use tokio::task::JoinSet;

use self::client::{DnsClient, LookupFailure};
pub use self::follow::{Followed, Follower};
use self::source::{Answer, NameSource, Question, Records, choose, sources};
use crate::config::{AddressFamily, BackendAddress, Config, ConfigBuilder, Problem};
use crate::runtime::endpoint::Lookup;
use crate::runtime::handoff::Handoff;
use crate::runtime::members::change_members;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// The timeout of a lookup.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same at the start of a worker, for a name that its predecessor had resolved: a worker that
/// replaces a crashed one can use the last known address, and must not wait long.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(1);

const NO_ADDRESS: &str = "the name has no address";

/// The answer to a question, or the reason of the failure.
type Resolution = Result<Answer, LookupFailure>;

/// The results for everything that a configuration looks up.
#[derive(Debug, Default)]
pub struct ResolvedNames {
    sources: Vec<NameSource>,
    results: HashMap<Question, Resolution>,
    used: HashMap<(String, u16), SocketAddr>,
}

impl ResolvedNames {
    /// Asks every question of a configuration, concurrently, within a few seconds. `known` has the
    /// results of the predecessor. Blocks the caller.
    #[must_use]
    pub fn look_up(config: &Config, known: &Handoff) -> Self {
        let sources = sources(config);
        let is_known = |question: &Question| match question {
            Question::Host(host, _) => {
                known.names().iter().any(|known| known.host == *host)
                    || known.has_members_of(&format!("dns {host}:"))
            }
            Question::Service(name) => known.has_members_of(&format!("srv {name}")),
            Question::File(_) => false,
        };
        let limits = sources.iter().map(|source| {
            let limit = if is_known(&source.question) { KNOWN_TIMEOUT } else { TIMEOUT };
            (source.question.clone(), limit)
        });
        let used = known
            .names()
            .iter()
            .filter_map(|known| Some(((known.host.clone(), known.port), known.address?)));
        Self { results: ask_all(limits.collect()), used: used.collect(), sources }
    }

    /// The result for a host name. An address that is in use is kept as long as the name has it.
    #[must_use]
    pub fn lookup(&self, host: &str, port: u16) -> Lookup {
        let used = self.used.get(&(host.to_owned(), port)).copied();
        let result = self.results.get(&Question::Host(host.to_owned(), AddressFamily::Any));
        let why = match result {
            Some(Ok(Answer { records: Records::Addresses(found), .. })) => {
                match choose(found, used.map(|used| used.ip())) {
                    Some(address) => return Lookup::Found(SocketAddr::new(address, port)),
                    None => NO_ADDRESS.to_owned(),
                }
            }
            Some(Err(failure)) => failure.to_string(),
            Some(Ok(_)) | None => "the name was not looked up".to_owned(),
        };
        match used {
            Some(used) => Lookup::Stale(used, why),
            None => Lookup::Failed(why),
        }
    }
}

impl ResolvedNames {
    /// The snapshot with the backends that were found. For a source without an answer they are the last
    /// known ones.
    #[must_use]
    pub fn with_members(&self, snapshot: Snapshot, known: &Handoff, now: Timestamp) -> Snapshot {
        let mut snapshot = snapshot;
        for source in &self.sources {
            for target in source.targets.iter().filter(|target| !target.is_single) {
                let Some(pool) = snapshot.pools.get(target.pool) else { continue };
                let servers = match self.results.get(&source.question) {
                    Some(Ok(answer)) => target.servers(&answer.records, None),
                    Some(Err(_)) | None => {
                        let name = status::name(pool, target);
                        known.members(pool.name.as_str(), &name).unwrap_or_default().to_vec()
                    }
                };
                if let Some(change) = change_members(pool, target.entry, &servers, false, now) {
                    snapshot = snapshot
                        .with_members(|id, _| (id == target.pool).then(|| change.members.clone()));
                }
            }
        }
        snapshot
    }
}

/// Looks everything up that a configuration names, and adds a warning for each failure.
pub fn check_names(builder: &mut ConfigBuilder) {
    let looked_up = ResolvedNames::look_up(builder.config(), &Handoff::default());
    let mut warnings = Vec::new();
    for source in &looked_up.sources {
        let Some(Err(failure)) = looked_up.results.get(&source.question) else { continue };
        for target in &source.targets {
            let pool = builder.config().pools.get(target.pool.position());
            let backend = pool.and_then(|pool| pool.backends.get(target.entry.position()));
            let Some(backend) = backend else { continue };
            let address = &backend.address;
            let (what, help) = match address {
                BackendAddress::Discovered(_) => (
                    format!("no backend of `{address}` could be found: {failure}"),
                    "it is tried again and again".to_owned(),
                ),
                BackendAddress::Name(..) | BackendAddress::Socket(_) => (
                    format!("the name of the backend `{address}` could not be resolved: {failure}"),
                    "it gets no requests until its name resolves".to_owned(),
                ),
            };
            warnings.push(Problem { at: backend.defined_at.0, what, help: Some(help) });
        }
    }
    warnings.into_iter().for_each(|warning| builder.warn(warning));
}

/// Asks these questions, each with its timeout.
fn ask_all(questions: Vec<(Question, Duration)>) -> HashMap<Question, Resolution> {
    if questions.is_empty() {
        return HashMap::new();
    }
    let failed = |why: &str| {
        let failed = |(question, _): &(Question, Duration)| {
            (question.clone(), Err(LookupFailure::Failed(why.to_owned())))
        };
        questions.iter().map(failed).collect::<HashMap<_, _>>()
    };
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else {
        return failed("no thread could be started");
    };
    let mut results = failed("the lookup itself failed");
    let client = DnsClient::default();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (question, limit) in questions {
            let client = client.clone();
            tasks.spawn(async move {
                let result = question.ask(&client, None, limit).await;
                (question, result)
            });
        }
        while let Some(ended) = tasks.join_next().await {
            results.extend(ended);
        }
    });
    // Lookups that exceeded their timeout end by themselves.
    runtime.shutdown_background();
    results
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn answer(addresses: &[&str]) -> Answer {
        let found = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let records = Records::Addresses(found);
        Answer { records, ttl: Duration::ZERO, by: String::new() }
    }

    #[test]
    fn a_failed_lookup_leaves_the_last_known_address() {
        let used: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let mut names = ResolvedNames::default();
        let question = Question::Host("web".to_owned(), AddressFamily::Any);
        names.results.insert(question.clone(), Err(LookupFailure::Empty));
        assert_eq!(names.lookup("web", 80), Lookup::Failed(NO_ADDRESS.to_owned()));
        names.used.insert(("web".to_owned(), 80), used);
        assert_eq!(names.lookup("web", 80), Lookup::Stale(used, NO_ADDRESS.to_owned()));
        assert_eq!(names.lookup("web", 81), Lookup::Failed(NO_ADDRESS.to_owned()));
        names.results.insert(question, Ok(answer(&["10.0.0.9", "10.0.0.1"])));
        assert_eq!(names.lookup("web", 80), Lookup::Found(used));
    }

    #[test]
    fn a_name_is_looked_up_once_for_all_its_ports() {
        let config = config::load(
            Some(
                b"pools:\n  - {name: a, backends: [http://localhost:1, http://10.0.0.1:2]}\n  \
                  - {name: b, backends: [http://localhost:3, {dns: 'http://localhost:4'}]}\n\
                  routes: [{path: /a, pool: a}, {pool: b}]",
            ),
            &config::Overrides::default(),
        );
        let found = ResolvedNames::look_up(&config.unwrap(), &Handoff::default());
        assert_eq!(found.results.len(), 1);
        assert_eq!(found.sources[0].targets.len(), 3);
        assert!(
            matches!(found.lookup("localhost", 3), Lookup::Found(address) if address.port() == 3)
        );
    }
}
