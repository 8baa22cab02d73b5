//! A log that is not read: standard error is a full pipe, or its reader is stopped.
//!
//! `WEIR_STALL_SECONDS` is how long the pipe stays full while everything has to go on.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::cell::RefCell;
use std::env;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::time::Duration;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client};
use crate::support::configs::pool;
use crate::support::weir::{Directory, Weir, put_script};
use crate::support::{TIMEOUT, eventually, now};

/// Bytes that fill a pipe before the first line of the log.
const FILLING: &[u8] = &[b'#'; 4096];

/// A named pipe that its readers have left full.
struct Pipe {
    directory: Directory,
    end: RefCell<File>,
}

impl Pipe {
    fn full() -> Self {
        let directory = Directory::new();
        let made = Command::new("mkfifo").arg(directory.path("pipe")).status();
        assert!(made.expect("starting mkfifo").success(), "no pipe");
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("a small flag");
        // Open for both, so that neither end is ever closed.
        let end = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nonblocking)
            .open(directory.path("pipe"))
            .expect("opening the pipe");
        let pipe = Self { directory, end: RefCell::new(end) };
        pipe.fill();
        pipe
    }

    /// Writes until there is no room.
    fn fill(&self) {
        let mut end = self.end.borrow_mut();
        for piece in [FILLING, b"#"] {
            while end.write(piece).is_ok() {}
        }
    }

    /// Reads what there is.
    fn read(&self) -> String {
        let mut bytes = Vec::new();
        let read = self.end.borrow_mut().read_to_end(&mut bytes);
        assert_eq!(read.expect_err("the pipe never ends").kind(), ErrorKind::WouldBlock);
        String::from_utf8_lossy(&bytes).replace('#', "")
    }

    /// Reads until a line has all of these words, and gives back everything that was read.
    #[track_caller]
    fn until_read(&self, words: &[&str]) -> String {
        let mut text = String::new();
        eventually(TIMEOUT, &format!("a line with {words:?}"), || {
            text += &self.read();
            text.lines().any(|line| words.iter().all(|word| line.contains(word)))
        });
        text
    }

    /// A command that runs the binary with its standard error (`2`) or output (`1`), or both, here.
    fn launcher(&self, descriptors: &[u8], script: &str) -> Command {
        let path = self.directory.path("weir.sh");
        let pipe = self.directory.name("pipe");
        let redirect: Vec<_> = descriptors.iter().map(|it| format!("exec {it}>{pipe}\n")).collect();
        put_script(&path, &format!("{}{script}", redirect.concat()));
        Command::new(path)
    }
}

/// How long the pipe stays full.
fn stall() -> Duration {
    let seconds = env::var("WEIR_STALL_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

const CHECKED: &str = "health_check: {interval: 100ms, timeout: 100ms, healthy_after: 1, \
                       unhealthy_after: 1, path: /health}";

/// Two backends that are checked ten times a second.
fn checked(backends: &[Backend], more: &str) -> String {
    let unchecked = pool(backends, "");
    unchecked.replace("health_check: off", CHECKED) + more
}

fn lost(weir: &Weir, process: &str) -> f64 {
    weir.metrics().sum("lb_log_dropped_total", &[("process", process)])
}

fn is_healthy(weir: &Weir, backend: &Backend) -> bool {
    weir.metrics().value("lb_backend_up", &[("backend", &backend.address().to_string())])
        == Some(1.0)
}

/// Requests, health checks, reloads, the status and the exchange of the supervisor go on.
#[track_caller]
fn assert_goes_on(weir: &Weir, backends: &[Backend], turn: u64) {
    let first = &backends[0];
    for _ in 0..20 {
        assert_eq!(weir.get("/").status(), 200);
    }
    first.on("/health", Behaviour::status(500));
    eventually(TIMEOUT, "a failed check is noticed", || !is_healthy(weir, first));
    first.on("/health", Behaviour::status(200));
    eventually(TIMEOUT, "a passed check is noticed", || is_healthy(weir, first));
    weir.reload();
    weir.signal("USR2");
    eventually(TIMEOUT, "the supervisor is replaced", || {
        let status = weir.command(&["status"]);
        status.code == Some(0) && status.stdout.contains(&format!("upgrades: done={turn} "))
    });
}

#[test]
fn an_unread_log_stops_nothing_and_lost_lines_are_counted_and_logged() {
    let (pipe, backends) = (Pipe::full(), Backend::start_many(2));
    let launcher = pipe.launcher(&[2], "export WEIR_LOG=trace");
    let mut weir = Weir::start_by(launcher, &checked(&backends, ""));
    let end = now() + stall();
    let mut turn = 0;
    while turn == 0 || now() < end {
        turn += 1;
        assert_goes_on(&weir, &backends, turn);
    }
    eventually(TIMEOUT, "lines are lost", || {
        weir.get("/");
        lost(&weir, "worker") > 0.0
    });
    let before = lost(&weir, "worker");
    weir.reload();
    assert!(lost(&weir, "worker") >= before, "the count is kept");
    pipe.until_read(&["log lines lost: count="]);
    pipe.fill();
    weir.signal("TERM");
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0));
}

#[test]
fn a_forced_stop_does_not_wait_for_an_unread_log() {
    let (pipe, backends) = (Pipe::full(), Backend::start_many(1));
    backends.iter().for_each(|backend| backend.on("/hang", Behaviour::NeverAnswer));
    let launcher = pipe.launcher(&[2], "export WEIR_LOG=trace");
    let mut weir = Weir::start_by(launcher, &checked(&backends, ""));
    let mut client = Client::connect(weir.address());
    client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    backends
        .iter()
        .for_each(|backend| eventually(TIMEOUT, "it arrives", || backend.count_of("/hang") == 1));
    weir.signal("TERM");
    eventually(TIMEOUT, "it does not accept", || client::try_get(weir.address(), "/").is_err());
    // One that follows at once is taken for the first one.
    eventually(TIMEOUT, "it ends", || {
        weir.signal("TERM");
        !weir.is_running()
    });
    assert_eq!(weir.wait(TIMEOUT).code(), Some(1));
}

#[test]
fn an_unread_access_log_stops_nothing() {
    for (target, descriptors) in [("stderr", [2].as_slice()), ("stdout", &[1, 2])] {
        let (pipe, backends) = (Pipe::full(), Backend::start_many(2));
        let config = checked(&backends, &format!("access_log: {{target: {target}}}\n"));
        let mut weir = Weir::start_by(pipe.launcher(descriptors, ""), &config);
        assert_goes_on(&weir, &backends, 1);
        weir.signal("TERM");
        assert_eq!(weir.wait(TIMEOUT).code(), Some(0), "{target}");
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_is_logged_once_the_log_is_read_and_stops_nothing_before() {
    let (pipe, backends) = (Pipe::full(), Backend::start_many(1));
    let script = "export WEIR_FAULT=panic RUST_BACKTRACE=1";
    let weir = Weir::start_by(pipe.launcher(&[2], script), &pool(&backends, ""));
    for _ in 0..20 {
        assert_eq!(weir.get("/panic/request_filter").status(), 500);
        assert_eq!(weir.get("/").status(), 200);
    }
    assert_eq!(weir.metrics().sum("lb_panics_total", &[]), 20.0);
    let mut text = String::new();
    let mut logged = |what: &str| {
        text += &pipe.read();
        text.lines().filter(|line| line.contains(what)).count()
    };
    eventually(TIMEOUT, "the first five of one kind are logged", || {
        logged("panic: thread=weir-data location=src/proxy/") == 5
    });
    eventually(TIMEOUT, "with the functions that were called", || {
        logged("weir::proxy::fault_injection::at") == 5
    });
}

#[test]
fn the_demo_continues_if_its_output_is_not_read() {
    let pipe = Pipe::full();
    let (listen, admin) =
        (crate::support::ports::own_socket(8080), crate::support::ports::own_socket(9090));
    let mut demo = pipe.launcher(&[1, 2], "");
    demo.args(["demo", "--listen", &listen.to_string(), "--admin", &admin.to_string()]);
    demo.args(["--control", &pipe.directory.name("control")]);
    let mut demo = demo.stdin(std::process::Stdio::null()).spawn().expect("starting it");
    eventually(TIMEOUT, "it serves", || {
        client::try_get(listen, "/").is_ok_and(|answer| answer.status() == 200)
    });
    let pid = demo.id();
    crate::support::weir::kill("TERM", &[pid]).expect("sending a signal");
    eventually(TIMEOUT, "it ends", || demo.try_wait().expect("waiting").is_some());
}
