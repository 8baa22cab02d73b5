//! What operators set on backends: drained and disabled backends get nothing, and one with another weight
//! gets its share, whatever happens to the workers. Counted at the backends.

#![expect(
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use serde_json::Value;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::Client;
use crate::support::configs::{pool, world};
use crate::support::weir::{Ended, Weir};
use crate::support::{TIMEOUT, eventually, eventually_some};

/// Runs a command on a backend of the pool `web`, and expects that it is done.
#[track_caller]
fn done(weir: &Weir, command: &str, backend: &Backend, flags: &[&str]) -> String {
    let target = format!("web/{}", backend.address());
    let ended = weir.command(&[&[command, &target], flags].concat());
    assert_eq!(ended.code, Some(0), "{command}: {ended:?}\n{}", weir.stderr());
    ended.stdout
}

/// The rows of `weir backends`.
#[track_caller]
fn rows(weir: &Weir) -> Vec<Value> {
    let ended = weir.command(&["backends", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("it prints JSON")
}

/// The number of requests that this backend gets of twelve, which all succeed.
#[track_caller]
fn share_of(weir: &Weir, backend: &Backend) -> usize {
    backend.forget();
    let statuses = weir.statuses("GET", 12);
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    backend.count()
}

// ── a command has returned ──

#[test]
fn a_disabled_backend_gets_nothing_once_the_command_has_returned() {
    let (backends, weir) = world(3, "");
    assert_eq!(share_of(&weir, &backends[0]), 4);
    let said = done(&weir, "disable", &backends[0], &["--reason", "new \"disk\""]);
    let start = format!("web/{}: as configured -> disabled by uid=", backends[0].address());
    assert!(said.starts_with(&start), "{said}");
    assert_eq!(share_of(&weir, &backends[0]), 0);
    weir.until_said(&format!(
        "override set: pool=web backend={} before=\"as configured\" after=\"disabled\" by=\"uid=",
        backends[0].address()
    ));
    weir.until_said("reason=\"new 'disk'\"");
    let again = done(&weir, "disable", &backends[0], &[]);
    assert!(again.contains(": disabled, unchanged by uid="), "{again}");
    let said = done(&weir, "enable", &backends[0], &[]);
    assert!(said.contains(": disabled -> as configured by uid="), "{said}");
    assert_eq!(share_of(&weir, &backends[0]), 4);
}

#[test]
fn a_drained_backend_completes_what_is_in_flight_and_gets_nothing_new() {
    let (backends, weir) = world(2, "");
    backends[0].on("/hang", Behaviour::NeverAnswer);
    backends[1].on("/hang", Behaviour::Good);
    let mut client = Client::connect(weir.address());
    eventually(TIMEOUT, "a request is at the first backend", || {
        client = Client::connect(weir.address());
        client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        eventually_some(TIMEOUT, "it is at a backend", || {
            let [first, second] = [&backends[0], &backends[1]].map(|it| it.count_of("/hang"));
            (first + second > 0).then_some(())
        });
        let is_first = backends[0].count_of("/hang") == 1;
        backends[1].forget();
        is_first
    });
    done(&weir, "drain", &backends[0], &[]);
    assert_eq!(weir.statuses("GET", 6), [200; 6]);
    assert_eq!(backends[0].count(), 1, "the request that it had");
    let target = format!("web/{}", backends[0].address());
    let late = weir.command(&["drain", &target, "--wait", "300ms"]);
    assert_eq!(
        (late.code, late.stdout.ends_with("still in flight: 1\n")),
        (Some(3), true),
        "{late:?}"
    );
    assert_eq!(rows(&weir)[0]["in_flight"], 1);
    let waiting = weir.begin(&["drain", &target, "--wait", "1m"]);
    backends[0].release();
    assert_eq!(client.read_answer().status(), 200);
    let ended = waiting.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && said.ends_with("nothing is in flight\n"), "{said}");
}

#[test]
fn a_drain_waits_for_the_requests_of_draining_workers_too() {
    let (backends, weir) = world(1, "");
    backends[0].on("/hang", Behaviour::NeverAnswer);
    let mut client = Client::connect(weir.address());
    client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    backends[0].until_count(1);
    weir.reload();
    let target = format!("web/{}", backends[0].address());
    let late = weir.command(&["drain", &target, "--wait", "300ms"]);
    assert_eq!(late.code, Some(3), "{late:?}");
    backends[0].release();
    assert_eq!(client.read_answer().status(), 200);
    let ended = weir.command(&["drain", &target, "--wait", "1m"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_pool_that_is_disabled_as_a_whole_gets_503_that_names_the_operator() {
    let (backends, mut weir) = world(2, "");
    backends.iter().for_each(|backend| drop(done(&weir, "disable", backend, &[])));
    let response = weir.get("/");
    assert_eq!(response.status(), 503);
    assert_eq!(response.header("retry-after"), Some("1"));
    let line = weir.until_logged("a rejected request", |line| line["status"] == 503);
    assert_eq!(line["reason"], "taken_out_by_operator");
    weir.until_admin_says("/readyz", 503);
    assert!(backends.iter().all(|backend| backend.count() == 0));
    done(&weir, "reset", &backends[1], &[]);
    weir.until_ready();
    assert_eq!(weir.statuses("GET", 2), [200; 2]);
}

#[test]
fn an_enabled_backend_gets_requests_only_if_its_health_checks_pass() {
    let backends = Backend::start_many(2);
    backends.iter().for_each(|backend| backend.on("/health", Behaviour::Good));
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let weir = Weir::start(&format!(
        "pools: [{{name: web, breaker: off, backends: [{}], \
         health_check: {{path: /health, interval: 20ms}}}}]",
        urls.join(", ")
    ));
    done(&weir, "disable", &backends[0], &[]);
    let checks = backends[0].count_of("/health");
    eventually(TIMEOUT, "health checks go on", || backends[0].count_of("/health") > checks + 3);
    backends[0].on("/health", Behaviour::status(500));
    eventually(TIMEOUT, "its health checks fail", || {
        rows(&weir)[0]["seen"]["health"] == "unhealthy"
    });
    assert_eq!(rows(&weir)[0]["state"], "disabled", "the operator's word goes first");
    done(&weir, "enable", &backends[0], &[]);
    assert_eq!(rows(&weir)[0]["state"], "unhealthy");
    let before = backends[0].count_of("/");
    assert_eq!(weir.statuses("GET", 4), [200; 4]);
    assert_eq!(backends[0].count_of("/"), before);
}

#[test]
fn an_override_with_a_time_ends_by_itself() {
    let (backends, weir) = world(2, "");
    done(&weir, "disable", &backends[0], &["--for", "1500ms"]);
    assert_eq!(rows(&weir)[0]["state"], "disabled");
    eventually(TIMEOUT, "its time is over", || rows(&weir)[0]["state"] == "eligible");
    weir.until_said("override ended: pool=web backend=");
    assert_eq!(share_of(&weir, &backends[0]), 6);
}

#[test]
fn a_disabled_backend_is_not_tried_by_retries_either() {
    let (backends, weir) = world(3, "");
    done(&weir, "disable", &backends[0], &[]);
    backends[1].stop();
    backends[2].stop();
    assert!(weir.statuses("GET", 6).iter().all(|status| *status >= 500));
    assert_eq!(backends[0].count(), 0);
}

// ── the weight ──

/// The first of two equal backends gets about a third.
#[track_caller]
fn gets_a_third(weir: &Weir, backends: &[Backend]) {
    backends.iter().for_each(Backend::forget);
    let statuses = weir.statuses("GET", 60);
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let counts: Vec<usize> = backends.iter().map(Backend::count).collect();
    assert!((14..=26).contains(&counts[0]) && counts[0] + counts[1] == 60, "{counts:?}");
}

#[test]
fn a_backend_of_half_its_weight_gets_a_third_over_reloads_and_crashes_until_it_is_reset() {
    let (backends, weir) = world(2, "");
    assert_eq!(share_of(&weir, &backends[0]), 6);
    let target = format!("web/{}", backends[0].address());
    let said = weir.command(&["weight", &target, "50%", "--reason", "old machine"]);
    let start = format!("{target}: as configured -> weight 50% by uid=");
    assert!(said.code == Some(0) && said.stdout.starts_with(&start), "{said:?}");
    gets_a_third(&weir, &backends);
    weir.replace_by_reload();
    gets_a_third(&weir, &backends);
    weir.replace_by_kill();
    gets_a_third(&weir, &backends);
    let row = &rows(&weir)[0];
    assert_eq!((&row["state"], &row["configured"]["weight"]), (&"eligible".into(), &1.into()));
    assert_eq!(
        (&row["operator"]["weight"]["value"], &row["operator"]["mode"]),
        (&"50%".into(), &Value::Null)
    );
    assert!(
        row["why"].as_str().is_some_and(|why| why.starts_with("old machine (by uid=")),
        "{row}"
    );
    done(&weir, "reset", &backends[0], &[]);
    assert_eq!(rows(&weir)[0]["operator"], Value::Null);
    assert_eq!(share_of(&weir, &backends[0]), 6);
}

#[test]
fn a_weight_with_a_time_ends_by_itself() {
    let (backends, weir) = world(2, "");
    let target = format!("web/{}", backends[0].address());
    let said = weir.command(&["weight", &target, "1000%", "--for", "1500ms"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    eventually(TIMEOUT, "its time is over", || rows(&weir)[0]["operator"].is_null());
    assert_eq!(share_of(&weir, &backends[0]), 6);
}

// ── over every change of the worker ──

/// What is disabled stays so after `replace`, in the worker that serves then.
fn stays_disabled(replace: impl FnOnce(&Weir)) {
    let (backends, weir) = world(3, "");
    done(&weir, "disable", &backends[0], &["--reason", "why"]);
    done(&weir, "drain", &backends[1], &[]);
    backends.iter().for_each(Backend::forget);
    replace(&weir);
    let statuses = weir.statuses("GET", 9);
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let counts: Vec<usize> = backends.iter().map(Backend::count).collect();
    assert_eq!(counts[..2], [0, 0], "they get nothing");
    let rows = rows(&weir);
    assert_eq!((&rows[0]["state"], &rows[1]["state"]), (&"disabled".into(), &"draining".into()));
    assert_eq!(rows[0]["operator"]["mode"]["reason"], "why");
    done(&weir, "reset", &backends[0], &[]);
    assert_eq!(share_of(&weir, &backends[0]), 6);
}

#[test]
fn overrides_survive_a_reload() {
    stays_disabled(Weir::replace_by_reload);
}

#[test]
fn overrides_survive_an_upgrade_of_the_supervisor() {
    stays_disabled(Weir::replace_by_upgrade);
}

#[test]
fn overrides_survive_a_kill_of_the_worker_at_once() {
    stays_disabled(Weir::replace_by_kill);
}

#[test]
fn the_override_of_a_backend_that_leaves_the_file_is_dropped() {
    let (backends, weir) = world(2, "");
    done(&weir, "disable", &backends[0], &[]);
    weir.write_config(&pool(&backends[1..], ""));
    weir.reload();
    weir.until_said("override dropped, its backend is no longer in the file: pool=web backend=");
    weir.write_config(&pool(&backends, ""));
    weir.reload();
    assert_eq!(rows(&weir)[0]["operator"], Value::Null);
    assert_eq!(share_of(&weir, &backends[0]), 6);
}

// ── commands ──

#[test]
fn wrong_names_and_values_are_errors_that_say_what_to_write() {
    let (backends, weir) = world(2, "");
    let fails = |args: &[&str], code: i32, text: &str| {
        let Ended { code: seen, stdout, stderr } = weir.command(args);
        assert_eq!((seen, stdout.as_str()), (Some(code), ""), "{args:?}: {stderr}");
        assert!(stderr.contains(text), "{args:?}: {stderr}");
    };
    let address = backends[0].address().to_string();
    fails(&["disable", &format!("wep/{address}")], 1, "(help: did you mean `web`?)");
    fails(&["disable", "web/no-such:80"], 1, "there is no backend `web/no-such:80` (help: ");
    fails(&["backends", "--pool", "wep"], 1, "there is no pool `wep`");
    fails(&["drain", &address, "--for", "5"], 2, "has no unit");
    fails(&["disable"], 2, "POOL/BACKEND");
    fails(&["disable", &address, "--reason", &"x".repeat(300)], 1, "the reason has 300 bytes");
    fails(&["weight", &address], 2, "PERCENT");
    fails(
        &["weight", &address, "50"],
        2,
        "`50` is not a whole number with `%` (help: write `50%`)",
    );
    fails(&["weight", &address, "0%"], 2, "to send it no requests, use `weir drain`");
    fails(&["weight", &address, "1001%"], 2, "1001% is not between 1% and 1000%");
    fails(&["weight", &address, "100%", "--for", "1h"], 1, "leave out `--for`");
    fails(&["weight", "web/no-such:80", "50%"], 1, "there is no backend `web/no-such:80` (help: ");
    assert!(rows(&weir).iter().all(|row| row["operator"].is_null()), "nothing was set");
}

#[test]
fn the_table_of_backends_shows_only_those_that_are_asked_for() {
    let (backends, weir) = world(2, "");
    done(&weir, "disable", &backends[1], &["--reason", "new disk", "--for", "1h"]);
    let table = |args: &[&str]| weir.command(args).stdout;
    let all = table(&["backends"]);
    assert_eq!(all.lines().count(), 3, "{all}");
    assert!(all.starts_with("BACKEND "), "{all}");
    let down = table(&["backends", "--down", "--pool", "web"]);
    let line = down.lines().nth(1).unwrap_or_default();
    assert_eq!(down.lines().count(), 2, "{down}");
    assert!(
        line.starts_with(&format!("web/{}  disabled  weight 1", backends[1].address())),
        "{down}"
    );
    assert!(line.contains("new disk (by uid=") && line.contains(" left)"), "{down}");
}
