//! What the fuzzer has found worth keeping, replayed (docs/TESTING.md, "Fuzzing").

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::targets::TARGETS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

#[test]
fn what_the_fuzzer_has_kept_breaks_nothing() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let kept = files(&root().join("fuzz/corpus").join(name));
        assert!(!kept.is_empty(), "no corpus of {name}");
        for file in kept {
            let data = fs::read(&file).unwrap();
            if catch_unwind(|| target(&data)).is_err() {
                broken.push(file);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn every_target_is_built_and_replayed() {
    // That one needs Pingora, and is replayed by `tests/behind.rs`.
    let names = TARGETS.iter().map(|(name, _)| *name).chain(["behind"]);
    let named: Vec<String> = names.map(|name| format!("{name}.rs")).collect();
    let mut built: Vec<String> = files(&root().join("fuzz/fuzz_targets"))
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    built.sort();
    let mut sorted = named;
    sorted.sort();
    assert_eq!(built, sorted);
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    assert!(built.iter().all(|file| manifest.contains(&format!("\"fuzz_targets/{file}\""))));
}
