//! The command line: what is wrong is said in one clear line with the right exit code, and flags
//! win over the environment, which wins over the file.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Response, try_get};
use crate::support::ports::{own_address, own_socket};
use crate::support::weir::{Directory, Ended, Weir, copy_binary, run_to_end};
use crate::support::{TIMEOUT, eventually, eventually_some, now};

/// Runs a command that is expected to end by itself.
fn run(args: &[&str]) -> Ended {
    run_to_end(args, &[], TIMEOUT)
}

fn run_in(args: &[&str], env: &[(&str, &str)]) -> Ended {
    run_to_end(args, env, TIMEOUT)
}

/// A file of the test's own, whose directory goes when this is dropped.
struct Given {
    directory: Directory,
    path: String,
}

impl Given {
    fn file(text: &str) -> Self {
        let directory = Directory::new();
        let path = directory.name("weir.yaml");
        fs::write(&path, text).unwrap_or_else(|error| panic!("writing {path}: {error}"));
        Self { directory, path }
    }
}

/// A command that goes on until it is dropped.
struct Running {
    child: Child,
    directory: Directory,
}

impl Running {
    fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let directory = Directory::new();
        let output = |name| File::create(directory.path(name)).map(Stdio::from);
        let (Ok(stdout), Ok(stderr)) = (output("stdout"), output("stderr")) else {
            panic!("no files for the output")
        };
        let child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(args)
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(directory.path(""))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("starting weir {args:?}: {error}"));
        Self { child, directory }
    }

    fn stdout(&self) -> String {
        self.directory.text("stdout")
    }

    fn stderr(&self) -> String {
        self.directory.text("stderr")
    }

    /// What it answers as soon as it does, and does not only say that it starts.
    fn get(&mut self, from: SocketAddr, path: &str) -> Response {
        eventually_some(TIMEOUT, &format!("{path} from {from}"), || {
            let ended = self.child.try_wait().ok().flatten();
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.stderr());
            try_get(from, path).ok().filter(|said| said.text() != "not ready: starting\n")
        })
    }

    fn stop(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(sent.is_ok_and(|sent| sent.success()), "no signal was sent");
        eventually_some(TIMEOUT, "it ends", || self.child.try_wait().ok().flatten())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what it said:\n{}---", self.stderr());
        }
        // An error says that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A listener and an admin port that no other test uses.
fn own_ports() -> (SocketAddr, SocketAddr) {
    let address = own_address();
    (SocketAddr::from((address, 8080)), SocketAddr::from((address, 9090)))
}

/// Nothing but this on standard error, and the exit code 1.
#[track_caller]
fn refused(ended: &Ended, line: &str) {
    assert_eq!((ended.stderr.as_str(), ended.code), (format!("{line}\n").as_str(), Some(1)));
    assert_eq!(ended.stdout, "");
}

#[test]
fn a_wrong_flag_is_named_and_the_code_is_2() {
    let ended = run(&["run", "--bakend", "http://127.0.0.1:3000"]);
    assert_eq!(ended.code, Some(2));
    let first = ended.stderr.lines().next();
    assert_eq!(first, Some("error: unexpected argument '--bakend' found"));
    assert!(ended.stderr.contains("'--backend'"), "{}", ended.stderr);
}

#[test]
fn the_log_says_what_is_in_use_and_that_the_stop_is_done() {
    let backend = Backend::start("one");
    let config =
        format!("pools: [{{name: web, health_check: off, backends: [{}]}}]\n", backend.url());
    let mut weir = Weir::start(&config);
    let (file, pid) = (weir.config_path(), weir.pid());
    let start = format!(
        "starting: version={} pid={pid} file={} config=",
        env!("CARGO_PKG_VERSION"),
        file.display()
    );
    let addresses = format!("listeners={} admin={}\n", weir.address(), weir.admin());
    weir.until_said(&start);
    weir.until_said(&addresses);
    let SocketAddr::V4(listener) = weir.address() else { panic!("we listen on IPv4") };
    let other = SocketAddr::from((*listener.ip(), 8081));
    weir.write_config(&format!("listeners: [\"{}\", \"{other}\"]\n{config}", weir.address()));
    weir.reload();
    let listening = format!("listening: listeners={},{other} admin=", weir.address());
    weir.until_said(&listening);
    weir.reload();
    assert_eq!(weir.stderr().matches("listening: ").count(), 1, "{}", weir.stderr());
    weir.signal("TERM");
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0));
    assert!(weir.stderr().trim_end().ends_with("] stopped"), "{}", weir.stderr());
}

#[test]
fn a_log_filter_that_is_none_is_named_and_the_default_is_used() {
    let backend = Backend::start("one");
    let config =
        format!("pools: [{{name: web, health_check: off, backends: [{}]}}]\n", backend.url());
    for filter in ["verbose", "wier=debug"] {
        let weir = Weir::start_with(&config, &[("WEIR_LOG", filter)]);
        let warning = format!("WEIR_LOG={filter} is invalid, info,pingora_core=warn");
        eventually(TIMEOUT, "it is named", || weir.stderr().contains(&warning));
        eventually(TIMEOUT, "others are logged", || weir.stderr().contains("worker ready"));
        weir.reload();
        assert_eq!(weir.stderr().matches(&warning).count(), 1, "once: {}", weir.stderr());
    }
}

#[test]
fn a_file_without_its_flag_is_answered_with_the_flag() {
    let ended = run(&["run", "weir.yaml"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("did you mean 'weir run -c weir.yaml'?"), "{}", ended.stderr);
    assert!(!run(&["run", "--weir.yaml"]).stderr.contains("weir run -c"));
}

#[test]
fn a_warning_says_that_it_is_one_and_the_file_is_ok() {
    let given = Given::file(
        "pools: [{name: web, backends: [http://127.0.0.1:3000], health_check: {type: grpc}}]\n",
    );
    let ended = run(&["check", &given.path]);
    let line = format!(
        "{}:1:77: warning: health checks use gRPC, but no listener accepts HTTP/2, which gRPC \
         needs (help: add `http2: true`, or `tls`, to a listener)\n",
        given.path
    );
    assert_eq!((ended.code, ended.stderr), (Some(0), line));
    assert!(ended.stdout.contains(": ok: "), "{}", ended.stdout);
}

#[test]
fn wrong_usage_of_any_kind_has_the_code_2() {
    assert_eq!(run(&[]).code, Some(2));
    assert_eq!(run(&["frobnicate"]).code, Some(2));
    assert_eq!(run(&["check", "--watch"]).code, Some(2), "it is about a process that runs");
    assert_eq!(run(&["run", "--listen"]).code, Some(2));
    assert_eq!(run(&["origin"]).code, Some(2));
    assert_eq!(run(&["origin", "--port", "0x1"]).code, Some(2));
    assert_eq!(run(&["origin", "--port", "3000", "--status", "99"]).code, Some(2));
    assert_eq!(run(&["demo", "--backends", "0"]).code, Some(2));
}

#[test]
fn asking_for_help_or_the_version_has_the_code_0() {
    for args in [["--help"].as_slice(), &["--version"], &["run", "--help"], &["check", "--help"]] {
        let ended = run(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert_ne!(ended.stdout, "", "{args:?}");
    }
}

#[test]
fn a_missing_file_is_one_line_and_1() {
    let ways: [&[&str]; 3] =
        [&["run", "-c", "absent.yaml"], &["check", "absent.yaml"], &["check", "-c", "absent.yaml"]];
    for args in ways {
        refused(&run(args), "absent.yaml: there is no such file (help: check the path)");
    }
}

#[test]
fn a_directory_in_place_of_a_file_is_one_line_and_1() {
    let directory = Directory::new();
    let name = directory.name("");
    let line = format!(
        "{name}: cannot be read: it is a directory (help: pass a file in it, such as {name}weir.yaml)"
    );
    refused(&run(&["check", &name]), &line);
    refused(&run(&["run", "-c", &name]), &line);
}

#[test]
fn a_file_without_access_rights_is_one_line_and_1() {
    let given = Given::file("pools: []\n");
    fs::set_permissions(&given.path, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = if fs::read(&given.path).is_ok() {
        // Root may read anything, and others perhaps not where the binary is.
        let binary = given.directory.path("weir");
        copy_binary(&binary, "");
        let mut command = Command::new(binary);
        command.uid(65534).gid(65534);
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_weir"))
    };
    let ended = command.args(["check", &given.path]).output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    let expected = format!(
        "{}: cannot be read: Permission denied (os error 13) (help: let the user \
         that runs Weir read it)\n",
        given.path
    );
    assert_eq!((stderr, ended.status.code()), (expected, Some(1)));
}

/// The line for a port that another process listens on.
fn taken_port(address: &str) -> String {
    format!(
        "weir: cannot listen on {address}: the port is in use by another process, or by another Weir's \
         worker that still drains (help: stop it, or choose another address)"
    )
}

#[test]
fn a_port_in_use_is_one_line_and_1() {
    let (listener, admin) = own_ports();
    let _taken = Backend::start_at("taken", listener);
    let backend = Backend::start("one");
    let (listen, admin) = (listener.to_string(), admin.to_string());
    let args = ["run", "--listen", &listen, "--admin", &admin, "--backend", &backend.url()];
    let line = taken_port(&listen);
    refused(&run(&args), &line);
}

#[test]
fn an_admin_port_in_use_is_one_line_and_1() {
    let (listener, admin) = own_ports();
    let _taken = Backend::start_at("taken", admin);
    let backend = Backend::start("one");
    let (listen, admin) = (listener.to_string(), admin.to_string());
    let args = ["run", "--listen", &listen, "--admin", &admin, "--backend", &backend.url()];
    let line = taken_port(&admin);
    refused(&run(&args), &line);
}

#[test]
fn an_address_of_another_machine_is_one_line_and_1() {
    let (_, admin) = own_ports();
    let ended = run(&[
        "run",
        "--listen",
        "192.0.2.7:8080",
        "--admin",
        &admin.to_string(),
        "--backend",
        "http://127.0.0.1:3000",
    ]);
    refused(
        &ended,
        "weir: cannot listen on 192.0.2.7:8080: this machine does not have the address \
         (help: 0.0.0.0 listens on all of its addresses)",
    );
}

#[test]
fn an_unknown_key_is_one_line_with_its_place_and_1() {
    let given = Given::file("pools: [{name: web, backends: [http://127.0.0.1:3000]}]\nthread: 4\n");
    let line = format!("{}:2:1: unknown key `thread` (help: did you mean `threads`?)", given.path);
    refused(&run(&["check", &given.path]), &line);
    refused(&run(&["run", "-c", &given.path]), &line);
}

#[test]
fn check_tells_what_is_wrong_with_the_file_and_with_every_file_that_it_names() {
    let given = Given::file(
        "listeners:
  - address: nonsense
    tls:
      certificates: [{cert: a.crt, key: a.key}, {cert: b.crt, key: weir.yaml}]
      client_ca: clients.crt
pools:
  - backends: [https://10.0.0.1]
    timeouts: {connect: 10}
    tls: {ca: ca.crt, cert: own.crt, key: own.key}
",
    );
    let ended = run(&["check", &given.path]);
    let said: Vec<&str> =
        ended.stderr.lines().filter_map(|line| line.strip_prefix(&given.path)).collect();
    let expected = [
        ":2:14: `nonsense` is not an IP address with a port",
        "a.crt` does not exist",
        "a.key` does not exist",
        "b.crt` does not exist",
        "weir.yaml` has no private key in PEM",
        "clients.crt` does not exist",
        ":7:5: `name` is missing",
        ":8:25: the duration `10` has no unit",
        "ca.crt` does not exist",
        "own.crt` does not exist",
        "own.key` does not exist",
    ];
    assert_eq!(said.len(), expected.len(), "{}", ended.stderr);
    let of_files = said.iter().filter(|line| line.contains(".crt`") || line.contains(".key`"));
    assert!(of_files.clone().all(|line| line.contains(" (help: ")), "{}", ended.stderr);
    for (line, expected) in said.iter().zip(expected) {
        assert!(line.starts_with(':') && line.contains(expected), "{expected}: {line}");
    }
    assert_eq!(ended.code, Some(1));
}

#[test]
fn every_problem_of_a_file_has_its_own_line_and_place() {
    let given = Given::file(
        "pools:\n  - name: web\n    backends: [http://127.0.0.1:3000]\n    algorithm: rnd\n    \
         timeouts: {connect: 0s}\nadmin: {adress: 127.0.0.1:1}\n",
    );
    let ended = run(&["check", &given.path]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    let place = |line: &str| {
        let rest = line.strip_prefix(&format!("{}:", given.path))?;
        rest.split_once(": ").map(|(place, _)| place.to_owned())
    };
    let places: Vec<_> = ended.stderr.lines().map(place).collect();
    let expected = ["4:16", "5:25", "6:9"].map(|place| Some(place.to_owned()));
    assert_eq!(places, expected, "{}", ended.stderr);
}

#[test]
fn a_good_file_is_ok_and_says_what_is_in_it() {
    let given = Given::file("pools: [{name: web, backends: [http://127.0.0.1:3000]}]\n");
    let ended = run(&["check", &given.path]);
    let line = format!("{}: ok: listeners=1 routes=1 pools=1 backends=1\n", given.path);
    assert_eq!((ended.code, ended.stdout, ended.stderr), (Some(0), line, String::new()));
}

#[test]
fn without_file_and_backend_the_message_names_both_flags() {
    let line = "weir: there is nothing to balance (help: pass a file with `-c FILE`, or a \
                backend with `--backend http://10.0.0.1:3000`)";
    refused(&run(&["run"]), line);
    refused(&run(&["check"]), line);
    refused(&run(&["check", "--show"]), line);
    let empty = [("WEIR_CONFIG", ""), ("WEIR_BACKENDS", ""), ("WEIR_LISTEN", "")];
    refused(&run_in(&["run"], &empty), line);
}

#[test]
fn a_bad_flag_is_complained_about_once_and_by_its_name() {
    refused(
        &run(&["run", "--backend", "ftp://127.0.0.1"]),
        "weir: --backend: `ftp` is not a scheme for backends (help: write it as \
         `http://10.0.0.1:3000` or `https://10.0.0.1:3443`)",
    );
    refused(
        &run(&["run", "--listen", "8080", "--backend", "http://127.0.0.1:3000"]),
        "weir: --listen: `8080` is not an IP address with a port (help: for every \
         IPv4 address write `0.0.0.0:8080`)",
    );
}

#[test]
fn several_values_in_one_flag_or_variable_are_told_how_to_be_written() {
    for (flag, several, what) in [
        ("--backend", "http://127.0.0.1:7,http://127.0.0.1:8", "URL"),
        ("--listen", "127.0.0.1:7,127.0.0.1:8", "address"),
    ] {
        let said = format!(
            "weir: {flag}: `{several}` is more than one {what} (help: repeat `{flag}` for each)"
        );
        let args = ["check", flag, several, "--backend", "http://127.0.0.1:9"];
        assert_eq!(run(&args).stderr.lines().next(), Some(said.as_str()));
    }
    refused(
        &run_in(&["check"], &[("WEIR_BACKENDS", "http://127.0.0.1:7 http://127.0.0.1:8")]),
        "weir: WEIR_BACKENDS: `http://127.0.0.1:7 http://127.0.0.1:8` is more than one URL \
         (help: separate them with commas)",
    );
}

#[test]
fn no_help_opens_the_admin_port_to_everybody() {
    let what = "is not an IP address with a port (help: write `127.0.0.1:9090`)";
    let backend = ["check", "--backend", "http://127.0.0.1:1"];
    for typed in ["9090", "x", "localhost", ":9090"] {
        let flags = [&backend[..], &["--admin", typed]].concat();
        refused(&run(&flags), &format!("weir: --admin: `{typed}` {what}"));
    }
    refused(&run_in(&backend, &[("WEIR_ADMIN", "x")]), &format!("weir: WEIR_ADMIN: `x` {what}"));
}

#[test]
fn a_bad_value_beside_a_good_file_is_complained_about_by_its_name_and_not_the_files() {
    let given = Given::file("pools: [{name: web, backends: [http://127.0.0.1:3000]}]\n");
    let line = "WEIR_ALGORITHM: `rnd` is not an algorithm";
    for args in [["check", &given.path].as_slice(), &["run", "-c", &given.path]] {
        let ended = run_in(args, &[("WEIR_ALGORITHM", "rnd")]);
        assert!(ended.stderr.starts_with(&format!("weir: {line}")), "{args:?}: {ended:?}");
        let ended = run(&[args, &["--algorithm", "rnd"]].concat());
        assert!(ended.stderr.starts_with("weir: --algorithm: `rnd` "), "{args:?}: {ended:?}");
    }
}

#[test]
fn a_duration_is_written_on_the_command_line_as_in_the_file() {
    let run_with = |flag| vec!["run", "--backend", "http://127.0.0.1:1", flag];
    for (args, name) in [
        (run_with("--hang-timeout"), "--hang-timeout"),
        (run_with("--ready-timeout"), "--ready-timeout"),
        (vec!["origin", "--port", "1", "--latency"], "--latency"),
    ] {
        for (typed, why) in [
            ("5", "the duration `5` has no unit (help: write `5s`)"),
            ("1m30s", "`1m30s` is not a duration (help: write `90s`)"),
            ("soon", "`soon` is not a duration (help: a whole number and a unit: `500ms`, "),
        ] {
            let ended = run(&[args.as_slice(), &[typed]].concat());
            let start = format!("error: invalid value '{typed}' for '{name} <DURATION>': {why}");
            assert_eq!(ended.code, Some(2), "{ended:?}");
            assert!(ended.stderr.starts_with(&start), "{ended:?}");
        }
    }
    let short = run(&["run", "--backend", "http://127.0.0.1:1", "--hang-timeout", "10ms"]);
    assert!(short.stderr.contains(": `10ms` is shorter than 1s (help: "), "{short:?}");
    let env = [("WEIR_HANG_TIMEOUT", "5")];
    let line = "weir: WEIR_HANG_TIMEOUT: the duration `5` has no unit (help: write `5s`)";
    refused(&run_in(&["run", "--backend", "http://127.0.0.1:1"], &env), line);
}

#[test]
fn the_help_of_run_names_every_variable_that_it_reads() {
    let help = run(&["run", "--help"]).stdout;
    for name in [
        "WEIR_CONFIG",
        "WEIR_LISTEN",
        "WEIR_BACKENDS",
        "WEIR_ALGORITHM",
        "WEIR_ADMIN",
        "WEIR_CONTROL",
        "WEIR_HANG_TIMEOUT",
        "WEIR_LOG",
        "WEIR_DEBUG",
    ] {
        let (_, environment) = help.split_once("Environment").unwrap();
        assert!(environment.contains(name), "{name}: {help}");
    }
    let help = run(&["check", "--help"]).stdout;
    assert!(help.contains("WEIR_ADMIN") && !help.contains("WEIR_HANG_TIMEOUT"), "{help}");
    for command in ["status", "reload", "stop", "demo"] {
        assert!(run(&[command, "--help"]).stdout.contains("[env: WEIR_CONTROL]"), "{command}");
    }
}

#[test]
fn watching_without_a_file_is_warned_of() {
    let backend = Backend::start("one");
    let (listener, admin) = own_ports();
    let (listen, admin) = (listener.to_string(), admin.to_string());
    let url = backend.url();
    let args = ["run", "--watch", "--listen", &listen, "--admin", &admin, "--backend", &url];
    let mut weir = Running::start(&args, &[]);
    weir.get(listener, "/");
    let line = "--watch has no effect: no configuration file is given (help: pass it by `-c FILE`)";
    eventually(TIMEOUT, "a warning", || weir.stderr().contains(line));
    assert_eq!(weir.stop().code(), Some(0));
}

#[test]
fn a_bad_variable_is_complained_about_by_its_name() {
    let env = [("WEIR_BACKENDS", "http://127.0.0.1:3000"), ("WEIR_ALGORITHM", "rnd")];
    refused(
        &run_in(&["run"], &env),
        "weir: WEIR_ALGORITHM: `rnd` is not an algorithm (help: it can be `round_robin`, \
         `least_conn`, `ip_hash` or `random`)",
    );
}

#[test]
fn a_backend_by_the_name_of_localhost_works() {
    // A name has the addresses that it has, so the port must be free on 127.0.0.1.
    let port = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let _backend = Backend::start_at("local", SocketAddr::from(([127, 0, 0, 1], port)));
    let url = format!("http://localhost:{port}");
    let weir = Weir::start(&format!("pools: [{{name: web, backends: [\"{url}\"]}}]"));
    assert_eq!(weir.get("/").text(), "local");
    assert_eq!(weir.status()["backends"][0]["url"], url);
}

#[test]
fn run_balances_over_the_backends_of_its_flags() {
    let backends = Backend::start_many(2);
    let (listener, admin) = own_ports();
    let (listen, admin) = (listener.to_string(), admin.to_string());
    let (first, second) = (backends[0].url(), backends[1].url());
    let args =
        ["run", "--listen", &listen, "--admin", &admin, "--backend", &first, "--backend", &second];
    let mut weir = Running::start(&args, &[]);
    let names = [weir.get(listener, "/").text(), weir.get(listener, "/").text()];
    assert_eq!(BTreeSet::from(names).len(), 2);
    assert_eq!(weir.stop().code(), Some(0));
}

/// Where `weir run` listens, what it balances over and how, as it tells itself.
struct Setting {
    directory: Given,
    /// Of the file, of the environment, of the flag.
    listeners: [SocketAddr; 3],
    admins: [SocketAddr; 3],
    backends: Vec<Backend>,
}

impl Setting {
    fn new() -> Self {
        let ports = [own_ports(), own_ports(), own_ports()];
        let (listeners, admins) = (ports.map(|(listener, _)| listener), ports.map(|(_, it)| it));
        let backends = Backend::start_many(3);
        let directory = Given::file(&format!(
            "listeners: [\"{}\"]\nadmin: {{address: \"{}\"}}\n\
             pools: [{{name: web, algorithm: ip_hash, backends: [{}]}}]\n",
            listeners[0],
            admins[0],
            backends[0].url()
        ));
        Self { directory, listeners, admins, backends }
    }

    /// Runs with the file; with environment and flags too where the caller says so.
    fn run(&self, with_environment: bool, with_flags: bool) -> Running {
        let path = self.directory.path.as_str();
        let text = |index: usize| {
            let (listener, admin) = (&self.listeners[index], &self.admins[index]);
            [listener.to_string(), admin.to_string(), self.backends[index].url()]
        };
        let ([listen, admin, backend], [listen_flag, admin_flag, backend_flag]) =
            (text(1), text(2));
        let mut env = vec![("WEIR_CONFIG", path)];
        if with_environment {
            env.extend([("WEIR_LISTEN", listen.as_str()), ("WEIR_ADMIN", admin.as_str())]);
            env.push(("WEIR_BACKENDS", backend.as_str()));
        }
        let mut args = vec!["run"];
        if with_flags {
            args.extend(["--listen", &listen_flag, "--admin", &admin_flag]);
            args.extend(["--backend", &backend_flag]);
        }
        Running::start(&args, &env)
    }
}

#[test]
fn the_file_of_the_environment_is_used() {
    let setting = Setting::new();
    let mut weir = setting.run(false, false);
    assert_eq!(weir.get(setting.listeners[0], "/").text(), "b1");
    assert_eq!(weir.get(setting.admins[0], "/readyz").status(), 200);
}

#[test]
fn the_environment_wins_over_the_file() {
    let setting = Setting::new();
    let mut weir = setting.run(true, false);
    assert_eq!(weir.get(setting.listeners[1], "/").text(), "b2");
    assert_eq!(weir.get(setting.admins[1], "/readyz").status(), 200);
    assert!(try_get(setting.listeners[0], "/").is_err(), "the file's listener is replaced");
}

#[test]
fn flags_win_over_the_environment() {
    let setting = Setting::new();
    let mut weir = setting.run(true, true);
    assert_eq!(weir.get(setting.listeners[2], "/").text(), "b3");
    assert_eq!(weir.get(setting.admins[2], "/readyz").status(), 200);
    assert!(try_get(setting.listeners[1], "/").is_err(), "the environment's is replaced");
}

/// Whether one client reached one backend alone in six requests, which only `ip_hash` does.
fn is_hashed(environment: Option<&str>, flag: Option<&str>) -> bool {
    let backends = Backend::start_many(2);
    let (listener, admin) = own_ports();
    let given = Given::file(&format!(
        "listeners: [\"{listener}\"]\nadmin: {{address: \"{admin}\"}}\n\
         pools: [{{name: web, backends: [{}, {}]}}]\n",
        backends[0].url(),
        backends[1].url()
    ));
    let mut args = vec!["run", "-c", given.path.as_str()];
    args.extend(flag.iter().flat_map(|name| ["--algorithm", *name]));
    let env: Vec<_> = environment.iter().map(|name| ("WEIR_ALGORITHM", *name)).collect();
    let mut weir = Running::start(&args, &env);
    (0..6).for_each(|_| assert_eq!(weir.get(listener, "/").status(), 200));
    backends.iter().any(|backend| backend.count() == 0)
}

#[test]
fn the_algorithm_is_the_flags_then_the_environments_then_the_files() {
    assert!(!is_hashed(None, None));
    assert!(is_hashed(Some("ip_hash"), None));
    assert!(!is_hashed(Some("ip_hash"), Some("round_robin")));
    assert!(is_hashed(Some("round_robin"), Some("ip_hash")));
    assert!(!is_hashed(Some(""), None), "set to nothing is not set");
}

#[test]
fn a_list_of_backends_in_the_environment_is_split_at_its_commas() {
    let backends = Backend::start_many(3);
    let (listener, admin) = own_ports();
    let list = format!("{}, {},{},", backends[0].url(), backends[1].url(), backends[2].url());
    let (listen, admin) = (listener.to_string(), admin.to_string());
    let env = [("WEIR_BACKENDS", list.as_str()), ("WEIR_LISTEN", &listen), ("WEIR_ADMIN", &admin)];
    let mut weir = Running::start(&["run"], &env);
    let names: BTreeSet<String> = (0..3).map(|_| weir.get(listener, "/").text()).collect();
    assert_eq!(names.len(), 3);
}

#[test]
fn the_access_log_goes_to_standard_output_and_what_happens_to_standard_error() {
    let backend = Backend::start("one");
    let weir = Weir::start(&format!("pools: [{{name: web, backends: [{}]}}]", backend.url()));
    weir.get("/seen");
    weir.until_logged("its line", |line| line["path"] == "/seen");
    assert_eq!(weir.stdout().lines().count(), 1, "{}", weir.stdout());
    assert!(!weir.stderr().contains("/seen"), "{}", weir.stderr());
    weir.until_said("worker ready: generation=1 config=");
}

#[test]
fn the_access_log_goes_to_standard_error_if_the_file_says_so() {
    let backend = Backend::start("one");
    let weir = Weir::start(&format!(
        "pools: [{{name: web, backends: [{}]}}]\naccess_log: {{target: stderr}}",
        backend.url()
    ));
    weir.get("/seen");
    eventually(TIMEOUT, "its line", || weir.stderr().contains("\"path\":\"/seen\""));
    assert_eq!(weir.stdout(), "");
}

#[test]
fn an_access_log_that_is_off_writes_nothing() {
    let backend = Backend::start("one");
    let mut weir = Weir::start(&format!(
        "pools: [{{name: web, backends: [{}]}}]\naccess_log: {{format: off}}",
        backend.url()
    ));
    weir.get("/seen");
    weir.signal("TERM");
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0));
    assert_eq!(weir.stdout(), "");
    assert!(!weir.stderr().contains("/seen"), "{}", weir.stderr());
}

/// What a start writes to standard error with this environment.
fn log_with(env: &[(&str, &str)]) -> String {
    let backend = Backend::start("one");
    let (listener, admin) = own_ports();
    let (listen, admin) = (listener.to_string(), admin.to_string());
    let args = ["run", "--listen", &listen, "--admin", &admin, "--backend", &backend.url()];
    let mut weir = Running::start(&args, env);
    assert_eq!(weir.get(listener, "/").status(), 200);
    assert_eq!(weir.stop().code(), Some(0));
    weir.stderr()
}

#[test]
fn weir_log_and_weir_debug_say_how_much_is_told() {
    let usual = log_with(&[]);
    assert!(usual.contains(" INFO ") && !usual.contains(" DEBUG "), "{usual}");
    assert_eq!(log_with(&[("WEIR_LOG", "error")]), "");
    assert!(log_with(&[("WEIR_LOG", "weir=debug")]).contains(" DEBUG weir"));
    assert!(log_with(&[("WEIR_DEBUG", "1")]).contains(" DEBUG "));
    let quiet = log_with(&[("WEIR_DEBUG", "1"), ("WEIR_LOG", "error")]);
    assert_eq!(quiet, "", "WEIR_LOG is the more exact word");
}

#[test]
fn an_origin_tells_its_name_and_what_it_saw() {
    let at = own_socket(3000);
    let (port, address) = (at.port().to_string(), at.ip().to_string());
    let args = ["origin", "--port", &port, "--address", &address, "--name", "alpha"];
    let mut origin = Running::start(&args, &[]);
    let answer = origin.get(at, "/a?b=c");
    let seen = answer.json();
    assert_eq!((answer.status(), answer.header("x-origin")), (200, Some("alpha")));
    assert_eq!(
        (&seen["server"], &seen["method"], &seen["path"]),
        (&"alpha".into(), &"GET".into(), &"/a?b=c".into())
    );
    assert_eq!(client::get(at, "/health").status(), 200);
    assert_eq!(origin.stop().code(), Some(0));
}

#[test]
fn an_origin_can_be_slow_fail_or_answer_with_a_status() {
    let origin = |more: &[&str]| {
        let at = own_socket(3000);
        let (port, address) = (at.port().to_string(), at.ip().to_string());
        let args = [&["origin", "--port", &port, "--address", &address], more].concat();
        (at, Running::start(&args, &[]))
    };
    let (at, mut slow) = origin(&["--latency", "500ms"]);
    assert_eq!(slow.get(at, "/health").status(), 200);
    let start = now();
    assert_eq!(slow.get(at, "/").status(), 200);
    assert!(now() - start >= Duration::from_millis(500), "{:?}", now() - start);

    let (at, mut failing) = origin(&["--fail"]);
    assert_eq!(failing.get(at, "/").status(), 500);
    assert_eq!(failing.get(at, "/health").status(), 500);

    let (at, mut odd) = origin(&["--status", "503"]);
    assert_eq!(odd.get(at, "/").status(), 503);
    assert_eq!(odd.get(at, "/health").status(), 200);
}

#[test]
fn an_origin_whose_port_is_taken_is_one_line_and_1() {
    let taken = Backend::start("taken");
    let at = taken.address();
    let (port, address) = (at.port().to_string(), at.ip().to_string());
    let ended = run(&["origin", "--port", &port, "--address", &address]);
    refused(&ended, &format!("weir: cannot listen on {at}: Address already in use (os error 98)"));
}

#[test]
fn the_demo_shows_what_to_curl_and_it_works() {
    let (listener, admin) = own_ports();
    let (listen, admin) = (listener.to_string(), admin.to_string());
    let mut demo =
        Running::start(&["demo", "--listen", &listen, "--admin", &admin, "--backends", "4"], &[]);
    eventually(TIMEOUT, "it says what to curl", || demo.stdout().contains("Ctrl-C stops it."));
    let said = demo.stdout();
    let urls: Vec<&str> =
        said.lines().filter_map(|line| line.trim().strip_prefix("curl ")).collect();
    assert_eq!(urls.len(), 3, "{said}");
    for url in urls {
        let (at, path) = url.trim_start_matches("http://").split_once('/').expect(url);
        let at: SocketAddr = at.parse().expect(url);
        assert_eq!(demo.get(at, &format!("/{path}")).status(), 200, "{url}");
    }
    let name = |_| demo.get(listener, "/").json()["server"].to_string();
    let servers: BTreeSet<String> = (0..4).map(name).collect();
    assert_eq!(servers.len(), 4, "{servers:?}");
    assert_eq!(demo.stop().code(), Some(0));
}

#[test]
fn a_demo_whose_port_is_taken_is_one_line_and_1() {
    let (listener, admin) = own_ports();
    let _taken = Backend::start_at("taken", listener);
    let (listen, admin) = (listener.to_string(), admin.to_string());
    refused(&run(&["demo", "--listen", &listen, "--admin", &admin]), &taken_port(&listen));
}

#[test]
fn a_variable_of_another_balancer_is_named_with_the_one_that_is_read() {
    let config = "pools: [{name: web, health_check: off, backends: [http://127.0.0.1:1]}]";
    let set = [("LB_CONFIG", "lb.yaml"), ("LB_ALGORITHM", ""), ("BACKENDS", "http://127.0.0.1:2")];
    let weir = Weir::start_with(config, &set);
    for line in ["name=LB_CONFIG (help: Weir reads WEIR_CONFIG)", "name=BACKENDS (help: Weir reads"]
    {
        assert_eq!(weir.stderr().matches(line).count(), 1, "{}", weir.stderr());
    }
    assert!(!weir.stderr().contains("LB_ALGORITHM"), "it is set to nothing, which is not set");
}

#[test]
fn an_unknown_variable_of_weir_is_named_with_the_one_that_was_meant() {
    let config = "pools: [{name: web, health_check: off, backends: [http://127.0.0.1:1]}]";
    let set = [
        ("WEIR_BACKEND", "http://127.0.0.1:2"),
        ("WEIR_LISTENERS", "x"),
        ("WEIR_COLOUR", "secret"),
        ("WEIR_BACKENDZ", ""),
        ("WEIR_FAULT", "none"),
        ("WEIR_SERVICE_HOST", "10.0.0.1"),
        ("WEIR_SERVICE_PORT_HTTP", "8080"),
        ("WEIR_PORT", "tcp://10.0.0.1:8080"),
        ("WEIR_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("WEIR_ADMIN_SERVICE_HOST", "10.0.0.1"),
    ];
    let weir = Weir::start_with(config, &set);
    for line in [
        "name=WEIR_BACKEND (help: did you mean WEIR_BACKENDS?)",
        "name=WEIR_LISTENERS (help: did you mean WEIR_LISTEN?)",
        "name=WEIR_COLOUR (help: Weir reads WEIR_CONFIG, WEIR_LISTEN, ",
    ] {
        assert_eq!(weir.stderr().matches(line).count(), 1, "{line}: {}", weir.stderr());
    }
    assert_eq!(
        weir.stderr().matches("environment variable not read").count(),
        3,
        "{}",
        weir.stderr()
    );
    assert!(!weir.stderr().contains("secret"), "a value may be one");
}

#[test]
fn the_time_flags_hold_for_every_pool() {
    let backend = Backend::start("one");
    backend.set(Behaviour::NeverAnswer);
    let (listener, admin) = own_ports();
    let (listen, admin) = (listener.to_string(), admin.to_string());
    let given = Given::file(&format!(
        "pools: [{{name: web, backends: [{}], health_check: {{path: /health}}}}]\n",
        backend.url()
    ));
    let mut weir = Running::start(
        &[
            "run",
            "-c",
            &given.path,
            "--listen",
            &listen,
            "--admin",
            &admin,
            "--request-timeout",
            "300ms",
            "--health-interval",
            "100ms",
        ],
        &[],
    );
    assert_eq!(weir.get(listener, "/").status(), 504);
    eventually(TIMEOUT, "probes come every tenth of a second", || backend.count_of("/health") > 5);
}

#[test]
fn a_file_is_shown_with_its_defaults_and_its_routes_in_their_order() {
    let given = Given::file(
        "routes: [{pool: web}, {path: /a, pool: web}, {path_exact: /a, respond: 403}]\n\
         pools: [{name: web, backends: [http://10.0.0.1:3000]}]\n",
    );
    let shown = run(&["check", "--show", &given.path]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    let routes: Vec<&str> = shown.stdout.lines().filter(|line| line.contains("{path")).collect();
    assert_eq!(routes[1..], ["  - {path: /a, pool: web}", "  - {path: /, pool: web}"]);
    assert!(shown.stdout.contains("\n  keepalive: 75s\n"), "{}", shown.stdout);
    let again = Given::file(&shown.stdout);
    assert_eq!(run(&["check", "--show", &again.path]).stdout, shown.stdout);
}

#[test]
fn check_judges_what_run_would_serve_with_the_same_flags_and_environment() {
    let given = Given::file("pools: [{name: web, backends: [http://127.0.0.1:3000]}]\n");
    let check = ["check", given.path.as_str()];
    let wrong = "`rnd` is not an algorithm (help: it can be `round_robin`, `least_conn`, `ip_hash` or \
                 `random`)";
    let env = [("WEIR_ALGORITHM", "rnd")];
    refused(&run_in(&check, &env), &format!("weir: WEIR_ALGORITHM: {wrong}"));
    refused(&run_in(&["run", "-c", &given.path], &env), &format!("weir: WEIR_ALGORITHM: {wrong}"));
    let flag = ["check", &given.path, "--algorithm", "rnd"];
    refused(&run_in(&flag, &env), &format!("weir: --algorithm: {wrong}"));
    // A problem that comes of a flag and the file together: Weir would be its own backend.
    let own = run(&["check", &given.path, "--listen", "127.0.0.1:3000"]);
    assert!(own.stderr.contains("127.0.0.1:3000"), "{}", own.stderr);
    assert_eq!(own.code, Some(1));
    let good = run_in(
        &["check", &given.path, "--listen", "127.0.0.1:81", "--listen", "127.0.0.1:82"],
        &[("WEIR_BACKENDS", "http://127.0.0.1:1,http://127.0.0.1:2"), ("WEIR_ADMIN", "")],
    );
    let line = format!(
        "{}: ok: listeners=2 routes=1 pools=1 backends=2 overridden_by=--listen,WEIR_BACKENDS\n",
        given.path
    );
    assert_eq!((good.code, good.stdout, good.stderr), (Some(0), line, String::new()));
}

#[test]
fn what_is_wrong_with_the_file_alone_may_be_right_with_an_override() {
    let given = Given::file(
        "admin: {address: \"127.0.0.1:9090\"}\npools: [{name: web, backends: [http://127.0.0.1:9090]}]\n",
    );
    assert_eq!(run(&["check", &given.path]).code, Some(1));
    let ended = run(&["check", &given.path, "--admin", "127.0.0.1:9091"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn check_finds_its_file_where_run_finds_it() {
    let given = Given::file("pools: [{name: web, backends: [http://127.0.0.1:3000]}]\n");
    let other = Given::file("pools: []\n");
    let by_variable = run_in(&["check"], &[("WEIR_CONFIG", &given.path)]);
    let line = format!("{}: ok: listeners=1 routes=1 pools=1 backends=1\n", given.path);
    assert_eq!((by_variable.code, by_variable.stdout), (Some(0), line.clone()));
    let named = run_in(&["check", &given.path], &[("WEIR_CONFIG", &other.path)]);
    assert_eq!((named.code, named.stdout), (Some(0), line));
    let no_file = run(&["check", "--backend", "http://127.0.0.1:3000"]);
    let line = "weir: ok: listeners=1 routes=1 pools=1 backends=1 overridden_by=--backend\n";
    assert_eq!((no_file.code, no_file.stdout.as_str()), (Some(0), line));
}

#[test]
fn variables_that_are_about_the_process_do_not_fail_a_check() {
    let given = Given::file("pools: [{name: web, backends: [http://127.0.0.1:3000]}]\n");
    let env = [("WEIR_HANG_TIMEOUT", "20s"), ("WEIR_CONTROL", "/no/such/socket")];
    let ended = run_in(&["check", &given.path], &env);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_configuration_is_shown_with_the_values_that_win_over_the_file() {
    let given = Given::file(
        "pools: [{name: web, backends: [http://127.0.0.1:3000], health_check: {path: /up}}]\n",
    );
    let env = [("WEIR_ALGORITHM", "random"), ("WEIR_BACKENDS", "http://127.0.0.1:1")];
    let flags = ["--listen", "127.0.0.1:81", "--health-interval", "4s", "--request-timeout", "off"];
    let shown = run_in(&[["check", "--show", &given.path].as_slice(), &flags].concat(), &env);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""), "{}", shown.stdout);
    let from = "# Not from the file, but from: --listen,WEIR_BACKENDS,WEIR_ALGORITHM,--request-timeout,\
                --health-interval.";
    for line in [
        from,
        "      - {url: http://127.0.0.1:1, weight: 1}",
        "    algorithm: random",
        "      interval: 4s",
        "      path: /up",
        "      request: off",
    ] {
        assert!(shown.stdout.lines().any(|one| one == line), "{line} is not in\n{}", shown.stdout);
    }
    assert!(shown.stdout.contains("127.0.0.1:81") && !shown.stdout.contains("0.0.0.0:8080"));
    assert!(!shown.stdout.contains(":3000"), "{}", shown.stdout);
    // It can be run as it is, with nothing that wins over it.
    let again = Given::file(&shown.stdout);
    assert_eq!(run(&["check", &again.path]).code, Some(0));
    let wrong = run(&["check", "--show", &given.path, "--algorithm", "rnd"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stdout.contains("    algorithm: rnd\n"), "{}", wrong.stdout);
    assert!(
        wrong.stderr.contains("weir: --algorithm: `rnd` is not an algorithm"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn a_shell_completes_the_commands_that_there_are() {
    for (shell, says) in
        [("bash", "complete -F _weir"), ("zsh", "#compdef weir"), ("fish", "complete -c weir")]
    {
        let printed = run(&["completions", shell]);
        assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(printed.stdout.contains(says), "{shell}: {}", printed.stdout);
        assert!(printed.stdout.contains("reload") && printed.stdout.contains("show"), "{shell}");
    }
    assert_eq!(run(&["completions", "cobol"]).code, Some(2));
}

#[test]
fn what_bash_is_given_is_a_script() {
    let given = Given::file(&run(&["completions", "bash"]).stdout);
    let checked = Command::new("bash").args(["-n", &given.path]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
