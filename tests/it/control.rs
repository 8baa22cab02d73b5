//! The control socket, and life as process 1.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use ::weir::link::{Link, Start, ToSupervisor, ToWorker};
use ::weir::metrics::SupervisorStats;
use ::weir::policy::operator::OverrideList;
use ::weir::supervisor::control::help_for;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client};
use crate::support::configs::pool;
use crate::support::ports::{own_address, own_socket};
use crate::support::weir::{BINARY, Directory, Weir, kill, run_to_end};
use crate::support::{TIMEOUT, eventually, now};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_control_socket_is_the_users_alone_and_goes_when_it_ends() {
    let backends = Backend::start_many(1);
    let mut weir = Weir::start(&pool(&backends, ""));
    let socket = weir.path("weir/control.sock");
    assert_eq!((mode(&socket), mode(&weir.path("weir"))), (0o600, 0o700));
    weir.signal("TERM");
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn each_command_says_in_one_line_that_no_server_runs() {
    let directory = Directory::new();
    let path = directory.name("control.sock");
    for command in ["reload", "status", "stop"] {
        let ended = run_to_end(&[command, "--control", &path], &[], TIMEOUT);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{command}");
        let start = format!("weir: no load balancer responds at {path}: ");
        assert!(ended.stderr.starts_with(&start), "{command}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{command}: {}", ended.stderr);
        let help = "(help: no weir runs with this control socket: start one by `weir run`, or name \
                    the socket of one that runs by --control PATH or WEIR_CONTROL)\n";
        assert!(ended.stderr.ends_with(help), "{command}: {}", ended.stderr);
    }
}

#[test]
fn a_socket_without_its_supervisor_and_one_of_another_user_are_told_apart() {
    let directory = Directory::new();
    let path = directory.name("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let ended = run_to_end(&["status", "--control", &path], &[], TIMEOUT);
    assert!(
        ended.stderr.contains("(help: the weir of this control socket has ended: "),
        "{ended:?}"
    );
    let error = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    assert_eq!(help_for(&error), "run it as the user of that weir, or as root");
}

#[test]
fn a_socket_that_a_killed_supervisor_left_behind_is_taken_over() {
    let backends = Backend::start_many(1);
    let directory = Directory::new();
    let path = directory.name("control.sock");
    let mut first = Weir::start_flagged(&pool(&backends, ""), &["--control", &path]);
    first.signal("KILL");
    first.wait(TIMEOUT);
    assert!(directory.path("control.sock").exists(), "it could not clean up");
    let second = Weir::start_flagged(&pool(&backends, ""), &["--control", &path]);
    assert_eq!(second.command(&["status", "--control", &path]).code, Some(0));
}

/// A worker process that got its start message, and its listener and admin port.
fn worker_alone(backends: &[Backend]) -> (Killed, Link, [SocketAddr; 2]) {
    let address = own_address();
    let [listener, admin] = [8080, 9090].map(|port| SocketAddr::from((address, port)));
    let sockets = [listener, admin].map(|address| TcpListener::bind(address).unwrap());
    sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
    let (link, theirs) = Link::pair().unwrap();
    let worker =
        Command::new(BINARY).arg("worker").stdin(theirs).stderr(Stdio::null()).spawn().unwrap();
    let start = Start {
        text: Some(format!(
            "{}\nlisteners: [\"{listener}\"]\nadmin: {{address: \"{admin}\"}}\n",
            pool(backends, "")
        )),
        version: "1".to_owned(),
        sockets: vec![listener, admin],
        state: None,
        supervision: SupervisorStats::at(SystemTime::UNIX_EPOCH, None),
        is_alone: true,
        overrides: OverrideList::default(),
    };
    link.send(&ToWorker::Start(Box::new(start))).unwrap();
    link.send_sockets(&sockets).unwrap();
    (Killed(worker), link, [listener, admin])
}

/// A process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_worker_is_not_reported_ready_before_its_supervisor_has_noted_it() {
    let backends = Backend::start_many(1);
    let (mut worker, link, [listener, admin]) = worker_alone(&backends);
    let next = |wanted: fn(&ToSupervisor) -> bool| {
        while !wanted(&link.receive().unwrap().expect("the worker lives")) {}
    };
    next(|said| matches!(said, ToSupervisor::Warm));
    link.send(&ToWorker::TakeOver(Box::default())).unwrap();
    next(|said| matches!(said, ToSupervisor::Ready));
    assert_eq!(client::get(listener, "/").status(), 200, "it serves");
    assert_eq!(client::get(admin, "/readyz").text(), "not ready: starting\n");
    link.send(&ToWorker::SupervisorStats(SupervisorStats::at(SystemTime::UNIX_EPOCH, None)))
        .unwrap();
    let is_ready = || client::get(admin, "/readyz").status() == 200;
    eventually(TIMEOUT, "it is ready", is_ready);
    drop(link);
    eventually(TIMEOUT, "it ends", || worker.0.try_wait().unwrap().is_some());
}

#[test]
fn a_second_one_in_the_same_surroundings_serves_without_a_control_socket() {
    let backends = Backend::start_many(1);
    let first = Weir::start(&pool(&backends, ""));
    let shared = first.path("").display().to_string();
    let mut second = Weir::start_with(&pool(&backends, ""), &[("XDG_RUNTIME_DIR", &shared)]);
    assert_eq!(second.get("/").status(), 200);
    second.until_said("WARN");
    second.until_said("belongs to another supervisor that runs");
    second.signal("TERM");
    assert_eq!(second.wait(TIMEOUT).code(), Some(0));
    assert_eq!(first.command(&["status"]).code, Some(0), "the first one's socket is there still");
}

#[test]
fn a_control_socket_that_was_asked_for_and_is_taken_is_an_error() {
    let backends = Backend::start_many(1);
    let directory = Directory::new();
    let path = directory.name("control.sock");
    let first = Weir::start_flagged(&pool(&backends, ""), &["--control", &path]);
    let other = Weir::start(&pool(&backends, ""));
    let second = Directory::new();
    let (file, address) = (second.name("weir.yaml"), other.address().ip());
    let text = format!(
        "{}\nlisteners: [\"{address}:8081\"]\nadmin: {{address: \"{address}:9091\"}}\n",
        pool(&backends, "")
    );
    fs::write(&file, text).unwrap();
    let ended = run_to_end(&["run", "-c", &file, "--control", &path], &[], TIMEOUT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let said = format!(
        "weir: cannot open the control socket: path={path} error=\"{path} belongs to another supervisor \
         that runs\" (help: stop that one, or give this one another path by --control or WEIR_CONTROL)"
    );
    assert!(ended.stderr.contains(&said), "{}", ended.stderr);
    assert_eq!(first.command(&["status", "--control", &path]).code, Some(0));
}

#[test]
fn a_control_socket_that_cannot_be_there_is_named_with_what_to_do() {
    let directory = Directory::new();
    let long = directory.name(&"x".repeat(120));
    for (path, help) in [
        ("/proc/c.sock", "give it a path that this user may create by --control or WEIR_CONTROL"),
        (&long, "the path of a Unix socket has at most 107 bytes"),
    ] {
        let (listen, admin) = (own_socket(8080).to_string(), own_socket(9090).to_string());
        let flags = ["--backend", "http://127.0.0.1:1", "--listen", &listen, "--admin", &admin];
        let ended = run_to_end(&[&["run", "--control", path], &flags[..]].concat(), &[], TIMEOUT);
        let start = format!("weir: cannot open the control socket: path={path} error=");
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(&start) && ended.stderr.contains(help), "{}", ended.stderr);
    }
    let ended = run_to_end(&["status", "--control", &long], &[], TIMEOUT);
    assert!(ended.stderr.contains("at most 107 bytes"), "{}", ended.stderr);
}

#[test]
fn a_supervisor_that_is_there_and_does_not_reply_is_to_be_looked_at() {
    let weir = Weir::start(&pool(&Backend::start_many(1), ""));
    weir.signal("STOP");
    let ended = weir.command(&["status"]);
    weir.signal("CONT");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let help = "(help: it is there and does not reply: look at its process and its log)";
    assert!(ended.stderr.contains(help), "{}", ended.stderr);
}

#[test]
fn status_tells_version_and_workers() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let said = weir.command(&["status"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let status = weir.status();
    let version = status["config"]["version"].as_str().unwrap();
    assert!(said.stdout.contains(&format!("configuration {version}")), "{said:?}");
    let workers = weir.workers();
    assert_eq!((workers.len(), workers[0].generation), (1, 1));
    assert!(weir.process_tree().contains(&workers[0].pid));
}

#[test]
fn stop_drains_and_the_run_ends_with_0() {
    let (mut weir, mut client, backend) = with_one_in_flight("");
    let said = weir.command(&["stop"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "stopping\n"));
    let again = weir.command(&["reload"]);
    assert_eq!(again.code, Some(1), "a reload is refused while it stops: {again:?}");
    assert!(weir.is_running(), "a request is in flight");
    backend.release();
    assert_eq!(client.read_answer().status(), 200);
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0), "{}", weir.stderr());
}

/// A balancer with a request in flight, the client that waits for it, and the backend that does not
/// answer it.
fn with_one_in_flight(more: &str) -> (Weir, Client, Backend) {
    let backend = Backend::start("one");
    backend.on("/hang", Behaviour::NeverAnswer);
    let config = format!("{}\n{more}\n", pool(std::slice::from_ref(&backend), ""));
    let weir = Weir::start_with(&config, &[("WEIR_LOG", "weir=debug")]);
    let client = hang(&weir, &backend);
    (weir, client, backend)
}

/// A client whose request has reached the backend.
fn hang(weir: &Weir, backend: &Backend) -> Client {
    let mut client = Client::connect(weir.address());
    client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    backend.until_count(1);
    client
}

#[test]
fn stop_that_waits_returns_when_all_is_finished_and_nothing_is_left() {
    let (mut weir, mut client, backend) = with_one_in_flight("");
    let mut waiting = weir.begin(&["stop", "--wait"]);
    eventually(TIMEOUT, "it drains", || weir.stderr().contains("draining: connections=1"));
    // Who stops it again joins it, and cuts nothing.
    let mut other = weir.begin(&["stop", "--wait"]);
    eventually(TIMEOUT, "both wait", || {
        weir.stderr().contains("clients wait for the end: count=2")
    });
    assert!(waiting.try_wait().unwrap().is_none() && weir.is_running(), "a request is in flight");
    backend.release();
    assert_eq!(client.read_answer().status(), 200);
    let ended = waiting.wait_with_output().unwrap();
    let port = std::net::TcpStream::connect(weir.address());
    assert!(port.is_err() && !weir.path("weir/control.sock").exists(), "nothing is left");
    assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(0), &b"stopped\n"[..]), "{ended:?}");
    assert!(other.wait().unwrap().success());
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0), "{}", weir.stderr());
}

#[test]
fn stop_that_waits_fails_if_something_was_cut() {
    let (mut weir, _client, _backend) = with_one_in_flight("shutdown: {drain: 100ms}");
    let said = weir.command(&["stop", "--wait"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
    assert!(said.stderr.contains("stopped before all was done"), "{said:?}");
    assert_eq!(weir.wait(TIMEOUT).code(), Some(1), "{}", weir.stderr());
}

/// The flags that make a program process 1 of its own namespace.
const NAMESPACE: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];

/// Whether this machine lets us; says why if it does not.
fn namespaces() -> bool {
    let tried = Command::new("unshare").args(NAMESPACE).arg("true").stderr(Stdio::null()).status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        eprintln!("skipped: no process namespace can be made here (unshare needs root)");
    }
    may
}

/// A balancer that is process 1, and the number by which we know it.
fn process_1(config: &str) -> (Weir, u32) {
    let mut launcher = Command::new("unshare");
    launcher.args(NAMESPACE).arg(BINARY);
    let weir = Weir::start_by(launcher, config);
    let process = weir.process_tree()[1];
    (weir, process)
}

/// One that was ordered to stop while a request is in flight.
fn process_1_that_drains(backend: &Backend) -> (Weir, u32, Client) {
    backend.on("/hang", Behaviour::NeverAnswer);
    let (weir, process) = process_1(&pool(std::slice::from_ref(backend), ""));
    let client = hang(&weir, backend);
    kill("TERM", &[process]).unwrap();
    eventually(TIMEOUT, "it drains", || weir.stderr().contains("draining: connections=1"));
    (weir, process, client)
}

#[test]
fn as_process_1_it_stops_on_term_when_what_is_in_flight_is_done() {
    if !namespaces() {
        return;
    }
    let backend = Backend::start("one");
    let (mut weir, _process, mut client) = process_1_that_drains(&backend);
    backend.release();
    assert_eq!(client.read_answer().status(), 200);
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0), "{}", weir.stderr());
}

#[test]
fn as_process_1_it_stops_at_once_on_a_second_term() {
    if !namespaces() {
        return;
    }
    let backend = Backend::start("one");
    let (mut weir, process, _client) = process_1_that_drains(&backend);
    eventually(TIMEOUT, "it ends by a signal", || {
        kill("TERM", &[process]).unwrap();
        !weir.is_running()
    });
    assert_eq!(weir.wait(TIMEOUT).code(), Some(1), "{}", weir.stderr());
}

#[test]
fn as_process_1_it_leaves_no_zombie_of_workers_and_of_orphans() {
    if !namespaces() {
        return;
    }
    let backends = Backend::start_many(1);
    let (weir, process) = process_1(&pool(&backends, ""));
    assert_eq!(weir.process_tree().len(), 3, "unshare, a supervisor, a worker");
    let orphan = ["-t", &process.to_string(), "-p", "sh", "-c", "sleep 1 & sleep 1 &"];
    assert!(Command::new("nsenter").args(orphan).status().unwrap().success());
    eventually(TIMEOUT, "it has adopted them", || weir.process_tree().len() == 5);
    kill("HUP", &[process]).unwrap();
    eventually(TIMEOUT, "it reloads", || weir.stderr().contains("reloaded: "));
    eventually(TIMEOUT, "only the new processes are left", || weir.process_tree().len() == 3);
}

#[test]
fn without_descriptors_commands_wait_and_are_not_asked_for_in_a_hurry() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let descriptors = fs::read_dir(format!("/proc/{}/fd", weir.pid())).unwrap();
    let taken: Vec<u32> = descriptors
        .filter_map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().ok())
        .collect();
    let free = (0..).find(|number| !taken.contains(number)).unwrap();
    let limit = |soft: &str| {
        let pid = weir.pid().to_string();
        let nofile = format!("--nofile={soft}");
        let done = Command::new("prlimit").args(["--pid", &pid, &nofile]).status().unwrap();
        assert!(done.success());
    };
    let missed = || weir.stderr().matches("command not accepted: ").count();
    limit(&format!("{free}:"));
    let start = now();
    let mut client = UnixStream::connect(weir.path("weir/control.sock")).unwrap();
    client.write_all(b"\"status\"\n").unwrap();
    eventually(TIMEOUT, "it is tried again", || missed() >= 4);
    let (tries, time) = (missed(), now() - start);
    let most = time.as_millis() / 200 + 2;
    assert!(u128::try_from(tries).unwrap() <= most, "{tries} tries in {time:?}");
    limit(&format!("{}:", free + 100));
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).unwrap();
    assert!(answer.contains("serving"), "{answer}");
}

#[test]
fn a_file_that_is_no_socket_is_not_taken_for_one() {
    let file = std::env::temp_dir().join(format!("weir-no-socket-{}", std::process::id()));
    fs::write(&file, "precious").unwrap();
    let path = file.display().to_string();
    let args = ["run", "--backend", "http://127.0.0.1:1", "--control", &path];
    let (listen, admin) = (own_socket(8080).to_string(), own_socket(9090).to_string());
    let args = [&args[..], &["--listen", &listen, "--admin", &admin]].concat();
    let ended = run_to_end(&args, &[], TIMEOUT);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("is no socket"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    fs::remove_file(&file).unwrap();
}

#[test]
fn a_usual_control_socket_that_cannot_be_had_is_gone_without_and_said() {
    let backends = Backend::start_many(1);
    let directory = Directory::new();
    fs::write(directory.path("file"), "").unwrap();
    let long = format!("{}/{}", directory.name("long"), "x".repeat(120));
    for unusable in [directory.name("file"), long, "/proc/none".to_owned()] {
        let mut weir =
            Weir::start_with(&pool(&backends, ""), &[("XDG_RUNTIME_DIR", unusable.as_str())]);
        assert_eq!(weir.get("/").status(), 200);
        weir.until_said("no control socket, so commands such as");
        weir.until_said(&unusable);
        weir.signal("TERM");
        assert_eq!(weir.wait(TIMEOUT).code(), Some(0));
    }
}

#[test]
fn a_supervisor_that_ends_leaves_the_control_socket_of_another_alone() {
    let backends = Backend::start_many(1);
    let directory = Directory::new();
    let path = directory.name("control.sock");
    let mut first = Weir::start_flagged(&pool(&backends, ""), &["--control", &path]);
    // Over an exec as well.
    first.signal("USR2");
    let replaced = || first.stderr().contains("supervisor replaced: ");
    eventually(TIMEOUT, "it is replaced", replaced);
    fs::remove_file(directory.path("control.sock")).unwrap();
    let second = Weir::start_flagged(&pool(&backends, ""), &["--control", &path]);
    first.signal("TERM");
    assert_eq!(first.wait(TIMEOUT).code(), Some(0), "{}", first.stderr());
    assert_eq!(second.command(&["status", "--control", &path]).code, Some(0));
}

#[test]
fn a_supervisor_that_does_not_respond_is_not_waited_for_without_end() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    kill("STOP", &[weir.pid()]).unwrap();
    let mut commands = [weir.begin(&["status"]), weir.begin(&["reload"]), weir.begin(&["stop"])];
    for command in &mut commands {
        eventually(TIMEOUT * 3, "the command ends", || command.try_wait().unwrap().is_some());
    }
    for command in commands {
        let ended = command.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("it does not reply within 6s"), "{said}");
    }
    kill("CONT", &[weir.pid()]).unwrap();
}

#[test]
fn a_reload_that_takes_its_time_is_waited_for() {
    let (backends, slow) = (Backend::start_many(1), Backend::start("slow"));
    slow.on("/health", Behaviour::NeverAnswer);
    let weir = Weir::start(&pool(&backends, ""));
    let check = "{type: http, path: /health, interval: 60s, timeout: 60s, healthy_after: 1}";
    let url = slow.url();
    weir.write_config(&format!("pools: [{{name: web, health_check: {check}, backends: [{url}]}}]"));
    let start = now();
    let reload = weir.begin(&["reload"]);
    eventually(TIMEOUT * 2, "longer than for any other reply", || now() - start > TIMEOUT);
    slow.release();
    let ended = reload.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}
