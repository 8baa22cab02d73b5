//! A map with text keys.
//!
//! The keys of these maps come from the configuration, so no client can choose keys with equal
//! hashes. A fast hash is better here than a secret one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A map from text to `T`.
pub(super) type Map<T> = HashMap<Box<str>, T, BuildHasherDefault<Fast>>;

/// XXH3 of each piece, seeded with the hash of the previous ones.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Fast(u64);

impl Hasher for Fast {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u8(&mut self, end: u8) {
        // The standard library's terminator after a text; the maps have no other keys.
        self.0 ^= u64::from(end);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
