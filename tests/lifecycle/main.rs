//! Days in the life of one service, replayed from a seed.
//!
//! The production life cycle runs here against a fake world (`world.rs`). Its workers are the machine
//! that production runs as well (`world/process.rs`): they die, hang, lie and speak too late
//! (`worker.rs`). Operators reload, upgrade and stop in storms, and binaries fail to
//! start, to be compatible or to continue. After every event the world compares what the life cycle
//! does with what it promises. `SEED=17` replays one day, `SEEDS=10000` runs more of them, and
//! `TRACE=1` prints what happened.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops at the first surprise"
)]

mod sabotage;
#[path = "../simulation/seeds.rs"]
mod seeds;
mod worker;
mod world;

use sabotage::Sabotage;
use world::{Sums, World};

const DAYS: u64 = 1000;

#[test]
fn no_day_breaks_a_promise() {
    let seeds = seeds::chosen(DAYS);
    let days = seeds.end - seeds.start;
    let mut sums = Sums::default();
    for seed in seeds {
        sums.add(&World::new(seed, None).live_a_day());
    }
    println!("days={days} {sums:?}");
    if days >= DAYS {
        // A simulation in which nothing happens proves nothing.
        assert!(sums.reloads_done > 2 * days, "{sums:?}");
        assert!(sums.reloads_rejected > days / 2, "{sums:?}");
        assert!(sums.upgrades_done > days / 2, "{sums:?}");
        assert!(sums.upgrades_rejected > days / 4, "{sums:?}");
        assert!(sums.restarts > days / 2, "{sums:?}");
        assert!(sums.hangs > days / 20, "{sums:?}");
        assert!(sums.drains_ended > days / 20, "{sums:?}");
        assert!(sums.handovers_late > days / 100, "{sums:?}");
        assert!(sums.stops_forced > days / 20, "{sums:?}");
        assert!(sums.reported > days, "{sums:?}");
        assert!(sums.orphanings > days / 40, "{sums:?}");
        assert!(sums.overrides > 3 * days, "{sums:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_day() {
    let first = World::new(7, None).live_a_day();
    assert_eq!(first, World::new(7, None).live_a_day());
    assert_ne!(first, World::new(8, None).live_a_day());
}

/// A life cycle that breaks a promise is found out, and the message says by which seed.
fn assert_caught(sabotage: Sabotage, promise: &str) {
    let found = (0..200).find_map(|seed| {
        let day = std::panic::catch_unwind(|| World::new(seed, Some(sabotage)).live_a_day());
        let message = day.err()?.downcast_ref::<String>().cloned().unwrap_or_default();
        // It may break other promises as well.
        message.contains(promise).then_some((seed, message))
    });
    let (seed, message) = found.unwrap_or_else(|| panic!("{sabotage:?} is not noticed"));
    assert!(message.starts_with(&format!("seed {seed}, ")), "{message}");
}

#[test]
fn a_reply_that_is_never_sent_is_noticed() {
    assert_caught(Sabotage::ForgetReply, "was never answered");
}

#[test]
fn a_reply_that_is_sent_twice_is_noticed() {
    assert_caught(Sabotage::ReplyTwice, "was answered twice");
}

#[test]
fn a_restart_that_does_not_happen_is_noticed() {
    assert_caught(Sabotage::ForgetRestart, "no worker serves");
}

#[test]
fn a_socket_that_is_closed_too_early_is_noticed() {
    assert_caught(Sabotage::CloseUsedSockets, "is not bound");
}

#[test]
fn a_state_that_is_lost_is_noticed() {
    assert_caught(Sabotage::LoseState, "did not get the state that worker");
}

#[test]
fn a_report_that_is_lost_is_noticed() {
    assert_caught(Sabotage::LoseReport, "report");
}

#[test]
fn a_stop_that_does_not_end_is_noticed() {
    assert_caught(Sabotage::NeverExit, "the stop does not end");
}

#[test]
fn too_many_draining_workers_are_noticed() {
    assert_caught(Sabotage::LetAllDrain, "workers drain");
}

#[test]
fn an_exec_with_messages_in_flight_is_noticed() {
    assert_caught(Sabotage::ExecAtOnce, "may still send");
}

#[test]
fn a_worker_that_sends_while_it_is_quiesced_is_noticed() {
    assert_caught(Sabotage::SpeakWhileQuiesced, "is quiesced, and sends");
}

#[test]
fn a_last_report_that_is_not_sent_is_noticed() {
    assert_caught(Sabotage::LoseLastReport, "and reported");
}

#[test]
fn pages_that_stay_frozen_are_noticed() {
    assert_caught(Sabotage::StayFrozen, "shows frozen pages");
}

#[test]
fn a_draining_worker_that_accepts_connections_is_noticed() {
    assert_caught(Sabotage::KeepAccepting, "still accepts connections");
}

#[test]
fn a_worker_that_accepts_connections_too_early_is_noticed() {
    assert_caught(Sabotage::AcceptEarly, "accepts before it was told to");
}

#[test]
fn a_worker_that_skips_pre_stop_is_noticed() {
    assert_caught(Sabotage::SkipPreStop, "was not unready for `pre_stop`");
}

#[test]
fn a_worker_without_a_supervisor_that_goes_on_is_noticed() {
    assert_caught(Sabotage::KeepUpgraded, "should have ended");
}

#[test]
fn a_new_worker_without_the_operators_settings_is_noticed() {
    assert_caught(Sabotage::ForgetOverrides, "does not apply what an operator has set");
}

#[test]
fn a_setting_that_a_worker_does_not_get_is_noticed() {
    assert_caught(Sabotage::LoseOverrides, "has not confirmed an override");
}

#[test]
fn a_setting_that_is_confirmed_and_not_applied_is_noticed() {
    assert_caught(Sabotage::ConfirmWithoutApplying, "does not apply it");
}

#[test]
fn settings_that_an_upgrade_loses_are_noticed() {
    assert_caught(Sabotage::ForgetAtExec, "an operator has set");
}

#[test]
fn a_worker_that_does_not_exit_is_noticed() {
    assert_caught(Sabotage::StayForever, "should have ended");
}
