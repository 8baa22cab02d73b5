//! How many retries a pool may make that do not help.
//!
//! Retries multiply the load of backends that fail because they are overloaded. A limit per request
//! cannot prevent this: with three attempts, three times the load. A budget can: a retry takes a
//! token, and a retry that succeeds returns it, so only useless retries empty the budget. Responses
//! refill it: each earns `share` of a token. While every backend fails, nothing is earned, and
//! retries stop after what was saved before.
//!
//! A saved token does not last. What exceeds `floor` decays exponentially with a mean life of half
//! the `window`; what is missing to `floor` is refilled at the rate of `floor` per `window`, so that a
//! pool with little traffic can retry, too. The idea of earned credits that expire is Finagle's
//! (`RetryBudget`: 20 % and 10 per second, credits live for 10 s).

use std::time::Duration;

use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::Relaxed;
use crate::time::{Timestamp, nanos};

/// A token is counted in thousandths.
const TOKEN: u64 = 1000;
/// The level changes with time in steps of this part of the window.
const STEPS: u64 = 64;
/// Each step, this part of what exceeds the floor decays. A mean life of 32 steps is half a window.
const DECAY: u64 = 32;
/// After this many steps, nothing that exceeded the floor is left: `(31/32)^2048 < 10⁻²⁸`.
const STEPS_MAX: u64 = 2048;
/// No worker saves more than this.
const LEVEL_MAX: u64 = 1 << 40;

/// What a budget earns and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetParams {
    /// What a response earns, in thousandths of a token.
    pub share_thousandths: u32,
    /// The tokens that a pool without traffic has.
    pub floor: u32,
    /// How fast `floor` is refilled. Saved tokens live for half of it on average. Not zero.
    pub window: Duration,
}

/// The budget of one pool.
#[derive(Debug)]
pub struct RetryBudget {
    params: BudgetParams,
    step_ns: u64,
    /// In thousandths of a token.
    level: AtomicU64,
    /// Up to when time has changed the level.
    stepped_ns: AtomicU64,
}

impl RetryBudget {
    /// A budget that holds its floor.
    #[must_use]
    pub fn new(params: BudgetParams) -> Self {
        Self {
            params,
            step_ns: (nanos(params.window) / STEPS).max(1),
            level: AtomicU64::new(u64::from(params.floor) * TOKEN),
            stepped_ns: AtomicU64::new(0),
        }
    }

    /// Its parameters.
    #[must_use]
    pub fn params(&self) -> BudgetParams {
        self.params
    }

    /// A backend responded without a failure.
    pub fn earn(&self, now: Timestamp) {
        self.step(now);
        self.level.fetch_add(u64::from(self.params.share_thousandths), Relaxed);
    }

    /// Takes a token for a retry. Returns whether there was one.
    #[must_use]
    pub fn take(&self, now: Timestamp) -> bool {
        self.step(now);
        self.level.fetch_update(Relaxed, Relaxed, |level| level.checked_sub(TOKEN)).is_ok()
    }

    /// Returns the token of a retry that succeeded, or that was not made.
    pub fn give_back(&self) {
        self.level.fetch_add(TOKEN, Relaxed);
    }

    /// The whole tokens left at `now`.
    #[must_use]
    pub fn tokens(&self, now: Timestamp) -> u64 {
        self.step(now);
        self.level.load(Relaxed) / TOKEN
    }

    /// The level for the next worker, in thousandths of a token.
    #[must_use]
    pub fn export(&self, now: Timestamp) -> u64 {
        self.step(now);
        self.level.load(Relaxed)
    }

    /// Imports the level that another worker exported `age` before `now`. Tokens above the floor are
    /// kept under changed parameters, too: they were earned by responses, and they decay.
    pub fn import(&self, level: u64, age: Duration, now: Timestamp) {
        let steps = nanos(age) / self.step_ns;
        self.level.store(self.params.after(level.min(LEVEL_MAX), steps), Relaxed);
        self.stepped_ns.store(now.as_nanos(), Relaxed);
    }

    /// Changes the level by the time that has passed. Of several threads, one does each step.
    fn step(&self, now: Timestamp) {
        let since = self.stepped_ns.load(Relaxed);
        let steps = now.as_nanos().saturating_sub(since) / self.step_ns;
        if steps == 0 {
            return;
        }
        let until = since.saturating_add(steps.saturating_mul(self.step_ns));
        if self.stepped_ns.compare_exchange(since, until, Relaxed, Relaxed).is_ok() {
            let params = self.params;
            let after = |level| Some(params.after(level, steps));
            let _before = self.level.fetch_update(Relaxed, Relaxed, after);
        }
    }
}

impl BudgetParams {
    /// The level after `steps` steps in which nothing else happens.
    fn after(self, level: u64, steps: u64) -> u64 {
        let floor = u64::from(self.floor) * TOKEN;
        if level <= floor {
            return level.saturating_add(floor.saturating_mul(steps) / STEPS).min(floor);
        }
        let mut excess = level - floor;
        for _ in 0..steps.min(STEPS_MAX) {
            if excess == 0 {
                break;
            }
            // At least one thousandth, or the last ones would never go.
            excess -= excess.div_ceil(DECAY);
        }
        floor + excess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: BudgetParams =
        BudgetParams { share_thousandths: 200, floor: 10, window: Duration::from_secs(10) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn take_all(budget: &RetryBudget, now: Timestamp) -> u32 {
        let mut taken = 0;
        while budget.take(now) {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_pool_without_traffic_has_its_floor() {
        assert_eq!(take_all(&RetryBudget::new(PARAMS), Timestamp::ZERO), 10);
        assert_eq!(take_all(&RetryBudget::new(PARAMS), at(100)), 10);
    }

    #[test]
    fn five_responses_earn_one_retry() {
        let budget = RetryBudget::new(PARAMS);
        take_all(&budget, Timestamp::ZERO);
        for _ in 0..4 {
            budget.earn(Timestamp::ZERO);
        }
        assert!(!budget.take(Timestamp::ZERO));
        budget.earn(Timestamp::ZERO);
        assert!(budget.take(Timestamp::ZERO));
        assert!(!budget.take(Timestamp::ZERO));
    }

    #[test]
    fn a_retry_that_helps_costs_nothing() {
        let budget = RetryBudget::new(PARAMS);
        for _ in 0..1000 {
            assert!(budget.take(Timestamp::ZERO));
            budget.give_back();
        }
        assert_eq!(budget.tokens(Timestamp::ZERO), 10);
    }

    #[test]
    fn an_empty_budget_is_refilled_to_its_floor_in_one_window() {
        let budget = RetryBudget::new(PARAMS);
        take_all(&budget, Timestamp::ZERO);
        assert_eq!(budget.tokens(at(5)), 5);
        assert_eq!(take_all(&budget, at(10)), 10);
    }

    #[test]
    fn saved_tokens_decay_to_the_floor() {
        let budget = RetryBudget::new(PARAMS);
        for _ in 0..5000 {
            budget.earn(Timestamp::ZERO);
        }
        assert_eq!(budget.tokens(Timestamp::ZERO), 1010);
        // e⁻¹ of 1000 after the mean life of 5 s.
        let left = budget.tokens(at(5));
        assert!((360..=390).contains(&left), "{left}");
        assert_eq!(budget.tokens(at(200)), 10);
    }

    #[test]
    fn steady_traffic_saves_half_a_window_of_what_it_earns() {
        let budget = RetryBudget::new(PARAMS);
        for ms in 0..60_000 {
            budget.earn(Timestamp::ZERO + Duration::from_millis(ms));
        }
        // 1000 responses/s earn 200 tokens/s, which live for 5 s.
        let saved = budget.tokens(at(60));
        assert!((960..=1040).contains(&saved), "{saved}");
    }

    #[test]
    fn retries_stop_while_every_backend_fails() {
        let budget = RetryBudget::new(PARAMS);
        for ms in 0..60_000 {
            budget.earn(Timestamp::ZERO + Duration::from_millis(ms));
        }
        // A minute in which each of 1000 requests/s wants two retries.
        let mut made = 0;
        for ms in 60_000..120_000 {
            let now = Timestamp::ZERO + Duration::from_millis(ms);
            made += u32::from(budget.take(now)) + u32::from(budget.take(now));
        }
        // What was saved, and the floor of six windows.
        assert!((1000..=1110).contains(&made), "{made}");
    }

    #[test]
    fn a_share_of_zero_and_a_floor_of_zero_allow_no_retry() {
        let budget = RetryBudget::new(BudgetParams { share_thousandths: 0, floor: 0, ..PARAMS });
        budget.earn(at(1));
        assert!(!budget.take(at(100)));
    }

    #[test]
    fn the_next_worker_goes_on_with_the_level_as_it_is_now() {
        let (old, new) = (RetryBudget::new(PARAMS), RetryBudget::new(PARAMS));
        take_all(&old, at(50));
        new.import(old.export(at(50)), Duration::from_secs(4), at(3));
        assert_eq!(new.tokens(at(3)), 3, "0.4 of the floor's 10 tokens, in whole steps");
        assert_eq!(new.tokens(at(13)), 10);
    }

    #[test]
    fn a_clock_that_stands_or_jumps_breaks_nothing() {
        let budget = RetryBudget::new(PARAMS);
        budget.earn(at(100));
        budget.earn(at(1));
        assert_eq!(budget.tokens(Timestamp::MAX), 10);
        assert_eq!(budget.tokens(Timestamp::ZERO), 10);
        budget.import(u64::MAX, Duration::MAX, Timestamp::MAX);
        let tiny = BudgetParams { window: Duration::from_nanos(1), ..PARAMS };
        assert_eq!(RetryBudget::new(tiny).tokens(at(1)), 10);
    }
}
