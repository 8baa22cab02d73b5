#!/usr/bin/env bash
# Runs test servers, the load balancer in front of them, and the admin port. Installs the build
# requirements, or prints the command that does. Arguments are those of `weir demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { echo "demo: $*" >&2; }

step "1 of 3: build requirements and curl (scripts/setup.sh demo)"
scripts/setup.sh demo
# After an installation by rustup, cargo is not yet in the PATH of an open shell.
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
step "2 of 3: cargo build; the first build takes some minutes"
cargo build --locked
step "3 of 3: target/debug/weir demo $*"
exec "${CARGO_TARGET_DIR:-target}/debug/weir" demo "$@"
