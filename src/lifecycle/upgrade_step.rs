//! How far an upgrade is, and by when its next step has to be done.

use std::time::Duration;

use super::worker::Worker;
use crate::time::Timestamp;

/// How long a binary may take to say whether it can continue.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long workers may take to acknowledge that they send nothing more.
const QUIESCE_TIMEOUT: Duration = Duration::from_secs(2);

/// An upgrade that has begun.
#[derive(Debug)]
pub(super) enum Upgrade {
    /// The binary on disk is asked whether it can continue.
    Checking { check: u64, deadline: Timestamp },
    /// Workers are ordered to send nothing more.
    Quiescing { deadline: Timestamp },
    /// The new binary is executed.
    Executing,
}

impl Upgrade {
    pub(super) fn check(check: u64, now: Timestamp) -> Self {
        Self::Checking { check, deadline: now + CHECK_TIMEOUT }
    }

    pub(super) fn quiesce(now: Timestamp) -> Self {
        Self::Quiescing { deadline: now + QUIESCE_TIMEOUT }
    }

    pub(super) const fn is_check(&self, number: u64) -> bool {
        matches!(self, Self::Checking { check, .. } if *check == number)
    }

    /// Whether the new binary may be executed: no message of these workers can be in flight.
    pub(super) fn is_quiet<'a>(&self, mut workers: impl Iterator<Item = &'a Worker>) -> bool {
        matches!(self, Self::Quiescing { .. }) && workers.all(Worker::is_quiet)
    }

    pub(super) const fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Checking { deadline, .. } | Self::Quiescing { deadline } => Some(*deadline),
            Self::Executing => None,
        }
    }

    /// Why it is rejected if its deadline has passed.
    pub(super) fn timeout<'a>(
        &self,
        binary_path: &str,
        mut workers: impl Iterator<Item = &'a Worker>,
        now: Timestamp,
    ) -> Option<String> {
        self.deadline().filter(|deadline| *deadline <= now)?;
        Some(match self {
            Self::Checking { .. } => format!(
                "the new binary did not respond within {CHECK_TIMEOUT:?} whether it reads the configuration \
                 that is served: path={binary_path}"
            ),
            Self::Quiescing { .. } | Self::Executing => {
                match workers.find(|worker| !worker.is_quiet()).map(Worker::id) {
                    Some(id) => format!("a worker did not respond: generation={id}"),
                    None => "the reports of draining workers were not sent in time".to_owned(),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::WorkerId;
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_quiet_once_every_worker_has_acknowledged() {
        let upgrade = Upgrade::quiesce(at(0));
        let mut workers = [1, 2].map(|id| Worker::new(WorkerId(id), at(0)));
        workers.iter_mut().for_each(Worker::request_quiesce);
        workers[1].record_quiesced();
        assert!(!upgrade.is_quiet(workers.iter()));
        workers[0].record_quiesced();
        assert!(upgrade.is_quiet(workers.iter()));
        assert!(!Upgrade::check(1, at(0)).is_quiet(workers.iter()));
    }

    #[test]
    fn each_step_has_a_deadline_and_says_what_did_not_respond() {
        let check = Upgrade::check(3, at(0));
        assert!(check.is_check(3) && !check.is_check(2));
        let mut workers = [1, 2].map(|id| Worker::new(WorkerId(id), at(0)));
        let timeout =
            |it: &Upgrade, workers: &[Worker], now| it.timeout("/bin/weir", workers.iter(), now);
        assert_eq!(timeout(&check, &workers, at(4)), None);
        let why = timeout(&check, &workers, at(5)).unwrap();
        assert!(why.contains("within 5s") && why.ends_with("path=/bin/weir"), "{why}");
        let quiesce = Upgrade::quiesce(at(0));
        workers.iter_mut().for_each(Worker::request_quiesce);
        workers[0].record_quiesced();
        let why = timeout(&quiesce, &workers, at(2)).unwrap();
        assert_eq!(why, "a worker did not respond: generation=2");
    }
}
