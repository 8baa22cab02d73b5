//! A map by text.
//!
//! The keys of these maps are the operator's, so nobody can fill them with keys of equal hashes,
//! and a hash that is fast beats one that is secret.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What is kept for a text.
pub(super) type Map<T> = HashMap<Box<str>, T, BuildHasherDefault<Fast>>;

/// XXH3 of each piece, seeded with what came before it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Fast(u64);

impl Hasher for Fast {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u8(&mut self, end: u8) {
        // What the standard library puts behind a text; the maps have no other keys.
        self.0 ^= u64::from(end);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
