//! Backends that misbehave on purpose, and count what reaches them.
//!
//! Each has an address of its own, serves with plain threads and sockets, and can get another
//! behaviour while it runs, stopped, and started again where it was. What a balancer claims to
//! have done is checked here, where the requests arrive.

mod behaviour;
mod deaf;
mod serve;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

pub(crate) use self::behaviour::{Answer, Behaviour};
pub(crate) use self::deaf::Deaf;
use super::{TIMEOUT, eventually, ports};

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The number of its connection, from 1.
    pub(crate) connection: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    /// As they came: order, case and repetition.
    pub(crate) headers: Vec<(String, String)>,
    /// What has come of it so far, chunks joined.
    pub(crate) body: Vec<u8>,
    /// Whether the body has come to its end.
    pub(crate) is_whole: bool,
}

impl Seen {
    /// The values of all fields called `name`.
    pub(crate) fn header_values(&self, name: &str) -> Vec<&str> {
        let is_it = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.headers.iter().filter(is_it).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of the only field called `name`; fails the test if there are several.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.header_values(name);
        assert!(values.len() <= 1, "{name} came {} times: {values:?}", values.len());
        values.first().copied()
    }
}

/// A backend. Dropping it stops it.
pub(crate) struct Backend {
    shared: Arc<Shared>,
    acceptor: Mutex<Option<Acceptor>>,
}

struct Acceptor {
    listener: TcpListener,
    thread: JoinHandle<()>,
}

/// What the threads of a backend share.
struct Shared {
    name: String,
    address: SocketAddr,
    state: Mutex<State>,
    /// Rung whenever something may be over: stopped, released, or given another behaviour.
    bell: Condvar,
}

#[derive(Default)]
struct State {
    behaviour: Behaviour,
    paths: BTreeMap<String, Behaviour>,
    /// Used up before `behaviour` is asked.
    queue: VecDeque<Behaviour>,
    seen: Vec<Seen>,
    /// How many were seen before the first in `seen`.
    forgotten: usize,
    /// Lines that are no HTTP. A balancer must not send any.
    garbled: Vec<String>,
    connections: u64,
    open: HashMap<u64, TcpStream>,
    in_flight: usize,
    in_flight_peak: usize,
    abandoned: usize,
    /// Counts `stop`s: what began before the last one is over.
    stops: u64,
    /// Counts `release`s.
    releases: u64,
}

impl Backend {
    /// Starts a healthy backend on an address of its own.
    #[track_caller]
    pub(crate) fn start(name: &str) -> Self {
        Self::start_at(name, ports::own_socket(3000))
    }

    /// Starts a healthy backend on `address`.
    #[track_caller]
    pub(crate) fn start_at(name: &str, address: SocketAddr) -> Self {
        let shared = Shared {
            name: name.to_owned(),
            address,
            state: Mutex::default(),
            bell: Condvar::new(),
        };
        let backend = Self { shared: Arc::new(shared), acceptor: Mutex::new(None) };
        backend.on("/health", Behaviour::Answer(Answer::status(200)));
        backend.restart();
        backend
    }

    /// `count` healthy backends, called `b1` and so on.
    #[track_caller]
    pub(crate) fn start_many(count: usize) -> Vec<Self> {
        (1..=count).map(|number| Self::start(&format!("b{number}"))).collect()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// As it is written in a configuration.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    /// How requests are treated from now on, but for paths that have a behaviour of their own.
    pub(crate) fn set(&self, behaviour: Behaviour) {
        self.shared.state().behaviour = behaviour;
    }

    /// How requests for `path` (without query) are treated from now on. At the start `/health`
    /// alone has a behaviour of its own: 200.
    pub(crate) fn on(&self, path: &str, behaviour: Behaviour) {
        self.shared.state().paths.insert(path.to_owned(), behaviour);
    }

    /// How the next requests are treated, one each, but for paths with a behaviour of their own.
    pub(crate) fn next(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.state().queue.extend(behaviours);
    }

    /// Lets every request that waits in [`Behaviour::NeverAnswer`] be answered.
    pub(crate) fn release(&self) {
        self.shared.state().releases += 1;
        self.shared.bell.notify_all();
    }

    /// Connections accepted since it was made.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.state().connections
    }

    /// Connections open now.
    pub(crate) fn connections_open(&self) -> usize {
        self.shared.state().open.len()
    }

    /// Requests whose head has arrived, probes included.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Requests whose head has arrived, without those for `/health`.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| path_of(&seen.target) != "/health").collect()
    }

    /// How many requests have arrived, without those for `/health`.
    pub(crate) fn count(&self) -> usize {
        let state = self.shared.state();
        state.seen.iter().filter(|seen| path_of(&seen.target) != "/health").count()
    }

    /// How many requests have arrived for `path`, whatever their query.
    pub(crate) fn count_of(&self, path: &str) -> usize {
        let state = self.shared.state();
        state.seen.iter().filter(|seen| path_of(&seen.target) == path).count()
    }

    /// Requests that have arrived and are not answered, without those for `/health`.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.state().in_flight
    }

    /// The most that were ever in flight at once.
    pub(crate) fn in_flight_peak(&self) -> usize {
        self.shared.state().in_flight_peak
    }

    /// How often the other side hung up while an answer was due.
    pub(crate) fn abandoned(&self) -> usize {
        self.shared.state().abandoned
    }

    /// Forgets the requests and peaks counted so far.
    pub(crate) fn forget(&self) {
        let mut state = self.shared.state();
        state.forgotten += state.seen.len();
        state.seen.clear();
        state.in_flight_peak = state.in_flight;
        state.abandoned = 0;
    }

    /// Waits until `count` requests have arrived, without those for `/health`.
    #[track_caller]
    pub(crate) fn until_count(&self, count: usize) {
        let what = format!("{count} requests at {}", self.name());
        eventually(TIMEOUT, &what, || self.count() >= count);
    }

    /// Closes the listening socket and every connection, as when the process ends: new
    /// connections are refused.
    pub(crate) fn stop(&self) {
        self.end(None);
    }

    /// The same, but connections end with a reset.
    pub(crate) fn crash(&self) {
        self.end(Some(Duration::ZERO));
    }

    /// Listens again where it did.
    #[track_caller]
    pub(crate) fn restart(&self) {
        let mut acceptor = self.acceptor.lock().unwrap();
        assert!(acceptor.is_none(), "{} runs already", self.name());
        let listener = TcpListener::bind(self.shared.address)
            .unwrap_or_else(|error| panic!("binding {}: {error}", self.shared.address));
        let accepting = listener.try_clone().expect("cloning a listener");
        let shared = Arc::clone(&self.shared);
        let stops = shared.state().stops;
        let thread = std::thread::spawn(move || serve::accept(&accepting, &shared, stops));
        *acceptor = Some(Acceptor { listener, thread });
    }

    fn end(&self, linger: Option<Duration>) {
        let Some(acceptor) = self.acceptor.lock().unwrap().take() else { return };
        // On Linux this wakes the thread in `accept` with an error, which a mere close does not.
        SockRef::from(&acceptor.listener).shutdown(Shutdown::Both).expect("ending a listener");
        acceptor.thread.join().expect("the acceptor panicked");
        drop(acceptor.listener);

        let mut state = self.shared.state();
        state.stops += 1;
        for socket in state.open.values() {
            let socket = SockRef::from(socket);
            if linger.is_some() {
                // The reset goes out when the serving thread drops the last handle.
                socket.set_linger(linger).expect("setting linger");
                drop(socket.shutdown(Shutdown::Read));
            } else {
                // An error says that the other side was faster.
                drop(socket.shutdown(Shutdown::Both));
            }
        }
        drop(state);
        self.shared.bell.notify_all();
        eventually(TIMEOUT, "the connections of a stopped backend end", || {
            self.connections_open() == 0
        });
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // A second panic while a test is failing would hide the first.
        if !std::thread::panicking() {
            self.stop();
            let state = self.shared.state();
            assert!(state.garbled.is_empty(), "{} was sent {:?}", self.name(), state.garbled);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a thread of the backend panicked")
    }
}

impl State {
    /// The request that was the `at`th to arrive, unless it is forgotten.
    fn seen_mut(&mut self, at: usize) -> Option<&mut Seen> {
        self.seen.get_mut(at.checked_sub(self.forgotten)?)
    }
}

/// A request target without its query.
fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}
