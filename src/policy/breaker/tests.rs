use std::num::NonZeroU32;

use super::*;

/// The roll of an open time without jitter, but for a nanosecond.
const MID_ROLL: u64 = u64::MAX / 2;
const HEALTHY_PEERS: Peers =
    Peers { eligible_others: 4, out: 0, total: 5, usual: FailureRate::ZERO };

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn params() -> BreakerParams {
    BreakerParams {
        failures: number(3),
        share: 30,
        attempts: 20,
        open: Duration::from_secs(1),
        open_max: Duration::from_secs(300),
        trials: number(1),
        successes: number(3),
        out_max: 50,
        shadow: false,
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_millis(millis)
}

fn moment(now: Timestamp, roll: u64) -> Moment {
    Moment { now, roll }
}

fn history(results: &str) -> History {
    results.chars().fold(History::EMPTY, |history, result| history.with(result == 'x'))
}

fn suspect(results: &str) -> Option<Cause> {
    let suspicion =
        Breaker::default().suspect(&params(), AttemptFault::Failed, history(results), at(0));
    suspicion.map(|suspicion| suspicion.cause)
}

/// A breaker that has opened at `now` because of `fault`.
fn opened(fault: AttemptFault, now: Timestamp) -> Breaker {
    let mut breaker = Breaker::default();
    open(&mut breaker, fault, now).unwrap();
    breaker
}

/// How long it opens for after as many failures as `fault` needs.
fn open(breaker: &mut Breaker, fault: AttemptFault, now: Timestamp) -> Option<Duration> {
    let results = if fault == AttemptFault::Slow { "xxxxxxxxxx" } else { "xxx" };
    let why = breaker.suspect(&params(), fault, history(results), now)?;
    match breaker.open(&params(), why, HEALTHY_PEERS, moment(now, MID_ROLL))? {
        Transition::Opened { open_for, .. } => Some(open_for),
        Transition::HalfOpened | Transition::Closed => None,
    }
}

fn allowed(results: &str, peers: Peers) -> bool {
    let mut breaker = Breaker::default();
    let why = breaker.suspect(&params(), AttemptFault::Failed, history(results), at(0)).unwrap();
    breaker.open(&params(), why, peers, moment(at(0), MID_ROLL)).is_some()
}

/// Makes a trial with this result.
fn trial(
    breaker: &mut Breaker,
    result: Result<(), AttemptFault>,
    now: Timestamp,
) -> Option<Transition> {
    breaker.try_trial(&params(), now).expect("a trial is due");
    let change = breaker.record_trial(&params(), result, moment(now, MID_ROLL));
    breaker.end_trial();
    change
}

fn millis(duration: Duration) -> u128 {
    // `MID_ROLL` gives one nanosecond less than the whole.
    (duration + Duration::from_nanos(1)).as_millis()
}

#[test]
fn three_failures_in_a_row_are_suspicious_and_two_are_not() {
    assert_eq!(suspect("xx"), None);
    assert_eq!(suspect("xx.xx"), None);
    assert_eq!(suspect("...xxx"), Some(Cause::Failures));
}

#[test]
fn a_backend_that_fails_half_the_time_is_suspicious_without_consecutive_failures() {
    assert_eq!(suspect("x.x.x.x.x"), None, "nine attempts are too few");
    assert_eq!(suspect("x.x.x.x.x."), Some(Cause::Share));
    assert_eq!(suspect(&".".repeat(63)), None);
    assert_eq!(suspect(&format!("{}{}", ".".repeat(40), "x.x.x.x.x.x")), Some(Cause::Share));
    assert_eq!(suspect(&format!("{}{}", ".".repeat(40), "x.x.x.x.x")), None, "a quarter of 20");
}

#[test]
fn a_refused_connection_is_enough() {
    let why = Breaker::default().suspect(&params(), AttemptFault::Refused, history("....x"), at(0));
    assert_eq!(why.unwrap().cause, Cause::Refused);
}

#[test]
fn a_backend_is_slow_if_half_of_its_attempts_are() {
    let slow = |results: &str| {
        let why =
            Breaker::default().suspect(&params(), AttemptFault::Slow, history(results), at(0));
        why.map(|why| (why.cause, why.failed, why.of))
    };
    assert_eq!(slow("xxxxxxxxx"), None, "nine attempts are too few");
    assert_eq!(slow("x.x.x.x.x."), Some((Cause::Slow, 5, 10)));
    assert_eq!(slow(".x.x.x.x.x......xxxxx"), Some((Cause::Slow, 10, 20)));
    assert_eq!(slow(".........xxxxxxx"), None, "some requests of any service are slow");
}

#[test]
fn a_silent_backend_is_suspicious_if_as_many_requests_wait_as_failures_open_it() {
    let breaker = Breaker::default();
    assert_eq!(breaker.suspect_silence(&params(), 2), None);
    assert_eq!(breaker.suspect_silence(&params(), 3).map(|why| why.cause), Some(Cause::Slow));
    assert_eq!(opened(AttemptFault::Failed, at(0)).suspect_silence(&params(), 9), None);
}

#[test]
fn backends_that_fail_alike_stay() {
    for (usual, three, six, half) in [
        (0, true, true, true),
        (1, true, true, true),
        (2, false, true, true),
        (5, false, true, true),
        (10, false, true, false),
        (20, false, false, false),
        (100, false, false, false),
    ] {
        let peers = Peers { usual: FailureRate::per_cent(usual), ..HEALTHY_PEERS };
        assert_eq!(allowed("xxx", peers), three, "{usual} %, three consecutive");
        assert_eq!(allowed("xxxxxx", peers), six, "{usual} %, six consecutive");
        assert_eq!(allowed("x.x.x.x.x.", peers), half, "{usual} %, half of ten");
    }
}

#[test]
fn one_or_two_failures_are_enough_if_configured() {
    for failures in 1..3 {
        let params = BreakerParams { failures: number(failures), ..params() };
        let results = history(&"x".repeat(usize::try_from(failures).unwrap()));
        let mut breaker = Breaker::default();
        let why = breaker.suspect(&params, AttemptFault::Failed, results, at(0)).unwrap();
        assert!(
            breaker.open(&params, why, HEALTHY_PEERS, moment(at(0), 0)).is_some(),
            "{failures}"
        );
    }
}

#[test]
fn a_slow_backend_stays_if_its_peers_are_slow_too() {
    for (usual, is_allowed) in [(0, true), (5, true), (10, false), (50, false)] {
        let peers = Peers { usual: FailureRate::per_cent(usual), ..HEALTHY_PEERS };
        let mut breaker = Breaker::default();
        let why = breaker.suspect(&params(), AttemptFault::Slow, history("x.x.x.x.x."), at(0));
        let change = breaker.open(&params(), why.unwrap(), peers, moment(at(0), 0));
        assert_eq!(change.is_some(), is_allowed, "{usual} %");
    }
}

/// A breaker that has closed at 1000 ms after three successful trials, and its suspicion after these results.
fn after_return(results: &str) -> (Breaker, Option<Suspicion>) {
    let mut breaker = opened(AttemptFault::Failed, at(0));
    for _ in 0..3 {
        trial(&mut breaker, Ok(()), at(1000));
    }
    let why = breaker.suspect(&params(), AttemptFault::Failed, history(results), at(1500));
    (breaker, why)
}

#[test]
fn a_failure_among_many_successes_is_no_relapse() {
    let cause = |results: &str| after_return(results).1.map(|why| why.cause);
    assert_eq!(cause("..x"), Some(Cause::Relapse));
    assert_eq!(cause("...x"), None, "a quarter is less than the share");
    assert_eq!(cause("...x.x"), Some(Cause::Relapse));
    assert_eq!(cause(&format!("{}x", ".".repeat(30))), None);
    assert_eq!(cause(&format!("{}xxx", ".".repeat(30))), Some(Cause::Failures));
}

#[test]
fn a_relapse_while_the_peers_fail_needs_as_much_as_a_share() {
    for (usual, one, six) in
        [(0, true, true), (5, true, true), (6, false, true), (20, false, false)]
    {
        let peers = Peers { usual: FailureRate::per_cent(usual), ..HEALTHY_PEERS };
        for (results, is_allowed) in [("x", one), ("xxxxxx", six)] {
            let (mut breaker, why) = after_return(results);
            let change = breaker.open(&params(), why.unwrap(), peers, moment(at(1500), 0));
            assert_eq!(change.is_some(), is_allowed, "{results} at {usual} %");
        }
    }
}

#[test]
fn the_last_eligible_backend_stays_even_if_it_refuses_connections() {
    let alone = Peers { eligible_others: 0, out: 0, total: 2, usual: FailureRate::ZERO };
    assert!(!allowed("xxx", alone));
    let mut breaker = Breaker::default();
    let why = breaker.suspect(&params(), AttemptFault::Refused, history("x"), at(0)).unwrap();
    assert_eq!(breaker.open(&params(), why, alone, moment(at(0), 0)), None);
}

#[test]
fn at_most_out_max_of_a_pool_is_out_but_always_one_may_be() {
    for (total, out, is_allowed) in
        [(2, 0, true), (2, 1, false), (3, 0, true), (3, 1, false), (5, 1, true), (5, 2, false)]
    {
        let peers =
            Peers { eligible_others: total - out - 1, out, total, usual: FailureRate::ZERO };
        assert_eq!(allowed("xxx", peers), is_allowed, "{out} of {total}");
        // Only a backend that refuses connections may exceed `out_max`.
        let mut breaker = Breaker::default();
        let why = breaker.suspect(&params(), AttemptFault::Refused, history("x"), at(0)).unwrap();
        let change = breaker.open(&params(), why, peers, moment(at(0), 0));
        assert_eq!(change.is_some(), peers.eligible_others > 0, "{out} of {total}");
    }
}

#[test]
fn it_leaves_open_only_by_time_and_closes_after_three_trials() {
    let mut breaker = opened(AttemptFault::Failed, at(0));
    assert_eq!(breaker.phase(at(0)), BreakerPhase::Open);
    assert_eq!(breaker.try_trial(&params(), at(999)), None);
    assert_eq!(breaker.phase(at(1000)), BreakerPhase::HalfOpen);
    assert_eq!(breaker.try_trial(&params(), at(1000)), Some(Some(Transition::HalfOpened)));
    assert_eq!(breaker.try_trial(&params(), at(1000)), None, "one at a time");
    assert_eq!(breaker.record_trial(&params(), Ok(()), moment(at(1001), 0)), None);
    breaker.end_trial();
    assert_eq!(trial(&mut breaker, Ok(()), at(1002)), None);
    assert_eq!(trial(&mut breaker, Ok(()), at(1003)), Some(Transition::Closed));
    assert_eq!(breaker.phase(at(1003)), BreakerPhase::Closed);
}

#[test]
fn a_cancelled_trial_says_nothing_and_makes_room_for_the_next() {
    let mut breaker = opened(AttemptFault::Failed, at(0));
    for _ in 0..10 {
        assert!(breaker.try_trial(&params(), at(2000)).is_some());
        breaker.end_trial();
    }
    assert_eq!(breaker.phase(at(2000)), BreakerPhase::HalfOpen);
}

#[test]
fn a_failed_trial_opens_it_again_for_longer() {
    let again = |fault| {
        let mut breaker = opened(fault, at(0));
        match trial(&mut breaker, Err(fault), at(10_000)) {
            Some(Transition::Opened { why, open_for }) => (why.cause, millis(open_for)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(again(AttemptFault::Failed), (Cause::Trial, 1250), "it costs no client anything");
    assert_eq!(again(AttemptFault::Refused), (Cause::Trial, 1250));
    assert_eq!(again(AttemptFault::Cut), (Cause::Trial, 4000), "it costs a client its response");
    assert_eq!(again(AttemptFault::Slow), (Cause::Trial, 4000));
}

#[test]
fn the_open_time_never_exceeds_its_maximum() {
    let mut breaker = opened(AttemptFault::Slow, at(0));
    let mut now = at(0);
    for _ in 0..40 {
        now = now + Duration::from_secs(10_000);
        let Some(Transition::Opened { open_for, .. }) =
            trial(&mut breaker, Err(AttemptFault::Slow), now)
        else {
            panic!("it opens again");
        };
        assert!(open_for <= Duration::from_secs(360), "{open_for:?}");
    }
}

#[test]
fn a_failure_soon_after_a_return_opens_it_at_once_and_for_twice_the_time() {
    let mut breaker = opened(AttemptFault::Failed, at(0));
    for _ in 0..3 {
        trial(&mut breaker, Ok(()), at(1000));
    }
    let why = breaker.suspect(&params(), AttemptFault::Failed, history("x"), at(1500)).unwrap();
    assert_eq!(why.cause, Cause::Relapse);
    let Some(Transition::Opened { open_for, .. }) =
        breaker.open(&params(), why, HEALTHY_PEERS, moment(at(1500), MID_ROLL))
    else {
        panic!("it opens");
    };
    assert_eq!(millis(open_for), 2000);
}

#[test]
fn a_long_good_time_resets_the_open_time() {
    let mut breaker = opened(AttemptFault::Failed, at(0));
    for _ in 0..3 {
        trial(&mut breaker, Ok(()), at(1000));
    }
    assert_eq!(breaker.suspect(&params(), AttemptFault::Failed, history("x"), at(2500)), None);
    assert_eq!(millis(open(&mut breaker.clone(), AttemptFault::Failed, at(5000)).unwrap()), 2000);
    assert_eq!(millis(open(&mut breaker, AttemptFault::Failed, at(11_001)).unwrap()), 1000);
}

#[test]
fn a_backend_that_gets_no_trial_comes_back_by_time() {
    let mut breaker = opened(AttemptFault::Failed, at(0));
    assert_eq!(breaker.expire(&params(), at(10_900)), None);
    assert!(breaker.try_trial(&params(), at(10_900)).is_some());
    assert_eq!(breaker.expire(&params(), at(12_000)), None, "a trial is under way");
    breaker.end_trial();
    assert_eq!(breaker.expire(&params(), at(12_000)), Some(Transition::Closed));
    let why = breaker.suspect(&params(), AttemptFault::Failed, history("x"), at(12_100));
    assert_eq!(why.unwrap().cause, Cause::Relapse);
}

#[test]
fn a_trial_without_an_end_keeps_the_next_one_back_for_ten_seconds() {
    let mut breaker = opened(AttemptFault::Failed, at(0));
    assert!(breaker.try_trial(&params(), at(1_000)).is_some());
    assert_eq!(breaker.try_trial(&params(), at(10_999)), None);
    assert_eq!(breaker.try_trial(&params(), at(11_000)), Some(None));
    assert_eq!(breaker.expire(&params(), at(20_999)), None);
    assert_eq!(breaker.expire(&params(), at(21_000)), Some(Transition::Closed));
}

#[test]
fn the_result_of_a_trial_that_is_late_changes_nothing() {
    let two = BreakerParams { trials: number(2), ..params() };
    let mut breaker = opened(AttemptFault::Failed, at(0));
    assert!(
        breaker.try_trial(&two, at(1000)).is_some() && breaker.try_trial(&two, at(1000)).is_some()
    );
    assert!(
        breaker.record_trial(&two, Err(AttemptFault::Failed), moment(at(1001), MID_ROLL)).is_some()
    );
    assert_eq!(
        breaker.record_trial(&two, Err(AttemptFault::Failed), moment(at(1002), MID_ROLL)),
        None
    );
    assert_eq!(breaker.record_trial(&two, Ok(()), moment(at(1002), MID_ROLL)), None);
}

#[test]
fn the_open_time_is_spread_by_a_fifth_either_way() {
    let second = Duration::from_secs(1);
    assert_eq!(jittered(second, 0), Duration::from_millis(800));
    assert_eq!(millis(jittered(second, u64::MAX)), 1200);
    assert_eq!(jittered(Duration::MAX, u64::MAX).as_secs() / 1_000_000, 18_446, "no overflow");
}

#[test]
fn the_next_worker_continues_where_this_one_was() {
    let mut old = opened(AttemptFault::Slow, at(50_000));
    let state = old.export(at(50_500));
    let mut new = Breaker::default();
    new.import(&params(), &state, Duration::from_millis(500), at(10));
    assert_eq!(new.phase(at(10 + 999)), BreakerPhase::Open);
    assert_eq!(new.phase(at(1_010)), BreakerPhase::HalfOpen);
    for _ in 0..3 {
        trial(&mut old, Ok(()), at(52_000));
    }
    new.import(&params(), &old.export(at(52_000)), Duration::ZERO, at(10));
    assert_eq!(new.phase(at(10)), BreakerPhase::Closed);
    let why = new.suspect(&params(), AttemptFault::Failed, history("x"), at(1_000)).unwrap();
    assert_eq!(why.cause, Cause::Relapse, "it is still on probation");
    let whole = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<BreakerState>(&whole).unwrap(), state);
    assert_eq!(serde_json::from_str::<BreakerState>("{}").unwrap(), BreakerState::default());
}

#[test]
fn a_shorter_open_max_applies_to_imported_state() {
    let mut old = opened(AttemptFault::Slow, at(0));
    let mut now = at(0);
    for _ in 0..20 {
        now = now + Duration::from_secs(10_000);
        trial(&mut old, Err(AttemptFault::Slow), now);
    }
    let state = old.export(now);
    let shorter = BreakerParams { open_max: Duration::from_secs(10), ..params() };
    let mut new = Breaker::default();
    new.import(&shorter, &state, Duration::ZERO, at(0));
    assert_eq!(new.phase(at(12_000)), BreakerPhase::HalfOpen, "with the jitter, 12 s");
    for millis in [12_000, 12_001, 12_002] {
        trial(&mut new, Ok(()), at(millis));
    }
    let why = new.suspect(&shorter, AttemptFault::Failed, history("x"), at(22_003));
    assert_eq!(why, None, "the probation is over after 10 s");
    let state = new.export(at(12_002));
    assert!(state.probation <= Duration::from_secs(10) && state.length <= Duration::from_secs(10));
}
