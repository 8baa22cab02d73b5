//! A small load generator: its clients send requests repeatedly and account for every one.
//!
//! Each thread keeps one connection open for as long as the server does. A connection that the
//! server closed as announced is replaced silently; anything else is counted as an error.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::{Client, Failure};
use super::message::io_failure;
use super::now;

/// What to request, and how.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) to: SocketAddr,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Each is one client at a time.
    pub(crate) threads: usize,
    /// The thread `n` is the client `from[n % from.len()]`; empty: whatever the kernel picks.
    pub(crate) from: Vec<Ipv4Addr>,
    /// A new connection for each request.
    pub(crate) reconnect: bool,
    /// Stop after this number of requests in all.
    pub(crate) count: Option<u64>,
    /// Stop after this long.
    pub(crate) time: Option<Duration>,
}

/// What the clients counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Complete responses by status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Requests without a complete response, by what went wrong.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Latencies of complete responses, in the order in which each thread received them.
    pub(crate) latencies: Vec<Duration>,
}

/// A running load.
pub(crate) struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Tally>>,
}

struct Shared {
    stop: AtomicBool,
    begun: AtomicU64,
    done: AtomicU64,
}

impl Load {
    /// `GET /` from four clients, until stopped.
    pub(crate) fn on(to: SocketAddr) -> Self {
        Self {
            to,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            threads: 4,
            from: Vec::new(),
            reconnect: false,
            count: None,
            time: None,
        }
    }

    /// Runs to the end that `count` or `time` sets.
    #[track_caller]
    pub(crate) fn run(self) -> Tally {
        assert!(self.count.is_some() || self.time.is_some(), "this load would never end");
        self.start().join()
    }

    /// Starts it and goes on.
    pub(crate) fn start(self) -> Running {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
        });
        let load = Arc::new(self);
        let threads = (0..load.threads)
            .map(|number| {
                let (load, shared) = (Arc::clone(&load), Arc::clone(&shared));
                std::thread::spawn(move || load.ask_over_and_over(number, &shared))
            })
            .collect();
        Running { shared, threads }
    }

    fn ask_over_and_over(&self, number: usize, shared: &Shared) -> Tally {
        let end = self.time.map(|time| now() + time);
        let mut tally = Tally::default();
        let mut connection = None;
        while !shared.stop.load(Ordering::Relaxed) && end.is_none_or(|end| now() < end) {
            let turn = shared.begun.fetch_add(1, Ordering::Relaxed);
            if self.count.is_some_and(|count| turn >= count) {
                break;
            }
            let start = now();
            match self.ask(number, &mut connection) {
                Ok(status) => {
                    tally.latencies.push(now() - start);
                    *tally.statuses.entry(status).or_default() += 1;
                }
                Err(failure) => *tally.errors.entry(format!("{failure:?}")).or_default() += 1,
            }
            shared.done.fetch_add(1, Ordering::Relaxed);
        }
        tally
    }

    /// One request. Leaves the connection behind if it can be used again.
    fn ask(&self, number: usize, connection: &mut Option<Client>) -> Result<u16, Failure> {
        let mut client = match connection.take() {
            Some(client) => client,
            None => {
                let from = self.from.get(number % self.from.len().max(1));
                Client::try_connect(self.to, from.copied().map(Into::into))
                    .map_err(|error| io_failure(&error, 0))?
            }
        };
        let headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = client.request(&self.method, &self.path, &headers, &self.body)?;
        if !self.reconnect && !answer.head.is_last() {
            *connection = Some(client);
        }
        Ok(answer.status())
    }
}

impl Running {
    /// Requests that have had an answer or an error by now.
    pub(crate) fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Lets the requests under way finish and gives the account.
    #[track_caller]
    pub(crate) fn stop(self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    #[track_caller]
    fn join(self) -> Tally {
        let mut total = Tally::default();
        for thread in self.threads {
            let tally = thread.join().expect("a thread of the load panicked");
            for (status, count) in tally.statuses {
                *total.statuses.entry(status).or_default() += count;
            }
            for (error, count) in tally.errors {
                *total.errors.entry(error).or_default() += count;
            }
            total.latencies.extend(tally.latencies);
        }
        total
    }
}

impl Tally {
    /// All requests, answered or not.
    pub(crate) fn total(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.errors.values().sum::<u64>()
    }

    /// Answers with `status`.
    pub(crate) fn with_status(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// Requests that were not answered with a 2xx.
    pub(crate) fn failed(&self) -> u64 {
        let good: u64 = self.statuses.range(200..300).map(|(_, count)| count).sum();
        self.total() - good
    }

    /// The latency that `percent` of the answers did not exceed.
    #[track_caller]
    pub(crate) fn latency(&self, percent: usize) -> Duration {
        assert!(!self.latencies.is_empty() && percent <= 100, "no answers, or no percentage");
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted[rank - 1]
    }
}
