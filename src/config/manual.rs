//! The manual of the file: docs/CONFIG.md.
//!
//! It is generated from the same table that the reader uses, so every key that can be read is described.

use super::file::SCHEMA;
use super::problem::Origin;
use super::read::{Key, Presence, Section};
use super::yaml::Node;

const HEAD: &str = "\
# The configuration file

<!-- Generated from src/config/file.rs and src/config/file/ by `UPDATE=1 cargo test --no-default-features --test config`. -->

Weir reads one YAML file, named by `-c`. The smallest one is:

```yaml
pools: [{name: web, backends: [http://10.0.0.1:3000, http://10.0.0.2:3000]}]
```

Weir then listens on `0.0.0.0:8080`, serves its admin port on `127.0.0.1:9090`, and balances all requests
over two backends. `conf/weir.yaml` shows every key with its default.

- An unknown key, a key that occurs twice and a value of the wrong type are rejected, and so is a value
  that would have no effect. All problems are reported at once, each as `file:line:column: what is wrong
  (help: what to do)`.
- A duration is a whole number and a unit: `500ms`, `2s`, `1m`, `1h`. The longest is `24h`.
- A size is a number of bytes, or a whole number and a unit of 1024: `500B`, `64KiB`, `10MiB`, `1GiB`.
- A network is an address and a prefix length, such as `10.0.0.0/8`. A plain address is a network of one.
- Text that starts with `*` needs quotes: `\"*.example.com\"`.
- Anchors and aliases work. Tags, merge keys (`<<`) and several documents in one file are rejected.
- The file may have at most 4 MiB.
- A reload applies every key: a new worker process starts with the new file, and old workers finish the
  requests that they already have. Where a file is rejected, nothing changes.

Some values can be given by flags or environment variables, with or without a file. A flag overrides the
environment, and the environment overrides the file. `weir run` and `weir check` accept them.

| Flag | Environment | Replaces |
|---|---|---|
| `--listen ADDRESS` (repeatable) | `WEIR_LISTEN` (comma-separated list) | `listeners` |
| `--backend URL` (repeatable) | `WEIR_BACKENDS` (comma-separated list) | the `backends` of the only pool; without a file it creates a pool named `default` |
| `--algorithm NAME` | `WEIR_ALGORITHM` | `algorithm` of every pool |
| `--request-timeout DURATION` | | `timeouts.request` of every pool |
| `--health-interval DURATION` | | `health_check.interval` of every pool with health checks |
| `--admin ADDRESS` | `WEIR_ADMIN` | `admin.address` |
";

/// The manual as Markdown.
#[must_use]
pub fn manual() -> String {
    let mut text = HEAD.to_owned();
    for section in SCHEMA.sections() {
        describe(section, &mut text);
    }
    text
}

fn describe(section: &Section, text: &mut String) {
    let title = match section.path {
        "" => "Top level".to_owned(),
        // Some sections occur in several places and are the same in each.
        "routes[].headers" => "`routes[].headers.NAME`, `routes[].query.NAME`".to_owned(),
        "routes[].request_headers" => {
            "`routes[].request_headers`, `routes[].response_headers`".to_owned()
        }
        "rate_limit" => "`rate_limit`, `routes[].rate_limit`, `pools[].rate_limit`".to_owned(),
        path => format!("`{path}`"),
    };
    text.push_str(&format!("\n## {title}\n\n{}\n", joined(section.doc)));
    for key in section.keys {
        text.push_str(&row(key));
    }
    if !section.later.is_empty() {
        let later: Vec<String> = section.later.iter().map(|key| format!("`{key}`")).collect();
        text.push_str(&format!("\nNot available in this version: {}.\n", later.join(", ")));
    }
}

fn row(key: &Key) -> String {
    let nothing = Node::map(Origin::START, Vec::new());
    let presence = match (key.presence, (key.default)(&nothing, &SCHEMA)) {
        (Presence::Required, _) => "required".to_owned(),
        (Presence::Default, Some(value)) => format!("default: `{value}`"),
        (Presence::Section, _) => "default: the defaults below".to_owned(),
        (Presence::Computed(words), _) => format!("default: {words}"),
        (Presence::Optional(words), _) => format!("if left out: {words}"),
        (Presence::Default, None) => String::new(),
    };
    let effect = key.on_reload.words().map(|words| format!("- changed by a reload: {words}\n"));
    format!(
        "\n### `{name}`\n\n{doc}\n\n- type: {expected}\n- {presence}\n- example: `{name}: {example}`\n{effect}",
        name = key.name,
        doc = joined(key.doc),
        expected = (key.expected)(key.bounds),
        example = key.example,
        effect = effect.unwrap_or_default(),
    )
}

/// Lines of a doc comment as paragraphs and the points of lists.
fn joined(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        let trimmed = line.trim();
        let point = trimmed.split_once(". ").is_some_and(|(n, _)| n.parse::<u8>().is_ok());
        let gap = match (text.is_empty() || text.ends_with('\n'), trimmed.is_empty(), point) {
            (_, true, _) => "\n\n",
            (false, false, true) => "\n",
            (false, false, false) => " ",
            (true, false, _) => "",
        };
        text.push_str(gap);
        text.push_str(trimmed);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Overrides, load};
    use super::*;

    /// A file in which `@` stands where the keys of a section may be added.
    fn around(path: &str) -> &'static str {
        match path {
            "" => "pools: [{name: web, backends: [http://a]}]\n@",
            "listeners[]" => {
                "pools: [{name: web, backends: [http://a]}]\nlisteners: [{address: 0.0.0.0:80, @}]"
            }
            "listeners[].tls" => {
                "pools: [{name: web, backends: [http://a]}]\n\
                 listeners: [{address: 0.0.0.0:80, tls: \
                 {certificates: [{cert: a, key: b}], client_ca: c, @}}]"
            }
            "listeners[].tls.certificates[]" => {
                "pools: [{name: web, backends: [http://a]}]\n\
                 listeners: [{address: 0.0.0.0:80, tls: {certificates: [{cert: a, key: b, @}]}}]"
            }
            "listeners[].proxy_protocol" => {
                "pools: [{name: web, backends: [http://a]}]\n\
                 listeners: [{address: 0.0.0.0:80, proxy_protocol: {@}}]"
            }
            "admin" => "pools: [{name: web, backends: [http://a]}]\nadmin: {@}",
            "forwarded" => "pools: [{name: web, backends: [http://a]}]\nforwarded: {@}",
            "routes[]" => "pools: [{name: web, backends: [http://a]}]\nroutes: [{pool: web, @}]",
            "routes[].headers" => {
                "pools: [{name: web, backends: [http://a]}]\nroutes: [{pool: web, headers: {a: {@}}}]"
            }
            "routes[].pools[]" => {
                "pools: [{name: web, backends: [http://a]}]\nroutes: [{pools: [{pool: web, @}]}]"
            }
            "routes[].rewrite" => {
                "pools: [{name: web, backends: [http://a]}]\nroutes: [{pool: web, rewrite: {@}}]"
            }
            "routes[].redirect" => {
                "pools: [{name: web, backends: [http://a]}]\n\
                 routes: [{redirect: {host: b, @}}, {path: /x, pool: web}]"
            }
            "routes[].respond" => {
                "pools: [{name: web, backends: [http://a]}]\n\
                 routes: [{respond: {status: 200, @}}, {path: /x, pool: web}]"
            }
            "routes[].request_headers" => {
                "pools: [{name: web, backends: [http://a]}]\n\
                 routes: [{pool: web, request_headers: {remove: [A], @}}]"
            }
            "pools[]" => "pools: [{name: web, backends: [https://a], @}]",
            "pools[].backends[]" => "pools: [{name: web, backends: [{url: https://a, @}]}]",
            "pools[].http2" => {
                "pools: [{name: web, protocol: h2c, backends: [http://a], http2: {@}}]"
            }
            "pools[].tls" => {
                "pools: [{name: web, backends: [https://a], tls: {cert: a, key: b, @}}]"
            }
            "pools[].health_check" => {
                "pools: [{name: web, backends: [http://a], health_check: {type: http, @}}]"
            }
            "pools[].queue" => "pools: [{name: web, backends: [http://a], queue: {@}}]",
            "pools[].breaker" => "pools: [{name: web, backends: [http://a], breaker: {@}}]",
            "pools[].retry" => "pools: [{name: web, backends: [http://a], retry: {@}}]",
            "pools[].retry.budget" => {
                "pools: [{name: web, backends: [http://a], retry: {budget: {@}}}]"
            }
            "pools[].timeouts" => "pools: [{name: web, backends: [http://a], timeouts: {@}}]",
            "rate_limit" => {
                "pools: [{name: web, backends: [http://a]}]\nrate_limit: {requests_per_second: 5, @}"
            }
            "limits.http2" => "pools: [{name: web, backends: [http://a]}]\nlimits: {http2: {@}}",
            "limits" => "pools: [{name: web, backends: [http://a]}]\nlimits: {@}",
            "access_log" => "pools: [{name: web, backends: [http://a]}]\naccess_log: {@}",
            "shutdown" => "pools: [{name: web, backends: [http://a]}]\nshutdown: {@}",
            other => panic!("no file for {other}"),
        }
    }

    /// A file for a key that cannot stand where most of its section can.
    fn around_key(section: &Section, key: &Key) -> &'static str {
        match (section.path, key.name) {
            ("pools[].backends[].refresh", _) => {
                "pools: [{name: web, backends: [{dns: http://a, refresh: {@}}]}]"
            }
            ("pools[].backends[]", "dns" | "srv" | "file") => {
                "pools: [{name: web, backends: [{@}]}]"
            }
            ("pools[].backends[]", "family" | "refresh" | "backends_max") => {
                "pools: [{name: web, backends: [{dns: https://a, @}]}]"
            }
            ("routes[]", "pools") => {
                "pools: [{name: web, backends: [http://a]}, {name: canary, backends: [http://b]}]\n\
                 routes: [{@}]"
            }
            ("routes[]", "redirect" | "respond") => {
                "pools: [{name: web, backends: [http://a]}]\nroutes: [{path: /x, @}, {pool: web}]"
            }
            ("routes[].rewrite", "regex") => {
                "pools: [{name: web, backends: [http://a]}]\nroutes: [{pool: web, rewrite: {to: /x, @}}]"
            }
            ("routes[].redirect", "to") => {
                "pools: [{name: web, backends: [http://a]}]\nroutes: [{redirect: {@}}, {path: /x, pool: web}]"
            }
            ("routes[].request_headers", "remove") => {
                "pools: [{name: web, backends: [http://a]}]\n\
                 routes: [{pool: web, request_headers: {set: {A: b}, @}}]"
            }
            ("routes[]", "scheme") => {
                "pools: [{name: web, backends: [http://a]}]\n\
                 trusted_proxies: [10.0.0.0/8]\nroutes: [{pool: web, @}]"
            }
            (path, _) => around(path),
        }
    }

    fn with(section: &Section, key: &Key, entry: &str) -> Config {
        let text = around_key(section, key).replace('@', entry);
        load(Some(text.as_bytes()), &Overrides::default())
            .unwrap_or_else(|problems| panic!("{text}\n{problems}"))
    }

    fn keys() -> impl Iterator<Item = (&'static Section, &'static Key)> {
        let sections = SCHEMA.sections().into_iter();
        sections.flat_map(|section| section.keys.iter().map(move |key| (section, key)))
    }

    #[test]
    fn writing_a_default_changes_nothing() {
        let mut written = 0;
        for (section, key) in keys() {
            let nothing = Node::map(Origin::START, Vec::new());
            if let (Presence::Default, Some(value)) =
                (key.presence, (key.default)(&nothing, &SCHEMA))
            {
                let entry = format!("{}: {value}", key.name);
                let (written_out, left_out) = (with(section, key, &entry), with(section, key, ""));
                assert_eq!(written_out, left_out, "{}: {entry}", section.path);
                written += 1;
            }
        }
        assert!(written > 30, "{written} keys with a default");
    }

    #[test]
    fn every_example_is_accepted() {
        let mut written = 0;
        for (section, key) in keys() {
            // Of another kind of probe than the one here; `tests/config` has it.
            if key.name == "service" {
                continue;
            }
            // It says something only where HTTP/2 is spoken.
            let of_pool = section.path == "pools[]" && key.name == "http2";
            let with_it = if of_pool { "protocol: auto, " } else { "" };
            let entry = format!("{with_it}{}: {}", key.name, key.example);
            if !around_key(section, key).contains(&format!("{}: ", key.name)) {
                with(section, key, &entry);
                written += 1;
            }
        }
        assert!(written > 45, "{written} keys that the files here do not have anyway");
    }

    #[test]
    fn the_manual_has_every_key() {
        let manual = manual();
        for (section, key) in keys() {
            let heading = format!("\n### `{}`\n", key.name);
            assert!(manual.contains(&heading), "{}.{} is missing", section.path, key.name);
        }
    }
}
