//! Recognizes configuration files of other servers.

use super::problem::{Position, Problem, SMALLEST};
use super::yaml::{Node, Value};

/// Whether a trimmed line belongs to the configuration of a server.
type IsLine = fn(&str) -> bool;

/// Servers and their lines.
const SERVERS: [(&str, IsLine); 3] =
    [("an nginx", is_nginx), ("an HAProxy", is_haproxy), ("a Caddy", is_caddy)];

/// The problem to report for an unreadable file, if it looks like one of another server.
pub(super) fn problem(text: &[u8]) -> Option<Problem> {
    let text = std::str::from_utf8(text).ok()?;
    let found = |(name, is_line): (&'static str, IsLine)| {
        let line = text.lines().position(|line| is_line(line.trim()))?;
        Some((name, line + 1))
    };
    let (name, line) = SERVERS.into_iter().find_map(found)?;
    let at = Position { line, column: 1 };
    let what = format!("this looks like {name} configuration, but Weir reads YAML");
    Some(Problem::in_file(at, what).help(SMALLEST))
}

/// Programs that read YAML too, and keys at the root of their files. A key with another one in its value is
/// one only with that.
const KEYS: [(&str, &str, Option<&str>); 7] = [
    ("an Envoy", "static_resources", None),
    ("an Envoy", "dynamic_resources", None),
    ("a Traefik", "entryPoints", None),
    ("a Traefik", "http", Some("routers")),
    ("a Traefik", "http", Some("services")),
    ("a Traefik", "tcp", Some("routers")),
    ("a Kubernetes", "apiVersion", None),
];

/// The problem to report for a file in YAML, if it is one of another program. A file with `pools` is meant
/// for Weir.
pub(super) fn problem_of_keys(root: &Node) -> Option<Problem> {
    let keys = entries(root);
    if keys.iter().any(|(key, _)| key.typed == "pools") {
        return None;
    }
    let found = |(name, wanted, inner): (&'static str, &str, Option<&str>)| {
        let (key, value) = keys.iter().find(|(key, _)| key.typed == wanted)?;
        let has = |inner| entries(value).iter().any(|(key, _)| key.typed == inner);
        inner.is_none_or(has).then_some((name, key.at))
    };
    let (name, at) = KEYS.into_iter().find_map(found)?;
    let what = format!("this looks like {name} configuration, but Weir has a format of its own");
    Some(Problem::new(at, what).help(SMALLEST))
}

fn entries(node: &Node) -> &[(Node, Node)] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Null
        | Value::Bool(_)
        | Value::Whole(_)
        | Value::Real(_)
        | Value::Text
        | Value::List(_) => &[],
    }
}

fn is_nginx(line: &str) -> bool {
    // The block may end on the same line.
    let block = line.split_once('{').map(|(head, _)| head.trim_end());
    let is_block = block.is_some_and(|head| {
        matches!(head, "http" | "server" | "events" | "stream")
            || head.strip_prefix("upstream ").is_some_and(|name| !name.trim().contains(' '))
            || head.starts_with("location ")
    });
    let is_directive = |name: &str| line.starts_with(name) && line.ends_with(';');
    is_block || ["proxy_pass ", "worker_processes ", "listen "].into_iter().any(is_directive)
}

fn is_haproxy(line: &str) -> bool {
    let mut words = line.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("global" | "defaults"), None, _) => true,
        (Some("frontend" | "backend"), Some(name), None) => !name.contains([':', '{']),
        (Some("bind"), Some(address), _) => address.contains(':') && !address.ends_with(';'),
        (Some("default_backend" | "use_backend"), Some(_), _) => true,
        _ => false,
    }
}

fn is_caddy(line: &str) -> bool {
    let site = line.strip_suffix('{').map(str::trim_end);
    let is_site = site.is_some_and(|site| {
        !site.is_empty() && !site.contains([' ', '=', '"']) && site.contains(['.', ':'])
    });
    let is_directive = ["reverse_proxy ", "file_server", "php_fastcgi "];
    is_site || is_directive.into_iter().any(|name| line.starts_with(name) && !line.ends_with(';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Option<String> {
        problem(text.as_bytes()).map(|problem| problem.what)
    }

    #[test]
    fn files_of_other_servers_are_known() {
        for (text, name) in [
            ("events {}\nhttp {\n  server {\n    listen 80;\n  }\n}\n", "nginx"),
            ("upstream web {\n  server 10.0.0.1:80;\n}\n", "nginx"),
            ("global\n  maxconn 100\nfrontend web\n  bind *:80\n", "HAProxy"),
            ("# x\nbackend web\n  server a 10.0.0.1:80 check\n", "HAProxy"),
            ("example.com {\n  reverse_proxy localhost:3000\n}\n", "Caddy"),
            (":80\nreverse_proxy localhost:3000\n", "Caddy"),
        ] {
            let said = said(text).unwrap_or_default();
            assert!(said.contains(name), "{text}: {said}");
        }
    }

    #[test]
    fn yaml_with_a_mistake_is_not_taken_for_one() {
        for text in
            ["pools:\n - name: web\n  backends: [a\n", "listeners: [0.0.0.0:80\n", "hello\n"]
        {
            assert_eq!(said(text), None, "{text}");
        }
    }
}
