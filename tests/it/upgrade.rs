//! SIGUSR2: the supervisor replaces itself, and nothing else changes.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use humantime::parse_rfc3339;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client};
use crate::support::configs::pool;
use crate::support::mixed_clients::{self, MixedClients};
use crate::support::weir::{BINARY, Directory, Weir, copy_binary, kill, put_script};
use crate::support::{TIMEOUT, eventually, now, within};

/// Replaces it, for the `turn`th time.
fn upgrade(weir: &Weir, turn: usize) {
    weir.signal("USR2");
    eventually(TIMEOUT, "it is replaced", || {
        weir.stderr().matches("supervisor replaced: ").count() == turn
    });
    eventually(TIMEOUT, "it can be asked", || weir.command(&["status"]).code == Some(0));
}

#[test]
fn no_request_of_a_mixed_load_is_lost_over_upgrades_and_reloads() {
    let backends = Backend::start_many(2);
    mixed_clients::pace(&backends);
    let mut weir = Weir::start(&pool(&backends, ""));
    let (supervisor, mut worker) = (weir.pid(), weir.worker_pid());
    let mix = MixedClients::start(weir.address());
    for turn in 1..=3 {
        upgrade(&weir, turn);
        assert_eq!(weir.worker_pid(), worker, "the worker is kept");
        mix.go_on();
        weir.reload();
        assert_ne!(weir.worker_pid(), worker, "a reload works afterwards");
        worker = weir.worker_pid();
        mix.go_on();
    }
    mix.stop().assert_flawless(&backends.iter().collect::<Vec<_>>());
    assert!(weir.is_running() && weir.pid() == supervisor, "it is the same process");
}

#[test]
fn a_worker_that_drains_goes_on_draining_over_an_upgrade() {
    let backends = Backend::start_many(1);
    backends.iter().for_each(|backend| backend.on("/hang", Behaviour::NeverAnswer));
    let weir = Weir::start(&pool(&backends, ""));
    let mut client = Client::connect(weir.address());
    client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    backends.iter().for_each(|backend| backend.until_count(1));
    weir.reload();
    upgrade(&weir, 1);
    let draining = || weir.workers().iter().filter(|worker| worker.is("draining")).count();
    assert_eq!(draining(), 1);
    backends.iter().for_each(Backend::release);
    assert_eq!(client.read_answer().status(), 200);
    eventually(TIMEOUT, "it has drained", || draining() == 0);
    eventually(TIMEOUT, "and is counted", || weir.metrics().sum("lb_requests_total", &[]) >= 1.0);
}

#[test]
fn upgrades_leave_no_descriptor_behind() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    upgrade(&weir, 1);
    let open = || fs::read_dir(format!("/proc/{}/fd", weir.pid())).map_or(0, Iterator::count);
    let before = open();
    (2..=5).for_each(|turn| upgrade(&weir, turn));
    eventually(TIMEOUT, "as many descriptors as before", || open() == before);
}

/// A copy of the standard input of a worker, which is its end of the link: the link of a worker that is
/// dead stays open with it, as if its process were stuck in the kernel.
fn copy_of_the_link(worker: u32) -> OwnedFd {
    let pid = Pid::from_raw(i32::try_from(worker).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    pidfd_getfd(process, 0, PidfdGetfdFlags::empty()).unwrap()
}

#[test]
fn an_upgrade_leaves_no_link_of_a_worker_behind_that_was_given_up() {
    let backends = Backend::start_many(1);
    let weir = Weir::start_flagged(&pool(&backends, ""), &["--hang-timeout", "1s"]);
    upgrade(&weir, 1);
    let open = || fs::read_dir(format!("/proc/{}/fd", weir.pid())).map_or(0, Iterator::count);
    let before = open();
    let hung = weir.worker_pid();
    let link = copy_of_the_link(hung);
    kill("STOP", &[hung]).unwrap();
    eventually(TIMEOUT, "another worker serves", || {
        weir.serving().is_some_and(|worker| worker.pid != hung)
    });
    assert!(open() > before, "the link of the hung worker is open");
    upgrade(&weir, 2);
    eventually(TIMEOUT, "as many descriptors as before", || open() == before);
    drop(link);
}

#[test]
fn a_stop_after_an_upgrade_ends_it_with_0() {
    let backends = Backend::start_many(1);
    let mut weir = Weir::start(&pool(&backends, ""));
    upgrade(&weir, 1);
    weir.signal("TERM");
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0), "{}", weir.stderr());
}

#[test]
fn a_worker_that_dies_in_the_middle_of_an_upgrade_is_replaced() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let worker = weir.worker_pid();
    weir.signal("USR2");
    kill("KILL", &[worker]).unwrap();
    eventually(TIMEOUT, "another one serves", || {
        weir.command(&["status"]).code == Some(0) && weir.worker_pid() != worker
    });
    assert_eq!(Client::connect(weir.address()).get("/").status(), 200);
}

#[test]
fn an_upgrade_succeeds_after_one_for_which_a_worker_was_too_slow() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let worker = weir.worker_pid();
    kill("STOP", &[worker]).unwrap();
    weir.signal("USR2");
    eventually(TIMEOUT, "it is rejected", || weir.stderr().contains("upgrade rejected: "));
    weir.signal("USR2");
    kill("CONT", &[worker]).unwrap();
    eventually(TIMEOUT, "it is replaced", || weir.stderr().contains("supervisor replaced: "));
    upgrade(&weir, 2);
    assert_eq!(weir.worker_pid(), worker);
    assert_eq!(Client::connect(weir.address()).get("/").status(), 200);
}

#[test]
fn a_worker_that_hangs_does_not_outlive_a_stop() {
    let backends = Backend::start_many(1);
    let mut weir = Weir::start(&format!("{}shutdown: {{drain: 0s}}\n", pool(&backends, "")));
    let worker = weir.worker_pid();
    kill("STOP", &[worker]).unwrap();
    weir.signal("TERM");
    assert_eq!(weir.wait(TIMEOUT).code(), Some(1), "{}", weir.stderr());
}

/// How long an upgrade takes here, so that signals can be sent at each moment of one.
fn length_of_an_upgrade(weir: &Weir) -> Duration {
    let start = now();
    weir.signal("USR2");
    let replaced = || weir.stderr().contains("supervisor replaced: ");
    eventually(TIMEOUT, "it is replaced", replaced);
    now() - start
}

/// Sends USR2, and another signal so much later.
fn upgrade_and_signal(weir: &Weir, signal: &str, later: Duration) {
    weir.signal("USR2");
    let sent = now();
    eventually(TIMEOUT, "it is time", || now() - sent >= later);
    weir.signal(signal);
}

/// The number that `weir status` gives for a word such as `reloads: done=`.
fn status_count(weir: &Weir, word: &str) -> usize {
    let said = weir.command(&["status"]).stdout;
    let number = said.split_once(word).and_then(|(_, after)| after.split([' ', '\n']).next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[test]
fn each_reload_that_is_asked_for_in_the_course_of_an_upgrade_is_done() {
    let backends = Backend::start_many(1);
    let mut weir = Weir::start(&pool(&backends, ""));
    let length = length_of_an_upgrade(&weir);
    for turn in 1_u32..=20 {
        upgrade_and_signal(&weir, "HUP", length * (turn + 4) / 24);
        let turn = usize::try_from(turn).unwrap();
        eventually(TIMEOUT, "the reload is done", || status_count(&weir, "reloads: done=") == turn);
        eventually(TIMEOUT, "the upgrade, too", || {
            status_count(&weir, "upgrades: done=") == turn + 1
        });
    }
    assert!(weir.is_running());
}

#[test]
fn a_stop_in_the_course_of_an_upgrade_is_a_stop_in_order() {
    let backends = Backend::start_many(1);
    let length = length_of_an_upgrade(&Weir::start(&pool(&backends, "")));
    // Most of them towards its end, when one image makes way for the other.
    for turn in [0, 4, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18] {
        let mut weir = Weir::start(&pool(&backends, ""));
        upgrade_and_signal(&weir, "TERM", length * turn / 18);
        assert_eq!(weir.wait(TIMEOUT).code(), Some(0), "turn {turn}: {}", weir.stderr());
    }
}

#[test]
fn a_command_in_the_course_of_an_upgrade_is_answered() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    for turn in 1..=3 {
        weir.signal("USR2");
        weir.reload();
        eventually(TIMEOUT, "it is replaced", || status_count(&weir, "upgrades: done=") == turn);
    }
}

#[test]
fn signals_are_blocked_in_the_supervisor_and_a_worker_gets_term_alone() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    upgrade(&weir, 1);
    let blocked = |pid: u32, thread: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
        u64::from_str_radix(mask, 16).unwrap()
    };
    // HUP 1, INT 2, QUIT 3, USR1 10, USR2 12, ALRM 14, TERM 15, CHLD 17.
    let ours =
        [1, 2, 3, 10, 12, 14, 15, 17].iter().fold(0, |mask, signal| mask | 1_u64 << (signal - 1));
    for thread in fs::read_dir(format!("/proc/{}/task", weir.pid())).unwrap() {
        let thread = thread.unwrap().file_name().into_string().unwrap();
        assert_eq!(blocked(weir.pid(), &thread) & ours, ours, "thread {thread}");
    }
    let worker = weir.worker_pid();
    let of_worker = blocked(worker, &worker.to_string()) & ours;
    assert_eq!(of_worker, ours & !(1 << 14 | 1 << 16), "all but TERM and CHLD");
}

#[test]
fn an_upgrade_that_is_asked_for_while_a_worker_warms_up_waits_for_it() {
    let (backends, hung) = ([Backend::start("one")], Backend::start("hung"));
    let weir = Weir::start(&pool(&backends, ""));
    hung.on("/health", Behaviour::NeverAnswer);
    let check = "{type: http, path: /health, interval: 60s, timeout: 60s, healthy_after: 1}";
    let url = hung.url();
    weir.write_config(&format!("pools: [{{name: web, health_check: {check}, backends: [{url}]}}]"));
    weir.signal("HUP");
    eventually(TIMEOUT, "the new worker probes", || hung.count_of("/health") == 1);
    weir.signal("USR2");
    eventually(TIMEOUT, "it is said", || weir.stderr().contains("supervisor to be replaced once"));
    assert_eq!(status_count(&weir, "upgrades: done="), 0);
    hung.release();
    eventually(TIMEOUT, "it is replaced", || status_count(&weir, "upgrades: done=") == 1);
    assert_eq!(weir.get("/").text(), "hung");
}

/// A balancer that runs from a file of its own, which can be replaced by a script.
struct Own {
    directory: Directory,
    weir: Weir,
    backends: Vec<Backend>,
}

impl Own {
    fn start() -> Self {
        let (directory, backends) = (Directory::new(), Backend::start_many(1));
        copy_binary(&directory.path("weir"), "");
        let launcher = Command::new(directory.path("weir"));
        let weir = Weir::start_by(launcher, &pool(&backends, ""));
        Self { directory, weir, backends }
    }

    fn binary(&self) -> PathBuf {
        self.directory.path("weir")
    }

    /// Puts a script in the place of the binary. `$real` is the true one.
    fn replace_by(&self, script: &str) {
        put_script(&self.binary(), script);
    }

    /// Under load, an upgrade is refused for this reason; a good one works afterwards.
    fn refuses(mut self, why: &str) {
        mixed_clients::pace(&self.backends);
        let (supervisor, worker) = (self.weir.pid(), self.weir.worker_pid());
        let mix = MixedClients::start(self.weir.address());
        self.weir.signal("USR2");
        eventually(TIMEOUT, "it is refused", || self.weir.stderr().contains("upgrade rejected: "));
        self.weir.until_said(why);
        let refused = || {
            let labels = [("outcome", "rejected")];
            self.weir.metrics().sum("lb_supervisor_upgrades_total", &labels)
        };
        eventually(TIMEOUT, "the metric tells it", || refused() == 1.0);
        let said = self.weir.command(&["status"]);
        assert!(said.stdout.contains("upgrades: done=0 rejected=1 ("), "{said:?}");
        assert!(said.stdout.contains(why), "{said:?}");
        mix.go_on();
        assert_eq!(self.weir.worker_pid(), worker, "the worker is kept");
        self.replace_by("unset WEIR_FAULT");
        self.weir.reload();
        upgrade(&self.weir, 1);
        mix.go_on();
        mix.stop().assert_flawless(&self.backends.iter().collect::<Vec<_>>());
        assert!(self.weir.is_running() && self.weir.pid() == supervisor);
    }
}

#[test]
fn a_binary_that_is_not_weir_does_not_take_over() {
    let own = Own::start();
    own.replace_by("exec false");
    let path = own.binary().display().to_string();
    own.refuses(&format!("the new binary ended without a word (is it weir?): path={path}"));
}

#[test]
fn a_binary_that_refuses_the_configuration_does_not_take_over() {
    let own = Own::start();
    own.replace_by("[ $1 = upgrade-check ] && export WEIR_ALGORITHM=fair");
    own.refuses("the new binary: the configuration is rejected: ");
}

#[test]
fn a_binary_that_does_not_understand_the_memory_does_not_take_over() {
    let own = Own::start();
    own.replace_by(
        "[ $1 = upgrade-check ] && sed 's/\"form\":1/\"form\":99/' | exec \"$real\" \"$@\" && exit",
    );
    own.refuses("the new binary: exec state has format version 99, this binary reads only 1");
}

#[test]
fn a_binary_that_says_nothing_is_not_waited_for() {
    let own = Own::start();
    own.replace_by("[ $1 = upgrade-check ] && exec sleep 60");
    let path = own.binary().display().to_string();
    own.refuses(&format!(
        "the new binary did not respond within 5s whether it reads the configuration that is served: path={path}"
    ));
}

#[test]
fn a_binary_that_is_gone_does_not_take_over() {
    let own = Own::start();
    fs::remove_file(own.binary()).unwrap();
    let path = own.binary().display().to_string();
    own.refuses(&format!(
        "the binary on disk cannot be started to check it: error=\"No such file or directory (os error 2)\" path={path}"
    ));
}

#[test]
fn status_shows_a_rejected_reload_also_after_an_upgrade() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let rejection = || {
        let text = weir.command(&["status"]).stdout;
        let lines = text.lines().skip_while(|line| !line.starts_with("last reload rejected: "));
        lines.take(3).map(str::to_owned).collect::<Vec<_>>()
    };
    weir.write_config("pools:\n  - name: web\n    algorithm: fair\n    backends: [nowhere]\n");
    assert_eq!(weir.command(&["reload"]).code, Some(1));
    let before = rejection();
    assert!(before.len() == 3 && before[1].contains(":3:16: `fair` is not "), "{before:?}");
    upgrade(&weir, 1);
    upgrade(&weir, 2);
    let after = rejection();
    assert_eq!(after[1..], before[1..]);
    let time = |lines: &[String]| {
        let (_, time) = lines[0].split_once("time=").unwrap();
        parse_rfc3339(time).unwrap()
    };
    // The fractions of a second that are not shown may be rounded to another one.
    let moved = time(&after).max(time(&before)).duration_since(time(&before).min(time(&after)));
    assert!(moved.unwrap() <= Duration::from_secs(1), "{before:?} {after:?}");
    weir.write_config(&pool(&backends, ""));
    weir.reload();
    assert!(rejection().is_empty());
    upgrade(&weir, 3);
    assert!(rejection().is_empty());
}

#[test]
fn an_image_that_cannot_go_on_after_all_makes_way_for_the_one_before() {
    let own = Own::start();
    own.replace_by("[ $1 = run ] && export WEIR_FAULT=resume");
    own.refuses("the new binary failed: ");
}

#[test]
fn going_back_leaves_no_descriptor_behind() {
    let own = Own::start();
    let open = || fs::read_dir(format!("/proc/{}/fd", own.weir.pid())).map_or(0, Iterator::count);
    let before = open();
    own.replace_by("[ $1 = run ] && export WEIR_FAULT=resume");
    own.weir.signal("USR2");
    eventually(TIMEOUT, "it is refused", || own.weir.stderr().contains("upgrade rejected: "));
    assert_eq!(own.weir.command(&["status"]).code, Some(0));
    eventually(TIMEOUT, "as many descriptors as before", || open() == before);
    let name = fs::read_to_string(format!("/proc/{}/comm", own.weir.pid())).unwrap();
    assert_eq!(name.trim(), "weir");
}

#[test]
fn the_demo_is_not_replaced_because_its_origins_would_go() {
    let backends = Backend::start_many(1);
    let other = Weir::start(&pool(&backends, ""));
    let ip = other.address().ip();
    let (listen, admin) = (format!("{ip}:8081"), format!("{ip}:9091"));
    let directory = Directory::new();
    let mut demo = Command::new(BINARY)
        .args(["demo", "--listen", &listen, "--admin", &admin])
        .args(["--control", &directory.name("control.sock")])
        .stdout(fs::File::create(directory.path("out")).unwrap())
        .stderr(fs::File::create(directory.path("err")).unwrap())
        .spawn()
        .unwrap();
    let answers =
        || client::try_get(listen.parse().unwrap(), "/").is_ok_and(|answer| answer.status() == 200);
    eventually(TIMEOUT, "the demo serves", answers);
    kill("USR2", &[demo.id()]).unwrap();
    eventually(TIMEOUT, "it is refused", || directory.text("err").contains("upgrade rejected: "));
    assert!(answers());
    kill("TERM", &[demo.id()]).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(0));
}

/// A directory with two versions and a link to the first, and a balancer that was started by this
/// command.
fn behind_a_link(start: impl FnOnce(&Directory) -> Command) -> (Directory, Weir) {
    let directory = Directory::new();
    for version in ["v1", "v2"] {
        fs::create_dir(directory.path(version)).unwrap();
        copy_binary(&directory.path(version).join("weir"), version);
    }
    std::os::unix::fs::symlink("v1", directory.path("current")).unwrap();
    let command = start(&directory);
    let backends = Backend::start_many(1);
    let weir = Weir::start_by(command, &pool(&backends, ""));
    (directory, weir)
}

/// The file that a process runs.
fn image(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

#[test]
fn a_binary_behind_a_link_is_the_one_that_the_link_leads_to_by_then() {
    let by_path = |directory: &Directory| Command::new(directory.path("current/weir"));
    let by_name = |directory: &Directory| {
        let mut command = Command::new("env");
        command.arg(format!("PATH={}:/usr/bin:/bin", directory.name("current"))).arg("weir");
        command
    };
    let starts: [fn(&Directory) -> Command; 2] = [by_path, by_name];
    for start in starts {
        let (directory, weir) = behind_a_link(start);
        let (one, two) = (directory.path("v1/weir"), directory.path("v2/weir"));
        assert_eq!((image(weir.pid()), image(weir.worker_pid())), (one.clone(), one));
        std::os::unix::fs::symlink("v2", directory.path("next")).unwrap();
        fs::rename(directory.path("next"), directory.path("current")).unwrap();
        weir.reload();
        assert_eq!(image(weir.worker_pid()), two, "a reload starts the new one");
        upgrade(&weir, 1);
        assert_eq!(image(weir.pid()), two, "and so does SIGUSR2");
        fs::remove_dir_all(directory.path("v1")).unwrap();
        weir.replace_by_kill();
        assert_eq!(image(weir.worker_pid()), two);
    }
}

#[test]
fn a_worker_finds_nothing_of_an_upgrade_in_its_environment() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    upgrade(&weir, 1);
    weir.reload();
    let environment = fs::read(format!("/proc/{}/environ", weir.worker_pid())).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    for variable in ["WEIR_RESUME=", "WEIR_FORMER=", "WEIR_WENT_BACK="] {
        assert!(!environment.contains(variable), "{environment}");
    }
}

#[test]
fn what_a_worker_counts_that_ends_in_the_course_of_an_upgrade_is_not_lost() {
    let own = Own::start();
    own.backends.iter().for_each(|backend| backend.on("/hang", Behaviour::NeverAnswer));
    let mut client = Client::connect(own.weir.address());
    client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    own.backends.iter().for_each(|backend| backend.until_count(1));
    let old = own.weir.worker_pid();
    own.weir.reload();
    // The next image takes a moment to start. Meanwhile no process reads the workers' messages.
    own.replace_by("[ $1 = run ] && while [ -e \"$0.wait\" ]; do sleep 0.05; done");
    let wait = own.directory.path("weir.wait");
    fs::write(&wait, "").unwrap();
    own.weir.signal("USR2");
    eventually(TIMEOUT, "one image has gone", || is_a_shell(own.weir.pid()));
    own.backends.iter().for_each(Backend::release);
    assert_eq!(client.read_answer().status(), 200);
    drop(client);
    // It has nothing left to do. If it ended now, its parent could not reap it yet.
    within(Duration::from_millis(1500), || has_ended(old).then_some(()));
    fs::remove_file(&wait).unwrap();
    eventually(TIMEOUT, "the other has come", || status_count(&own.weir, "upgrades: done=") == 1);
    eventually(TIMEOUT, "the old worker has ended", || {
        own.weir.workers().iter().all(|worker| worker.pid != old)
    });
    let counted = || own.weir.metrics().sum("lb_requests_total", &[]);
    eventually(TIMEOUT, "it is counted", || counted() == 1.0);
}

/// Whether a process has ended and was not reaped.
fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// Whether a process runs a script by now.
fn is_a_shell(pid: u32) -> bool {
    let image = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    // A file that was replaced has a note behind its name.
    image.file_name().is_some_and(|name| !name.to_string_lossy().starts_with("weir"))
}
