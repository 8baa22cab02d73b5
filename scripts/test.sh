#!/usr/bin/env bash
# Passes every test. Installs what building and testing need, or says the line that does.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh test
# rustup puts cargo where a shell that is open already does not look.
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
exec cargo test --locked "$@"
