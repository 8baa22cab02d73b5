//! The file: golden complaints, the examples, the manual, and whatever bytes may come.
//!
//! Each `tests/config/*.yaml` ends with the complaints that it must get, as `#!` lines; one without
//! such lines must load. `UPDATE=1 cargo test --no-default-features --test config` rewrites them
//! (and docs/CONFIG.md), and the diff is what is reviewed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use weir::config::{self, Config, Override, Overrides};

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
    config::load(Some(text.as_bytes()), &Overrides::default()).map_err(|error| error.to_string())
}

fn update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// A golden file without its complaints, and the complaints.
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
    let (text, complaints) = golden.split_at(start);
    let complaints: Vec<&str> =
        complaints.lines().map(|line| line.strip_prefix("#! ").unwrap_or(line)).collect();
    (text, complaints.join("\n"))
}

#[test]
fn each_wrong_file_gets_its_complaints_and_each_right_one_none() {
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
            format!("{blank}{}\n", key.unwrap_or(rest)).replace("type: tcp", "type: http")
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
