#!/usr/bin/env bash
# Shows the main job: embedded origins, the balancer in front of them, the admin port.
# Installs what building needs, or says the line that does.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh build
exec cargo run --locked --quiet -- demo "$@"
