//! Clients and backends that fail in every phase, with reloads, drains cut short, floods and panics:
//! lines in the access log, counts and requests are the same number.
//!
//! It takes four seconds; `WEIR_LEDGER_SECONDS` in the environment says how many instead.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;

use crate::support::backend::{Backend, Behaviour, Seen};
use crate::support::client::{Client, Failure, request_bytes};
use crate::support::configs::pool;
use crate::support::http2::{Http2, RawHttp2, frame, get_frame, request};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually, now};

const SECONDS: u64 = 4;

/// Paths whose responses fail, or never come.
const FAILING: [&str; 8] = ["cut", "close", "reset", "short", "garbage", "drip", "503", "never"];

const HOOKS: [&str; 6] = [
    "early_request_filter",
    "upstream_peer",
    "upstream_response_filter",
    "response_filter",
    "response_body_filter",
    "logging",
];

/// What a backend does for a path.
fn behave(seen: &Seen) -> Behaviour {
    let path = seen.target.split('?').next().unwrap_or_default();
    match path.trim_start_matches('/') {
        "big" => {
            Behaviour::Chunked { pieces: vec![vec![b'x'; 128 << 10]; 96], pause: Duration::ZERO }
        }
        "slow" => Behaviour::slow(Duration::from_millis(50)),
        "cut" => Behaviour::ResetMidBody,
        "close" => Behaviour::CloseBeforeAnswer,
        "reset" => Behaviour::ResetBeforeAnswer,
        "short" => Behaviour::WrongLength { promised: 100, sent: 10 },
        "garbage" => Behaviour::Garbage(b"hello\r\n\r\n".to_vec()),
        "drip" => Behaviour::HalfHead { pause: Duration::from_millis(20) },
        "503" => Behaviour::status(503),
        "never" => Behaviour::NeverAnswer,
        "ws" => Behaviour::Upgrade("websocket".to_owned()),
        _ => Behaviour::Good,
    }
}

/// What all clients share.
struct Storm {
    weir: Weir,
    end: Instant,
    sent: AtomicU64,
    /// Requests whose clients got at least the headers of a response.
    answered: Mutex<BTreeSet<u64>>,
    /// Requests without a number, because they could not be parsed.
    unreadable: AtomicU64,
}

impl Storm {
    fn rages(&self) -> bool {
        now() < self.end
    }

    /// The number of another request, and its target.
    fn next(&self, path: &str) -> (u64, String) {
        let number = self.sent.fetch_add(1, Relaxed);
        (number, format!("/{path}?n={number}"))
    }

    fn is_answered(&self, number: u64) {
        self.answered.lock().unwrap().insert(number);
    }

    fn connect(&self) -> Client {
        Client::connect(self.weir.address())
    }

    /// Asks, and notes whether something of a response came.
    fn ask(&self, client: &mut Client, method: &str, path: &str, body: &[u8]) -> bool {
        let (number, target) = self.next(path);
        match client.request(method, &target, &[], body) {
            Ok(answer) => {
                self.is_answered(number);
                !answer.head.is_last()
            }
            Err(Failure::TruncatedBody { .. }) => {
                self.is_answered(number);
                false
            }
            Err(_) => false,
        }
    }

    /// A while: as long as a backend takes that is slow.
    fn wait(&self) {
        self.ask(&mut self.connect(), "GET", "slow", b"");
    }

    /// Fails the test unless each request that certainly arrived has its line, and no line is of another.
    #[track_caller]
    fn check(&self, backends: &[Backend]) {
        let count = |lines: usize| f64::from(u32::try_from(lines).unwrap());
        let (weir, log) = (&self.weir, self.weir.access_log());
        log.iter().for_each(check_line);
        let numbers: Vec<u64> = log.iter().filter_map(number_of).collect();
        let logged: BTreeSet<u64> = numbers.iter().copied().collect();
        assert_eq!(logged.len(), numbers.len(), "no request has two lines");
        assert!(logged.last() < Some(&self.sent.load(Relaxed)), "and no line is of no request");
        let unreadable = count(log.len() - numbers.len());
        assert_eq!(unreadable, count(usize::try_from(self.unreadable.load(Relaxed)).unwrap()));
        // For everything else that was sent, it is unknown whether its headers had arrived.
        let mut arrived = self.answered.lock().unwrap().clone();
        for seen in backends.iter().flat_map(Backend::requests) {
            let (_, query) = seen.target.split_once('?').unwrap_or_default();
            arrived.extend(number(query));
        }
        let missing: Vec<&u64> = arrived.difference(&logged).collect();
        assert!(missing.is_empty(), "{} of {}: {missing:?}", missing.len(), arrived.len());
        assert!(arrived.len() > 100, "that was no storm: {}", arrived.len());
        assert_eq!(weir.metrics().sum("lb_access_log_dropped_total", &[]), 0.0);
    }

    // ── the clients ──

    fn keeps_its_connection(&self) {
        while self.rages() {
            let mut client = self.connect();
            while self.rages() && self.ask(&mut client, "GET", "ok", b"") {}
        }
    }

    fn meets_failing_backends(&self) {
        while self.rages() {
            for path in FAILING {
                self.ask(&mut self.connect(), "GET", path, b"");
                self.ask(&mut self.connect(), "POST", path, b"body");
            }
        }
    }

    fn leaves(&self) {
        while self.rages() {
            for path in ["never", "slow", "big"] {
                let mut client = self.connect();
                client.send(request_bytes("GET", &self.next(path).1, &[], 0));
                client.reset();
                let mut client = self.connect();
                client.send(request_bytes("GET", &self.next(path).1, &[], 0));
                client.half_close();
                let mut client = self.connect();
                client.send(request_bytes("POST", &self.next(path).1, &[], 100_000));
                drop(client.try_send(vec![b'x'; 5000]));
                self.wait();
                client.reset();
            }
            let mut client = self.connect();
            let (number, target) = self.next("big");
            client.send(request_bytes("GET", &target, &[], 0));
            if client.read_piece(100).is_ok_and(|read| read > 0) {
                self.is_answered(number);
            }
            client.reset();
        }
    }

    /// Each of its connections is open for longer than a request may take.
    fn reads_nothing(&self) {
        let mut clients = VecDeque::new();
        while self.rages() {
            let mut client = self.connect();
            client.send(request_bytes("GET", &self.next("big").1, &[], 0));
            clients.push_back(client);
            clients.truncate(30);
            self.wait();
            if clients.len() == 30 {
                clients.pop_front();
            }
        }
    }

    fn speaks_http2(&self) {
        while self.rages() {
            let mut connection = Http2::connect(self.weir.address());
            let mut unread = Vec::new();
            while self.rages() {
                for path in ["big", "never"] {
                    let target = self.next(path).1;
                    let request = request(Method::GET, &target, &[]);
                    unread.extend(connection.start(request, false).ok());
                }
                if let Some(stream) = unread.iter_mut().next_back() {
                    stream.reset();
                }
                let (number, target) = self.next("slow");
                match connection.get(&target, &[]) {
                    Ok(_) => self.is_answered(number),
                    Err(_) => break,
                }
            }
        }
    }

    fn floods(&self) {
        while self.rages() {
            let mut raw = RawHttp2::connect(self.weir.address());
            let target = self.next("never").1;
            if raw.send(&get_frame(1, &target)).is_ok() {
                self.wait();
                raw.flood(&frame(0x6, 0, 0, b"12345678").repeat(100), 200);
            }
        }
    }

    fn panics(&self) {
        while self.rages() {
            for hook in HOOKS {
                let path = format!("panic/{hook}");
                self.ask(&mut self.connect(), "GET", &path, b"");
                let (number, target) = self.next(&path);
                if Http2::connect(self.weir.address()).get(&target, &[]).is_ok() {
                    self.is_answered(number);
                }
                self.wait();
            }
        }
    }

    fn upgrades(&self) {
        let fields = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
            ("Sec-WebSocket-Version", "13"),
        ];
        while self.rages() {
            let mut client = self.connect();
            client.send(request_bytes("GET", &self.next("ws").1, &fields, 0));
            self.wait();
            drop(client.try_send(b"hello"));
        }
    }

    fn cannot_be_read(&self) {
        while self.rages() {
            let mut client = self.connect();
            client.send("GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n");
            if client.try_read_answer("GET").is_ok() {
                self.unreadable.fetch_add(1, Relaxed);
            }
            self.wait();
        }
    }
}

/// The number of a request, in its query.
fn number(query: &str) -> Option<u64> {
    query.strip_prefix("n=")?.parse().ok()
}

fn number_of(line: &Value) -> Option<u64> {
    number(line["query"].as_str()?)
}

#[track_caller]
fn check_line(line: &Value) {
    assert!(line["method"].is_string() && line["path"].is_string(), "{line}");
    assert!(line["status"].is_u64() && line["duration_ms"].is_f64(), "{line}");
    assert_ne!(line["reason"], "abandoned", "{line}");
    if number_of(line).is_some() {
        assert_eq!(line["host"], "weir.test", "{line}");
        assert!(line["request_id"].is_string() && line["client"].is_string(), "{line}");
    }
    let has_failed = line["status"].as_u64().is_some_and(|status| status == 0 || status == 499);
    assert!(!has_failed || line["reason"].is_string(), "{line}");
}

fn seconds() -> Duration {
    let given = std::env::var("WEIR_LEDGER_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(SECONDS))
}

#[test]
fn lines_counts_and_requests_are_the_same_number_whatever_fails() {
    let backends = Backend::start_many(2);
    for backend in &backends {
        backend.set(Behaviour::By(Arc::new(behave)));
    }
    let config = |backoff: u32| {
        let keys = format!(
            "retry: {{attempts: 2, backoff: {backoff}ms}}\n\
             timeouts: {{request: 1s, response: 700ms, tunnel: 500ms}}"
        );
        let pool = pool(&backends, &keys);
        format!("{LISTENER_KEYS}http2: true\n{pool}shutdown: {{drain: 300ms, tunnels: 300ms}}")
    };
    let storm = Storm {
        weir: Weir::start_with(&config(1), &[("WEIR_FAULT", "panic")]),
        end: now() + seconds(),
        sent: AtomicU64::new(0),
        answered: Mutex::default(),
        unreadable: AtomicU64::new(0),
    };
    let clients = [
        Storm::keeps_its_connection,
        Storm::meets_failing_backends,
        Storm::leaves,
        Storm::reads_nothing,
        Storm::speaks_http2,
        Storm::floods,
        Storm::panics,
        Storm::upgrades,
        Storm::cannot_be_read,
    ];
    thread::scope(|scope| {
        for client in clients {
            let storm = &storm;
            scope.spawn(move || client(storm));
        }
        for backoff in 2.. {
            storm.wait();
            if !storm.rages() {
                break;
            }
            storm.weir.write_config(&config(backoff));
            storm.weir.reload();
        }
    });
    let weir = &storm.weir;
    eventually(TIMEOUT * 3, "all former workers have ended", || weir.workers().len() == 1);
    let open = || weir.metrics().sum("lb_downstream_connections", &[]);
    eventually(TIMEOUT, "all connections have ended", || open() == 0.0);
    let count = |lines: usize| f64::from(u32::try_from(lines).unwrap());
    eventually(TIMEOUT, "lines, counts and the histogram are the same", || {
        let (metrics, lines) = (weir.metrics(), count(weir.access_log().len()));
        metrics.sum("lb_requests_total", &[]) == lines
            && metrics.sum("lb_request_duration_seconds_count", &[]) == lines
    });
    storm.check(&backends);
}
