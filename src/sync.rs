//! Atomics and the mutex: the real ones, or loom's doubles when the model checker runs.

#[cfg(loom)]
pub use loom::sync::atomic;
#[cfg(not(loom))]
pub use parking_lot::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub use std::sync::atomic;

#[cfg(loom)]
pub use checked::{Mutex, MutexGuard};

/// Loom's mutex, which is poisoned by a panic, as one that is not.
#[cfg(loom)]
mod checked {
    pub use loom::sync::MutexGuard;

    /// A mutex.
    #[derive(Debug)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    impl<T> Mutex<T> {
        /// An unlocked mutex.
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        /// Waits until it is unlocked.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}
