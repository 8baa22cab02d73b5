#!/usr/bin/env bash
# Passes every test. Installs what building and testing need, or says the line that does.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh test
exec cargo test --locked "$@"
