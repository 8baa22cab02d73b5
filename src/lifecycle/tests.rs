//! The service as a whole: what one event leads to. What many events in any order lead to, the
//! simulation looks for (`tests/lifecycle/`).

use std::num::NonZeroUsize;
use std::time::Duration;

use super::*;
use crate::policy::operator::{OperatorMode, OverrideChange, OverrideRequest};
use crate::time::Timestamp;

#[derive(Debug)]
enum Numbers {}

impl Payload for Numbers {
    type Config = u32;
    type State = u32;
    type Report = u32;
    type Caller = u32;

    fn is_empty(report: &u32) -> bool {
        *report == 0
    }

    fn has_backend(_config: &u32, key: &BackendKey) -> bool {
        key.backend != "none"
    }
}

const SHUTDOWN: Shutdown = Shutdown {
    pre_stop: Duration::from_secs(3),
    drain: Duration::from_secs(30),
    tunnels: Duration::ZERO,
    draining_workers: NonZeroUsize::MIN,
};
const FIRST: WorkerId = WorkerId(1);
const SECOND: WorkerId = WorkerId(2);

/// A service, its clock, and the commands of its last event.
struct Bench {
    service: Service<Numbers>,
    now: Timestamp,
    commands: Vec<String>,
    /// The same, with the messages for the log.
    with_log: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let settings = Settings {
            ready_timeout: Duration::from_secs(10),
            hang_timeout: Some(Duration::from_secs(10)),
            keepalive: None,
            upgrade_obstacle: None,
            binary_path: "/bin/weir".to_owned(),
        };
        let service = Service::new(settings, Loaded { config: 0, shutdown: SHUTDOWN });
        Self { service, now: Timestamp::ZERO, commands: Vec::new(), with_log: Vec::new() }
    }

    /// A service whose first worker serves.
    fn serving() -> Self {
        let mut bench = Self::new();
        bench.event(Event::Started);
        bench.said(FIRST, WorkerEvent::Warm);
        bench.said(FIRST, WorkerEvent::Ready);
        bench
    }

    /// A service with a second worker that a reload has started.
    fn reloading() -> Self {
        let mut bench = Self::serving();
        bench.reload(1);
        bench
    }

    fn reload(&mut self, client: u32) {
        self.event(Event::ReloadRequested(Some(client)));
        self.event(Event::ConfigLoaded(Ok(Loaded { config: client, shutdown: SHUTDOWN })));
    }

    /// An upgrade, up to the order to the workers to send nothing more.
    fn begin_upgrade(&mut self, check: u64) {
        self.event(Event::UpgradeRequested);
        self.event(Event::CompatibilityChecked { check, result: Ok(()) });
    }

    fn event(&mut self, event: Event<Numbers>) {
        let commands = self.service.handle(event, self.now);
        self.with_log = commands.iter().map(|command| format!("{command:?}")).collect();
        let others = self.with_log.iter().filter(|command| !command.starts_with("Log("));
        self.commands = others.cloned().collect();
    }

    fn said(&mut self, worker: WorkerId, event: WorkerEvent<Numbers>) {
        self.event(Event::Worker(worker, event));
    }

    fn exits(&mut self, worker: WorkerId, clean: bool) {
        self.said(worker, WorkerEvent::LinkClosed);
        let status = "signal 9".to_owned();
        self.said(worker, WorkerEvent::Exited(Exit { clean, status }));
    }

    fn passes(&mut self, time: Duration) {
        self.now = self.now + time;
        self.event(Event::Tick);
    }

    fn has(&self, command: &str) -> bool {
        self.commands.iter().any(|one| one == command)
    }

    fn current(&self) -> Option<WorkerId> {
        self.service.view(self.now).current().map(|worker| worker.id)
    }
}

#[test]
fn a_reload_goes_from_warm_over_the_state_to_ready() {
    let mut bench = Bench::reloading();
    bench.said(SECOND, WorkerEvent::Warm);
    assert_eq!(bench.commands, ["Send(WorkerId(1), HandOver)"]);
    bench.said(FIRST, WorkerEvent::State(7));
    let take_over = "TakeOver { worker: WorkerId(2), listen: true }";
    assert_eq!(bench.commands, ["StoreState(WorkerId(1), 7)", take_over]);
    bench.said(SECOND, WorkerEvent::Ready);
    assert!(bench.has("Send(WorkerId(1), Drain)") && bench.has("CloseUnused(1)"));
    assert!(bench.has("ReportReload { worker: WorkerId(2), before: 0, after: 1, callers: [1] }"));
    assert_eq!(bench.current(), Some(SECOND));
}

#[test]
fn a_reload_waits_until_the_one_before_is_done_and_serves_all_that_asked() {
    let mut bench = Bench::reloading();
    bench.event(Event::ReloadRequested(Some(2)));
    bench.event(Event::ReloadRequested(Some(3)));
    assert!(bench.commands.is_empty());
    bench.exits(SECOND, false);
    assert!(bench.has("LoadConfig"));
    bench.event(Event::ConfigLoaded(Err("wrong".to_owned())));
    assert!(bench.has("ReplyFailed([2, 3], \"wrong\")"));
    assert_eq!(bench.current(), Some(FIRST));
}

#[test]
fn a_candidate_that_fails_leaves_the_old_worker_serving() {
    let mut bench = Bench::reloading();
    bench.said(SECOND, WorkerEvent::Warm);
    bench.said(SECOND, WorkerEvent::Failed("no".to_owned()));
    bench.exits(SECOND, false);
    assert!(bench.has("Send(WorkerId(1), Resume)"));
    assert!(bench.has("CloseUnused(0)") && bench.has("ReplyFailed([1], \"no\")"));
}

#[test]
fn a_candidate_that_was_killed_for_being_late_does_not_serve_even_if_it_is_ready_then() {
    let mut bench = Bench::reloading();
    bench.said(SECOND, WorkerEvent::Warm);
    bench.said(FIRST, WorkerEvent::State(7));
    bench.passes(Duration::from_secs(10));
    assert!(bench.has("Kill(WorkerId(2), NotNeeded)"));
    bench.said(SECOND, WorkerEvent::Ready);
    assert!(bench.commands.is_empty());
    assert_eq!(bench.current(), Some(FIRST), "the old worker is not ordered to drain");
}

#[test]
fn a_candidate_gets_no_state_that_another_one_asked_for() {
    let mut bench = Bench::reloading();
    bench.said(SECOND, WorkerEvent::Warm);
    bench.exits(SECOND, false);
    bench.reload(2);
    let third = WorkerId(3);
    bench.said(third, WorkerEvent::Warm);
    bench.said(FIRST, WorkerEvent::State(7));
    assert_eq!(bench.commands, ["StoreState(WorkerId(1), 7)"], "it is older than the next one");
    bench.said(FIRST, WorkerEvent::State(8));
    assert!(bench.has("TakeOver { worker: WorkerId(3), listen: true }"));
}

#[test]
fn an_old_worker_that_does_not_hand_over_is_not_waited_for_longer_than_five_seconds() {
    let mut bench = Bench::reloading();
    bench.said(SECOND, WorkerEvent::Warm);
    assert_eq!(bench.service.next_deadline(), bench.now + Duration::from_millis(1000));
    bench.passes(Duration::from_millis(4999));
    assert!(bench.commands.is_empty());
    bench.passes(Duration::from_millis(1));
    assert!(bench.has("TakeOver { worker: WorkerId(2), listen: true }"));
}

#[test]
fn a_worker_that_dies_is_replaced_while_a_reload_goes_on() {
    let mut bench = Bench::reloading();
    bench.exits(FIRST, false);
    assert!(bench.service.view(bench.now).restart_in.is_some());
    bench.passes(Duration::from_millis(100));
    assert!(
        bench.commands.iter().any(|command| command.contains("worker: WorkerId(3), config: 0"))
    );
    // The worker of the reload is ready first, and the replacement is no longer needed.
    bench.said(SECOND, WorkerEvent::Warm);
    assert!(bench.has("Kill(WorkerId(3), NotNeeded)"));
    bench.said(SECOND, WorkerEvent::Ready);
    assert_eq!(bench.current(), Some(SECOND));
}

#[test]
fn a_hung_worker_is_replaced_without_waiting_for_its_exit() {
    let mut bench = Bench::serving();
    bench.said(FIRST, WorkerEvent::Heartbeat { hung_threads: 1 });
    bench.passes(Duration::from_secs(1));
    assert!(bench.has("Kill(WorkerId(1), Hung(DataThreads(1)))"));
    let view = bench.service.view(bench.now);
    assert_eq!((view.counters.hangs, view.counters.restarts), (1, 1));
    assert!(view.restart_in.is_some() && view.workers.is_empty());
}

#[test]
fn a_worker_whose_link_is_lost_is_killed_if_it_does_not_exit() {
    let mut bench = Bench::serving();
    bench.said(FIRST, WorkerEvent::LinkClosed);
    bench.passes(Duration::from_secs(4));
    assert!(bench.commands.is_empty());
    bench.passes(Duration::from_secs(1));
    assert!(bench.has("Kill(WorkerId(1), LinkLost)"));
}

#[test]
fn a_killed_candidate_that_does_not_exit_is_not_waited_for() {
    let mut bench = Bench::reloading();
    bench.passes(Duration::from_secs(10));
    assert!(bench.has("Kill(WorkerId(2), NotNeeded)"));
    bench.passes(Duration::from_millis(4999));
    assert!(bench.commands.is_empty());
    bench.passes(Duration::from_millis(1));
    assert!(bench.has("ReplyFailed([1], \"the new worker was not ready within 10s\")"));
    bench.reload(2);
    assert!(
        bench.commands.iter().any(|command| command.contains("worker: WorkerId(3), config: 2"))
    );
    // It exits after all.
    bench.exits(SECOND, false);
    assert_eq!(bench.commands, ["Release(WorkerId(2))"]);
}

#[test]
fn a_stop_ends_without_a_worker_that_was_killed_and_does_not_exit() {
    let mut bench = Bench::serving();
    bench.event(Event::StopAndWait(9));
    bench.passes(Duration::from_secs(38));
    assert!(bench.has("Kill(WorkerId(1), NotNeeded)"));
    bench.passes(Duration::from_secs(5));
    assert!(bench.commands.last().unwrap().starts_with("Exit(Err(ForcedStop("));
}

#[test]
fn a_candidate_that_is_warm_only_when_the_service_stops_asks_for_nothing() {
    let mut bench = Bench::reloading();
    bench.event(Event::StopRequested);
    assert!(bench.has("Kill(WorkerId(2), NotNeeded)") && bench.has("Send(WorkerId(1), Stop)"));
    bench.said(SECOND, WorkerEvent::Warm);
    assert!(bench.commands.is_empty());
}

#[test]
fn a_worker_that_stops_gets_its_whole_time_even_if_a_candidate_takes_over_meanwhile() {
    let mut bench = Bench::reloading();
    bench.said(SECOND, WorkerEvent::Warm);
    bench.said(FIRST, WorkerEvent::State(7));
    bench.event(Event::StopRequested);
    bench.said(SECOND, WorkerEvent::Ready);
    // `pre_stop`, the drain and its grace are 38 seconds.
    bench.passes(Duration::from_millis(37_999));
    assert!(!bench.commands.iter().any(|command| command.starts_with("Kill")));
    bench.passes(Duration::from_millis(1));
    assert!(bench.has("Kill(WorkerId(1), NotNeeded)"));
}

#[test]
fn a_stop_ends_with_the_last_worker_and_answers_who_waits() {
    let mut bench = Bench::serving();
    bench.event(Event::StopAndWait(9));
    bench.exits(FIRST, true);
    bench.event(Event::Tick);
    assert_eq!(bench.commands, ["ReplyEnded { result: Ok(()), callers: [9] }", "Exit(Ok(()))"]);
}

#[test]
fn a_client_that_asks_for_a_stop_when_it_is_complete_gets_its_result() {
    let mut bench = Bench::serving();
    bench.event(Event::StopRequested);
    bench.exits(FIRST, true);
    bench.event(Event::Tick);
    bench.event(Event::StopAndWait(9));
    assert_eq!(bench.commands, ["ReplyEnded { result: Ok(()), callers: [9] }"]);
}

#[test]
fn a_client_that_asks_for_a_stop_after_it_was_forced_gets_a_failure() {
    let mut bench = Bench::serving();
    bench.event(Event::StopRequested);
    bench.exits(FIRST, false);
    bench.event(Event::Tick);
    bench.event(Event::StopAndWait(9));
    assert!(bench.commands[0].starts_with("ReplyEnded { result: Err(ForcedStop("));
}

#[test]
fn a_stop_of_a_service_that_could_not_start_succeeds() {
    let mut bench = Bench::new();
    bench.event(Event::Started);
    bench.said(FIRST, WorkerEvent::SpawnFailed("no".to_owned()));
    bench.event(Event::StopAndWait(9));
    assert_eq!(bench.commands, ["ReplyEnded { result: Ok(()), callers: [9] }"]);
}

#[test]
fn a_report_that_a_worker_did_not_get_goes_to_the_next_one() {
    for timed_out in [false, true] {
        let mut bench = Bench::reloading();
        bench.said(SECOND, WorkerEvent::Warm);
        bench.said(FIRST, WorkerEvent::State(7));
        bench.said(SECOND, WorkerEvent::Ready);
        bench.said(FIRST, WorkerEvent::DrainReport(5));
        assert!(bench.has("SendReport(WorkerId(2), 5)"));
        bench.said(SECOND, WorkerEvent::ReportNotSent { report: 5, timed_out });
        assert_eq!(bench.has("Kill(WorkerId(2), SendTimedOut)"), timed_out);
        bench.exits(SECOND, false);
        bench.said(FIRST, WorkerEvent::DrainReport(6));
        bench.said(FIRST, WorkerEvent::DrainReport(0));
        bench.passes(Duration::from_millis(100));
        bench.said(WorkerId(3), WorkerEvent::Warm);
        bench.said(WorkerId(3), WorkerEvent::Ready);
        let sent = bench.commands.iter().filter(|command| command.starts_with("SendReport"));
        let sent: Vec<&String> = sent.collect();
        assert_eq!(sent, ["SendReport(WorkerId(3), 5)", "SendReport(WorkerId(3), 6)"]);
    }
}

#[test]
fn a_report_before_the_successor_is_ready_is_kept_for_it_while_the_service_stops() {
    let mut bench = Bench::reloading();
    bench.said(SECOND, WorkerEvent::Warm);
    bench.said(FIRST, WorkerEvent::State(7));
    bench.event(Event::StopRequested);
    bench.said(FIRST, WorkerEvent::DrainReport(5));
    bench.said(SECOND, WorkerEvent::Ready);
    assert!(bench.has("SendReport(WorkerId(2), 5)"), "{:?}", bench.commands);
    bench.said(SECOND, WorkerEvent::DrainReport(6));
    assert_eq!(bench.commands, ["PublishStats"]);
}

#[test]
fn an_upgrade_does_not_leave_a_report_behind() {
    let mut bench = Bench::serving();
    bench.begin_upgrade(1);
    bench.said(FIRST, WorkerEvent::Quiesced);
    bench.said(FIRST, WorkerEvent::ReportNotSent { report: 5, timed_out: false });
    bench.event(Event::Tick);
    assert!(bench.commands.is_empty(), "{:?}", bench.commands);
}

#[test]
fn a_first_worker_that_fails_ends_the_service() {
    let mut bench = Bench::new();
    bench.event(Event::Started);
    bench.said(FIRST, WorkerEvent::SpawnFailed("no".to_owned()));
    assert!(bench.has("Exit(Err(FirstWorker(\"no\")))"));
}

#[test]
fn an_upgrade_quiesces_every_worker_before_the_exec() {
    let mut bench = Bench::serving();
    bench.event(Event::UpgradeRequested);
    assert!(bench.has("CheckCompatibility { check: 1 }"));
    bench.event(Event::CompatibilityChecked { check: 1, result: Ok(()) });
    assert!(bench.has("Send(WorkerId(1), Quiesce)"));
    bench.event(Event::Tick);
    assert!(bench.commands.is_empty());
    bench.said(FIRST, WorkerEvent::Quiesced);
    bench.event(Event::Tick);
    assert_eq!(bench.commands, ["Exec"]);
    bench.event(Event::ExecFailed("no".to_owned()));
    assert!(bench.has("Send(WorkerId(1), Unquiesce)"));
    assert_eq!(bench.service.view(bench.now).counters.upgrades_rejected, 1);
}

#[test]
fn an_acknowledgement_that_is_late_does_not_count_for_the_next_upgrade() {
    let mut bench = Bench::serving();
    bench.begin_upgrade(1);
    bench.passes(Duration::from_secs(2));
    assert!(bench.has("Send(WorkerId(1), Unquiesce)"));
    bench.begin_upgrade(2);
    // The worker sends again after this one: it has read `Unquiesce` behind the first order.
    bench.said(FIRST, WorkerEvent::Quiesced);
    bench.event(Event::Tick);
    assert!(bench.commands.is_empty(), "{:?}", bench.commands);
    bench.said(FIRST, WorkerEvent::Quiesced);
    bench.event(Event::Tick);
    assert_eq!(bench.commands, ["Exec"]);
}

#[test]
fn an_acknowledgement_between_two_upgrades_is_no_longer_owed() {
    let mut bench = Bench::serving();
    bench.begin_upgrade(1);
    bench.passes(Duration::from_secs(2));
    bench.said(FIRST, WorkerEvent::Quiesced);
    bench.begin_upgrade(2);
    bench.said(FIRST, WorkerEvent::Quiesced);
    bench.event(Event::Tick);
    assert_eq!(bench.commands, ["Exec"]);
}

#[test]
fn a_reload_that_waits_for_an_upgrade_goes_over_to_the_next_image() {
    let mut bench = Bench::serving();
    bench.event(Event::UpgradeRequested);
    bench.event(Event::ReloadRequested(None));
    assert!(bench.commands.is_empty());
    let saved = bench.service.save(bench.now);
    assert!(saved.reload_waits && !saved.upgrade_waits);
    let active = bench.service.view(bench.now).active.clone();
    let settings = bench.service.settings.clone();
    bench.service = Service::restore(settings, active, &saved, bench.now);
    bench.event(Event::Resumed(None));
    assert!(bench.has("Send(WorkerId(1), Unquiesce)") && bench.has("LoadConfig"));
    assert_eq!(bench.service.view(bench.now).counters.upgrades_done, 1);
}

#[test]
fn a_rejected_reload_is_shown_until_one_is_done_also_by_the_next_image() {
    let rejected = |bench: &Bench| bench.service.view(bench.now).rejected_reload;
    let mut bench = Bench::serving();
    bench.event(Event::ReloadRequested(None));
    bench.event(Event::ConfigLoaded(Err("1:1: one\n2:1: two".to_owned())));
    bench.passes(Duration::from_secs(2));
    let shown = rejected(&bench).unwrap();
    assert_eq!((&*shown.problem, shown.has_others), ("1:1: one", true));
    assert_eq!(shown.age, Duration::from_secs(2));
    let saved = bench.service.save(bench.now);
    let active = bench.service.view(bench.now).active.clone();
    let settings = bench.service.settings.clone();
    bench.now = Timestamp::ZERO;
    bench.service = Service::restore(settings, active, &saved, bench.now);
    assert_eq!(rejected(&bench), Some(shown));
    bench.reload(1);
    assert!(rejected(&bench).is_some(), "the reload is not done yet");
    bench.said(SECOND, WorkerEvent::Warm);
    bench.said(FIRST, WorkerEvent::State(7));
    bench.said(SECOND, WorkerEvent::Ready);
    assert_eq!(rejected(&bench), None);
}

#[test]
fn no_deadline_of_a_settled_service_lies_in_the_past() {
    let mut bench = Bench::serving();
    for _ in 0..100 {
        let next = bench.service.next_deadline();
        assert!(next > bench.now);
        bench.passes(next.since(bench.now));
    }
}

#[test]
fn the_log_says_in_whole_milliseconds_how_long_a_worker_lived() {
    let mut bench = Bench::serving();
    bench.passes(Duration::from_nanos(1_234_567_891));
    bench.exits(FIRST, false);
    let died = "worker died: generation=1 lived=1.234s status=";
    assert!(bench.with_log.iter().any(|one| one.contains(died)), "{:?}", bench.with_log);
}

#[test]
fn the_log_says_that_a_worker_was_killed_before_it_says_that_it_died() {
    let mut bench = Bench::serving();
    bench.said(FIRST, WorkerEvent::Heartbeat { hung_threads: 0 });
    bench.said(FIRST, WorkerEvent::Heartbeat { hung_threads: 1 });
    bench.passes(Duration::from_secs(1));
    let place = |start: &str| bench.with_log.iter().position(|one| one.starts_with(start));
    let (killed, died) = (place("Kill(WorkerId(1), Hung("), place("Log(Error, \"worker died: "));
    assert!(killed.is_some() && killed < died, "{:?}", bench.with_log);
}

// ── what operators set on backends ──

fn disable(backend: &str) -> OverrideRequest {
    OverrideRequest {
        key: BackendKey { pool: "web".to_owned(), backend: backend.to_owned() },
        change: OverrideChange::Mode(OperatorMode::Disabled),
        lasts: None,
        by: "uid=0".to_owned(),
        reason: String::new(),
    }
}

impl Bench {
    fn sets(&mut self, request: OverrideRequest, caller: u32) {
        self.event(Event::OverrideRequested { request, caller });
    }

    fn applied(&mut self, worker: WorkerId, serial: u64, version: u64) {
        self.said(worker, WorkerEvent::OverridesApplied { serial, version });
    }

    fn sends_list_to(&self, worker: WorkerId) -> bool {
        let start = format!("SendOverrides {{ worker: {worker:?}, ");
        self.commands.iter().any(|command| command.starts_with(&start))
    }

    fn replies(&self) -> usize {
        self.commands.iter().filter(|command| command.starts_with("ReplyRound(")).count()
    }
}

#[test]
fn an_override_is_replied_to_once_every_worker_applies_it() {
    let mut bench = Bench::serving();
    bench.applied(FIRST, 0, 0);
    bench.sets(disable("a"), 7);
    assert!(bench.sends_list_to(FIRST) && bench.replies() == 0, "{:?}", bench.commands);
    bench.applied(FIRST, 1, 1);
    assert_eq!(bench.replies(), 1);
    assert!(bench.commands[0].contains("late: [], unaware: [], client: 7"));
}

#[test]
fn a_worker_gets_the_overrides_at_its_start_and_those_that_are_set_while_it_warms_up() {
    let mut bench = Bench::serving();
    bench.applied(FIRST, 0, 0);
    bench.sets(disable("a"), 7);
    bench.reload(1);
    assert!(bench.commands.iter().any(|command| {
        command.starts_with("Spawn") && command.contains("\"a\": BackendOverride")
    }));
    bench.sets(disable("b"), 8);
    assert!(!bench.sends_list_to(SECOND), "it may be of an older version");
    bench.applied(SECOND, 0, 1);
    assert!(bench.sends_list_to(SECOND));
    bench.applied(SECOND, 2, 2);
    bench.sets(disable("c"), 9);
    assert!(bench.sends_list_to(FIRST) && bench.sends_list_to(SECOND));
}

#[test]
fn a_worker_that_does_not_know_overrides_gets_none_and_the_client_learns_it() {
    let mut bench = Bench::serving();
    bench.sets(disable("a"), 7);
    assert!(!bench.sends_list_to(FIRST));
    assert!(bench.commands[0].contains("late: [], unaware: [WorkerId(1)], client: 7"));
}

#[test]
fn a_worker_that_does_not_confirm_is_waited_for_for_five_seconds() {
    let mut bench = Bench::serving();
    bench.applied(FIRST, 0, 0);
    bench.sets(disable("a"), 7);
    bench.passes(Duration::from_secs(4));
    assert_eq!(bench.replies(), 0);
    bench.passes(Duration::from_secs(1));
    assert!(bench.commands[0].contains("late: [WorkerId(1)]"), "{:?}", bench.commands);
}

#[test]
fn an_override_ends_by_its_time_for_every_worker() {
    let mut bench = Bench::serving();
    bench.applied(FIRST, 0, 0);
    bench.sets(OverrideRequest { lasts: Some(Duration::from_secs(60)), ..disable("a") }, 7);
    bench.applied(FIRST, 1, 1);
    bench.passes(Duration::from_secs(59));
    assert!(!bench.sends_list_to(FIRST));
    bench.passes(Duration::from_secs(1));
    assert!(bench.sends_list_to(FIRST));
    assert!(bench.with_log[0].contains("override ended: pool=web backend=a before="));
    assert!(bench.service.overrides(bench.now).is_empty());
}

#[test]
fn a_backend_that_the_configuration_does_not_have_is_refused() {
    let mut bench = Bench::serving();
    bench.sets(disable("none"), 7);
    assert!(bench.has("ReplyFailed([7], \"the configuration has no backend web/none\")"));
}

#[test]
fn an_upgrade_keeps_the_overrides_and_asks_the_workers_again() {
    let mut bench = Bench::serving();
    bench.applied(FIRST, 0, 0);
    bench.sets(disable("a"), 7);
    bench.begin_upgrade(1);
    let saved = bench.service.save(bench.now);
    assert!(saved.current.as_ref().unwrap().knows_overrides);
    let loaded = Loaded { config: 0, shutdown: SHUTDOWN };
    bench.service = Service::restore(bench.service.settings.clone(), loaded, &saved, bench.now);
    bench.event(Event::Resumed(None));
    assert!(bench.sends_list_to(FIRST));
    assert_eq!(bench.service.overrides(bench.now).pools["web"].len(), 1);
}
