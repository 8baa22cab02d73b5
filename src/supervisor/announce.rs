//! What the log says of the service as a whole: what is in use, and that the stop is done.

use std::process;

use super::{Supervisor, SupervisorError};
use crate::config::Config;

/// The version of this binary.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Supervisor {
    /// Logs what is going to be served, once the addresses are bound.
    pub(super) fn announce_start(&self) {
        let file = self.options.file.as_deref().map(|file| file.display().to_string());
        log::info!(
            "starting: version={VERSION} pid={} file={} config={} {}",
            process::id(),
            file.as_deref().unwrap_or("none"),
            self.served.version,
            addresses(&self.served.config)
        );
    }

    /// Logs the addresses in use if a reload has changed them.
    pub(super) fn announce_addresses(&self, before: &Config) {
        let now = addresses(&self.served.config);
        if now != addresses(before) {
            log::info!("listening: {now}");
        }
    }
}

/// Logs that the stop is done. Why one is not, the process says at its end.
pub(super) fn announce_end(ended: &Result<(), SupervisorError>) {
    if ended.is_ok() {
        log::info!("stopped");
    }
}

fn addresses(config: &Config) -> String {
    let listeners = config.listeners.iter().map(|listener| listener.address.to_string());
    let listeners: Vec<String> = listeners.collect();
    format!("listeners={} admin={}", listeners.join(","), config.admin.address)
}
