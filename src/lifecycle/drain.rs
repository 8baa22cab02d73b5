//! Workers that drain, and which of them are ended before their time.

use std::time::Duration;

use super::WorkerId;
use super::command::KillReason;
use super::event::Memory;
use super::worker::Worker;
use crate::time::Timestamp;

/// How long a worker may take beyond its own drain timeout before it is killed.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// A worker that drains.
#[derive(Debug)]
pub(super) struct Draining {
    pub(super) worker: Worker,
    /// When it is killed.
    pub(super) deadline: Timestamp,
}

/// Which of the draining workers are ended, and why, oldest first. `draining`: oldest first. As many
/// go as are more than `max`, and as many as make room for the next worker, which is expected to
/// take as much as the largest that runs. The newest one never goes for memory.
pub(super) fn excess(
    draining: &[WorkerId],
    current: Option<WorkerId>,
    max: usize,
    memory: &Memory,
) -> Vec<(WorkerId, KillReason)> {
    let (excess, rest) = draining.split_at(draining.len().saturating_sub(max));
    let reason = || KillReason::TooManyDraining { max };
    let mut ended: Vec<_> = excess.iter().map(|worker| (*worker, reason())).collect();
    let Some(mut available) = memory.available else { return ended };
    let all = draining.iter().copied().chain(current);
    let wanted = all.map(|worker| memory.of(worker)).max().unwrap_or(0);
    for worker in excess {
        available = available.saturating_add(memory.of(*worker));
    }
    let without_newest = rest.split_last().map_or(&[][..], |(_newest, others)| others);
    for worker in without_newest {
        if available >= wanted {
            break;
        }
        let measured = memory.available.unwrap_or(0);
        ended.push((*worker, KillReason::MemoryShort { available: measured, wanted }));
        available = available.saturating_add(memory.of(*worker));
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of workers 1, 2, … are ended for their number, and which for memory. `sizes` are
    /// theirs; the current one takes `current`.
    fn ended(sizes: &[u64], current: u64, max: usize, available: Option<u64>) -> (usize, usize) {
        let draining: Vec<WorkerId> =
            (1..).map(WorkerId).zip(sizes).map(|(worker, _)| worker).collect();
        let serving = WorkerId(99);
        let mut resident: Vec<_> = draining.iter().copied().zip(sizes.iter().copied()).collect();
        resident.push((serving, current));
        let memory = Memory { available, resident };
        let ended = excess(&draining, Some(serving), max, &memory);
        for (at, (worker, _)) in ended.iter().enumerate() {
            assert_eq!(*worker, draining[at], "the oldest go first");
        }
        let is_number = |(_, reason): &&(WorkerId, KillReason)| {
            matches!(reason, KillReason::TooManyDraining { .. })
        };
        let for_number = ended.iter().filter(is_number).count();
        (for_number, ended.len() - for_number)
    }

    #[test]
    fn the_oldest_beyond_the_number_are_ended() {
        assert_eq!(ended(&[10; 3], 10, 3, Some(1000)), (0, 0));
        assert_eq!(ended(&[10; 5], 10, 3, Some(1000)), (2, 0));
    }

    #[test]
    fn where_memory_is_short_as_many_are_ended_as_make_room_for_the_next_one() {
        assert_eq!(ended(&[10; 4], 20, 16, Some(5)), (0, 2));
        assert_eq!(ended(&[20, 10, 10, 10], 20, 16, Some(5)), (0, 1));
        assert_eq!(ended(&[10; 4], 20, 3, Some(5)), (1, 1));
    }

    #[test]
    fn the_worker_that_has_just_begun_to_drain_is_never_ended_for_memory() {
        assert_eq!(ended(&[10], 100, 16, Some(0)), (0, 0));
        assert_eq!(ended(&[10, 10], 100, 16, Some(0)), (0, 1));
    }

    #[test]
    fn where_the_system_does_not_say_how_much_memory_is_left_only_the_number_counts() {
        assert_eq!(ended(&[10; 5], 100, 4, None), (1, 0));
    }
}
