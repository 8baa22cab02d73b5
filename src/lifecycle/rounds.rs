//! Clients that wait until the workers have confirmed what operators have set.
//!
//! Every round sends the list to all workers. A worker confirms each list that it got, in their order,
//! so the confirmation of one round also holds for the rounds before it.

use std::time::Duration;

use super::WorkerId;
use super::overrides::OverrideResult;
use crate::time::Timestamp;

/// How long workers may take to confirm.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of clients that wait at the same time.
pub(super) const ROUNDS_MAX: usize = 256;

/// A client that waits.
#[derive(Debug)]
struct Round<R> {
    serial: u64,
    change: Option<OverrideResult>,
    client: R,
    /// Those that have not confirmed.
    workers: Vec<WorkerId>,
    /// Those of an older version, which do not know overrides.
    unaware: Vec<WorkerId>,
    deadline: Timestamp,
}

/// The result of a round.
#[derive(Debug)]
pub struct RoundResult<R> {
    /// What has changed; `None`: the client only asked for the current state.
    pub change: Option<OverrideResult>,
    /// Workers that did not confirm in time.
    pub late: Vec<WorkerId>,
    /// Workers of an older version, which do not apply overrides.
    pub unaware: Vec<WorkerId>,
    /// The client.
    pub client: R,
}

/// The clients that wait.
#[derive(Debug)]
pub(super) struct Rounds<R> {
    serial: u64,
    waiting: Vec<Round<R>>,
}

impl<R> Rounds<R> {
    pub(super) const fn new() -> Self {
        Self { serial: 0, waiting: Vec::new() }
    }

    /// The number of the newest round.
    pub(super) const fn serial(&self) -> u64 {
        self.serial
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= ROUNDS_MAX
    }

    /// Begins a round, for which these workers are asked.
    pub(super) fn begin(
        &mut self,
        client: R,
        change: Option<OverrideResult>,
        asked: Asked,
        now: Timestamp,
    ) {
        self.serial += 1;
        let (serial, deadline) = (self.serial, now + CONFIRM_TIMEOUT);
        let Asked { workers, unaware } = asked;
        self.waiting.push(Round { serial, change, client, workers, unaware, deadline });
    }

    /// A worker has confirmed the list of this round.
    pub(super) fn confirm(&mut self, worker: WorkerId, serial: u64) {
        for round in self.waiting.iter_mut().filter(|round| round.serial <= serial) {
            round.workers.retain(|waited| *waited != worker);
        }
    }

    /// Takes out the rounds that are complete or late. Workers that are gone are not waited for.
    pub(super) fn settle(
        &mut self,
        is_there: impl Fn(WorkerId) -> bool,
        now: Timestamp,
    ) -> Vec<RoundResult<R>> {
        for round in &mut self.waiting {
            round.workers.retain(|worker| is_there(*worker));
        }
        let is_over = |round: &mut Round<R>| round.workers.is_empty() || round.deadline <= now;
        let result = |round: Round<R>| RoundResult {
            change: round.change,
            late: round.workers,
            unaware: round.unaware,
            client: round.client,
        };
        self.waiting.extract_if(.., is_over).map(result).collect()
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.waiting.iter().map(|round| round.deadline).min()
    }
}

/// The workers of a round.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Those that confirm.
    pub(super) workers: Vec<WorkerId>,
    /// Those that do not know overrides.
    pub(super) unaware: Vec<WorkerId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: WorkerId = WorkerId(1);
    const SECOND: WorkerId = WorkerId(2);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn begin(rounds: &mut Rounds<u8>, client: u8, workers: &[WorkerId], now: Timestamp) {
        let asked = Asked { workers: workers.to_vec(), unaware: Vec::new() };
        rounds.begin(client, None, asked, now);
    }

    fn settled(rounds: &mut Rounds<u8>, now: Timestamp) -> Vec<(u8, usize)> {
        let results = rounds.settle(|_| true, now);
        results.iter().map(|result| (result.client, result.late.len())).collect()
    }

    #[test]
    fn a_round_ends_when_its_last_worker_has_confirmed() {
        let mut rounds = Rounds::new();
        begin(&mut rounds, 7, &[FIRST, SECOND], at(0));
        rounds.confirm(FIRST, 1);
        assert!(settled(&mut rounds, at(1)).is_empty());
        rounds.confirm(SECOND, 1);
        assert_eq!(settled(&mut rounds, at(1)), [(7, 0)]);
    }

    #[test]
    fn a_confirmation_holds_for_the_rounds_before_and_not_for_those_after() {
        let mut rounds = Rounds::new();
        (1..=3).for_each(|client| begin(&mut rounds, client, &[FIRST], at(0)));
        rounds.confirm(FIRST, 2);
        assert_eq!(settled(&mut rounds, at(1)), [(1, 0), (2, 0)]);
    }

    #[test]
    fn a_worker_that_is_gone_is_not_waited_for_and_a_silent_one_only_for_a_time() {
        let mut rounds = Rounds::new();
        begin(&mut rounds, 1, &[FIRST], at(0));
        assert_eq!(rounds.settle(|worker| worker != FIRST, at(1)).len(), 1);
        begin(&mut rounds, 2, &[FIRST], at(10));
        assert_eq!(rounds.deadline(), Some(at(10) + CONFIRM_TIMEOUT));
        assert!(settled(&mut rounds, at(14)).is_empty());
        assert_eq!(settled(&mut rounds, at(15)), [(2, 1)]);
    }
}
