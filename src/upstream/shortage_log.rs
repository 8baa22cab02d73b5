//! Logs which resources of this machine are used up, so that connections to backends fail.
//!
//! The access log and the metrics have the rejected request as `overload`. Neither says which limit was
//! reached, and that is what an operator has to raise.

use std::fmt;
use std::fs;

use pingora_core::protocols::l4::socket::SocketAddr;

use super::shortage::Shortage;
use crate::policy::log_throttle::LogThrottle;
use crate::time::Timestamp;

/// The limits of this machine, and a throttle for the warnings about each.
#[derive(Debug)]
pub struct ShortageLog {
    /// Read once: a process without descriptors could not open them.
    file_max: String,
    port_range: String,
    tcp_mem: String,
    descriptors: LogThrottle,
    system_descriptors: LogThrottle,
    ports: LogThrottle,
    memory: LogThrottle,
}

impl ShortageLog {
    pub(super) fn new() -> Self {
        Self {
            file_max: setting("fs/file-max"),
            port_range: setting("net/ipv4/ip_local_port_range"),
            tcp_mem: setting("net/ipv4/tcp_mem"),
            descriptors: LogThrottle::default(),
            system_descriptors: LogThrottle::default(),
            ports: LogThrottle::default(),
            memory: LogThrottle::default(),
        }
    }

    /// Logs, throttled, that a request was rejected because no connection to `backend` could be made.
    pub fn report(&self, shortage: Shortage, backend: &SocketAddr, now: Timestamp) {
        let throttle = match shortage {
            Shortage::Descriptors => &self.descriptors,
            Shortage::SystemDescriptors => &self.system_descriptors,
            Shortage::Ports => &self.ports,
            Shortage::Memory => &self.memory,
        };
        if let Some(suppressed) = throttle.next(now) {
            let help = Help { log: self, shortage };
            log::warn!(
                "request rejected, out of {shortage}: reason=overload backend={backend} \
                 suppressed={suppressed} {help}"
            );
        }
    }
}

/// A limit, and what to do about it.
struct Help<'a> {
    log: &'a ShortageLog,
    shortage: Shortage,
}

impl fmt::Display for Help<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShortageLog { file_max, port_range, tcp_mem, .. } = self.log;
        match self.shortage {
            Shortage::Descriptors => write!(
                formatter,
                "limit={} (help: raise the limit, `ulimit -Hn` or LimitNOFILE=, or lower \
                 limits.connections or limits.http2.streams)",
                descriptor_limit()
            ),
            Shortage::SystemDescriptors => write!(
                formatter,
                "fs.file-max={file_max} (help: raise fs.file-max, or find the process that uses them)"
            ),
            Shortage::Ports => write!(
                formatter,
                "net.ipv4.ip_local_port_range=\"{port_range}\" (help: widen the range, add backends, or \
                 use HTTP/2 to them)"
            ),
            Shortage::Memory => write!(
                formatter,
                "net.ipv4.tcp_mem=\"{tcp_mem}\" (help: raise net.ipv4.tcp_mem or the limit of memory, \
                 or lower limits.connections)"
            ),
        }
    }
}

fn descriptor_limit() -> String {
    let limit = rlimit::Resource::NOFILE.get();
    limit.map_or_else(|error| error.to_string(), |(soft, _)| soft.to_string())
}

/// A setting of the kernel.
fn setting(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() { "unknown".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shortage_is_logged_with_its_limit_and_what_to_do() {
        let log = ShortageLog::new();
        for (shortage, begin) in [
            (Shortage::Descriptors, "limit="),
            (Shortage::SystemDescriptors, "fs.file-max="),
            (Shortage::Ports, "net.ipv4.ip_local_port_range=\""),
            (Shortage::Memory, "net.ipv4.tcp_mem=\""),
        ] {
            let what = Help { log: &log, shortage }.to_string();
            let value = what.strip_prefix(begin).unwrap_or_default();
            // A container need not see all settings of its kernel.
            let is_number = value.starts_with(|first: char| first.is_ascii_digit());
            assert!(is_number || value.starts_with("unknown"), "{what}");
            assert!(what.contains(" (help: "), "{what}");
        }
    }
}
