#!/usr/bin/env bash
# Breaks the code on purpose, one place at a time, and checks that the simulation fails. Works on a
# copy of HEAD, prints one line for each change, and fails if one is not detected.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="$PWD/target/sabotage"
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git archive HEAD | tar -x -C "$copy"

unnoticed=0
broken() { # what, file, from, to
    cp "$copy/$2" "$copy/kept"
    python3 - "$copy/$2" "$3" "$4" <<'P'
import sys
path, sound, broken = sys.argv[1:]
text = open(path).read()
assert sound in text, f"{path} no longer has: {sound}"
open(path, "w").write(text.replace(sound, broken, 1))
P
    if said=$(cd "$copy" && cargo test --quiet --no-default-features --test simulation 2>&1); then
        echo "UNNOTICED: $1"
        unnoticed=$((unnoticed + 1))
    else
        echo "caught: $1 ($(grep -m1 -A1 'panicked at' <<<"$said" | tail -1))"
    fi
    mv "$copy/kept" "$copy/$2"
}

broken "the tried set is ignored" src/runtime/pool.rs \
    "let fresh = healthy.without(tried);" "let fresh = healthy;"
broken "a lease leaks" src/exchange/mod.rs \
    "if let Some(lease) = self.lease.take() {" \
    "if let Some(lease) = self.lease.take().map(std::mem::ManuallyDrop::new) {"
broken "a POST is retried after a connection existed" src/policy/retry.rs "facts.idempotent" "true"
broken "an unhealthy backend is picked" src/runtime/pool.rs \
    "member.backend.is_healthy().then_some(index)" "Some(index)"
exit "$unnoticed"
