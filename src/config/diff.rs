//! Changes between two configurations, as lines for the operator who reloads.
//!
//! Each line says what a worker with the new configuration does differently, and which state it keeps; see
//! `runtime::handoff` for the rules. (A backend with a host name keeps its health only if the name still has
//! the same address, which is unknown until it is resolved.)

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::time::Duration;

use super::listener::{ClientAuth, Tls};
use super::meaning::{
    Backend, Config, HealthCheck, Http2, Limits, Pool, Probe, ReadyWhen, Retry, Threads,
};
use super::rate_limit::RateLimit;
use super::read::Keyword;
use super::route::Route;
use super::show;
use super::terms::{ResponseBuffers, StatusSet};
use super::transport::{Transport, TransportHttp2, TransportTls};
use super::value::{spell, spell_size};

/// One line for each change, in the order of the file's keys; none if nothing changed.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Lines(Vec::new());
    listeners(&mut lines, old, new);
    if old.admin.address != new.admin.address {
        lines.say(format!("admin moved: {} → {}", old.admin.address, new.admin.address));
    }
    let (before, now) = (&old.admin.ready_when, &new.admin.ready_when);
    lines.change("admin.ready_when", ready_when(before), ready_when(now));
    lines.change("threads", threads(old.threads), threads(new.threads));
    lines.change("trusted_proxies", list(&old.trusted_proxies), list(&new.trusted_proxies));
    let (before, now) = (old.forwarded, new.forwarded);
    lines.change("forwarded.accept", word(before.accept), word(now.accept));
    lines.change("forwarded.send", word(before.send), word(now.send));
    routes(&mut lines, old, new);
    let pool = |pool: &Pool| format!("pool {}", pool.name);
    let size = |pool: &Pool| format!(": {}", count(pool.backends.len(), "backend"));
    added_and_removed(&mut lines, (&old.pools, &new.pools), pool, size);
    for now in &new.pools {
        if let Some(before) = old.pools.iter().find(|before| before.name == now.name) {
            changed_pool(&mut lines, before, now);
        }
    }
    rate_limit(&mut lines, "", old.rate_limit.as_ref(), new.rate_limit.as_ref());
    limits(&mut lines, old.limits, new.limits);
    let (before, now) = (old.access_log, new.access_log);
    lines.change("access_log.format", word(before.format), word(now.format));
    lines.change("access_log.target", word(before.target), word(now.target));
    lines.wait("shutdown.pre_stop", old.shutdown.pre_stop, new.shutdown.pre_stop);
    lines.wait("shutdown.drain", old.shutdown.drain, new.shutdown.drain);
    lines.wait("shutdown.tunnels", old.shutdown.tunnels, new.shutdown.tunnels);
    let (before, now) = (old.shutdown.draining_workers, new.shutdown.draining_workers);
    lines.change("shutdown.draining_workers", before, now);
    lines.0
}

/// What was found so far.
struct Lines(Vec<String>);

impl Lines {
    fn say(&mut self, line: String) {
        self.0.push(line);
    }

    fn change<T: Display + PartialEq>(&mut self, what: &str, old: T, new: T) {
        self.change_and(what, old, new, "");
    }

    /// With what the change does to what is known.
    fn change_and<T: Display + PartialEq>(&mut self, what: &str, old: T, new: T, effect: &str) {
        if old != new {
            self.say(format!("{what}: {old} → {new}{effect}"));
        }
    }

    fn wait(&mut self, what: &str, old: Duration, new: Duration) {
        self.change(what, spell(old), spell(new));
    }
}

/// Things that are told apart by `name`: those that only one side has.
fn added_and_removed<T>(
    lines: &mut Lines,
    (old, new): (&[T], &[T]),
    name: impl Fn(&T) -> String,
    more: impl Fn(&T) -> String,
) {
    // Files with ten thousand routes exist.
    let names = |list: &[T]| list.iter().map(&name).collect::<HashSet<String>>();
    let (before, now) = (names(old), names(new));
    for one in new.iter().filter(|one| !before.contains(&name(one))) {
        lines.say(format!("{} added{}", name(one), more(one)));
    }
    for one in old.iter().filter(|one| !now.contains(&name(one))) {
        lines.say(format!("{} removed", name(one)));
    }
}

fn listeners(lines: &mut Lines, old: &Config, new: &Config) {
    let listener = |listener: &super::Listener| format!("listener {}", listener.address);
    added_and_removed(lines, (&old.listeners, &new.listeners), listener, |_| String::new());
    for now in &new.listeners {
        let before = old.listeners.iter().find(|before| before.address == now.address);
        if let Some(before) = before {
            let what = format!("{}: proxy_protocol.from", listener(now));
            lines.change(&what, list(&before.proxy_protocol), list(&now.proxy_protocol));
            let what = format!("{}: tls", listener(now));
            lines.change(&what, tls(before.tls.as_ref()), tls(now.tls.as_ref()));
            lines.change(&format!("{}: http2", listener(now)), before.http2, now.http2);
        }
    }
}

fn ready_when(ready_when: &ReadyWhen) -> String {
    match ready_when {
        ReadyWhen::AnyPool => "any_pool".to_owned(),
        ReadyWhen::AllPools => "all_pools".to_owned(),
        ReadyWhen::Pools(names) => list(names),
    }
}

fn limits(lines: &mut Lines, before: Limits, now: Limits) {
    lines.change("limits.connections", before.connections, now.connections);
    let bound = |number: Option<String>| number.unwrap_or_else(off);
    lines.change(
        "limits.connections_per_client",
        bound(before.connections_per_client.map(|number| number.to_string())),
        bound(now.connections_per_client.map(|number| number.to_string())),
    );
    lines.change(
        "limits.requests_per_connection",
        bound(before.requests_per_connection.map(|number| number.to_string())),
        bound(now.requests_per_connection.map(|number| number.to_string())),
    );
    let bytes = |bytes: usize| spell_size(u64::try_from(bytes).unwrap_or(u64::MAX));
    lines.change(
        "limits.target_bytes",
        bytes(before.head.target_bytes),
        bytes(now.head.target_bytes),
    );
    lines.change(
        "limits.header_bytes",
        bytes(before.head.header_bytes),
        bytes(now.head.header_bytes),
    );
    lines.change("limits.headers", before.head.headers, now.head.headers);
    let body = |limits: Limits| limits.body.map_or_else(off, spell_size);
    lines.change("limits.body", body(before), body(now));
    let min_rate = |limits: Limits| {
        limits.min_rate.map_or_else(off, |min_rate| {
            format!(
                "{} with a grace of {}",
                spell_size(min_rate.bytes_per_second.get()),
                spell(min_rate.grace)
            )
        })
    };
    lines.change("limits.body_rate", min_rate(before), min_rate(now));
    let (was, is) = (before.ambiguous_paths, now.ambiguous_paths);
    lines.change("limits.ambiguous_paths", word(was), word(is));
    let buffers = |limits: Limits| match limits.response_buffers {
        ResponseBuffers::OfMemory => "an eighth of the memory".to_owned(),
        ResponseBuffers::Bytes(bytes) => spell_size(bytes),
        ResponseBuffers::Off => off(),
    };
    lines.change("limits.response_buffers", buffers(before), buffers(now));
    lines.change("limits.half_closed", word(before.half_closed), word(now.half_closed));
    let (was, is) = (before.underscore_headers, now.underscore_headers);
    lines.change("limits.underscore_headers", word(was), word(is));
    lines.wait("limits.header_timeout", before.header_timeout, now.header_timeout);
    lines.wait("limits.keepalive", before.keepalive, now.keepalive);
    lines.change("limits.http2", http2(before.http2), http2(now.http2));
}

fn routes(lines: &mut Lines, old: &Config, new: &Config) {
    let name = |route: &Route| format!("route {route}");
    let to = |route: &Route| format!(": {}", show::action(new, &route.action));
    added_and_removed(lines, (&old.routes, &new.routes), name, to);
    let before: HashMap<String, &Route> =
        old.routes.iter().map(|route| (name(route), route)).collect();
    for now in &new.routes {
        let what = name(now);
        let Some(before) = before.get(&what) else { continue };
        let (was, is) = (show::action(old, &before.action), show::action(new, &now.action));
        lines.change(&what, was, is);
        let label = |route: &Route| {
            route.name.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
        };
        lines.change(&format!("{what}: name"), label(before), label(now));
        let changes = [
            ("request_headers", &before.request_headers, &now.request_headers),
            ("response_headers", &before.response_headers, &now.response_headers),
        ];
        for (key, was, is) in changes {
            lines.change(&format!("{what}: {key}"), show::fields(was), show::fields(is));
        }
        let limits = (before.rate_limit.as_ref(), now.rate_limit.as_ref());
        rate_limit(lines, &format!("{what}: "), limits.0, limits.1);
    }
}

fn changed_pool(lines: &mut Lines, old: &Pool, new: &Pool) {
    let told_before = lines.0.len();
    let pool = format!("pool {}: ", new.name);
    let key = |name: &str| format!("{pool}{name}");
    lines.change(&key("algorithm"), word(old.algorithm), word(new.algorithm));
    let name = |backend: &Backend| format!("{pool}backend {}", backend.address);
    let weight = |backend: &Backend| format!(": weight {}", backend.weight);
    added_and_removed(lines, (&old.backends, &new.backends), name, weight);
    let kept = match (&old.health_check, &new.health_check) {
        (None, Some(_)) => "counts kept, health unknown until the first probe",
        (Some(_), None) => "counts kept, healthy from now on",
        (Some(_), Some(_)) | (None, None) => "health and counts kept",
    };
    let mut unchanged = 0;
    for now in &new.backends {
        let before = old.backends.iter().find(|before| before.address == now.address);
        match before.map(|before| before.weight) {
            Some(weight) if weight == now.weight => unchanged += 1,
            Some(weight) => {
                let effect = format!(", {kept}");
                lines.change_and(&format!("{}: weight", name(now)), weight, now.weight, &effect);
            }
            None => {}
        }
    }
    for now in &new.backends {
        let before = old.backends.iter().find(|before| before.address == now.address);
        let speaks = |backend: &Backend| match &backend.server_name {
            Some(name) => format!("TLS with {name}"),
            None => "clear".to_owned(),
        };
        if let Some(before) = before {
            let effect = ", health unknown until the first probe";
            lines.change_and(&name(now), speaks(before), speaks(now), effect);
        }
    }
    lines.change(&key("protocol"), word(old.transport.protocol), word(new.transport.protocol));
    let (before, now) = (old.transport.http2, new.transport.http2);
    lines.change(&key("http2.streams"), before.streams, now.streams);
    let ping = |http2: TransportHttp2| http2.ping.map_or_else(off, spell);
    lines.change(&key("http2.ping"), ping(before), ping(now));
    let proxy =
        |transport: &Transport| if transport.proxy_protocol { "v2".to_owned() } else { off() };
    lines.change(&key("proxy_protocol"), proxy(&old.transport), proxy(&new.transport));
    lines.change(&key("tls"), dial_tls(&old.transport.tls), dial_tls(&new.transport.tls));
    let check = |pool: &Pool| pool.health_check.as_ref().map_or_else(off, health_check);
    lines.change(&key("health_check"), check(old), check(new));
    lines.change(&key("retry"), retry(&old.retry), retry(&new.retry));
    let (before, now) = (old.timeouts, new.timeouts);
    lines.wait(&key("timeouts.connect"), before.connect, now.connect);
    lines.wait(&key("timeouts.response"), before.response, now.response);
    let request = |patience: Option<Duration>| patience.map_or_else(off, spell);
    lines.change(&key("timeouts.request"), request(before.request), request(now.request));
    lines.wait(&key("timeouts.idle"), before.idle, now.idle);
    lines.wait(&key("timeouts.tunnel"), before.tunnel, now.tunnel);
    rate_limit(lines, &pool, old.rate_limit.as_ref(), new.rate_limit.as_ref());
    if lines.0.len() > told_before && unchanged > 0 {
        lines.say(format!("{pool}{} unchanged, {kept}", count(unchanged, "backend")));
    }
}

fn rate_limit(lines: &mut Lines, place: &str, old: Option<&RateLimit>, new: Option<&RateLimit>) {
    let effect = match (old, new) {
        (Some(old), Some(new)) if old.ipv6_prefix == new.ipv6_prefix => ", buckets kept",
        (Some(_), Some(_)) => ", buckets forgotten: clients are told apart otherwise",
        (None, _) | (_, None) => "",
    };
    let spelled = |limit: Option<&RateLimit>| {
        limit.map_or_else(off, |limit| {
            format!(
                "{}/s, burst {}, ipv6_prefix {}, clients_max {}, exempt {}",
                limit.requests_per_second,
                limit.burst,
                limit.ipv6_prefix,
                limit.clients_max,
                list(&limit.exempt)
            )
        })
    };
    lines.change_and(&format!("{place}rate_limit"), spelled(old), spelled(new), effect);
}

fn http2(http2: Http2) -> String {
    let window = |bytes: u32| spell_size(u64::from(bytes));
    let (stream, connection) = (window(http2.stream_window), window(http2.connection_window));
    format!("streams {}, windows {stream} and {connection}", http2.streams)
}

fn tls(tls: Option<&Tls>) -> String {
    let Some(tls) = tls else { return off() };
    let certificates = tls.certificates.iter().map(|one| one.cert.path.display());
    let clients = match &tls.client_auth {
        ClientAuth::Off => off(),
        ClientAuth::Request(ca) => format!("request by {}", ca.path.display()),
        ClientAuth::Require(ca) => format!("require by {}", ca.path.display()),
    };
    let version = word(tls.min_version);
    format!("{}, min_version {version}, client_auth {clients}", list(certificates))
}

fn dial_tls(tls: &TransportTls) -> String {
    let verify = match (&tls.ca, tls.verify) {
        (_, false) => "verify off".to_owned(),
        (Some(ca), true) => format!("ca {}", ca.path.display()),
        (None, true) => "the system's roots".to_owned(),
    };
    let shown = tls.identity.as_ref().map(|one| format!(", cert {}", one.cert.path.display()));
    format!("{verify}{}", shown.unwrap_or_default())
}

fn health_check(check: &HealthCheck) -> String {
    let probe = match &check.probe {
        Probe::Tcp => "tcp".to_owned(),
        Probe::Grpc { service } => format!("grpc {service:?}"),
        Probe::Http { path, host, status, body } => {
            let host = host.as_ref().map_or_else(String::new, |host| format!(" host {host}"));
            let body = body.as_ref().map_or_else(String::new, |body| format!(" body {body:?}"));
            format!("http {path}{host} status {}{body}", statuses(status))
        }
    };
    format!(
        "{probe} every {}, timeout {}, unhealthy_after {}, healthy_after {}",
        spell(check.interval),
        spell(check.timeout),
        check.unhealthy_after,
        check.healthy_after
    )
}

fn statuses(set: &StatusSet) -> String {
    list(set.0.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    }))
}

fn retry(retry: &Retry) -> String {
    let on = &retry.on;
    let words = [("connect", on.connect), ("reset", on.reset), ("timeout", on.timeout)];
    let words = words.iter().filter(|(_, is_on)| *is_on).map(|(word, _)| (*word).to_owned());
    let on = list(words.chain(on.status.iter().map(u16::to_string)));
    format!("{} attempts, backoff {}, on {on}", retry.attempts, spell(retry.backoff))
}

fn threads(threads: Threads) -> String {
    match threads {
        Threads::Auto => "auto".to_owned(),
        Threads::Count(count) => count.to_string(),
    }
}

/// The word of a choice.
fn word<T: Keyword + PartialEq>(value: T) -> &'static str {
    let word = T::WORDS.iter().find(|(_, meaning)| *meaning == value);
    word.map_or("", |(word, _)| word)
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn off() -> String {
    "off".to_owned()
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
    fn how_a_listener_speaks_is_told() {
        let text = |keys| format!("listeners: [{{address: 10.0.0.9:443{keys}}}]\n{WEB}");
        let tls = ", tls: {certificates: [{cert: a, key: b}], client_ca: c, min_version: \"1.3\"}";
        assert_eq!(
            lines(&text(""), &text(tls)),
            [
                "listener 10.0.0.9:443: tls: off → [a], min_version 1.3, client_auth require by c",
                "listener 10.0.0.9:443: http2: false → true",
            ]
        );
    }

    #[test]
    fn who_must_send_a_proxy_header_is_told() {
        let text = |keys| format!("listeners: [{{address: 10.0.0.9:80{keys}}}]\n{WEB}");
        let (without, with) = (text(""), text(", proxy_protocol: {from: [10.0.0.0/8]}"));
        assert_eq!(
            lines(&without, &with),
            ["listener 10.0.0.9:80: proxy_protocol.from: [] → [10.0.0.0/8]"]
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
    fn how_backends_are_spoken_to_is_told() {
        let text = |scheme, keys| {
            format!("pools: [{{name: web, health_check: off, backends: [{scheme}://a:1]{keys}}}]")
        };
        assert_eq!(
            lines(&text("http", ""), &text("https", ", tls: {ca: a.crt, cert: b, key: c}")),
            [
                "pool web: backend a:1: clear → TLS with a, health unknown until the first probe",
                "pool web: tls: the system's roots → ca a.crt, cert b",
                "pool web: 1 backend unchanged, health and counts kept"
            ]
        );
        assert_eq!(
            lines(&text("https", ""), &text("https", ", tls: {verify: off}")),
            [
                "pool web: tls: the system's roots → verify off",
                "pool web: 1 backend unchanged, health and counts kept"
            ]
        );
    }

    #[test]
    fn readiness_asks_for_other_pools() {
        assert_eq!(with("admin: {ready_when: [web]}"), ["admin.ready_when: any_pool → [web]"]);
    }

    #[test]
    fn the_admin_port_moves() {
        assert_eq!(
            with("admin: {address: 127.0.0.1:9}"),
            ["admin moved: 127.0.0.1:9090 → 127.0.0.1:9"]
        );
    }

    #[test]
    fn what_concerns_the_whole_process_is_told() {
        let text = "threads: 2\ntrusted_proxies: [10.0.0.0/8]\nforwarded: {accept: forwarded, send: both}\nlimits: {connections: 5, connections_per_client: 3, requests_per_connection: 9, keepalive: 2s, header_timeout: 1s, target_bytes: 1KiB, header_bytes: 1000, headers: 7, body: 1MiB, body_rate: 1KiB, half_closed: serve, response_buffers: 1GiB, http2: {streams: 5}}\naccess_log: {format: text, target: stderr}\nshutdown: {pre_stop: 1s, drain: 2m, tunnels: 1m, draining_workers: 2}";
        assert_eq!(
            with(text),
            [
                "threads: auto → 2",
                "trusted_proxies: [] → [10.0.0.0/8]",
                "forwarded.accept: x_forwarded_for → forwarded",
                "forwarded.send: x_forwarded_for → both",
                "limits.connections: 20000 → 5",
                "limits.connections_per_client: off → 3",
                "limits.requests_per_connection: off → 9",
                "limits.target_bytes: 8KiB → 1KiB",
                "limits.header_bytes: 64KiB → 1000",
                "limits.headers: 100 → 7",
                "limits.body: off → 1MiB",
                "limits.body_rate: off → 1KiB with a grace of 10s",
                "limits.response_buffers: an eighth of the memory → 1GiB",
                "limits.half_closed: abort → serve",
                "limits.header_timeout: 10s → 1s",
                "limits.keepalive: 75s → 2s",
                "limits.http2: streams 100, windows 64KiB and 1MiB → streams 5, windows 64KiB and 1MiB",
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
            ["route api.example/v1 added: pool: api", "pool api added: 1 backend"]
        );
        assert_eq!(lines(both, WEB), ["route api.example/v1 removed", "pool api removed"]);
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
                "route *.x.example/: pool: a → pool: b",
                "route *.x.example/: rate_limit: off → 0.5/s, burst 1, ipv6_prefix 64, clients_max 100000, exempt []",
            ]
        );
    }

    #[test]
    fn backends_come_go_and_change_their_weight() {
        let new = "pools: [{name: web, backends: [{url: http://10.0.0.2:80, weight: 3}, http://10.0.0.3:80]}]";
        assert_eq!(
            lines(WEB, new),
            [
                "pool web: backend 10.0.0.3:80 added: weight 1",
                "pool web: backend 10.0.0.1:80 removed",
                "pool web: backend 10.0.0.2:80: weight: 1 → 3, health and counts kept",
            ]
        );
    }

    #[test]
    fn the_order_of_backends_is_no_change() {
        let turned = "pools: [{name: web, backends: [http://10.0.0.2:80, http://10.0.0.1:80]}]";
        assert_eq!(lines(WEB, turned), [""; 0]);
    }

    #[test]
    fn what_else_a_pool_has_is_told_with_who_is_unchanged() {
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
                "pool web: retry: 3 attempts, backoff 50ms, on [connect, reset, timeout, 502, 503, 504] → 2 attempts, backoff 50ms, on [connect, 503]",
                KEPT
            ]
        );
    }

    #[test]
    fn a_health_check_that_is_switched_on_or_off_says_what_becomes_of_health() {
        let tcp = "tcp every 10s, timeout 3s, unhealthy_after 2, healthy_after 2";
        assert_eq!(
            of_pool("health_check: off", ""),
            [
                format!("pool web: health_check: off → {tcp}"),
                "pool web: 1 backend unchanged, counts kept, health unknown until the first probe"
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
            of_pool(
                "",
                "health_check: {type: http, path: /up, host: x, status: [200, 300-399], body: ok}"
            )[0],
            format!(
                "pool web: health_check: {tcp} → http /up host x status [200, 300-399] body \"ok\" every 10s, timeout 3s, unhealthy_after 2, healthy_after 2"
            )
        );
    }

    #[test]
    fn a_changed_limit_says_whether_buckets_are_kept() {
        let limit = |keys| format!("{WEB}rate_limit: {{requests_per_second: 5, {keys}}}");
        let spelled = |prefix, burst| {
            format!("5/s, burst {burst}, ipv6_prefix {prefix}, clients_max 100000, exempt []")
        };
        assert_eq!(
            lines(&limit("burst: 5"), &limit("burst: 7")),
            [format!("rate_limit: {} → {}, buckets kept", spelled(64, 5), spelled(64, 7))]
        );
        assert_eq!(
            lines(&limit("ipv6_prefix: 64"), &limit("ipv6_prefix: 56")),
            [format!(
                "rate_limit: {} → {}, buckets forgotten: clients are told apart otherwise",
                spelled(64, 5),
                spelled(56, 5)
            )]
        );
    }
}
