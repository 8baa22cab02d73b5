#!/usr/bin/env bash
# Shows the main job: embedded origins, the balancer in front of them, the admin port.
# Installs what building needs, or says the line that does. Arguments are those of `weir demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { echo "demo: $*" >&2; }

step "1 of 3: what building and the commands at the end need (scripts/setup.sh demo)"
scripts/setup.sh demo
# rustup puts cargo where a shell that is open already does not look.
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
step "2 of 3: cargo build; the first time it takes some minutes"
cargo build --locked
step "3 of 3: target/debug/weir demo $*"
exec "${CARGO_TARGET_DIR:-target}/debug/weir" demo "$@"
