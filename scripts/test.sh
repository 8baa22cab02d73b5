#!/usr/bin/env bash
# Runs every test. Installs the requirements of the build and the tests, or prints the command that does.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh test
# After an installation by rustup, cargo is not yet in the PATH of an open shell.
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
exec cargo test --locked "$@"
