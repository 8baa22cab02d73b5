//! Reports of draining workers, on their way to the worker that serves. It adds them to its own counts.

use log::Level;

use super::candidate::Candidate;
use super::command::{Command, KillReason};
use super::kept_reports::REPORTS_MAX;
use super::service::{Phase, Service};
use super::worker::Worker;
use super::{Payload, WorkerId};

impl<P: Payload> Service<P> {
    pub(super) fn on_drain_report(&mut self, id: WorkerId, report: P::Report) {
        match &self.workers.current {
            // It stops, and has handed over: the one that takes over does not know of this.
            Some(current) if current.id() == id && self.is_replaced_while_stopping() => {
                self.keep_report(report);
            }
            // One that stops drains as well, and its own counts contain what it reports.
            Some(current) if current.id() == id => {}
            Some(current) => self.commands.push(Command::SendReport(current.id(), report)),
            None => self.keep_report(report),
        }
        self.commands.push(Command::PublishStats);
    }

    /// A worker did not get a report: it is gone, or does not read. The next one gets it.
    pub(super) fn on_report_not_sent(&mut self, id: WorkerId, report: P::Report, timed_out: bool) {
        if timed_out {
            self.kill(id, KillReason::SendTimedOut);
        }
        self.keep_report(report);
        if let Some(current) = self.workers.current.as_ref().map(Worker::id)
            && current != id
        {
            self.send_kept_reports(current);
        }
    }

    pub(super) fn send_kept_reports(&mut self, id: WorkerId) {
        let reports = self.kept_reports.take().into_iter();
        self.commands.extend(reports.map(|report| Command::SendReport(id, report)));
    }

    /// Whether the service stops while a worker takes over from the current one.
    fn is_replaced_while_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping(_))
            && self.workers.candidates().any(Candidate::is_taking_over)
    }

    fn keep_report(&mut self, report: P::Report) {
        if !P::is_empty(&report) && self.kept_reports.keep(report) {
            let message = format!(
                "counts of draining workers lost: no worker has served for too long, maximum={REPORTS_MAX}"
            );
            self.log(Level::Warn, message);
        }
    }
}
