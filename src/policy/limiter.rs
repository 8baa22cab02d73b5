//! A token bucket per client, in bounded memory.
//!
//! All memory is allocated once: a table of [`Params::clients_max`] slots of 16 bytes, in sets of
//! at most 16. A client's address is hashed with a secret seed; the hash selects its set and is its
//! tag there. A client that is not in its set gets the slot whose bucket is the eviction_candidate: an empty
//! slot, or else a bucket that is full again (evicting it changes nothing), or else the one closest
//! to full. So a new client is never rejected because the table is full, and clients that spend
//! most stay longest. Why a table, and what happens when it is too small:
//! `docs/adr/0002-rate-limiter-table.md`.
//!
//! # Threads
//!
//! A client that is in the table is found and charged without a lock. Reassigning a slot to another
//! client takes one of a few locks by set, so that no client gets two slots, and proceeds as
//! follows:
//!
//! ```text
//!   tag := MOVING  ──▶  bucket: compare-exchange the chosen value  ──▶  tag := new client
//!                          └─ it was spent from meanwhile: restore the tag, and choose again
//! ```
//!
//! A client is charged in the order *read bucket, check tag, compare-exchange bucket*. So a bucket
//! that is spent from is not evicted. A value read after the slot was reassigned is never used for
//! the former client, because the tag changed before the bucket did. `tests/loom.rs` tries every
//! order of events for it.
//!
//! The worst case: a thread stops between its check and its compare-exchange while the slot is
//! reassigned, *and* the new client's bucket then has exactly the number of nanoseconds that was
//! read. Then the new client pays one token for the former one. Also, two clients with equal 64-bit
//! hashes share a bucket; among ten million clients, such a pair exists with a probability of three
//! in a million. In neither case does a client get a token too many.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::bucket::Rate;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicU64, AtomicUsize};
use crate::sync::{Mutex, MutexGuard};
use crate::time::Timestamp;

/// The memory per slot, whether it is used or not.
pub const BYTES_PER_CLIENT: usize = 16;

/// Slots per set. Sixteen are four cache lines, and few sets overflow before the whole table is
/// full (the numbers are in the ADR).
const WAYS_MAX: usize = 16;

/// Locks for new clients. One is held while one set is read.
const LOCKS_MAX: usize = 64;

/// The tag of a slot that has never been used.
const EMPTY: u64 = 0;
/// The tag of a slot that is being reassigned.
const MOVING: u64 = 1;
/// The lowest tag of a client.
const CLIENT_MIN: u64 = 2;

/// How clients are identified and limited.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// What each client's bucket earns and holds.
    pub rate: Rate,
    /// IPv6 clients are identified by this many leading bits; more than 128 count as 128.
    pub ipv6_prefix: u8,
    /// The maximum number of clients in the table.
    pub clients_max: NonZeroUsize,
    /// Networks that are not limited; none is mapped from IPv4.
    pub exempt: Vec<IpNet>,
}

/// One client's bucket, for import by another limiter with the same seed but another clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket {
    /// The client's hash.
    pub tag: u64,
    /// How long until the bucket is full.
    pub full_in_ns: u64,
}

/// The tokens that a limiter has spent for one client, to be charged by another limiter with the
/// same seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Debit {
    /// The client's hash.
    pub tag: u64,
    /// The tokens spent, as the time in which they are earned.
    pub spent_ns: u64,
    /// How long until its bucket is full in the limiter that spent them.
    pub full_in_ns: u64,
}

/// A token bucket per client.
pub struct RateLimiter {
    rate: Rate,
    ipv6_prefix: u8,
    ipv6_mask: u128,
    exempt: Vec<IpNet>,
    seed: u64,
    slots: Box<[ClientSlot]>,
    sets: NonZeroUsize,
    newcomers: Box<[Mutex<()>]>,
    clients: AtomicUsize,
}

impl RateLimiter {
    /// Creates an empty table. `seed` should be secret and random, so that no client can choose
    /// addresses that fall into one set.
    #[must_use]
    pub fn new(params: Params, seed: u64) -> Self {
        let Params { rate, ipv6_prefix, clients_max, exempt } = params;
        let sets = clients_max.get().div_ceil(WAYS_MAX);
        Self {
            rate,
            ipv6_prefix,
            ipv6_mask: u128::MAX
                .checked_shl(128_u32.saturating_sub(u32::from(ipv6_prefix)))
                .unwrap_or(0),
            exempt,
            seed,
            slots: (0..clients_max.get()).map(|_| ClientSlot::new()).collect(),
            sets: NonZeroUsize::new(sets).unwrap_or(NonZeroUsize::MIN),
            newcomers: (0..sets.min(LOCKS_MAX)).map(|_| Mutex::new(())).collect(),
            clients: AtomicUsize::new(0),
        }
    }

    /// Takes a token of `client`, or returns how long until it has one.
    pub fn admit(&self, client: IpAddr, now: Timestamp) -> Result<(), Duration> {
        // An IPv4 client is the same one whichever kind of socket it uses.
        let client = client.to_canonical();
        if self.exempt.iter().any(|net| net.contains(&client)) {
            return Ok(());
        }
        let tag = self.tag(client);
        let set = self.set(tag);
        let slots = self.slots(set);
        charge(slots, tag, self.rate, now)
            .unwrap_or_else(|| self.admit_newcomer(tag, set, slots, now))
    }

    /// The number of clients in the table, including those with a full bucket.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// The capacity of the table: [`Params::clients_max`].
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// What each client's bucket earns and holds.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// How many leading bits identify an IPv6 client; see [`Params::ipv6_prefix`].
    #[must_use]
    pub fn ipv6_prefix(&self) -> u8 {
        self.ipv6_prefix
    }

    /// Every bucket that is not full at `now`. Omitting the others changes nothing.
    #[must_use]
    pub fn export(&self, now: Timestamp) -> Vec<Bucket> {
        let bucket = |(tag, full_at_ns): (u64, u64)| Bucket {
            tag,
            full_in_ns: full_at_ns.saturating_sub(now.as_nanos()),
        };
        self.full_after(now.as_nanos()).into_iter().map(bucket).collect()
    }

    /// The clients whose buckets become full after `after_ns`: the tag, and when the bucket is
    /// full.
    pub(super) fn full_after(&self, after_ns: u64) -> Vec<(u64, u64)> {
        let mut buckets = Vec::new();
        for set in 0..self.sets.get() {
            // The set's lock ensures that no slot is being reassigned.
            let _held = self.lock(set);
            let full = self.slots(set).iter().filter_map(ClientSlot::bucket);
            buckets.extend(full.filter(|(_, full_at_ns)| *full_at_ns > after_ns));
        }
        buckets
    }

    /// Imports a bucket of a limiter with the same seed. A client that is already in the table
    /// keeps the emptier of its two buckets. If the table is full, the fuller buckets are evicted
    /// as usual.
    pub fn import(&self, bucket: Bucket, now: Timestamp) {
        self.charge_debit(
            Debit { tag: bucket.tag, spent_ns: 0, full_in_ns: bucket.full_in_ns },
            now,
        );
    }

    /// Charges a client for the tokens that another limiter with the same seed has spent meanwhile.
    ///
    /// The bucket is reduced by what was spent, and is at least as empty as the other one. It may
    /// become negative, because both have admitted the client: by at most one whole burst, so that
    /// no client is rejected for longer than the time to fill it twice.
    pub fn charge_debit(&self, debit: Debit, now: Timestamp) {
        self.charge_at_most(debit, self.rate.owed_ns(), now);
    }

    /// The same, but the bucket only becomes empty, and owes nothing that it did not owe before.
    pub fn charge_until_empty(&self, debit: Debit, now: Timestamp) {
        self.charge_at_most(debit, self.rate.full_ns(), now);
    }

    /// After the charge, the bucket takes `most_ns` at most to be full.
    fn charge_at_most(&self, debit: Debit, most_ns: u64, now: Timestamp) {
        let most_ns = now.as_nanos().saturating_add(most_ns);
        let full_at_ns = now.as_nanos().saturating_add(debit.full_in_ns).min(most_ns);
        if debit.tag < CLIENT_MIN || (debit.spent_ns, debit.full_in_ns) == (0, 0) {
            return;
        }
        let set = self.set(debit.tag);
        let slots = self.slots(set);
        let _held = self.lock(set);
        if let Some(slot) = slots.iter().find(|slot| slot.tag.load(Acquire) == debit.tag) {
            slot.raise(debit.spent_ns, full_at_ns, most_ns);
            return;
        }
        // A client that is not in the table has a full bucket. It gets a slot even if it is full
        // after this debit: the next debit may be for tokens that were spent at the same time. Each
        // further iteration means that a request was admitted in between.
        while let Some((chosen_ns, slot)) =
            eviction_candidate(slots).filter(|one| one.0 < full_at_ns)
        {
            if let Some(former) = slot.reassign(chosen_ns, debit.tag, full_at_ns) {
                self.clients.fetch_add(usize::from(former == EMPTY), Relaxed);
                return;
            }
        }
    }

    /// To be held while a slot of this set is reassigned.
    fn lock(&self, set: usize) -> Option<MutexGuard<'_, ()>> {
        let lock = self.newcomers.get(set % self.newcomers.len());
        lock.map(|lock| lock.lock())
    }

    fn admit_newcomer(
        &self,
        tag: u64,
        set: usize,
        slots: &[ClientSlot],
        now: Timestamp,
    ) -> Result<(), Duration> {
        let _held = self.lock(set);
        let first_token_spent = self.rate.spend(0, now)?;
        // Each further iteration means that another request was admitted in between.
        loop {
            // Another thread may have added the same client while this one waited.
            if let Some(decision) = charge(slots, tag, self.rate, now) {
                return decision;
            }
            let Some((full_at_ns, slot)) = eviction_candidate(slots) else {
                return Ok(());
            };
            match slot.reassign(full_at_ns, tag, first_token_spent) {
                Some(EMPTY) => {
                    self.clients.fetch_add(1, Relaxed);
                    return Ok(());
                }
                Some(_) => return Ok(()),
                None => {}
            }
        }
    }

    fn tag(&self, client: IpAddr) -> u64 {
        let hash = match client {
            IpAddr::V4(address) => xxh3_64_with_seed(&address.octets(), self.seed),
            IpAddr::V6(address) => {
                let network = address.to_bits() & self.ipv6_mask;
                xxh3_64_with_seed(&network.to_be_bytes(), self.seed)
            }
        };
        hash.max(CLIENT_MIN)
    }

    /// Maps the upper bits of a tag to a set.
    fn set(&self, tag: u64) -> usize {
        let sets = u64::try_from(self.sets.get()).unwrap_or(u64::MAX);
        let (_, set) = tag.carrying_mul(sets, 0);
        usize::try_from(set).unwrap_or(0)
    }

    /// The slots are distributed evenly over the sets; the remainder goes to the first ones.
    fn slots(&self, set: usize) -> &[ClientSlot] {
        let ways = self.slots.len() / self.sets;
        let larger = self.slots.len() % self.sets;
        let start = set * ways + set.min(larger);
        let end = start + ways + usize::from(set < larger);
        self.slots.get(start..end).unwrap_or_default()
    }
}

impl std::fmt::Debug for RateLimiter {
    /// Omits the slots, which may be millions, and the seed, which is secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RateLimiter")
            .field("rate", &self.rate)
            .field("clients", &self.clients())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// Takes a token of the client with this tag, or returns how long until it has one; `None` if it is
/// not in the set.
fn charge(
    slots: &[ClientSlot],
    tag: u64,
    rate: Rate,
    now: Timestamp,
) -> Option<Result<(), Duration>> {
    slots.iter().find_map(|slot| slot.charge(tag, rate, now))
}

/// The slot whose bucket is the eviction_candidate, and when it will be full.
fn eviction_candidate(slots: &[ClientSlot]) -> Option<(u64, &ClientSlot)> {
    let fullness = |slot: &ClientSlot| slot.full_at_ns.load(Relaxed);
    slots.iter().map(|slot| (fullness(slot), slot)).min_by_key(|one| one.0)
}

/// One client: its tag, and its bucket as in [`super::bucket`].
#[derive(Debug)]
struct ClientSlot {
    tag: AtomicU64,
    full_at_ns: AtomicU64,
}

impl ClientSlot {
    fn new() -> Self {
        Self { tag: AtomicU64::new(EMPTY), full_at_ns: AtomicU64::new(0) }
    }

    /// The client's tag, and when its bucket is full. The caller must hold the set's lock.
    fn bucket(&self) -> Option<(u64, u64)> {
        let tag = self.tag.load(Acquire);
        (tag >= CLIENT_MIN).then(|| (tag, self.full_at_ns.load(Acquire)))
    }

    /// Moves the time at which the bucket is full back by `spent_ns`, and to `full_at_ns` at least;
    /// never beyond `most_ns`. The caller must hold the set's lock.
    fn raise(&self, spent_ns: u64, full_at_ns: u64, most_ns: u64) {
        let raised = |before_ns: u64| {
            let spent = before_ns.saturating_add(spent_ns).max(full_at_ns).min(most_ns);
            (spent > before_ns).then_some(spent)
        };
        // `Err` means that the bucket is already as empty as that.
        let _raised = self.full_at_ns.fetch_update(AcqRel, Acquire, raised);
    }

    fn charge(&self, tag: u64, rate: Rate, now: Timestamp) -> Option<Result<(), Duration>> {
        if self.tag.load(Acquire) != tag {
            return None;
        }
        let mut full_at_ns = self.full_at_ns.load(Acquire);
        loop {
            // Only now is it certain that the value read was this client's.
            if self.tag.load(Relaxed) != tag {
                return None;
            }
            let spent_ns = match rate.spend(full_at_ns, now) {
                Ok(spent_ns) => spent_ns,
                Err(wait) => return Some(Err(wait)),
            };
            match self.full_at_ns.compare_exchange_weak(full_at_ns, spent_ns, AcqRel, Acquire) {
                Ok(_) => return Some(Ok(())),
                Err(changed_ns) => full_at_ns = changed_ns,
            }
        }
    }

    /// Reassigns the slot to another client, and returns the former tag; `None` if the bucket was
    /// spent from since it was chosen. The caller must hold the set's lock.
    fn reassign(&self, chosen_full_at_ns: u64, tag: u64, full_at_ns: u64) -> Option<u64> {
        let former = self.tag.swap(MOVING, Relaxed);
        let reassigned =
            self.full_at_ns.compare_exchange(chosen_full_at_ns, full_at_ns, AcqRel, Relaxed);
        self.tag.store(if reassigned.is_ok() { tag } else { former }, Release);
        reassigned.ok().map(|_| former)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// One token per 100 ms.
    fn limiter(burst: u32, clients_max: usize, ipv6_prefix: u8, exempt: &[&str]) -> RateLimiter {
        let params = Params {
            rate: Rate::new(10.0, NonZeroU32::new(burst).unwrap()).unwrap(),
            ipv6_prefix,
            clients_max: NonZeroUsize::new(clients_max).unwrap(),
            exempt: exempt.iter().map(|net| net.parse().unwrap()).collect(),
        };
        RateLimiter::new(params, 42)
    }

    fn at_ms(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Whether two addresses use one bucket.
    fn are_one_client(limiter: &RateLimiter, one: &str, other: &str) -> bool {
        assert_eq!(limiter.admit(ip(one), at_ms(0)), Ok(()));
        limiter.admit(ip(other), at_ms(0)).is_err()
    }

    #[test]
    fn every_ipv4_address_is_a_client() {
        assert!(are_one_client(&limiter(1, 100, 64, &[]), "10.0.0.1", "10.0.0.1"));
        assert!(!are_one_client(&limiter(1, 100, 64, &[]), "10.0.0.1", "10.0.0.2"));
    }

    #[test]
    fn an_ipv4_client_is_the_same_through_an_ipv6_socket() {
        assert!(are_one_client(&limiter(1, 100, 64, &[]), "10.0.0.1", "::ffff:10.0.0.1"));
        assert!(!are_one_client(&limiter(1, 100, 64, &[]), "10.0.0.1", "::ffff:10.0.0.2"));
    }

    #[test]
    fn ipv6_clients_are_identified_by_their_prefix() {
        let same = ["2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"];
        assert!(are_one_client(&limiter(1, 100, 64, &[]), same[0], same[1]));
        assert!(!are_one_client(&limiter(1, 100, 64, &[]), same[0], "2001:db8:0:2::1"));
        assert!(are_one_client(&limiter(1, 100, 48, &[]), same[0], "2001:db8:0:2::1"));
        assert!(!are_one_client(&limiter(1, 100, 128, &[]), same[0], same[1]));
    }

    #[test]
    fn a_prefix_beyond_an_address_is_the_whole_address() {
        assert!(!are_one_client(&limiter(1, 100, 255, &[]), "2001:db8::1", "2001:db8::2"));
        assert!(are_one_client(&limiter(1, 100, 0, &[]), "2001:db8::1", "fd00::2"));
    }

    #[test]
    fn an_exempt_network_is_not_limited_and_takes_no_slot() {
        let limiter = limiter(1, 100, 64, &["10.0.0.0/8", "fd00::/8"]);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1"] {
            assert!((0..5).all(|_| limiter.admit(ip(address), at_ms(0)).is_ok()), "{address}");
        }
        assert_eq!(limiter.clients(), 0);
        assert!(are_one_client(&limiter, "11.0.0.1", "11.0.0.1"));
    }

    #[test]
    fn a_rejection_has_the_exact_wait() {
        let limiter = limiter(2, 100, 64, &[]);
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(0)), Ok(()));
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(30)), Ok(()));
        let wait = Duration::from_millis(60);
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(40)), Err(wait));
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(40) + wait), Ok(()));
    }

    #[test]
    fn the_table_has_the_configured_capacity() {
        for clients_max in [1, 2, 15, 16, 17, 31, 33, 1000, 100_001] {
            assert_eq!(limiter(1, clients_max, 64, &[]).capacity(), clients_max);
        }
    }

    #[test]
    fn every_slot_can_be_reached() {
        for clients_max in [1, 15, 17, 100, 1023] {
            let limiter = limiter(1, clients_max, 64, &[]);
            for client in 0..20_000 {
                assert_eq!(limiter.admit(IpAddr::V4(client.into()), at_ms(0)), Ok(()));
            }
            assert_eq!(limiter.clients(), clients_max);
        }
    }

    #[test]
    fn a_returning_client_is_one_client() {
        let limiter = limiter(5, 100, 64, &[]);
        for _ in 0..4 {
            assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(0)), Ok(()));
        }
        assert_eq!(limiter.clients(), 1);
    }

    #[test]
    fn a_full_table_evicts_the_client_that_spent_least() {
        let limiter = limiter(3, 2, 64, &[]);
        for greedy in [true, true, true, false] {
            let client = if greedy { "10.0.0.1" } else { "10.0.0.2" };
            assert_eq!(limiter.admit(ip(client), at_ms(0)), Ok(()));
        }
        assert_eq!(limiter.admit(ip("10.0.0.3"), at_ms(0)), Ok(()));
        assert!(limiter.admit(ip("10.0.0.1"), at_ms(0)).is_err(), "the greedy one was forgotten");
    }

    #[test]
    fn a_full_table_evicts_a_bucket_that_is_full_again_first() {
        let limiter = limiter(1, 2, 64, &[]);
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(0)), Ok(()));
        assert_eq!(limiter.admit(ip("10.0.0.2"), at_ms(90)), Ok(()));
        assert_eq!(limiter.admit(ip("10.0.0.3"), at_ms(110)), Ok(()));
        assert!(limiter.admit(ip("10.0.0.2"), at_ms(110)).is_err());
        assert!(limiter.admit(ip("10.0.0.3"), at_ms(110)).is_err());
    }

    #[test]
    fn a_bucket_that_was_spent_from_since_it_was_chosen_is_not_evicted() {
        let slot = ClientSlot::new();
        assert_eq!(slot.reassign(0, 7, 100), Some(EMPTY));
        assert_eq!(slot.reassign(99, 8, 200), None);
        let rate = Rate::new(10.0, NonZeroU32::MIN).unwrap();
        assert!(slot.charge(8, rate, at_ms(0)).is_none());
        assert!(slot.charge(7, rate, at_ms(1)).is_some());
    }

    #[test]
    fn an_imported_empty_bucket_has_the_same_wait_under_another_clock() {
        let old = limiter(2, 100, 64, &[]);
        for _ in 0..2 {
            assert_eq!(old.admit(ip("10.0.0.1"), at_ms(3_600_000)), Ok(()));
        }
        let new = limiter(2, 100, 64, &[]);
        let exported = old.export(at_ms(3_600_030));
        exported.into_iter().for_each(|bucket| new.import(bucket, at_ms(7)));
        assert_eq!(new.clients(), 1);
        assert_eq!(new.admit(ip("10.0.0.1"), at_ms(7)), Err(Duration::from_millis(70)));
        assert_eq!(new.admit(ip("10.0.0.1"), at_ms(77)), Ok(()));
    }

    #[test]
    fn a_full_bucket_is_not_exported() {
        let old = limiter(2, 100, 64, &[]);
        assert_eq!(old.admit(ip("10.0.0.1"), at_ms(0)), Ok(()));
        assert_eq!(old.export(at_ms(99)).len(), 1);
        assert_eq!(old.export(at_ms(100)), []);
    }

    #[test]
    fn a_smaller_table_imports_the_emptiest_buckets() {
        let limiter = limiter(2, 1, 64, &[]);
        for (tag, full_in_ns) in [(7, 10), (8, 30), (9, 20)] {
            limiter.import(Bucket { tag, full_in_ns }, at_ms(0));
        }
        assert_eq!(limiter.export(at_ms(0)), [Bucket { tag: 8, full_in_ns: 30 }]);
        assert_eq!(limiter.clients(), 1);
    }

    #[test]
    fn a_client_in_the_table_keeps_the_emptier_bucket() {
        let limiter = limiter(1, 100, 64, &[]);
        for full_in_ns in [20, 10, 30, 5] {
            limiter.import(Bucket { tag: 7, full_in_ns }, at_ms(0));
        }
        assert_eq!(limiter.export(at_ms(0)), [Bucket { tag: 7, full_in_ns: 30 }]);
        assert_eq!(limiter.clients(), 1);
    }

    #[test]
    fn no_bucket_owes_more_than_one_burst() {
        let limiter = limiter(2, 100, 64, &[]);
        limiter.import(Bucket { tag: 9, full_in_ns: u64::MAX }, at_ms(0));
        let full_in_ns = 400_000_000;
        assert_eq!(limiter.export(at_ms(0)), [Bucket { tag: 9, full_in_ns }]);
        let debit = Debit { tag: 9, spent_ns: u64::MAX, full_in_ns: u64::MAX };
        limiter.charge_debit(debit, at_ms(100));
        assert_eq!(limiter.export(at_ms(100)), [Bucket { tag: 9, full_in_ns }]);
    }

    /// The debit of a client for which `tokens` were spent elsewhere, none of them earned back.
    fn debit(address: &str, tokens: u64) -> Debit {
        let probe = limiter(1, 100, 64, &[]);
        assert_eq!(probe.admit(ip(address), at_ms(0)), Ok(()));
        let tag = probe.export(at_ms(0))[0].tag;
        Debit { tag, spent_ns: tokens * 100_000_000, full_in_ns: tokens * 100_000_000 }
    }

    #[test]
    fn a_debit_is_charged_to_a_client_in_the_table() {
        let limiter = limiter(5, 100, 64, &[]);
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(0)), Ok(()));
        limiter.charge_debit(debit("10.0.0.1", 3), at_ms(0));
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(0)), Ok(()));
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(0)), Err(Duration::from_millis(100)));
        assert_eq!(limiter.clients(), 1);
    }

    #[test]
    fn a_debit_is_charged_to_a_new_client() {
        let limiter = limiter(5, 100, 64, &[]);
        limiter.charge_debit(debit("10.0.0.1", 4), at_ms(0));
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(0)), Ok(()));
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(0)), Err(Duration::from_millis(100)));
        assert_eq!(limiter.admit(ip("10.0.0.2"), at_ms(0)), Ok(()));
        assert_eq!(limiter.clients(), 2);
    }

    #[test]
    fn a_client_that_got_too_much_earns_it_back_before_it_gets_more() {
        let limiter = limiter(2, 100, 64, &[]);
        for _ in 0..2 {
            assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(0)), Ok(()));
        }
        limiter.charge_debit(debit("10.0.0.1", 2), at_ms(0));
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(0)), Err(Duration::from_millis(300)));
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(299)), Err(Duration::from_millis(1)));
        assert_eq!(limiter.admit(ip("10.0.0.1"), at_ms(300)), Ok(()));
    }

    #[test]
    fn a_charge_until_empty_makes_no_debt_and_forgives_none() {
        let limiter = limiter(2, 100, 64, &[]);
        limiter.charge_until_empty(debit("10.0.0.1", 9), at_ms(0));
        let wait = |ms| limiter.admit(ip("10.0.0.1"), at_ms(ms)).unwrap_err();
        assert_eq!(wait(0), Duration::from_millis(100));
        limiter.charge_debit(debit("10.0.0.1", 1), at_ms(0));
        limiter.charge_until_empty(debit("10.0.0.1", 9), at_ms(0));
        assert_eq!(wait(0), Duration::from_millis(200));
    }

    #[test]
    fn an_invalid_tag_and_an_empty_debit_change_nothing() {
        let limiter = limiter(2, 100, 64, &[]);
        for tag in [EMPTY, MOVING] {
            limiter.charge_debit(Debit { tag, spent_ns: 5, full_in_ns: 5 }, at_ms(0));
        }
        limiter.charge_debit(Debit { tag: 9, spent_ns: 0, full_in_ns: 0 }, at_ms(0));
        assert_eq!(limiter.clients(), 0);
    }

    #[test]
    fn an_invalid_tag_is_not_imported() {
        let limiter = limiter(2, 100, 64, &[]);
        for tag in [EMPTY, MOVING] {
            limiter.import(Bucket { tag, full_in_ns: 5 }, at_ms(0));
        }
        assert_eq!(limiter.clients(), 0);
        assert_eq!(limiter.export(at_ms(0)), []);
    }

    #[test]
    fn a_client_takes_the_documented_memory() {
        assert_eq!(size_of::<ClientSlot>(), BYTES_PER_CLIENT);
    }

    #[test]
    fn the_seed_is_not_in_logs() {
        let text = format!("{:?}", limiter(1, 3, 64, &[]));
        assert!(text.contains("capacity: 3"), "{text}");
        assert!(!text.contains("seed") && !text.contains("42"), "{text}");
    }
}
