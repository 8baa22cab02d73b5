//! The attempts of one exchange, as a list that never allocates.

use crate::config::limits::ATTEMPTS_MAX;
use crate::policy::retry::Failure;

/// One try of an exchange at one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Which of the pool's members.
    pub backend: usize,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// The attempts of one exchange, without an allocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempts {
    list: [Attempt; ATTEMPTS_MAX as usize],
    len: usize,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { list: [Attempt { backend: 0, failure: None }; ATTEMPTS_MAX as usize], len: 0 }
    }
}

impl Attempts {
    /// The retry policy keeps attempts within the bound; one beyond it would go unrecorded.
    pub(super) fn push(&mut self, attempt: Attempt) {
        if let Some(place) = self.list.get_mut(self.len) {
            *place = attempt;
            self.len += 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_slice(&self) -> &[Attempt] {
        self.list.get(..self.len).unwrap_or_default()
    }

    pub(super) fn last(&self) -> Option<&Attempt> {
        self.as_slice().last()
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Attempt> {
        self.list.get_mut(..self.len)?.last_mut()
    }
}
