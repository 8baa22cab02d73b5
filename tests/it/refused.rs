//! Rejected reloads: the active configuration stays, and the caller gets the reason.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use humantime::parse_rfc3339;

use crate::support::backend::Backend;
use crate::support::configs::pool;
use crate::support::mixed_clients::{self, MixedClients};
use crate::support::ports::own_socket;
use crate::support::weir::{Directory, Ended, Weir, copy_binary, put_script, run_to_end};
use crate::support::{TIMEOUT, eventually, now};

/// Waits for this value of `lb_config_reload_success`. The worker gets it just after the caller's reply.
fn until_success_is(weir: &Weir, expected: f64) {
    let success = || weir.metrics().value("lb_config_reload_success", &[]);
    eventually(TIMEOUT, "the metric has the value", || success() == Some(expected));
}

/// Under load, makes the file invalid by `spoil`, and returns the output of `weir reload`. No request may be
/// lost, the old configuration must stay active, and a valid file must work afterwards.
fn rejected_under_load(spoil: impl Fn(&Weir)) -> Ended {
    rejected_until_repaired(Weir::start, spoil, || ())
}

/// The same for a Weir started by `start`, with a repair other than a valid file.
fn rejected_until_repaired(
    start: impl FnOnce(&str) -> Weir,
    spoil: impl Fn(&Weir),
    repair: impl Fn(),
) -> Ended {
    let backends = Backend::start_many(2);
    mixed_clients::pace(&backends);
    let weir = start(&pool(&backends, ""));
    let worker = weir.worker_pid();
    let mix = MixedClients::start(weir.address());
    spoil(&weir);
    let said = weir.command(&["reload"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
    until_success_is(&weir, 0.0);
    mix.go_on();
    assert_eq!(weir.worker_pid(), worker, "the same worker serves");
    assert_eq!(weir.workers().len(), 1, "and no other is left");
    repair();
    weir.write_config(&pool(&backends, "timeouts: {idle: 7s}"));
    weir.reload();
    until_success_is(&weir, 1.0);
    mix.go_on();
    let backends: Vec<&Backend> = backends.iter().collect();
    mix.stop().assert_flawless(&backends);
    let outcomes = |outcome| weir.metrics().sum("lb_config_reloads_total", &[("outcome", outcome)]);
    assert_eq!((outcomes("rejected"), outcomes("done")), (1.0, 1.0));
    said
}

#[test]
fn an_invalid_file_is_rejected_with_the_position_of_each_problem() {
    let said = rejected_under_load(|weir| {
        weir.write_config("pools:\n  - name: web\n    algorithm: fair\n    backends: [nowhere]\n");
    });
    let lines: Vec<&str> = said.stderr.lines().filter(|line| line.contains("weir.yaml:")).collect();
    assert!(lines.iter().any(|line| line.contains("weir.yaml:3:16: ")), "{said:?}");
    assert!(lines.iter().any(|line| line.contains("weir.yaml:4:16: ")), "{said:?}");
}

#[test]
fn a_missing_file_is_rejected() {
    let said = rejected_under_load(|weir| fs::remove_file(weir.config_path()).unwrap());
    assert!(said.stderr.contains("weir.yaml: there is no such file"), "{said:?}");
}

#[test]
fn a_port_in_use_rejects_the_reload() {
    let taken = TcpListener::bind(own_socket(8000)).unwrap();
    let address = taken.local_addr().unwrap();
    let said = rejected_under_load(|weir| {
        let (kept, admin) = (weir.address(), weir.admin());
        let text = format!(
            "pools: [{{name: web, backends: [http://127.0.0.1:1]}}]\n\
             listeners: [\"{kept}\", \"{address}\"]\nadmin: {{address: \"{admin}\"}}\n"
        );
        fs::write(weir.config_path(), text).unwrap();
    });
    assert!(said.stderr.contains(&format!("cannot listen on {address}: ")), "{said:?}");
    assert!(said.stderr.contains("the port is in use by another process"), "{said:?}");
}

#[test]
fn each_address_in_use_is_reported_with_its_position() {
    let taken = [8000, 8001].map(|port| TcpListener::bind(own_socket(port)).unwrap());
    let [one, other] = taken.each_ref().map(|taken| taken.local_addr().unwrap());
    let weir = Weir::start(&pool(&Backend::start_many(1), ""));
    let (kept, admin) = (weir.address(), weir.admin());
    let text = format!(
        "pools: [{{name: web, backends: [http://127.0.0.1:1]}}]\nlisteners:\n- \"{one}\"\n\
         - \"{kept}\"\n- {{http2: true, address: \"{other}\"}}\nadmin: {{address: \"{admin}\"}}\n"
    );
    fs::write(weir.config_path(), &text).unwrap();
    let file = weir.config_path().display().to_string();
    let line =
        |at: &str, address| format!("{file}:{at}: cannot listen on {address}: the port is in use");
    let assert_both = |ended: &Ended| {
        let lines: Vec<&str> = ended.stderr.lines().collect();
        let [first, second] = lines.as_slice() else { panic!("two lines: {ended:?}") };
        assert!(first.starts_with(&line("3:3", one)), "{first}");
        assert!(second.starts_with(&line("5:26", other)), "{second}");
    };
    assert_both(&weir.command(&["reload"]));
    // The same at a start, where all addresses of the file are in use.
    let ended = run_to_end(&["run", "-c", &file], &[], TIMEOUT);
    assert_eq!(ended.stderr.matches("cannot listen on ").count(), 4, "{ended:?}");
    assert!(
        ended.stderr.contains(&format!("{file}:6:18: cannot listen on {admin}: ")),
        "{ended:?}"
    );
}

#[test]
fn status_shows_when_and_why_the_last_reload_was_rejected() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let shown = || weir.command(&["status"]).stdout;
    assert!(!shown().contains("reload rejected"), "{}", shown());
    // No client waits for the result of this one.
    weir.write_config("pools:\n  - name: web\n    algorithm: fair\n    backends: [nowhere]\n");
    weir.signal("HUP");
    eventually(TIMEOUT, "it is shown", || shown().contains("\nlast reload rejected: time="));
    let text = shown();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("last reload rejected: "));
    let (_, time) = lines.next().unwrap().split_once("time=").unwrap();
    let log = weir.stderr();
    let logged = log.lines().find(|line| line.contains("] reload rejected: ")).unwrap();
    let logged = parse_rfc3339(&logged[1..25]).unwrap() - Duration::from_secs(1);
    let since = parse_rfc3339(time).unwrap().duration_since(logged).unwrap();
    assert!(since < TIMEOUT, "{time} {log}");
    let first = format!("  {}:3:16: `fair` is not ", weir.config_path().display());
    assert!(lines.next().unwrap().starts_with(&first), "{text}");
    assert_eq!(lines.next(), Some("  and others: `weir check` prints every problem"), "{text}");
    assert!(!text.contains("nowhere"), "only the first problem: {text}");
    weir.write_config(&pool(&backends, ""));
    weir.reload();
    assert!(!shown().contains("last reload rejected"), "{}", shown());
}

/// The output of a rejected reload with a new binary on disk that runs `script`.
fn rejected_with_binary(script: &str, flags: &[&str]) -> Ended {
    let directory = Directory::new();
    let binary = directory.path("weir");
    copy_binary(&binary, "");
    rejected_until_repaired(
        |config| Weir::start_by_flagged(Command::new(&binary), config, flags),
        |_| put_script(&binary, script),
        || copy_binary(&binary, ""),
    )
}

#[test]
fn a_worker_that_exits_at_its_start_rejects_the_reload() {
    let said = rejected_with_binary("exec false", &[]);
    assert!(said.stderr.contains("the new worker ended: exit code 1"), "{said:?}");
}

#[test]
fn a_worker_that_is_not_ready_in_time_rejects_the_reload() {
    let start = now();
    let said = rejected_with_binary("exec sleep 60", &["--ready-timeout", "5s"]);
    assert!(said.stderr.contains("was not ready within 5s"), "{said:?}");
    assert!(now() - start < Duration::from_secs(50), "the caller gets the result in time");
}

#[test]
fn a_rejected_reload_does_not_change_the_time_of_the_last_one() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let loaded = || weir.metrics().sum("lb_config_last_reload_timestamp_seconds", &[]);
    let age = || weir.status()["config"]["age_seconds"].as_u64().unwrap();
    let before = loaded();
    eventually(TIMEOUT, "some time has passed", || age() >= 2);
    weir.write_config("pools: 17");
    assert_eq!(weir.command(&["reload"]).code, Some(1));
    let rejected = || weir.metrics().sum("lb_config_reload_success", &[]) == 0.0;
    eventually(TIMEOUT, "the metric has the value", rejected);
    assert!((loaded() - before).abs() < 0.5, "{} and {before}", loaded());
    assert!(age() >= 2);
    weir.write_config(&pool(&backends, ""));
    weir.reload();
    eventually(TIMEOUT, "a good one moves it", || loaded() > before);
}
