//! Lookups by the C library (`getaddrinfo`), which reads every source of `/etc/nsswitch.conf`.
//!
//! A call can block for half a minute, and it cannot be cancelled. So each call has its own thread, at
//! most `LOOKUPS_MAX` run at the same time, and the caller stops waiting after a timeout.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// The maximum number of concurrent lookups.
const LOOKUPS_MAX: usize = 64;

/// Limits concurrent lookups. A lookup that timed out counts until its call has returned.
#[derive(Debug, Clone)]
pub(super) struct Library(Arc<Semaphore>);

impl Default for Library {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS_MAX)))
    }
}

impl Library {
    /// The addresses of a name; `None` if there are none within `limit`.
    pub(super) async fn look_up(&self, name: String, limit: Duration) -> Option<Vec<IpAddr>> {
        let permit = Arc::clone(&self.0).acquire_owned();
        let lookup = async {
            let permit = permit.await;
            let ended = spawn_blocking(move || {
                let _permit = permit;
                (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|at| at.ip()).collect())
            });
            ended.await.ok()?.ok()
        };
        timeout(limit, lookup).await.ok()?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_resolved_by_the_system() {
        let found =
            Library::default().look_up("localhost".to_owned(), Duration::from_secs(20)).await;
        let found = found.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
    }
}
