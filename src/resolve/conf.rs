//! `/etc/resolv.conf`, `/etc/hosts` and `/etc/nsswitch.conf`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const DNS_PORT: u16 = 53;
/// As many as the C library reads.
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 6;

/// What `/etc/resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<SocketAddr>,
    /// Domains that are appended to short names.
    search: Vec<String>,
    /// A name with fewer dots is short.
    ndots: usize,
    /// The timeout of one query to one server.
    pub(super) timeout: Duration,
    /// How often all servers are asked.
    pub(super) attempts: usize,
    pub(super) tcp_only: bool,
}

impl ResolvConf {
    /// Reads the text of the file. Unknown lines and options are ignored, as the C library does.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(2),
            attempts: 2,
            tcp_only: false,
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                Some("domain" | "search") => {
                    let domains = words.map(|it| it.trim_matches('.').to_ascii_lowercase());
                    conf.search = domains.filter(|it| !it.is_empty()).take(SEARCH_MAX).collect();
                }
                Some("options") => words.for_each(|option| conf.option(option)),
                _ => {}
            }
        }
        conf.servers.truncate(SERVERS_MAX);
        if conf.servers.is_empty() {
            conf.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
        }
        conf
    }

    fn option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let number = value.parse::<u8>().ok();
        match (name, number) {
            ("ndots", Some(dots)) => self.ndots = usize::from(dots.min(15)),
            ("timeout", Some(seconds)) => {
                self.timeout = Duration::from_secs(u64::from(seconds.clamp(1, 30)));
            }
            ("attempts", Some(times)) => self.attempts = usize::from(times.clamp(1, 5)),
            ("use-vc", _) => self.tcp_only = true,
            _ => {}
        }
    }

    /// The absolute names to ask for, in this order.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let absolute = format!("{name}.");
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}."));
        let is_short = name.bytes().filter(|byte| *byte == b'.').count() < self.ndots;
        let mut names: Vec<String> = searched.collect();
        names.insert(if is_short { names.len() } else { 0 }, absolute);
        names
    }
}

/// `10.0.0.1`, or `[10.0.0.1]:5353` as some systems write a port.
fn server(text: &str) -> Option<SocketAddr> {
    if let Some((ip, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?));
    }
    // A scope (`fe80::1%eth0`) is not supported.
    text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT))
}

/// The addresses of a name in the text of `/etc/hosts`. `localhost` always has the loopback addresses.
pub(super) fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    if found.is_empty() && (name == "localhost" || name.ends_with(".localhost")) {
        return vec![Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
    }
    found
}

/// Whether the text of `/etc/nsswitch.conf` names other sources of host names than files and DNS. Only
/// the C library knows those.
pub(super) fn has_other_sources(text: &str) -> bool {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("hosts:"));
    let line = line.unwrap_or_default().split('#').next().unwrap_or_default();
    let mut words = line.split_whitespace().filter(|word| !word.starts_with('['));
    words.any(|word| !matches!(word, "files" | "dns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_options_are_read_as_the_c_library_does() {
        let conf = ResolvConf::parse(
            "# comment\nnameserver 10.0.0.1\nnameserver [127.0.0.1]:5353 ; here\nnameserver x\n\
             nameserver 2001:db8::1\nnameserver 10.0.0.4\nsearch shop.internal. Internal\n\
             options ndots:2 timeout:1 attempts:9 rotate use-vc\n",
        );
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "127.0.0.1:5353", "[2001:db8::1]:53"]);
        assert_eq!((conf.ndots, conf.attempts, conf.tcp_only), (2, 5, true));
        assert_eq!(conf.timeout, Duration::from_secs(1));
    }

    #[test]
    fn without_a_server_this_machine_is_asked() {
        assert_eq!(ResolvConf::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn a_short_name_is_searched_for_first_and_a_long_one_last() {
        let conf = ResolvConf::parse("search a.test b.test\n");
        assert_eq!(conf.candidates("web"), ["web.a.test.", "web.b.test.", "web."]);
        assert_eq!(conf.candidates("web.c"), ["web.c.", "web.c.a.test.", "web.c.b.test."]);
        assert_eq!(conf.candidates("web.c."), ["web.c."]);
    }

    #[test]
    fn hosts_are_found_by_every_name_of_their_line() {
        let text = "10.0.0.1 web web.internal # 10.0.0.9 web\n10.0.0.2\tWEB\nbad web\n::1 ip6\n";
        let found = |name| hosts(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("web"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(found("web.internal."), ["10.0.0.1"]);
        assert_eq!(found("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(found("other"), [""; 0]);
    }

    #[test]
    fn the_c_library_is_needed_for_other_sources_only() {
        assert!(!has_other_sources("passwd: files\nhosts: files dns\n"));
        assert!(!has_other_sources(""));
        assert!(has_other_sources("hosts: files mdns4_minimal [NOTFOUND=return] dns\n"));
        assert!(has_other_sources("hosts:\tfiles myhostname dns # all\n"));
    }
}
