//! The files in `deploy/` parse, Weir loads every configuration in them, and numbers and names that must
//! agree do agree.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; a Value's index is null where there is nothing"
)]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize as _;
use serde_yaml::Value;
use weir::config::{self, BackendAddress, Config, Override, Overrides};

/// How long after its drain deadline a worker is killed.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

#[test]
fn every_yaml_file_parses() {
    let files = yaml_files(&root().join("deploy"));
    assert!(files.len() >= 11, "looked in the wrong place: {files:?}");
    for file in files {
        assert!(documents(&file).iter().all(Value::is_mapping), "{}", file.display());
    }
}

#[test]
fn the_file_that_compose_mounts_loads() {
    compose_config();
}

#[test]
fn the_file_in_the_config_map_loads() {
    kubernetes_config();
}

#[test]
fn the_images_own_file_needs_only_backends() {
    let text = read("deploy/container/weir.yaml");
    let overrides = Overrides {
        backends: vec![Override::environment("WEIR_BACKENDS", "http://10.0.0.1:3000")],
        ..Overrides::default()
    };
    let config = config::load(Some(text.as_bytes()), &overrides).unwrap();
    assert!(
        config.admin.address.ip().is_unspecified(),
        "it must be reachable from outside the container"
    );
}

#[test]
fn composes_grace_period_is_longer_than_a_stop_takes() {
    let grace = seconds(&compose()["services"]["weir"]["stop_grace_period"]);
    assert!(grace > stop_duration(&compose_config()), "{grace:?}");
}

#[test]
fn kubernetes_grace_period_is_longer_than_a_stop_takes() {
    let deployment = kubernetes("deployment.yaml").remove(0);
    let grace = &deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
    let grace = Duration::from_secs(grace.as_u64().unwrap());
    assert!(grace > stop_duration(&kubernetes_config()), "{grace:?}");
}

#[test]
fn systemds_grace_period_is_longer_than_a_stop_takes_by_default() {
    let unit = read("deploy/systemd/weir.service");
    let grace = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    let grace = seconds(&Value::from(grace));
    assert!(grace > stop_duration(&load("pools: [{name: a, backends: ['http://10.0.0.1']}]")));
}

#[test]
fn composes_backends_are_its_services_on_their_ports() {
    let compose = compose();
    for (host, port) in backends(&compose_config()) {
        let command = &compose["services"][host.as_str()]["command"];
        let command: Vec<&str> =
            command.as_sequence().unwrap().iter().flat_map(Value::as_str).collect();
        let at = command.iter().position(|word| *word == "--port").unwrap();
        assert_eq!(command[at + 1], port.to_string(), "{host}");
    }
}

#[test]
fn kubernetes_backends_are_services_on_their_ports() {
    let services: BTreeSet<(String, u64)> = kubernetes("origins.yaml")
        .iter()
        .filter(|document| document["kind"] == "Service")
        // The Service of the StatefulSet itself has no address.
        .filter(|service| service["spec"]["clusterIP"] != "None")
        .map(|service| {
            let port = &service["spec"]["ports"][0]["port"];
            (service["metadata"]["name"].as_str().unwrap().to_owned(), port.as_u64().unwrap())
        })
        .collect();
    let backends: BTreeSet<(String, u64)> = backends(&kubernetes_config()).into_iter().collect();
    assert_eq!(backends, services);
}

#[test]
fn the_stateful_set_names_a_service_that_selects_its_pods() {
    let documents = kubernetes("origins.yaml");
    let set = documents.iter().find(|document| document["kind"] == "StatefulSet").unwrap();
    let service = documents
        .iter()
        .filter(|document| document["kind"] == "Service")
        .find(|service| service["metadata"]["name"] == set["spec"]["serviceName"])
        .unwrap();
    assert_eq!(service["spec"]["selector"], set["spec"]["template"]["metadata"]["labels"]);
    assert_eq!(service["spec"]["clusterIP"], "None");
}

#[test]
fn kubernetes_memory_limit_fits_as_many_connections_as_the_file_allows() {
    let limit = &kubernetes_container()["resources"]["limits"]["memory"];
    let mebibytes = limit.as_str().unwrap().strip_suffix("Mi").unwrap().parse::<usize>().unwrap();
    let connections = kubernetes_config().limits.connections.get();
    // The numbers of the manifest and of docs/OPERATIONS.md.
    assert!(mebibytes * 1024 >= connections * 80 + 256 * 1024, "{mebibytes} Mi for {connections}");
}

#[test]
fn setup_installs_the_pinned_toolchain_where_rustup_lacks_it() {
    let bin = std::env::temp_dir().join(format!("weir-setup-{}", std::process::id()));
    fs::create_dir_all(&bin).unwrap();
    // A fake rustup without toolchains, which prints what it should install.
    let rustup = bin.join("rustup");
    fs::write(&rustup, "#!/bin/sh\n[ \"$1\" = run ] && exit 1\necho \"asked: $*\"\n").unwrap();
    fs::set_permissions(&rustup, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let script = root().join("scripts/setup.sh");
    let ended = Command::new("sh").arg(script).arg("build").env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    fs::remove_dir_all(&bin).unwrap();
    let pinned = read("rust-toolchain.toml");
    let pinned = pinned.split('"').nth(1).unwrap();
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(
        said.contains(&format!("asked: toolchain install {pinned} --profile minimal")),
        "{said}"
    );
}

#[test]
fn systemd_restarts_it_without_limit() {
    let unit = read("deploy/systemd/weir.service");
    let (head, service) = unit.split_once("[Service]").unwrap();
    assert!(
        head.contains("\nStartLimitIntervalSec=0\n") && service.contains("\nRestart=on-failure\n")
    );
}

#[test]
fn kubernetes_probes_use_the_admin_port_of_the_config_map() {
    let config = kubernetes_config();
    let container = kubernetes_container();
    let port = |name: &str| {
        let ports = container["ports"].as_sequence().unwrap();
        let port = ports.iter().find(|port| port["name"] == name).unwrap();
        port["containerPort"].as_u64().unwrap()
    };
    assert_eq!(port("admin"), u64::from(config.admin.address.port()));
    assert_eq!(port("http"), u64::from(config.listeners.first().unwrap().address.port()));
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "admin", "{probe}");
    }
}

#[test]
fn kubernetes_mounts_the_directory_and_watches_it() {
    let container = kubernetes_container();
    let mounts = container["volumeMounts"].as_sequence().unwrap();
    let mount = mounts.iter().find(|mount| mount["name"] == "config").unwrap();
    assert_eq!(mount["mountPath"], "/etc/weir");
    assert!(mount.get("subPath").is_none(), "a mount with subPath never changes");
    assert!(container["args"].as_sequence().unwrap().contains(&Value::from("--watch")));
}

#[test]
fn the_kustomization_lists_every_manifest() {
    let kustomization = kubernetes("kustomization.yaml").remove(0);
    let listed = kustomization["resources"].as_sequence().unwrap();
    let listed: BTreeSet<&str> = listed.iter().flat_map(Value::as_str).collect();
    let files = yaml_files(&root().join("deploy/kubernetes"));
    let names = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap());
    assert_eq!(listed, names.filter(|name| *name != "kustomization.yaml").collect());
}

#[test]
fn the_socket_unit_lists_the_default_addresses() {
    let config = load("pools: [{name: a, backends: ['http://10.0.0.1']}]");
    let unit = read("deploy/systemd/weir.socket");
    let units: BTreeSet<&str> =
        unit.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    let mut addresses: Vec<String> =
        config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    addresses.push(config.admin.address.to_string());
    assert_eq!(units, addresses.iter().map(String::as_str).collect());
}

#[test]
fn every_metric_of_an_alert_exists() {
    let rules = documents(&root().join("deploy/prometheus/rules.yml")).remove(0);
    let rules = rules["groups"][0]["rules"].as_sequence().unwrap().clone();
    let files = fs::read_dir(root().join("src/metrics")).unwrap().map(|file| file.unwrap().path());
    let ours = files.filter(|file| !file.ends_with("tests.rs"));
    let ours: String = ours.map(|file| fs::read_to_string(file).unwrap()).collect();
    let mut seen = 0;
    for rule in rules {
        let expression = rule["expr"].as_str().unwrap();
        let words = expression.split(|c: char| !c.is_alphanumeric() && c != '_');
        for metric in words.filter(|word| word.starts_with("lb_")) {
            seen += 1;
            assert!(ours.contains(&format!("\"{metric}\"")), "{metric} of {:?}", rule["alert"]);
        }
    }
    assert!(seen >= 10, "only {seen} metrics");
}

#[test]
fn every_unit_and_manifest_uses_the_same_configuration_path() {
    let place = "WEIR_CONFIG=/etc/weir/weir.yaml";
    assert!(read("Dockerfile").contains(place));
    assert!(read("deploy/systemd/weir.service").contains(place));
    assert!(kubernetes("configmap.yaml")[0]["data"]["weir.yaml"].is_string());
    assert!(root().join("deploy/compose/weir.yaml").exists());
}

// ── the files ──

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            found.extend(yaml_files(&path));
        } else if matches!(extension, Some("yaml" | "yml")) {
            found.push(path);
        }
    }
    found
}

fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    let mut values = Vec::new();
    for document in documents {
        let mut value = Value::deserialize(document).unwrap();
        value.apply_merge().unwrap();
        values.push(value);
    }
    values
}

fn compose() -> Value {
    documents(&root().join("deploy/compose.yaml")).remove(0)
}

fn kubernetes(name: &str) -> Vec<Value> {
    documents(&root().join("deploy/kubernetes").join(name))
}

fn kubernetes_container() -> Value {
    let deployment = kubernetes("deployment.yaml").remove(0);
    deployment["spec"]["template"]["spec"]["containers"][0].clone()
}

// ── the configurations ──

fn load(text: &str) -> Config {
    config::load(Some(text.as_bytes()), &Overrides::default()).unwrap()
}

fn compose_config() -> Config {
    load(&read("deploy/compose/weir.yaml"))
}

fn kubernetes_config() -> Config {
    let map = kubernetes("configmap.yaml").remove(0);
    load(map["data"]["weir.yaml"].as_str().unwrap())
}

/// The names of the backends, and their ports.
fn backends(config: &Config) -> Vec<(String, u64)> {
    let backends = config.pools.iter().flat_map(|pool| &pool.backends);
    let names = backends.filter_map(|backend| match &backend.address {
        BackendAddress::Name(host, port) => Some((host.clone(), u64::from(*port))),
        BackendAddress::Socket(_) | BackendAddress::Discovered(_) => None,
    });
    let names: Vec<_> = names.collect();
    assert_eq!(names.len(), 3, "{names:?}");
    names
}

fn stop_duration(config: &Config) -> Duration {
    config.shutdown.pre_stop + config.shutdown.drain + DRAIN_GRACE
}

/// `45s`, as systemd and compose write it.
fn seconds(value: &Value) -> Duration {
    let number = value.as_str().unwrap().strip_suffix('s').unwrap();
    Duration::from_secs(number.parse().unwrap())
}
