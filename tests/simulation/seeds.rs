//! Which seeds a simulation runs: `SEED` is one seed, `SEEDS` how many from 0 on.

use std::env;
use std::ops::Range;

/// The seeds to run, `default` of them if the environment names none.
pub(crate) fn chosen(default: u64) -> Range<u64> {
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(default),
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}
