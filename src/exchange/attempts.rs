//! The attempts of one exchange.

use smallvec::SmallVec;

use crate::policy::retry::Failure;

/// One try of an exchange at one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Which of the pool's members.
    pub backend: usize,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// The attempts of one exchange. Nearly all have one, few more than two.
pub(super) type Attempts = SmallVec<[Attempt; 2]>;
