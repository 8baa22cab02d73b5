//! The real binary, with a configuration, addresses and a directory of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::client::{self, Client, Response};
use super::metrics::Metrics;
use super::{TIMEOUT, eventually, eventually_some, ports, within};

/// A file that Weir reads for its settings must be the test's, so none of these is inherited.
const ENVIRONMENT: [&str; 10] = [
    "WEIR_CONFIG",
    "WEIR_LISTEN",
    "WEIR_ADMIN",
    "WEIR_BACKENDS",
    "WEIR_ALGORITHM",
    "WEIR_LOG",
    "WEIR_DEBUG",
    "WEIR_CONTROL",
    "WEIR_FAULT",
    "WEIR_HANG_TIMEOUT",
];

/// A line of a test's configuration that begins so goes on with further keys of the listener.
pub(crate) const LISTENER_KEYS: &str = "#listener: ";
/// Its address, in a configuration that says itself what listens there: 8080, and the admin port 9090.
pub(crate) const HERE: &str = "HERE";

/// The binary that is tested.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_weir");

/// Puts a copy of the binary at `path`, with `more` behind it. By another process: a file that this
/// one has open for writing, and so for a moment every child that another test starts, cannot be
/// run.
#[track_caller]
pub(crate) fn copy_binary(path: &Path, more: &str) {
    let script = "cp \"$1\" \"$2.new\" && printf %s \"$3\" >>\"$2.new\" && mv \"$2.new\" \"$2\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh", BINARY]).arg(path).arg(more);
    assert!(shell.status().expect("starting a shell").success(), "copying the binary");
}

/// Puts a script at `path` that ends in the binary, which it knows as `$real`.
#[track_caller]
pub(crate) fn put_script(path: &Path, script: &str) {
    let text = format!("#!/bin/sh\nreal={BINARY}\n{script}\nexec \"$real\" \"$@\"\n");
    // By another process, for the same reason.
    let write = "printf %s \"$2\" >\"$1.new\" && chmod 755 \"$1.new\" && mv \"$1.new\" \"$1\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", write, "sh"]).arg(path).arg(text);
    assert!(shell.status().expect("starting a shell").success(), "writing a script");
}

/// A running `weir run`. Dropping it kills it and everything it started.
pub(crate) struct Weir {
    child: Child,
    listener: SocketAddr,
    admin: SocketAddr,
    directory: Directory,
}

/// What a command said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A worker, as `weir status` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Worker {
    pub(crate) generation: u64,
    /// `serving`, `warming` or `draining`.
    pub(crate) what: String,
    pub(crate) pid: u32,
    pub(crate) connections: u64,
}

impl Weir {
    /// Starts with this configuration and waits until it is ready; fails the test if it ends
    /// before. `listeners` and `admin` are written by us and must not be in the text.
    #[track_caller]
    pub(crate) fn start(config: &str) -> Self {
        let mut weir = Self::spawn(config);
        weir.until_ready();
        weir
    }

    /// The same, with these variables in its environment.
    #[track_caller]
    pub(crate) fn start_with(config: &str, env: &[(&str, &str)]) -> Self {
        let mut weir = Self::spawn_with(config, env);
        weir.until_ready();
        weir
    }

    /// Starts with this configuration, which is expected to be refused or to fail.
    #[track_caller]
    pub(crate) fn start_and_fail(config: &str) -> Ended {
        let mut weir = Self::spawn(config);
        let code = weir.wait(TIMEOUT);
        Ended { code: code.code(), stdout: weir.stdout(), stderr: weir.stderr() }
    }

    /// Starts with this configuration and does not wait.
    #[track_caller]
    pub(crate) fn spawn(config: &str) -> Self {
        Self::spawn_with(config, &[])
    }

    /// Starts with further flags of `run` and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_flagged(config: &str, flags: &[&str]) -> Self {
        Self::start_by_flagged(Command::new(BINARY), config, flags)
    }

    /// Starts by this command, which is (or ends in) the binary, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_by(launcher: Command, config: &str) -> Self {
        Self::start_by_flagged(launcher, config, &[])
    }

    /// The same with these flags for `run`.
    #[track_caller]
    pub(crate) fn start_by_flagged(launcher: Command, config: &str, flags: &[&str]) -> Self {
        let mut weir = Self::spawn_as(launcher, config, flags, &[]);
        weir.until_ready();
        weir
    }

    /// Starts by this command, as [`Weir::start_by`] does, and does not wait.
    #[track_caller]
    pub(crate) fn spawn_by(launcher: Command, config: &str) -> Self {
        Self::spawn_as(launcher, config, &[], &[])
    }

    #[track_caller]
    fn spawn_with(config: &str, env: &[(&str, &str)]) -> Self {
        Self::spawn_as(Command::new(BINARY), config, &[], env)
    }

    #[track_caller]
    fn spawn_as(launcher: Command, config: &str, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let address = ports::own_address();
        let directory = Directory::new();
        fs::write(directory.path("weir.yaml"), whole_config(address, config)).unwrap();
        let file = directory.name("weir.yaml");
        let args = [&["run", "-c", &file], flags].concat();
        let child = surrounded(launcher, &args, &directory)
            .envs(env.iter().copied())
            .stdout(File::create(directory.path("stdout")).unwrap())
            .stderr(File::create(directory.path("stderr")).unwrap())
            .spawn()
            .expect("starting weir");
        let (listener, admin) = addresses(address);
        Self { child, listener, admin, directory }
    }

    /// Waits until `/readyz` is 200; fails the test if the process ends instead.
    #[track_caller]
    pub(crate) fn until_ready(&mut self) {
        self.until_admin_says("/readyz", 200);
    }

    /// Waits until it accepts requests, which it does without any healthy backend too: `/status` is
    /// 200 from then on.
    #[track_caller]
    pub(crate) fn until_alive(&mut self) {
        self.until_admin_says("/status", 200);
    }

    /// Waits until `path` on the admin port answers `status`; fails the test if the process ends
    /// instead.
    #[track_caller]
    pub(crate) fn until_admin_says(&mut self, path: &str, status: u16) {
        let said = within(TIMEOUT, || {
            if let Some(ended) = self.child.try_wait().unwrap() {
                panic!("weir ended ({ended}):\n{}", self.stderr());
            }
            client::try_get(self.admin, path)
                .is_ok_and(|said| said.status() == status)
                .then_some(())
        });
        let last = || client::try_get(self.admin, path).map(|said| (said.status(), said.text()));
        assert!(said.is_some(), "{path} is not {status}: {:?}\n{}", last(), self.stderr());
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener
    }

    /// The admin port.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It, its workers, and whatever they started.
    pub(crate) fn process_tree(&self) -> Vec<u32> {
        let mut tree = vec![self.pid()];
        let parents = parents();
        let mut next = 0;
        while let Some(&parent) = tree.get(next) {
            tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        tree
    }

    /// The statuses of this number of requests, each on a connection of its own; 0 for none.
    pub(crate) fn statuses(&self, method: &str, times: usize) -> Vec<u16> {
        let one = |_| match Client::connect(self.address()).request(method, "/", &[], b"") {
            Ok(answer) => answer.status(),
            Err(_) => 0,
        };
        (0..times).map(one).collect()
    }

    /// `GET path` from the listener, on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        client::get(self.listener, path)
    }

    /// `/status` of the admin port.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let answer = client::get(self.admin, "/status");
        assert_eq!(answer.status(), 200, "/status: {}", answer.text());
        answer.json()
    }

    /// `/metrics` of the admin port.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let answer = client::get(self.admin, "/metrics");
        assert_eq!(answer.status(), 200, "/metrics: {}", answer.text());
        Metrics::parse(&answer.text())
    }

    /// Replaces the configuration file, with the same addresses. It does not trigger a reload.
    #[track_caller]
    pub(crate) fn write_config(&self, config: &str) {
        let SocketAddr::V4(listener) = self.listener else { panic!("we listen on IPv4") };
        fs::write(self.directory.path("weir.yaml"), whole_config(*listener.ip(), config)).unwrap();
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.directory.path("weir.yaml")
    }

    /// A file of its directory, where sockets and files that it makes up by itself are too.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path(file)
    }

    /// `weir reload`; fails the test unless it is done.
    #[track_caller]
    pub(crate) fn reload(&self) -> String {
        let ended = self.command(&["reload"]);
        assert_eq!(ended.code, Some(0), "reload: {}{}", ended.stdout, ended.stderr);
        ended.stdout
    }

    /// The workers as `weir status` tells them.
    #[track_caller]
    pub(crate) fn workers(&self) -> Vec<Worker> {
        let ended = self.command(&["status"]);
        (ended.stdout + &ended.stderr).lines().filter_map(Worker::parse).collect()
    }

    /// The worker that serves, if one does.
    pub(crate) fn serving(&self) -> Option<Worker> {
        self.workers().into_iter().find(|worker| worker.is("serving"))
    }

    /// The number of the process that serves; waits until there is one.
    #[track_caller]
    pub(crate) fn worker_pid(&self) -> u32 {
        eventually_some(TIMEOUT, "a worker serves", || self.serving()).pid
    }

    /// Runs another command of the binary, such as `reload`, with the surroundings of this one:
    /// they find each other by default.
    #[track_caller]
    pub(crate) fn command(&self, args: &[&str]) -> Ended {
        finish(command(args, &self.directory), &Directory::new(), TIMEOUT)
    }

    /// Starts another command of the binary, which may take a while.
    pub(crate) fn begin(&self, args: &[&str]) -> Child {
        let mut command = command(args, &self.directory);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starting it")
    }

    /// Sends a signal (`TERM`, `HUP`, …) to the supervisor.
    #[track_caller]
    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, &[self.pid()]).expect("sending a signal");
    }

    /// Sends a signal over and over: a second stop counts only some time after the first.
    #[track_caller]
    pub(crate) fn signal_until_it_ends(&mut self, signal: &str) {
        eventually(TIMEOUT, "it ends by a signal", || {
            self.signal(signal);
            !self.is_running()
        });
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(&mut self, deadline: Duration) -> ExitStatus {
        eventually_some(deadline, "weir ends", || self.child.try_wait().unwrap())
    }

    /// Whether it runs still.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.directory.text("stdout")
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.directory.text("stderr")
    }

    /// Waits until it has written this to standard error. A worker's log is written by a thread of
    /// its own, which may be late.
    #[track_caller]
    pub(crate) fn until_said(&self, text: &str) {
        let what = format!("{text:?} on standard error");
        eventually(TIMEOUT, &what, || self.stderr().contains(text));
    }

    /// The access log as it is so far: every whole line of standard output that is JSON.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        let stdout = self.stdout();
        let whole = stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the access log has a line for which `is_it` holds, and gives it back.
    #[track_caller]
    pub(crate) fn until_logged(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually_some(TIMEOUT, what, || self.access_log().into_iter().find(&is_it))
    }
}

impl Worker {
    /// `worker 2: serving pid=17 age=3s connections=0`.
    fn parse(line: &str) -> Option<Self> {
        let (generation, rest) = line.strip_prefix("worker ")?.split_once(": ")?;
        let mut words = rest.split(' ');
        let what = words.next()?.to_owned();
        let pid = words.next()?.strip_prefix("pid=")?.parse().ok()?;
        let _age = words.next()?;
        let connections = words.next()?.strip_prefix("connections=")?.parse().ok()?;
        Some(Self { generation: generation.parse().ok()?, what, pid, connections })
    }

    pub(crate) fn is(&self, what: &str) -> bool {
        self.what == what
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what weir said:\n{}---", self.stderr());
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // The tree is read while its root lives: orphans have no parent to be found by.
            let tree = self.process_tree();
            drop(kill("KILL", &tree));
            drop(self.child.wait());
        }
    }
}

/// Runs this command, which ends in the binary, to its end.
#[track_caller]
pub(crate) fn run_by(launcher: Command, args: &[&str]) -> Ended {
    let directory = Directory::new();
    finish(surrounded(launcher, args, &directory), &directory, TIMEOUT)
}

/// Runs a command of the binary to its end.
#[track_caller]
pub(crate) fn run_to_end(args: &[&str], env: &[(&str, &str)], deadline: Duration) -> Ended {
    let directory = Directory::new();
    let mut command = command(args, &directory);
    command.envs(env.iter().copied());
    finish(command, &directory, deadline)
}

/// A directory that goes when this is dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-it-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        // One of an earlier process with our id may have been left behind.
        drop(fs::remove_dir_all(&directory));
        fs::create_dir_all(&directory).expect("making a directory");
        Self(directory)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub(crate) fn name(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    pub(crate) fn text(&self, file: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(file)).unwrap_or_default()).into_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn addresses(address: Ipv4Addr) -> (SocketAddr, SocketAddr) {
    (SocketAddr::from((address, 8080)), SocketAddr::from((address, 9090)))
}

fn whole_config(address: Ipv4Addr, config: &str) -> String {
    let (listener, admin) = addresses(address);
    // At the end, so that a line number in a complaint is one of the test's own text.
    let keys = config.lines().find_map(|line| line.strip_prefix(LISTENER_KEYS)).unwrap_or_default();
    let listener =
        format!("{{address: \"{listener}\"{}{keys}}}", if keys.is_empty() { "" } else { ", " });
    let mut whole = config.replace(HERE, &address.to_string());
    let has = |key| config.lines().any(|line| line.starts_with(key));
    if !has("listeners:") {
        whole += &format!("\nlisteners: [{listener}]\n");
    }
    if !has("admin:") {
        whole += &format!("\nadmin: {{address: \"{admin}\"}}\n");
    }
    whole
}

/// The binary, with nothing of our own surroundings but the path. Sockets and files that it
/// makes up by itself go to `directory`.
fn command(args: &[&str], directory: &Directory) -> Command {
    surrounded(Command::new(BINARY), args, directory)
}

fn surrounded(mut command: Command, args: &[&str], directory: &Directory) -> Command {
    for variable in ENVIRONMENT {
        command.env_remove(variable);
    }
    command
        .env("WEIR_LOG", "info")
        .env("TMPDIR", &directory.0)
        .env("XDG_RUNTIME_DIR", &directory.0);
    command.args(args).current_dir(&directory.0).stdin(Stdio::null());
    command
}

#[track_caller]
fn finish(mut command: Command, directory: &Directory, deadline: Duration) -> Ended {
    // Files, not pipes: no reader is needed, and nothing is lost at a deadline.
    let mut child = command
        .stdout(File::create(directory.path("stdout")).unwrap())
        .stderr(File::create(directory.path("stderr")).unwrap())
        .spawn()
        .expect("starting weir");
    let ended = within(deadline, || child.try_wait().unwrap());
    let (stdout, stderr) = (directory.text("stdout"), directory.text("stderr"));
    let Some(status) = ended else {
        drop(child.kill());
        drop(child.wait());
        panic!("not ended within {deadline:?}: {command:?}\n{stdout}\n{stderr}");
    };
    Ended { code: status.code(), stdout, stderr }
}

/// Sends a signal to processes.
pub(crate) fn kill(signal: &str, pids: &[u32]) -> std::io::Result<ExitStatus> {
    let pids = pids.iter().map(u32::to_string);
    Command::new("kill").args(["-s", signal]).args(pids).stderr(Stdio::null()).status()
}

/// Every process and its parent.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").expect("reading /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let stat =
            fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
        // `pid (name) state parent …`, and the name may have anything in it.
        let (_, after_name) = stat.rsplit_once(") ")?;
        Some((pid, after_name.split(' ').nth(1)?.parse().ok()?))
    })
    .collect()
}
