use super::*;
use crate::lifecycle::Order;

#[derive(Debug)]
enum TestValues {}

impl ProcessPayload for TestValues {
    type State = ();
    type Report = ();
    type Stats = ();
    type Overrides = ();
}

type Event = ProcessEvent<TestValues>;

const SETTINGS: ProcessSettings = ProcessSettings {
    first_checks_max: Duration::from_secs(15),
    pre_stop: Duration::from_secs(5),
    drain: Duration::from_secs(30),
    hang_timeout: None,
};

fn at(millis: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_millis(millis)
}

/// A worker at the moment 0, after these events.
fn worker(events: Vec<Event>) -> WorkerProcess<TestValues> {
    let mut worker = WorkerProcess::new(SETTINGS, at(0));
    for event in events {
        let _commands = worker.handle(event, at(0));
    }
    worker
}

fn commands(worker: &mut WorkerProcess<TestValues>, event: Event, millis: u64) -> String {
    let commands = worker.handle(event, at(millis));
    commands.iter().map(|command| format!("{command:?}")).collect::<Vec<_>>().join(" ")
}

fn stats(others_drain: bool) -> Event {
    Event::Stats { hang_timeout: None, others_drain, stats: () }
}

fn order(order: Order) -> Event {
    Event::Order(order)
}

/// Each phase by its name, with the events that lead to it.
fn phase(name: &str) -> WorkerProcess<TestValues> {
    let serving = || vec![Event::ChecksDone, Event::TakeOver(()), Event::Tick];
    let with = |more: Vec<Event>| serving().into_iter().chain(more).collect();
    worker(match name {
        "warming up" => vec![],
        "warm" => vec![Event::ChecksDone],
        "serving" => serving(),
        "quiesced" => with(vec![order(Order::Quiesce)]),
        "pre-stop" => with(vec![order(Order::Stop)]),
        "replaced" => with(vec![order(Order::Drain), Event::Tick]),
        "stopped" => with(vec![order(Order::Stop), Event::LinkClosed, Event::Tick]),
        "orphaned" => with(vec![Event::LinkClosed, Event::Tick]),
        "aborting" => with(vec![order(Order::StopNow)]),
        "drained, quiesced" => {
            with(vec![order(Order::Drain), order(Order::Quiesce), Event::Drained])
        }
        "shutting down" => with(vec![order(Order::Drain), Event::Drained]),
        "shut down, quiesced" => with(vec![
            order(Order::Drain),
            Event::Drained,
            order(Order::Quiesce),
            Event::ServicesStopped,
        ]),
        "ended" => vec![order(Order::Drain), Event::ServicesStopped],
        other => panic!("no phase {other}"),
    })
}

const DRAIN_REPLACED: &str = "LogDraining RetireAdminPort SetServingState(DrainingReplaced) \
                              StopBackground Drain";
const DRAIN_STOPPED: &str = "SetServingState(DrainingStopped) StopBackground Drain";
const STOP: &str = "LogDraining SetServingState(PreStop)";

fn assert_table(table: Vec<(&str, Event, &str)>) {
    for (name, event, expected) in table {
        let what = format!("{name}: {event:?}");
        assert_eq!(commands(&mut phase(name), event, 0), expected, "{what}");
    }
}

#[test]
fn every_event_until_the_drain_has_its_commands() {
    let aborted = format!("{DRAIN_STOPPED} Abort");
    let aborted_at_once = format!("{STOP} {aborted}");
    let orphaned_stop = format!("RetireAdminPort {DRAIN_STOPPED}");
    let accept = "StartListeners(()) SetServingState(Accepting) OpenAdminPort Send(Ready)";
    let hand_over = "CloseAdminPort Freeze Send(State)";
    let table: Vec<(&str, Event, &str)> = vec![
        ("warming up", Event::ChecksDone, "Send(Warm)"),
        ("warming up", Event::TakeOver(()), "StopServices"),
        ("warming up", order(Order::Stop), "StopServices"),
        ("warming up", Event::StopSignal, "StopServices"),
        ("warming up", Event::LinkClosed, "StopServices"),
        ("warm", Event::ChecksDone, ""),
        ("warm", Event::TakeOver(()), accept),
        ("warm", order(Order::Drain), "StopServices"),
        ("warm", stats(false), "StopServices"),
        ("warm", Event::AddCounts(()), "StopServices"),
        ("warm", Event::StopSignal, "StopServices"),
        ("warm", Event::LinkClosed, "StopServices"),
        ("serving", Event::TakeOver(()), ""),
        ("serving", order(Order::HandOver), hand_over),
        ("serving", order(Order::Resume), "Unfreeze ReopenAdminPort"),
        ("serving", order(Order::Drain), DRAIN_REPLACED),
        ("serving", order(Order::Stop), STOP),
        ("serving", order(Order::StopNow), &aborted_at_once),
        ("serving", order(Order::Quiesce), "Send(Quiesced)"),
        ("serving", Event::AddCounts(()), "ImportReport(())"),
        ("serving", stats(true), "ShowStats(())"),
        ("serving", Event::StopSignal, STOP),
        ("serving", Event::CommandFailed, "StopServices"),
        ("serving", Event::LinkClosed, DRAIN_REPLACED),
        ("serving", Event::Drained, ""),
        ("quiesced", order(Order::Quiesce), "Send(Quiesced)"),
        ("quiesced", order(Order::Unquiesce), "ResendFiles"),
        ("quiesced", order(Order::HandOver), "CloseAdminPort Freeze"),
        ("quiesced", order(Order::Drain), DRAIN_REPLACED),
        ("pre-stop", order(Order::Drain), ""),
        ("pre-stop", order(Order::Stop), ""),
        ("pre-stop", order(Order::StopNow), &aborted),
        ("pre-stop", order(Order::HandOver), hand_over),
        ("pre-stop", stats(true), "ShowStats(())"),
        ("pre-stop", Event::StopSignal, ""),
        ("pre-stop", Event::LinkClosed, &orphaned_stop),
    ];
    assert_table(table);
}

#[test]
fn every_event_from_the_drain_on_has_its_commands() {
    let table: Vec<(&str, Event, &str)> = vec![
        ("replaced", order(Order::HandOver), ""),
        ("replaced", order(Order::Resume), ""),
        ("replaced", order(Order::Stop), ""),
        ("replaced", order(Order::StopNow), "Abort"),
        ("replaced", order(Order::Quiesce), "Send(Quiesced)"),
        ("replaced", stats(true), ""),
        ("replaced", Event::AddCounts(()), ""),
        ("replaced", Event::StopSignal, ""),
        ("replaced", Event::LinkClosed, "RetireAdminPort"),
        ("replaced", Event::Drained, "Send(LastReport) StopServices"),
        ("replaced", Event::CommandFailed, "StopServices"),
        ("stopped", stats(true), "ShowStats(())"),
        ("stopped", Event::AddCounts(()), "ImportReport(())"),
        ("stopped", Event::Drained, "Send(LastReport) StopServices"),
        ("orphaned", Event::Drained, "Send(LastReport) StopServices"),
        ("aborting", order(Order::StopNow), ""),
        ("aborting", Event::Drained, "Send(LastReport) StopServices"),
        ("drained, quiesced", order(Order::StopNow), ""),
        ("drained, quiesced", Event::Tick, ""),
        ("drained, quiesced", order(Order::Unquiesce), "ResendFiles Send(LastReport) StopServices"),
        ("drained, quiesced", Event::LinkClosed, "RetireAdminPort Send(LastReport) StopServices"),
        ("shutting down", order(Order::StopNow), ""),
        ("shutting down", order(Order::Quiesce), "Send(Quiesced)"),
        ("shutting down", Event::CommandFailed, ""),
        ("shutting down", Event::ServicesStopped, "Send(LastReport) Send(LogLost) Exit"),
        (
            "shut down, quiesced",
            order(Order::Unquiesce),
            "ResendFiles Send(LastReport) Send(LogLost) Exit",
        ),
        ("shut down, quiesced", Event::LinkClosed, "Send(LastReport) Send(LogLost) Exit"),
        ("ended", order(Order::Quiesce), ""),
        ("ended", Event::LinkClosed, ""),
    ];
    assert_table(table);
}

#[test]
fn first_checks_that_take_too_long_are_not_waited_for() {
    let mut worker = phase("warming up");
    assert_eq!(worker.next_deadline(), at(15_000));
    assert_eq!(commands(&mut worker, Event::Tick, 14_999), "");
    assert_eq!(commands(&mut worker, Event::Tick, 15_000), "WarnUnchecked(15s) Send(Warm)");
    assert_eq!(worker.next_deadline(), Timestamp::MAX);
}

#[test]
fn a_serving_worker_sends_its_state_every_two_seconds_unless_it_is_quiesced() {
    let checkpoint = "Send(Checkpoint) Send(Connections)";
    for (name, expected) in [("serving", checkpoint), ("quiesced", "")] {
        let mut worker = phase(name);
        assert_eq!(worker.next_deadline(), at(2000), "{name}");
        assert_eq!(commands(&mut worker, Event::Tick, 2000), expected, "{name}");
        assert_eq!(worker.next_deadline(), at(4000), "{name}");
    }
}

#[test]
fn heartbeats_begin_with_serving_and_follow_the_hang_timeout() {
    let mut worker = phase("serving");
    let stats = |seconds| {
        let hang_timeout = Some(Duration::from_secs(seconds));
        Event::Stats { hang_timeout, others_drain: false, stats: () }
    };
    assert_eq!(commands(&mut worker, stats(10), 100), "ShowStats(())");
    assert_eq!(worker.next_deadline(), at(100));
    assert_eq!(commands(&mut worker, Event::Tick, 100), "Send(Heartbeat)");
    assert_eq!(commands(&mut worker, stats(10), 200), "ShowStats(())");
    assert_eq!(commands(&mut worker, Event::Tick, 200), "");
    let next = at(100) + Watchdog::interval(Duration::from_secs(10));
    assert_eq!(worker.handle(Event::Tick, next).len(), 1);
    let mut warm = WorkerProcess::<TestValues>::new(
        ProcessSettings { hang_timeout: Some(Duration::from_secs(10)), ..SETTINGS },
        at(0),
    );
    assert_eq!(commands(&mut warm, Event::ChecksDone, 0), "Send(Warm)");
    assert_eq!(warm.next_deadline(), Timestamp::MAX);
}

#[test]
fn a_stop_drains_after_pre_stop() {
    let mut worker = phase("pre-stop");
    assert_eq!(commands(&mut worker, Event::Tick, 2000), "");
    assert_eq!(worker.next_deadline(), at(5000));
    assert_eq!(commands(&mut worker, Event::Tick, 5000), DRAIN_STOPPED);
}

#[test]
fn a_draining_worker_reports_ten_times_a_second_until_it_is_quiesced() {
    let mut worker = phase("replaced");
    assert_eq!(worker.next_deadline(), at(100));
    assert_eq!(commands(&mut worker, Event::Tick, 99), "");
    assert_eq!(commands(&mut worker, Event::Tick, 100), "Send(Report)");
    assert_eq!(commands(&mut worker, order(Order::Quiesce), 150), "Send(Quiesced)");
    assert_eq!(commands(&mut worker, Event::Tick, 200), "");
}

#[test]
fn upgraded_connections_are_ended_after_the_drain_only_if_the_supervisor_is_gone() {
    let mut replaced = phase("replaced");
    assert_eq!(commands(&mut replaced, Event::Tick, 60_000), "Send(Report)");
    assert_eq!(commands(&mut replaced, Event::LinkClosed, 60_001), "RetireAdminPort");
    assert_eq!(replaced.next_deadline(), at(30_000));
    assert_eq!(commands(&mut replaced, Event::Tick, 60_001), "EndUpgraded");
    assert_eq!(commands(&mut replaced, Event::Tick, 60_002), "");
    let mut orphaned = phase("orphaned");
    assert_eq!(commands(&mut orphaned, Event::Tick, 29_999), "Send(Report)");
    assert_eq!(commands(&mut orphaned, Event::Tick, 30_000), "EndUpgraded");
}

#[test]
fn connections_that_do_not_end_are_given_up_after_an_abort() {
    let mut worker = phase("aborting");
    assert_eq!(commands(&mut worker, Event::Tick, 1499), "");
    assert_eq!(worker.next_deadline(), at(1500));
    let last = "WarnUnfinished Send(LastReport) StopServices";
    assert_eq!(commands(&mut worker, Event::Tick, 1500), last);
}

#[test]
fn the_last_worker_waits_for_the_others_unless_it_must_stop_at_once() {
    let waiting = || {
        let mut worker = phase("pre-stop");
        let _shown = worker.handle(stats(true), at(0));
        let _drains = worker.handle(Event::Tick, at(5000));
        assert_eq!(commands(&mut worker, Event::Drained, 5000), "Send(LastReport)");
        worker
    };
    for (event, expected) in [
        (stats(true), "ShowStats(())"),
        (stats(false), "ShowStats(()) StopServices"),
        (Event::AddCounts(()), "ImportReport(())"),
        (order(Order::StopNow), "StopServices"),
        (order(Order::Drain), "StopServices"),
        (Event::LinkClosed, "RetireAdminPort StopServices"),
        (Event::StopSignal, ""),
    ] {
        let what = format!("{event:?}");
        assert_eq!(commands(&mut waiting(), event, 5000), expected, "{what}");
    }
}

#[test]
fn a_worker_that_must_stop_at_once_does_not_wait_for_the_others() {
    let mut worker = phase("serving");
    let _shown = worker.handle(stats(true), at(0));
    let _aborts = worker.handle(order(Order::StopNow), at(0));
    assert_eq!(commands(&mut worker, Event::Drained, 10), "Send(LastReport) StopServices");
}

#[test]
fn a_worker_that_is_replaced_while_it_stops_does_not_wait_for_the_others() {
    let mut worker = phase("pre-stop");
    let _shown = worker.handle(stats(true), at(0));
    assert_eq!(commands(&mut worker, order(Order::Drain), 100), "");
    assert_eq!(commands(&mut worker, Event::Tick, 5000), DRAIN_STOPPED);
    assert_eq!(commands(&mut worker, Event::Drained, 5000), "Send(LastReport) StopServices");
}
