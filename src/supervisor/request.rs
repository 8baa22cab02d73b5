//! What a client of the control socket sends, and what it gets.

use serde::{Deserialize, Serialize};

use super::{BackendsQuery, OverrideCommand};

/// A command for a supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Reload the configuration; the reply comes with the result.
    Reload,
    /// Report the status.
    Status,
    /// Stop gracefully.
    Stop,
    /// Stop gracefully, unless a stop is under way; the reply comes with the end and contains the result.
    #[serde(rename = "finish")]
    StopAndWait,
    /// Report the state of the backends.
    Backends(BackendsQuery),
    /// Set something on a backend; the reply comes when every worker applies it.
    Override(OverrideCommand),
}

impl Request {
    /// Whether it may be sent twice. A service that was ordered to stop and is gone has stopped.
    pub(super) const fn may_be_asked_again(&self) -> bool {
        match self {
            Self::Reload | Self::Status | Self::Backends(_) | Self::Override(_) => true,
            Self::Stop | Self::StopAndWait => false,
        }
    }
}

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was done.
    pub done: bool,
    /// For the operator.
    pub text: String,
}

impl Reply {
    pub(super) fn done(text: String) -> Self {
        Self { done: true, text }
    }

    pub(super) fn failed(text: String) -> Self {
        Self { done: false, text }
    }
}
