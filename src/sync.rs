//! Atomics and the mutex: the standard ones, or loom's doubles when the model checker runs.

#[cfg(loom)]
pub use loom::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub use std::sync::{Mutex, MutexGuard, atomic};
