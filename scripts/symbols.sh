#!/usr/bin/env bash
# Builds the release binary, and a separate file with its debug information: source lines for gdb,
# perf and addr2line. The binary refers to that file, but does not need it.
#
#   scripts/symbols.sh            target/release/weir and target/release/weir.debug
set -euo pipefail
cd "$(dirname "$0")/.."
command -v objcopy >/dev/null || {
    echo "missing: objcopy; apt-get install binutils" >&2
    exit 1
}
CARGO_PROFILE_RELEASE_STRIP=none cargo build --release --locked
cd "${CARGO_TARGET_DIR:-target}/release"
objcopy --only-keep-debug weir weir.debug
objcopy --strip-debug --add-gnu-debuglink=weir.debug weir weir.small
mv weir.small weir
ls -l weir weir.debug
