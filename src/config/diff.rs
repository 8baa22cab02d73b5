//! Changes between two configurations, as lines for the operator who reloads.
//!
//! The files are compared key by key, with every default filled in. Each line says what changes; what a
//! reload does to state beyond that comes from the schema (`OnReload`), as `runtime::handoff` does it. (A
//! backend with a host name keeps its health only if the name still has the same address, which is unknown
//! until it is resolved.)

use std::collections::HashMap;

use super::file::SCHEMA;
use super::meaning::Config;
use super::read::{OnReload, Section, Shape};
use super::show::{Effective, Entry, canonical, inline};

/// One line for each change, in the order of the schema; none if nothing changed.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Ok(Effective::Map(old)), Ok(Effective::Map(new))) = (canonical(old), canonical(new)) {
        maps(&mut lines, "", SCHEMA.root, (&old, &new));
    }
    lines
}

/// Two versions of a section.
fn maps(lines: &mut Vec<String>, place: &str, section: &Section, (old, new): (&[Entry], &[Entry])) {
    for key in section.keys {
        let (before, now) = (find(old, key.name), find(new, key.name));
        if before == now {
            continue;
        }
        match (key.section, before, now) {
            (
                Some(child),
                Found::Value(Effective::List(before)),
                Found::Value(Effective::List(now)),
            ) if !child.identity.is_empty() => {
                lists(lines, place, child, (before, now));
            }
            (
                Some(child),
                Found::Value(Effective::Map(before)),
                Found::Value(Effective::Map(now)),
            ) if key.shape == Shape::One => {
                maps(lines, &format!("{place}{}.", key.name), child, (before, now));
            }
            _ => {
                let effect = key.on_reload.words().map(|words| format!(", {words}"));
                let effect = effect.unwrap_or_default();
                let (before, now) = (before.describe(), now.describe());
                lines.push(format!("{place}{}: {before} → {now}{effect}", key.name));
            }
        }
    }
}

/// Two versions of a list whose entries have an identity.
fn lists(
    lines: &mut Vec<String>,
    place: &str,
    section: &Section,
    (old, new): (&[Effective], &[Effective]),
) {
    let label = |entry: &Effective| format!("{place}{} {}", section.noun, identity(section, entry));
    // Files with ten thousand routes exist.
    let index = |list: &'_ [Effective]| -> HashMap<String, usize> {
        list.iter().enumerate().map(|(index, entry)| (label(entry), index)).collect()
    };
    let (before, now) = (index(old), index(new));
    for entry in new.iter().filter(|entry| !before.contains_key(&label(entry))) {
        let size = backends(entry).map_or_else(String::new, |count| format!(": {count}"));
        lines.push(format!("{} added{size}", label(entry)));
    }
    let gone = old.iter().map(label).filter(|label| !now.contains_key(label));
    lines.extend(gone.map(|label| format!("{label} removed")));
    for entry in new {
        let label = label(entry);
        let earlier = before.get(&label).and_then(|index| old.get(*index));
        let (Some(Effective::Map(before)), Effective::Map(now)) = (earlier, entry) else {
            continue;
        };
        let lines_before = lines.len();
        maps(lines, &format!("{label}: "), section, (before, now));
        if section.path == "pools[]" && lines.len() > lines_before {
            let changes = lines.get(lines_before..).unwrap_or_default();
            lines.extend(kept(&label, changes, (before, now)));
        }
    }
}

/// How many backends a pool has, in words; `None` for what is not a pool.
fn backends(entry: &Effective) -> Option<String> {
    let Effective::Map(entries) = entry else { return None };
    match find(entries, "backends") {
        Found::Value(Effective::List(backends)) => Some(count(backends.len())),
        Found::Value(_) | Found::Omitted(_) | Found::Nothing => None,
    }
}

fn count(backends: usize) -> String {
    format!("{backends} backend{}", if backends == 1 { "" } else { "s" })
}

/// The values by which an entry is recognized.
fn identity(section: &Section, entry: &Effective) -> String {
    let Effective::Map(entries) = entry else { return inline(entry) };
    let value = |name: &'static str| match find(entries, name) {
        Found::Value(value) => Some((name, inline(value))),
        Found::Omitted(_) | Found::Nothing => None,
    };
    let values: Vec<(&str, String)> = section.identity.iter().copied().filter_map(value).collect();
    match (section.identity, values.as_slice()) {
        ([_], [(_, only)]) => only.clone(),
        (_, [(name, only)]) if section.short == Some(*name) => only.clone(),
        (_, values) => {
            let entry = |(name, value): &(&str, String)| format!("{name}: {value}");
            format!("{{{}}}", values.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// What a changed pool keeps of its unchanged backends.
fn kept(pool: &str, changes: &[String], (old, new): (&[Entry], &[Entry])) -> Option<String> {
    let backends = |pool: &[Entry]| match find(pool, "backends") {
        Found::Value(Effective::List(backends)) => backends.clone(),
        Found::Value(_) | Found::Omitted(_) | Found::Nothing => Vec::new(),
    };
    let before = backends(old);
    let unchanged = backends(new).iter().filter(|backend| before.contains(backend)).count();
    let is_off = |pool: &[Entry]| match find(pool, "health_check") {
        Found::Value(value) => *value == Effective::Scalar("off".to_owned()),
        Found::Omitted(_) | Found::Nothing => false,
    };
    let forgets = OnReload::ForgetsHealth.words().unwrap_or_default();
    let backend = format!("{pool}: backend ");
    let is_forgotten = |line: &String| line.ends_with(forgets) && !line.starts_with(&backend);
    let state = match (is_off(old), is_off(new)) {
        (true, false) => "counts kept, health unknown until the first health check",
        (false, true) => "counts kept, healthy from now on",
        _ if changes.iter().any(is_forgotten) => "counts kept",
        _ => "health and counts kept",
    };
    (unchanged > 0).then(|| format!("{pool}: {} unchanged, {state}", count(unchanged)))
}

/// A key in one version of a section.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Found<'a> {
    Value(&'a Effective),
    /// It is left out, which means this.
    Omitted(&'a str),
    /// It has no meaning there.
    Nothing,
}

impl Found<'_> {
    fn describe(self) -> String {
        match self {
            Self::Value(value) => inline(value),
            Self::Omitted(words) => words.to_owned(),
            Self::Nothing => "not used".to_owned(),
        }
    }
}

fn find<'a>(entries: &'a [Entry], name: &str) -> Found<'a> {
    let found = entries.iter().find_map(|entry| match entry {
        Entry::Key(key, value) if key == name => Some(Found::Value(value)),
        Entry::Omitted(key, words) if *key == name => Some(Found::Omitted(words)),
        Entry::Key(..) | Entry::Omitted(..) => None,
    });
    found.unwrap_or(Found::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load};

    const WEB: &str = "pools: [{name: web, backends: [http://10.0.0.1:80, http://10.0.0.2:80]}]\n";

    fn config(text: &str) -> Config {
        load(Some(text.as_bytes()), &Overrides::default()).unwrap()
    }

    fn lines(old: &str, new: &str) -> Vec<String> {
        diff(&config(old), &config(new))
    }

    /// The lines for a key that is added to a file, and for its removal.
    fn with(text: &str) -> Vec<String> {
        lines(WEB, &format!("{WEB}{text}"))
    }

    /// The lines for two files of one pool with these keys.
    fn of_pool(old: &str, new: &str) -> Vec<String> {
        let text = |keys| format!("pools: [{{name: web, backends: [http://a:80], {keys}}}]");
        lines(&text(old), &text(new))
    }

    const KEPT: &str = "pool web: 1 backend unchanged, health and counts kept";

    #[test]
    fn a_change_of_tls_of_a_listener_is_shown() {
        let text = |keys| format!("listeners: [{{address: 10.0.0.9:443{keys}}}]\n{WEB}");
        let tls = ", tls: {certificates: [{cert: a, key: b}], client_ca: c, min_version: \"1.3\"}";
        assert_eq!(
            lines(&text(""), &text(tls)),
            [
                "listener 10.0.0.9:443: tls: plaintext → {certificates: [{cert: a, key: b}], min_version: \"1.3\", client_ca: c, client_auth: require}",
                "listener 10.0.0.9:443: http2: false → true",
            ]
        );
    }

    #[test]
    fn a_change_of_the_proxy_protocol_is_shown() {
        let text = |keys| format!("listeners: [{{address: 10.0.0.9:80{keys}}}]\n{WEB}");
        let (without, with) = (text(""), text(", proxy_protocol: {from: [10.0.0.0/8]}"));
        assert_eq!(
            lines(&without, &with),
            [
                "listener 10.0.0.9:80: proxy_protocol: PROXY headers are rejected → {from: [10.0.0.0/8]}"
            ]
        );
    }

    #[test]
    fn the_same_file_changes_nothing() {
        assert_eq!(lines(WEB, WEB), [""; 0]);
        assert_eq!(with("# a comment\nlisteners: [0.0.0.0:8080]"), [""; 0]);
    }

    #[test]
    fn listeners_come_and_go() {
        assert_eq!(
            with("listeners: [127.0.0.1:1]"),
            ["listener 127.0.0.1:1 added", "listener 0.0.0.0:8080 removed"]
        );
    }

    #[test]
    fn a_change_of_tls_of_a_pool_is_shown_with_what_becomes_of_health() {
        let text = |scheme, keys| {
            format!("pools: [{{name: web, health_check: off, backends: [{scheme}://a:1]{keys}}}]")
        };
        assert_eq!(
            lines(&text("http", ""), &text("https", ", tls: {ca: a.crt, cert: b, key: c}")),
            [
                "pool web: backend https://a:1 added",
                "pool web: backend http://a:1 removed",
                "pool web: tls: certificates are verified against the CAs of the system → {ca: a.crt, cert: b, key: c, verify: \"on\"}, health unknown until the first health check",
            ]
        );
        assert_eq!(
            lines(&text("https", ""), &text("https", ", tls: {verify: off}")),
            [
                "pool web: tls: certificates are verified against the CAs of the system → {verify: off}, health unknown until the first health check",
                "pool web: 1 backend unchanged, counts kept"
            ]
        );
    }

    #[test]
    fn a_change_of_ready_when_is_shown() {
        assert_eq!(with("admin: {ready_when: [web]}"), ["admin.ready_when: any_pool → [web]"]);
    }

    #[test]
    fn a_change_of_the_admin_address_is_shown() {
        assert_eq!(
            with("admin: {address: 127.0.0.1:9}"),
            [
                "admin.address: 127.0.0.1:9090 → 127.0.0.1:9, listening sockets are opened and closed"
            ]
        );
    }

    #[test]
    fn changes_of_the_whole_process_are_shown() {
        let text = "threads: 2\ntrusted_proxies: [10.0.0.0/8]\nforwarded: {accept: forwarded, send: both}\nlimits: {connections: 5, connections_per_client: 3, requests: 7, requests_per_connection: 9, keepalive: 2s, header_timeout: 1s, target_bytes: 1KiB, header_bytes: 1000, headers: 7, body: 1MiB, body_rate: 1KiB, half_closed: serve, response_buffers: 1GiB, http2: {streams: 5}}\naccess_log: {format: text, target: stderr}\nshutdown: {pre_stop: 1s, drain: 2m, tunnels: 1m, draining_workers: 2}";
        assert_eq!(
            with(text),
            [
                "threads: auto → 2",
                "trusted_proxies: [] → [10.0.0.0/8]",
                "forwarded.accept: x_forwarded_for → forwarded",
                "forwarded.send: x_forwarded_for → both",
                "limits.target_bytes: 8KiB → 1KiB",
                "limits.header_bytes: 64KiB → 1000",
                "limits.headers: 100 → 7",
                "limits.body_rate: off → 1KiB",
                "limits.response_buffers: an eighth of the memory that Weir may use, at least 32MiB → 1GiB",
                "limits.connections: 20000 → 5",
                "limits.connections_per_client: no limit → 3",
                "limits.requests: off → 7",
                "limits.requests_per_connection: no limit → 9",
                "limits.header_timeout: 10s → 1s",
                "limits.body: off → 1MiB",
                "limits.half_closed: abort → serve",
                "limits.keepalive: 75s → 2s",
                "limits.http2.streams: 100 → 5",
                "access_log.format: json → text",
                "access_log.target: stdout → stderr",
                "shutdown.pre_stop: 0s → 1s",
                "shutdown.drain: 30s → 2m",
                "shutdown.tunnels: 30s → 60s",
                "shutdown.draining_workers: 16 → 2",
            ]
        );
    }

    #[test]
    fn a_pool_comes_with_its_route_and_goes_with_it() {
        let both = "routes: [{pool: web}, {host: api.example, path: /v1, pool: api}]\npools: [{name: web, backends: [http://10.0.0.1:80, http://10.0.0.2:80]}, {name: api, backends: [http://b:1]}]";
        assert_eq!(
            lines(WEB, both),
            ["route {host: api.example, path: /v1} added", "pool api added: 1 backend"]
        );
        assert_eq!(
            lines(both, WEB),
            ["route {host: api.example, path: /v1} removed", "pool api removed"]
        );
    }

    #[test]
    fn a_route_gets_another_pool_and_a_limit() {
        let file = |route: &str| {
            format!(
                "routes: [{{pool: b, path: /b}}, {{pool: a, path: /c}}, {route}]\npools: [{{name: a, backends: [http://a:1]}}, {{name: b, backends: [http://b:1]}}]"
            )
        };
        let old = file("{host: '*.x.example', pool: a}");
        let new = file("{host: '*.x.example', pool: b, rate_limit: {requests_per_second: 0.5}}");
        assert_eq!(
            lines(&old, &new),
            [
                "route {host: \"*.x.example\", path: /}: pool: a → b",
                "route {host: \"*.x.example\", path: /}: rate_limit: no further limit → {requests_per_second: 0.5, burst: 1, ipv6_prefix: 64, clients_max: 100000, exempt: []}",
            ]
        );
    }

    #[test]
    fn backends_come_go_and_change_their_weight() {
        let new = "pools: [{name: web, backends: [{url: http://10.0.0.2:80, weight: 3}, http://10.0.0.3:80]}]";
        assert_eq!(
            lines(WEB, new),
            [
                "pool web: backend http://10.0.0.3:80 added",
                "pool web: backend http://10.0.0.1:80 removed",
                "pool web: backend http://10.0.0.2:80: weight: 1 → 3",
            ]
        );
    }

    #[test]
    fn the_order_of_backends_is_no_change() {
        let turned = "pools: [{name: web, backends: [http://10.0.0.2:80, http://10.0.0.1:80]}]";
        assert_eq!(lines(WEB, turned), [""; 0]);
    }

    #[test]
    fn other_changes_of_a_pool_are_shown_with_what_is_kept() {
        assert_eq!(
            of_pool("", "algorithm: ip_hash"),
            ["pool web: algorithm: round_robin → ip_hash", KEPT]
        );
        assert_eq!(
            of_pool("", "timeouts: {connect: 1s, response: 2s, request: off, idle: 3s}"),
            [
                "pool web: timeouts.connect: 2s → 1s",
                "pool web: timeouts.response: 30s → 2s",
                "pool web: timeouts.request: 60s → off",
                "pool web: timeouts.idle: 55s → 3s",
                KEPT
            ]
        );
        assert_eq!(
            of_pool("", "retry: {attempts: 2, on: [connect, 503]}"),
            [
                "pool web: retry.on: [connect, reset, timeout, 502, 503, 504] → [connect, 503]",
                "pool web: retry.attempts: 3 → 2",
                KEPT
            ]
        );
    }

    #[test]
    fn switching_health_checks_on_or_off_says_what_becomes_of_health() {
        let tcp = "{type: tcp, interval: 10s, timeout: 3s, unhealthy_after: 2, healthy_after: 2}";
        assert_eq!(
            of_pool("health_check: off", ""),
            [
                format!("pool web: health_check: off → {tcp}"),
                "pool web: 1 backend unchanged, counts kept, health unknown until the first health check"
                    .to_owned()
            ]
        );
        assert_eq!(
            of_pool("", "health_check: off"),
            [
                format!("pool web: health_check: {tcp} → off"),
                "pool web: 1 backend unchanged, counts kept, healthy from now on".to_owned()
            ]
        );
        assert_eq!(
            of_pool("", "health_check: {path: /up, status: [200, 300-399], timeout: 1s}"),
            [
                "pool web: health_check.type: tcp → http",
                "pool web: health_check.path: not used → /up",
                "pool web: health_check.status: not used → [200, 300-399]",
                "pool web: health_check.timeout: 3s → 1s",
                KEPT
            ]
        );
    }

    #[test]
    fn a_changed_limit_says_if_buckets_start_full() {
        let limit = |keys| format!("{WEB}rate_limit: {{requests_per_second: 5, {keys}}}");
        assert_eq!(lines(&limit("burst: 5"), &limit("burst: 7")), ["rate_limit.burst: 5 → 7"]);
        assert_eq!(
            lines(&limit("ipv6_prefix: 64"), &limit("ipv6_prefix: 56")),
            ["rate_limit.ipv6_prefix: 64 → 56, all buckets start full"]
        );
    }

    #[test]
    fn another_spelling_is_no_change() {
        let text = "pools: [{name: web, backends: [{url: 'http://10.0.0.1:80/', weight: 1}, http://10.0.0.2], timeouts: {request: 1m}, health_check: {interval: 10000ms}}]";
        assert_eq!(lines(WEB, text), [""; 0]);
    }
}
