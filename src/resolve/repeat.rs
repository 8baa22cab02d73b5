//! Looks a source up, again and again.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::client::{DnsClient, LookupFailure};
use super::source::{Answer, NameSource};
use super::{Resolution, TIMEOUT};
use crate::clock::Clock;
use crate::policy::refresh::{LookupOutcome, Refresh};

/// The result of one lookup.
pub(super) struct LookedUp {
    /// The position of the source.
    pub(super) source: usize,
    pub(super) result: Resolution,
    /// Whether it replaces what was known.
    pub(super) is_used: bool,
    /// The wait before the next one.
    pub(super) next: Duration,
}

/// Looks one source up, again and again.
pub(super) struct RepeatedLookup {
    pub(super) position: usize,
    pub(super) source: NameSource,
    pub(super) client: DnsClient,
    pub(super) clock: Clock,
}

impl RepeatedLookup {
    /// Sends each result, until the receiver is gone. The first one is that of the start.
    pub(super) async fn run(self, first: Option<Resolution>, answers: mpsc::Sender<LookedUp>) {
        let (mut refresh, mut last) = (Refresh::default(), None);
        let mut result = match first {
            Some(result) => result,
            None => self.ask(last.as_ref()).await,
        };
        loop {
            let outcome = match &result {
                Ok(answer) => LookupOutcome::Found(answer.ttl),
                Err(LookupFailure::Empty) => LookupOutcome::Empty,
                Err(LookupFailure::Failed(_)) => LookupOutcome::Failed,
            };
            let now = self.clock.now();
            let next = refresh.looked_up(outcome, self.source.bounds, now, fastrand::f64());
            if let Ok(answer) = &result {
                last = Some(answer.clone());
            }
            let (source, is_used) = (self.position, next.is_used);
            if answers.send(LookedUp { source, result, is_used, next: next.pause }).await.is_err() {
                return;
            }
            sleep(next.pause).await;
            result = self.ask(last.as_ref()).await;
        }
    }

    async fn ask(&self, last: Option<&Answer>) -> Resolution {
        self.source.question.ask(&self.client, last, TIMEOUT).await
    }
}
