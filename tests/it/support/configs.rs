//! Configurations that many tests want.

use super::backend::Backend;
use super::weir::Weir;

/// This number of backends, and a load balancer with one pool of them; see [`pool`].
pub(crate) fn world(backends: usize, more: &str) -> (Vec<Backend>, Weir) {
    let backends = Backend::start_many(backends);
    let weir = Weir::start(&pool(&backends, more));
    (backends, weir)
}

/// One pool, `web`, of these backends and without probes. `more` is further keys of the pool, one
/// a line. Without a circuit breaker, unless they have one: a backend that is made to fail shall go on
/// to get its share.
pub(crate) fn pool(backends: &[Backend], more: &str) -> String {
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let off = if more.contains("breaker:") { "" } else { "breaker: off\n" };
    let more = format!("{off}{more}");
    let more: Vec<String> = more.lines().map(|line| format!("    {}\n", line.trim())).collect();
    format!(
        "pools:\n  - name: web\n    health_check: off\n    backends: [{}]\n{}",
        urls.join(", "),
        more.concat()
    )
}
