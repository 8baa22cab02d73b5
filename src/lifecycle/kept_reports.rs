//! Reports of draining workers that no worker has got yet.

use std::mem;

/// How many reports are kept. Each draining worker sends ten a second while it completes requests.
pub(super) const REPORTS_MAX: usize = 2000;

/// Reports that no worker has got yet.
#[derive(Debug)]
pub(super) struct KeptReports<R> {
    reports: Vec<R>,
    /// Further ones were lost, and that is logged.
    is_full: bool,
}

impl<R> KeptReports<R> {
    pub(super) const fn new() -> Self {
        Self { reports: Vec::new(), is_full: false }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Keeps a report: a service that cannot start a worker for long must not collect them without
    /// end. Returns whether it is the first one that is lost.
    pub(super) fn keep(&mut self, report: R) -> bool {
        if self.reports.len() < REPORTS_MAX {
            self.reports.push(report);
            return false;
        }
        !mem::replace(&mut self.is_full, true)
    }

    pub(super) fn take(&mut self) -> Vec<R> {
        self.is_full = false;
        mem::take(&mut self.reports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_kept_up_to_a_limit_and_the_first_loss_is_reported_once() {
        let mut kept = KeptReports::new();
        let first_losses = (0..REPORTS_MAX + 100).filter(|report| kept.keep(*report));
        assert_eq!(first_losses.collect::<Vec<_>>(), [REPORTS_MAX]);
        assert_eq!(kept.take().len(), REPORTS_MAX);
        assert!(kept.is_empty() && !kept.keep(0));
    }
}
