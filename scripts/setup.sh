#!/bin/sh
# Installs the requirements of build and tests on Debian: packages, and the Rust toolchain of
# rust-toolchain.toml, if rustup is installed.
#
#   scripts/setup.sh build    a C compiler, cmake and Rust, for `cargo build`
#   scripts/setup.sh demo     and curl, for scripts/demo.sh
#   scripts/setup.sh test     and the requirements of `cargo test`
#   scripts/setup.sh e2e      and the servers and clients of scripts/e2e.py and scripts/compare.py;
#                             Python's and Node's packages go below target/
#   scripts/setup.sh resilience   what scripts/resilience.py compares Weir with: haproxy, nginx, and Envoy
#                             below target/
#
# Without an argument: e2e. If nothing is missing, it does nothing. No service is left running: the
# tests start their own servers with their own configuration.
set -eu

usage() {
    echo "usage: scripts/setup.sh [build|demo|test|e2e|resilience]" >&2
    exit 2
}

[ $# -le 1 ] || usage
# Without ca-certificates neither cargo nor rustup can fetch anything.
build="gcc libc6-dev make cmake pkg-config ca-certificates"
test="$build procps curl"
e2e="$test python3 python3-venv nodejs npm nginx-light wrk prometheus openssl nghttp2-client chromium haproxy \
    slowhttptest"
resilience="$build python3 python3-venv nginx-light haproxy"
case "${1:-e2e}" in
    build) wanted=$build ;;
    demo) wanted="$build curl" ;;
    test) wanted=$test ;;
    e2e) wanted=$e2e ;;
    resilience) wanted=$resilience ;;
    *) usage ;;
esac

# The command whose presence shows that a package is installed, from whatever source.
command_of() {
    case "$1" in
        nodejs) echo node ;;
        nginx-light) echo nginx ;;
        procps) echo ps ;;
        nghttp2-client) echo h2load ;;
        *) echo "$1" ;;
    esac
}

is_there() {
    case "$1" in
        libc6-dev) [ -e /usr/include/stdio.h ] ;;
        ca-certificates) [ -e /etc/ssl/certs/ca-certificates.crt ] ;;
        python3-venv) python3 -c "import ensurepip, venv" 2>/dev/null ;;
        # The package has the server and promtool; a half of it is none.
        prometheus) command -v prometheus >/dev/null && command -v promtool >/dev/null ;;
        *) command -v "$(command_of "$1")" >/dev/null ;;
    esac
}

# Some servers are in directories that are only in root's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing=""
for package in $wanted; do
    is_there "$package" || missing="$missing $package"
done

# Clients that Debian does not package in the required version; they are installed below target/ only.
add_clients() {
    [ "$wanted" = "$e2e" ] || return 0
    here=$(cd "$(dirname "$0")" && pwd)
    clients=$here/../target/e2e-clients
    stamp=$clients/requirements.txt
    if ! cmp -s "$here/e2e/requirements.txt" "$stamp"; then
        python3 -m venv --clear "$clients"
        "$clients/bin/pip" install --quiet --disable-pip-version-check -r "$here/e2e/requirements.txt"
        npm install --silent --no-audit --no-fund --prefix "$clients" ws@8
        cp "$here/e2e/requirements.txt" "$stamp"
    fi
}

# Envoy, and a faster event loop for the clients and backends of the comparison.
add_peers() {
    [ "$wanted" = "$resilience" ] || return 0
    here=$(cd "$(dirname "$0")" && pwd)
    peers=$here/../target/resilience
    stamp=$peers/requirements.txt
    if ! cmp -s "$here/resilience/requirements.txt" "$stamp"; then
        python3 -m venv --clear "$peers"
        "$peers/bin/pip" install --quiet --disable-pip-version-check -r "$here/resilience/requirements.txt"
        cp "$here/resilience/requirements.txt" "$stamp"
    fi
}

# The Rust version of rust-toolchain.toml. rustup installs it here, even with RUSTUP_AUTO_INSTALL=0:
# otherwise cargo would fail with an error that does not say what to do.
add_rust() {
    root=$(cd "$(dirname "$0")/.." && pwd)
    wanted_rust=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    if command -v rustup >/dev/null; then
        rustup run "$wanted_rust" cargo --version >/dev/null 2>&1 && return 0
        line="rustup toolchain install $wanted_rust --profile minimal --component rustfmt --component clippy"
        echo "installing Rust $wanted_rust: $line"
        $line && return 0
        echo "Rust $wanted_rust could not be installed, see the error above. Fix the cause, and run:" >&2
        echo "  $line" >&2
        return 1
    fi
    if command -v cargo >/dev/null; then
        has=$(cargo --version | cut -d' ' -f2)
        [ "$(printf '%s\n' "$wanted_rust" "$has" | sort -V | head -n 1)" = "$wanted_rust" ] && return 0
        echo "cargo $has is older than $wanted_rust, which Weir needs. With rustup:" >&2
    else
        echo "missing: Rust $wanted_rust. With rustup:" >&2
    fi
    # Debian has it since 13. `apt-cache show` also finds what other packages only mention.
    if apt-cache policy rustup 2>/dev/null | grep -q "Candidate: [0-9]"; then
        echo "  apt-get install -y rustup ca-certificates && rustup toolchain install $wanted_rust --profile minimal" >&2
    else
        echo "  apt-get install -y curl ca-certificates && curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |" >&2
        echo "    sh -s -- -y --default-toolchain $wanted_rust --profile minimal" >&2
    fi
    echo "then run this again" >&2
    return 1
}

if [ -z "$missing" ]; then
    add_rust
    add_clients
    add_peers
    echo "already installed:" $wanted
    exit 0
fi

echo "missing:$missing; installing"
install="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "this needs root; run as root:" >&2
    echo "  apt-get update && $install" >&2
    exit 1
fi

# A package's maintainer script asks policy-rc.d whether it may start its service; 101 means no. An
# existing policy-rc.d belongs to the administrator and is not changed; RUNLEVEL=1 has the same effect
# for scripts that do not use it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$as_root rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi

$as_root apt-get update
$as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive $install

still=""
for package in $missing; do
    is_there "$package" || still="$still $package"
done
if [ -n "$still" ]; then
    echo "installed, but still not found:$still" >&2
    exit 1
fi
add_rust
add_clients
add_peers
echo "installed:$missing"
