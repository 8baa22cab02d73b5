//! Clients of six kinds at the same time: keep-alive, one connection per request, POST, slow
//! responses, pipelined, and half-sent request headers. A worker is replaced while they run.
//!
//! Each kind requests its own path, so that a test can compare the backends' count with the
//! clients'. A connection that the server announced as closing is replaced silently, and requests
//! pipelined behind that response are not counted as sent. Anything else is a failure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use super::backend::{Backend, Behaviour};
use super::client::{Client, Failure, Response, request_bytes};
use super::message::io_failure;
use super::{TIMEOUT, eventually, within};

/// How long a slow response takes.
const SLOW: Duration = Duration::from_millis(600);
/// The pause between two requests of the other clients.
const PACE: Duration = Duration::from_millis(3);
const BODY_BYTES: usize = 8 * 1024;
/// Requests sent at once on one connection.
const PIPELINED: usize = 3;

/// What a client does repeatedly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// GET on a keep-alive connection.
    Kept,
    /// A new connection for each request.
    Single,
    /// POST with a body on a keep-alive connection.
    Post,
    /// A response that takes longer than a reload.
    Slow,
    /// Several pipelined requests.
    Pipelined,
    /// Half of the request headers before a reload, the other half after it.
    HalfHead,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Kept, Self::Single, Self::Post, Self::Slow, Self::Pipelined, Self::HalfHead];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Kept => "/kept",
            Self::Single => "/single",
            Self::Post => "/post",
            Self::Slow => "/slow",
            Self::Pipelined => "/pipelined",
            Self::HalfHead => "/half-head",
        }
    }
}

/// Running clients of all kinds.
pub(crate) struct MixedClients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Account>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Counts what happened to the balancer; half-sent heads are completed after the next.
    events: AtomicU64,
    /// By the order of [`Kind::ALL`].
    answers: [AtomicU64; 6],
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) answers: BTreeMap<Kind, usize>,
    /// What went wrong, and in the middle of what.
    pub(crate) failures: Vec<(Kind, Failure)>,
}

/// Makes these backends answer so that the load is bounded and some answers span reloads.
pub(crate) fn pace(backends: &[Backend]) {
    for backend in backends {
        backend.set(Behaviour::slow(PACE));
        backend.on(Kind::Slow.path(), Behaviour::slow(SLOW));
    }
}

impl MixedClients {
    /// Two clients of each kind.
    pub(crate) fn start(to: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let client = |kind: Kind| {
            let asker = Asker { kind, to, shared: Arc::clone(&shared), connection: None };
            std::thread::spawn(move || asker.ask_over_and_over())
        };
        let threads = Kind::ALL.into_iter().chain(Kind::ALL).map(client).collect();
        let mix = Self { shared, threads };
        mix.go_on();
        mix
    }

    /// Something was done to the balancer: half-sent heads are completed. Waits until clients of
    /// every kind have had another answer.
    #[track_caller]
    pub(crate) fn go_on(&self) {
        let answers = || self.shared.answers.each_ref().map(|count| count.load(SeqCst));
        let before = answers();
        self.shared.events.fetch_add(1, SeqCst);
        eventually(TIMEOUT, "clients of every kind have an answer", || {
            answers().iter().zip(before).all(|(now, before)| *now > before)
        });
    }

    /// Lets what is under way finish and gives the account.
    #[track_caller]
    pub(crate) fn stop(self) -> Account {
        self.shared.stop.store(true, SeqCst);
        let mut total = Account::default();
        for thread in self.threads {
            let account = thread.join().expect("a client panicked");
            for (kind, count) in account.answers {
                *total.answers.entry(kind).or_default() += count;
            }
            total.failures.extend(account.failures);
        }
        total
    }
}

impl Account {
    pub(crate) fn total(&self) -> usize {
        self.answers.values().sum()
    }

    /// Fails the test unless every request was answered, and came to these backends exactly once.
    #[track_caller]
    pub(crate) fn assert_flawless(&self, backends: &[&Backend]) {
        assert_eq!(self.failures, [], "of {:?}", self.answers);
        let came = |kind: Kind| backends.iter().map(|one| one.count_of(kind.path())).sum();
        let came: BTreeMap<Kind, usize> =
            Kind::ALL.into_iter().map(|kind| (kind, came(kind))).collect();
        assert_eq!(self.answers, came, "what clients were answered, and what came to backends");
        let posts = backends.iter().flat_map(|one| one.requests());
        let cut = posts.filter(|seen| seen.method == "POST" && seen.body.len() != BODY_BYTES);
        assert_eq!(cut.count(), 0, "every body came whole");
    }
}

struct Asker {
    kind: Kind,
    to: SocketAddr,
    shared: Arc<Shared>,
    connection: Option<Client>,
}

impl Asker {
    fn ask_over_and_over(mut self) -> Account {
        let mut account = Account::default();
        while !self.shared.stop.load(SeqCst) {
            match self.ask() {
                Ok(answers) => {
                    *account.answers.entry(self.kind).or_default() += answers;
                    let counts = Kind::ALL.into_iter().zip(&self.shared.answers);
                    for (_, count) in counts.filter(|(kind, _)| *kind == self.kind) {
                        count.fetch_add(1, SeqCst);
                    }
                }
                Err(failure) => {
                    account.failures.push((self.kind, failure));
                    // Who fails for ever must not fail a million times.
                    within(PACE, || None::<()>);
                }
            }
        }
        account
    }

    /// Asks once, in the way of its kind; the number of answers.
    fn ask(&mut self) -> Result<usize, Failure> {
        let mut client = match self.connection.take() {
            Some(client) => client,
            None => Client::try_connect(self.to, None).map_err(|error| io_failure(&error, 0))?,
        };
        let path = self.kind.path();
        let (answers, last) = match self.kind {
            Kind::Kept | Kind::Slow => (1, client.request("GET", path, &[], b"")?),
            Kind::Single => (1, client.request("GET", path, &[("Connection", "close")], b"")?),
            Kind::Post => (1, client.request("POST", path, &[], &[b'x'; BODY_BYTES])?),
            Kind::Pipelined => pipeline(&mut client, path)?,
            Kind::HalfHead => (1, self.in_halves(&mut client, path)?),
        };
        if last.status() != 200 {
            return Err(Failure::Malformed(format!("{} {}", last.status(), last.text())));
        }
        if !last.head.is_last() {
            self.connection = Some(client);
        }
        Ok(answers)
    }

    fn in_halves(&self, client: &mut Client, path: &str) -> Result<Response, Failure> {
        let request = request_bytes("GET", path, &[], 0);
        let (first, second) = request.split_at(request.len() / 2);
        let events = self.shared.events.load(SeqCst);
        client.try_send(first).map_err(|error| io_failure(&error, 0))?;
        // Not for longer than a head may take.
        within(TIMEOUT / 4, || {
            let is_time = self.shared.events.load(SeqCst) > events;
            (is_time || self.shared.stop.load(SeqCst)).then_some(())
        });
        client.try_send(second).map_err(|error| io_failure(&error, 0))?;
        client.try_read_answer("GET")
    }
}

/// Several requests at once, as far as the server answers them; it may say that one is the last.
fn pipeline(client: &mut Client, path: &str) -> Result<(usize, Response), Failure> {
    let requests = request_bytes("GET", path, &[], 0).repeat(PIPELINED);
    client.try_send(requests).map_err(|error| io_failure(&error, 0))?;
    let mut answers = 1;
    let mut answer = client.try_read_answer("GET")?;
    while answers < PIPELINED && answer.status() == 200 && !answer.head.is_last() {
        answer = client.try_read_answer("GET")?;
        answers += 1;
    }
    Ok((answers, answer))
}
