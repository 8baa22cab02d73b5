//! The configuration file: golden error messages, the examples, the manual, and arbitrary bytes.
//!
//! Each `tests/config/*.yaml` ends with the error messages that it must produce, as `#!` lines; a file
//! without such lines must load. `UPDATE=1 cargo test --no-default-features --test config` rewrites them
//! (and docs/CONFIG.md), and the diff is what is reviewed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use weir::config::{self, Config, ConfigBuilder, Override, Overrides, Problems};
use weir::runtime::self_redirects::report_self_redirects;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn load(text: &str) -> Result<Config, String> {
    let builder = ConfigBuilder::new(Some(text.as_bytes()), &Overrides::default(), Path::new(""));
    let mut builder = builder.map_err(|error| error.to_string())?;
    report_self_redirects(&mut builder);
    builder.finish().config.map_err(|error| error.to_string())
}

fn update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// A golden file without its error messages, and the messages.
fn split(golden: &str) -> (&str, String) {
    let start = golden
        .lines()
        .scan(0, |next, line| {
            let start = *next;
            *next += line.len() + 1;
            Some((start, line))
        })
        .find(|(_, line)| line.starts_with("#! "))
        .map_or(golden.len(), |(start, _)| start);
    let (text, messages) = golden.split_at(start);
    let messages: Vec<&str> =
        messages.lines().map(|line| line.strip_prefix("#! ").unwrap_or(line)).collect();
    (text, messages.join("\n"))
}

#[test]
fn each_invalid_file_produces_its_error_messages_and_each_valid_one_loads() {
    let mut wrong = Vec::new();
    for path in files("tests/config") {
        let golden = fs::read_to_string(&path).unwrap();
        let (text, expected) = split(&golden);
        let said = load(text).err().unwrap_or_default();
        if said == expected {
            continue;
        }
        if update() {
            let lines: String = said.lines().map(|line| format!("#! {line}\n")).collect();
            fs::write(&path, format!("{text}{lines}")).unwrap();
        } else {
            wrong.push(format!("{}:\n{said}\nbut expected\n{expected}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\n(UPDATE=1 rewrites them)", wrong.join("\n\n"));
}

#[test]
fn every_example_loads() {
    for path in files("conf") {
        let text = fs::read_to_string(&path).unwrap();
        if let Err(problems) = load(&text) {
            panic!("{}:\n{problems}", path.display());
        }
    }
}

/// What `weir check --show` prints means the same, and is what it prints of itself.
#[test]
fn a_file_that_is_shown_means_what_it_meant() {
    let mut shown_count = 0;
    for path in files("conf").into_iter().chain(files("tests/config")) {
        let golden = fs::read_to_string(&path).unwrap();
        let (text, _) = split(&golden);
        let Ok(mut config) = load(text) else { continue };
        let shown = show(text.as_bytes()).unwrap();
        let again = load(&shown);
        let again = again.unwrap_or_else(|said| panic!("{}:\n{said}\n{shown}", path.display()));
        let order = config::precedence(&config.routes);
        config.routes = order.iter().map(|&index| config.routes[index].clone()).collect();
        assert_eq!(again, config, "{}:\n{shown}", path.display());
        assert_eq!(show(shown.as_bytes()).unwrap(), shown, "{}", path.display());
        shown_count += 1;
    }
    assert!(shown_count > 10, "{shown_count}");
}

#[test]
fn everything_with_a_default_is_shown() {
    let shown = show(b"pools: [{name: web, backends: [http://10.0.0.1:3000]}]").unwrap();
    for line in [
        "threads: auto",
        "  - {path: /, pool: web}",
        "  address: 127.0.0.1:9090",
        "    algorithm: round_robin",
        "      - {url: http://10.0.0.1:3000, weight: 1}",
        "      interval: 10s",
        "      attempts: 3",
        "      request: 60s",
        "  connections: 20000",
        "  drain: 30s",
    ] {
        assert!(shown.lines().any(|one| one.starts_with(line)), "{line} is not in\n{shown}");
    }
}

#[test]
fn a_computed_default_is_shown_as_its_value() {
    let shown = show(
        b"listeners: [{address: 0.0.0.0:443, tls: {certificates: [{cert: a, key: b}]}}, 0.0.0.0:80]
pools:
  - name: web
    protocol: auto
    backends: [http://10.0.0.1:3000]
    health_check: {interval: 2s}
    rate_limit: {requests_per_second: 1.5}
  - {name: old, backends: [http://10.0.0.2]}
routes: [{pool: web}, {path: /old, pool: old}]
shutdown: {drain: 7s}
",
    );
    let shown = shown.unwrap();
    for (line, count) in [
        ("    http2: true", 1),
        ("    http2: false", 1),
        ("      client_auth: off", 1),
        ("      timeout: 2s", 1),
        ("      timeout: 3s", 1),
        ("      burst: 2", 1),
        ("      streams: 100", 1),
        ("    # http2: not used", 0),
        ("  tunnels: 7s", 1),
    ] {
        assert_eq!(shown.lines().filter(|one| *one == line).count(), count, "{line}\n{shown}");
    }
}

fn show(text: &[u8]) -> Result<String, Problems> {
    config::show(Some(text), &Overrides::default())
}

/// Each flag has its value where the file has it, and the rest stays.
#[test]
fn what_is_shown_with_overrides_means_what_runs_with_them() {
    let flag = |name, value: &str| Some(Override::flag(name, value));
    let scalars = Overrides {
        algorithm: flag("--algorithm", "random"),
        request_timeout: flag("--request-timeout", "7s"),
        health_interval: flag("--health-interval", "4s"),
        admin: flag("--admin", "127.0.0.1:9099"),
        ..Overrides::default()
    };
    let all = Overrides {
        listen: vec![
            Override::flag("--listen", "[::1]:81"),
            Override::flag("--listen", "[::1]:82"),
        ],
        backends: vec![Override::environment("WEIR_BACKENDS", "http://10.0.0.9:1")],
        ..scalars.clone()
    };
    let mut shown_count = 0;
    for path in files("conf").into_iter().chain(files("tests/config")) {
        let golden = fs::read_to_string(&path).unwrap();
        let (text, _) = split(&golden);
        for overrides in [&scalars, &all] {
            let Ok(mut config) = config::load(Some(text.as_bytes()), overrides) else { continue };
            let shown = config::show(Some(text.as_bytes()), overrides).unwrap();
            // Without the search for redirects to themselves: overrides have no part in it.
            let again = config::load(Some(shown.as_bytes()), &Overrides::default());
            let again = again.unwrap_or_else(|said| panic!("{}:\n{said}\n{shown}", path.display()));
            let order = config::precedence(&config.routes);
            config.routes = order.iter().map(|&index| config.routes[index].clone()).collect();
            assert_eq!(again, config, "{}:\n{shown}", path.display());
            shown_count += 1;
        }
    }
    assert!(shown_count > 10, "{shown_count}");
    let shown = config::show(None, &all).unwrap();
    assert_eq!(load(&shown).unwrap(), config::load(None, &all).unwrap(), "{shown}");
}

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)).unwrap()
}

#[test]
fn the_full_example_means_what_the_smallest_means() {
    assert_eq!(load(&example("weir.yaml")).unwrap(), load(&example("minimal.yaml")).unwrap());
}

#[test]
fn what_the_full_example_switches_off_can_be_switched_on() {
    let on: String = example("weir.yaml")
        .lines()
        .map(|line| {
            let blank = line.len() - line.trim_start().len();
            let (blank, rest) = line.split_at(blank);
            let key =
                rest.strip_prefix('#').filter(|rest| !rest.starts_with(' ') || blank.is_empty());
            let key = key.filter(|key| key.trim_start().split(' ').next().unwrap().ends_with(':'));
            format!("{blank}{}\n", key.unwrap_or(rest))
                .replace("type: tcp", "type: http")
                .replace("http://10.0.0.2", "https://10.0.0.2")
                .replace("protocol: http1", "protocol: auto")
        })
        .collect();
    let config = load(&on).unwrap();
    let limit = config.rate_limit.unwrap();
    assert_eq!(
        limit,
        load(
            &example("minimal.yaml")
                .replace("pools:", "rate_limit: {requests_per_second: 100}\npools:")
        )
        .unwrap()
        .rate_limit
        .unwrap()
    );
    assert!(config.routes[0].rate_limit.is_some(), "the limit of the route");
    assert!(config.pools[0].rate_limit.is_some(), "the limit of the pool");
}

#[test]
fn the_manual_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIG.md");
    let manual = config::manual();
    if update() {
        fs::write(&path, &manual).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == manual, "docs/CONFIG.md is stale: UPDATE=1 rewrites it");
}

fn wrong(text: Option<&str>, overrides: &Overrides) -> String {
    config::load(text.map(str::as_bytes), overrides).unwrap_err().to_string()
}

const WEB: &str = "pools: [{name: web, backends: [http://10.0.0.1:3000]}]";
const TWO: &str = "pools:
  - {name: a, backends: [http://10.0.0.1]}
  - {name: b, backends: [http://10.0.0.2], health_check: off}
routes: [{pool: a}, {path: /b, pool: b}]
";

#[test]
fn without_a_file_and_a_backend_the_message_names_both_flags() {
    assert_eq!(
        wrong(None, &Overrides::default()),
        "there is nothing to balance (help: pass a file with `-c FILE`, or a backend with \
         `--backend http://10.0.0.1:3000`)"
    );
}

#[test]
fn backends_without_a_file_make_a_pool_named_default() {
    let backends = vec![
        Override::flag("--backend", "http://10.0.0.1:3000"),
        Override::flag("--backend", "http://10.0.0.2:3000"),
    ];
    let config = config::load(None, &Overrides { backends, ..Overrides::default() }).unwrap();
    let same = "pools: [{name: default, backends: [http://10.0.0.1:3000, http://10.0.0.2:3000]}]";
    assert_eq!(config, load(same).unwrap());
}

#[test]
fn backends_replace_those_of_the_only_pool_and_nothing_else_of_it() {
    let text = "pools: [{name: web, algorithm: random, backends: [http://10.0.0.9]}]";
    let backends = vec![Override::environment("WEIR_BACKENDS", "http://10.0.0.1:3000")];
    let overrides = Overrides { backends, ..Overrides::default() };
    let config = config::load(Some(text.as_bytes()), &overrides).unwrap();
    assert_eq!(config, load(&text.replace("10.0.0.9", "10.0.0.1:3000")).unwrap());
}

#[test]
fn backends_by_flag_are_rejected_if_the_file_has_several_pools() {
    let backends = vec![Override::environment("WEIR_BACKENDS", "http://10.0.0.1:3000")];
    assert_eq!(
        wrong(Some(TWO), &Overrides { backends, ..Overrides::default() }),
        "WEIR_BACKENDS: the file has several pools, so it is unclear to which one these backends \
         belong (help: write the backends into the file)"
    );
}

#[test]
fn a_listener_by_flag_replaces_those_of_the_file() {
    let text = format!("listeners: [0.0.0.0:80, 0.0.0.0:81]\n{WEB}");
    let listen = vec![Override::flag("--listen", "127.0.0.1:8000")];
    let overrides = Overrides { listen, ..Overrides::default() };
    let config = config::load(Some(text.as_bytes()), &overrides).unwrap();
    assert_eq!(config, load(&format!("listeners: [127.0.0.1:8000]\n{WEB}")).unwrap());
}

#[test]
fn an_admin_address_by_flag_replaces_the_one_of_the_file() {
    let text = format!("admin: {{address: 127.0.0.1:1}}\n{WEB}");
    let admin = Some(Override::flag("--admin", "127.0.0.1:2"));
    let config =
        config::load(Some(text.as_bytes()), &Overrides { admin, ..Overrides::default() }).unwrap();
    assert_eq!(config.admin.address, "127.0.0.1:2".parse().unwrap());
}

#[test]
fn flags_for_pools_apply_to_every_pool_and_do_not_enable_disabled_health_checks() {
    let overrides = Overrides {
        algorithm: Some(Override::flag("--algorithm", "ip_hash")),
        request_timeout: Some(Override::flag("--request-timeout", "7s")),
        health_interval: Some(Override::flag("--health-interval", "1s")),
        ..Overrides::default()
    };
    let config = config::load(Some(TWO.as_bytes()), &overrides).unwrap();
    let same = "pools:
  - name: a
    backends: [http://10.0.0.1]
    algorithm: ip_hash
    timeouts: {request: 7s}
    health_check: {interval: 1s}
  - name: b
    backends: [http://10.0.0.2]
    algorithm: ip_hash
    timeouts: {request: 7s}
    health_check: off
routes: [{pool: a}, {path: /b, pool: b}]
";
    assert_eq!(config, load(same).unwrap());
}

#[test]
fn errors_in_flags_and_variables_name_them_all_at_once() {
    let overrides = Overrides {
        listen: vec![Override::flag("--listen", ":8080"), Override::flag("--listen", "")],
        backends: vec![Override::environment("WEIR_BACKENDS", "10.0.0.1")],
        algorithm: Some(Override::environment("WEIR_ALGORITHM", "least")),
        request_timeout: Some(Override::flag("--request-timeout", "10")),
        health_interval: Some(Override::flag("--health-interval", "1d")),
        admin: Some(Override::flag("--admin", "localhost:9090")),
    };
    assert_eq!(
        wrong(None, &overrides),
        "--listen: `:8080` is not an IP address with a port (help: for every IPv4 address write `0.0.0.0:8080`)
--listen: the value is empty (help: for example `0.0.0.0:8080`)
WEIR_BACKENDS: `10.0.0.1` is not a URL (help: write `http://10.0.0.1`)
--admin: `localhost:9090` is not an IP address with a port (help: write `127.0.0.1:9090`)
WEIR_ALGORITHM: `least` is not an algorithm (help: it can be `round_robin`, `least_conn`, `ip_hash` or `random`)
--request-timeout: the duration `10` has no unit (help: write `10s`)
--health-interval: `1d` is not a duration (help: write `24h`)"
    );
}

#[test]
fn values_of_flags_are_checked_against_the_file() {
    let text = format!("admin: {{address: 127.0.0.1:8000}}\n{WEB}");
    let listen = vec![Override::flag("--listen", "127.0.0.1:8000")];
    assert_eq!(
        wrong(Some(&text), &Overrides { listen, ..Overrides::default() }),
        "--listen: `127.0.0.1:8000` is also the address of the admin port (help: the admin port needs \
         an address of its own: change one of the two)"
    );
}

#[test]
fn an_admin_address_by_flag_must_not_be_the_default_listener() {
    let backends = vec![Override::flag("--backend", "http://10.0.0.1")];
    let admin = Some(Override::flag("--admin", "127.0.0.1:8080"));
    let said = wrong(None, &Overrides { backends, admin, ..Overrides::default() });
    assert!(said.starts_with("--admin: `0.0.0.0:8080` conflicts with"), "{said}");
}

#[test]
fn an_interval_by_flag_must_not_be_shorter_than_the_timeout_of_the_file() {
    let text = "pools: [{name: web, backends: [http://10.0.0.1], health_check: {timeout: 2s}}]";
    let health_interval = Some(Override::flag("--health-interval", "1s"));
    let said = wrong(Some(text), &Overrides { health_interval, ..Overrides::default() });
    assert!(said.starts_with("--health-interval: `timeout` (2s) is longer"), "{said}");
}

#[test]
fn a_version_is_short_and_changes_with_each_byte_and_each_given_value() {
    let listen = vec![Override::flag("--listen", "a")];
    let admin = Some(Override::flag("--admin", "a"));
    let versions = [
        config::version(None, &Overrides::default()),
        config::version(Some(b"a"), &Overrides::default()),
        config::version(Some(b"b"), &Overrides::default()),
        config::version(None, &Overrides { listen, ..Overrides::default() }),
        config::version(None, &Overrides { admin, ..Overrides::default() }),
    ];
    let distinct: std::collections::HashSet<&String> = versions.iter().collect();
    assert_eq!(distinct.len(), versions.len(), "{versions:?}");
    assert!(versions.iter().all(|version| version.len() == 12), "{versions:?}");
}

#[test]
fn a_version_stays_the_same_for_ever() {
    assert_eq!(config::version(Some(b"a"), &Overrides::default()), "c77724758a6e");
}

#[test]
fn at_most_a_thousand_problems_of_a_file_are_reported() {
    let text = format!("{WEB}\n{}", "colour: blue\n".repeat(20_000));
    let problems = config::load(Some(text.as_bytes()), &Overrides::default()).unwrap_err();
    assert_eq!(problems.iter().count(), 1001);
    assert_eq!(problems.iter().last().unwrap().to_string(), "and 19000 more problems");
}

fn numbers_of_things(listeners: usize, pools: usize, backends: usize) -> String {
    let listeners: Vec<String> =
        (0..listeners).map(|i| format!("127.0.0.1:{}", 20_000 + i)).collect();
    let pool = |index: usize| {
        let urls: Vec<String> =
            (0..backends).map(|i| format!("http://10.0.0.1:{}", 1 + i)).collect();
        format!("  - {{name: p{index}, backends: [{}]}}\n", urls.join(", "))
    };
    let routes: Vec<String> = (0..pools).map(|i| format!("{{path: /{i}, pool: p{i}}}")).collect();
    format!(
        "listeners: [{}]\nroutes: [{}]\npools:\n{}",
        listeners.join(", "),
        routes.join(", "),
        (0..pools).map(pool).collect::<String>()
    )
}

#[test]
fn the_largest_numbers_of_listeners_pools_and_backends_load() {
    load(&numbers_of_things(256, 1, 1)).unwrap();
    load(&numbers_of_things(1, 1024, 1)).unwrap();
    load(&numbers_of_things(1, 1, 1024)).unwrap();
}

#[test]
fn one_more_than_the_largest_number_is_rejected() {
    let said = load(&numbers_of_things(257, 1, 1)).unwrap_err();
    assert!(said.contains("257 listeners, but 256 are the most"), "{said}");
    let said = load(&numbers_of_things(1, 1025, 1)).unwrap_err();
    assert!(said.contains("1025 pools, but 1024 are the most"), "{said}");
    let said = load(&numbers_of_things(1, 1, 1025)).unwrap_err();
    assert!(said.contains("1025 backends, but a pool has at most 1024"), "{said}");
}

fn good_files() -> Vec<String> {
    let files = files("conf").into_iter().chain(files("tests/config"));
    files.map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Text that YAML gives a meaning to, and what stands in our files.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "\n",
            " ",
            "  ",
            "\t",
            ":",
            ": ",
            "- ",
            "? ",
            "[",
            "]",
            "{",
            "}",
            ",",
            "#",
            "&a ",
            "*a",
            "!t ",
            "!!str ",
            "|\n",
            ">\n",
            "'",
            "\"",
            "%",
            "@",
            "`",
            "---\n",
            "...\n",
            "<<: ",
            "~",
            "\r\n",
            "\u{feff}",
            "\u{85}",
            "\u{2028}",
            "\0",
            "0x1",
            ".inf",
            "1e999",
            "-1",
            "true",
            "off",
            "10s",
            "pools",
            "name",
            "backends",
            "http://",
            "[::1]",
            ":80",
            "/",
            "*.",
            "200-299",
            "99999999999999999999999",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(config::load(Some(&bytes), &Overrides::default()));
    }

    #[test]
    fn no_pieces_of_yaml_make_it_panic(pieces in prop::collection::vec(piece(), 0..40)) {
        drop(config::load(Some(pieces.concat().as_bytes()), &Overrides::default()));
    }

    #[test]
    fn no_change_to_a_good_file_makes_it_panic(
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..20, piece()), 1..6),
    ) {
        let files = good_files();
        let mut text: Vec<char> = file.get(&files).chars().collect();
        for (place, length, piece) in changes {
            let start = place.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(problems) = config::load(Some(text.as_bytes()), &Overrides::default()) {
            prop_assert!(problems.iter().count() > 0);
            one_line_each(&problems)?;
        }
    }

    #[test]
    fn no_value_of_a_flag_makes_it_panic_or_breaks_the_line(
        start in prop::sample::select(vec![
            "", "localhost:", "*:", ":", "http://", "http://a/", "http://a:", "[", "10.", "1m", "tcp://",
        ]),
        pieces in prop::collection::vec(piece(), 0..4),
    ) {
        let given = || Override::flag("--x", format!("{start}{}", pieces.concat()));
        let overrides = Overrides {
            listen: vec![given()],
            backends: vec![given(), given()],
            algorithm: Some(given()),
            request_timeout: Some(given()),
            health_interval: Some(given()),
            admin: Some(given()),
        };
        one_line_each(&config::load(None, &overrides).unwrap_err())?;
    }

    #[test]
    fn no_text_of_a_file_makes_it_panic_or_breaks_the_line(
        key in prop::sample::select(vec![
            "threads: @", "listeners: @", "listeners: [@]", "trusted_proxies: [@]", "@: 1",
            "routes: [{pool: @}]", "routes: [{host: @, path: @, pool: web}]",
            "pools: [{name: @, algorithm: @, backends: [@, @]}]",
            "pools: [{name: a, health_check: {path: @, host: @, status: @, interval: @}}]",
            "pools: [{name: a, retry: {on: [@], attempts: @}, rate_limit: {burst: @}}]",
        ]),
        start in prop::sample::select(vec!["", "/", "*.", "http://a/", "a:1", "/a*"]),
        pieces in prop::collection::vec(piece(), 0..4),
    ) {
        let typed: String =
            format!("{start}{}", pieces.concat()).chars().map(|c| format!("\\U{:08x}", u32::from(c))).collect();
        let text = key.replace('@', &format!("\"{typed}\""));
        if let Err(problems) = config::load(Some(text.as_bytes()), &Overrides::default()) {
            one_line_each(&problems)?;
        }
    }
}

fn one_line_each(problems: &Problems) -> Result<(), TestCaseError> {
    for problem in problems {
        let said = problem.to_string();
        prop_assert!(!said.contains(char::is_control), "{said:?}");
        prop_assert!(said.chars().count() < 400, "{said}");
    }
    Ok(())
}
