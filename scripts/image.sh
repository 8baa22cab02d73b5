#!/usr/bin/env bash
# Builds the image of the Dockerfile with Debian's buildah, and tests it, on a machine without a
# container engine and without images. The base image is built here from a minimal Debian and this
# machine's Rust, under the name that the Dockerfile uses.
#
#   scripts/image.sh [base|build|check|clean]...       without an argument: base build check
#
#   base   a base image, unless there is one
#   build  the image; dependencies come from this machine's registry cache, nothing is pulled
#   check  the image, run by process 1 of its own namespaces: scripts/image_check.py says what of
#   clean  removes the images
#
# Needs root, buildah, debootstrap, Debian's mirror, and some 5 GB below $IMAGE_DIR (default: a
# directory for it in $TMPDIR). Takes a quarter of an hour on two processors, most of it the
# release build, so no other script calls it.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=${IMAGE_DIR:-${TMPDIR:-/tmp}/weir-image}
base=$(sed -n 's/^FROM \(.*\) AS builder$/\1/p' Dockerfile)
image=weir
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
buildah() { command buildah --root "$dir/storage" --runroot "$dir/run" "$@"; }

need() {
    [ "$(id -u)" -eq 0 ] || { echo "scripts/image.sh needs root" >&2; exit 1; }
    for command in "$@"; do
        command -v "$command" >/dev/null && continue
        echo "missing: $command; apt-get install buildah debootstrap python3" >&2
        exit 1
    done
}

make_base() {
    need buildah debootstrap
    buildah inspect --type image "$base" >/dev/null 2>&1 && return
    local root=$dir/base sysroot container
    sysroot=$(rustc --print sysroot)
    if [ ! -e "$root/usr/bin/gcc" ]; then
        mkdir -p "$dir"
        debootstrap --variant=minbase --include=gcc,g++,make,libc6-dev "${base##*-}" "$root"
    fi
    cp "$sysroot"/bin/{cargo,rustc} "$root/usr/local/bin/"
    cp -r "$sysroot/lib" "$root/usr/local/"
    mkdir -p "$root/usr/local/cargo"
    # The registry is mounted there for the build.
    printf '[net]\noffline = true\n' > "$root/usr/local/cargo/config.toml"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root" /
    buildah config --env CARGO_HOME=/usr/local/cargo \
        --env PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah commit --quiet --rm "$container" "$base"
    rm -rf "$root"
}

build() {
    need buildah
    cargo fetch --locked --quiet
    # `docker`, because the other format has no HEALTHCHECK.
    buildah bud --pull-never --layers --format docker --tag "$image" \
        --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/usr/local/cargo/registry" .
}

check() {
    need buildah python3 unshare chroot
    local container root status=0
    container=$(buildah from --pull-never "$image")
    root=$(buildah mount "$container")
    buildah inspect --type image "$image" > "$dir/image.json"
    unshare --mount --net python3 scripts/image_check.py "$root" "$dir/image.json" || status=$?
    buildah rm "$container" >/dev/null
    return "$status"
}

clean() {
    need buildah
    buildah rmi --all --force >/dev/null
    rm -rf "$dir"
}

[ $# -gt 0 ] || set -- base build check
for step in "$@"; do
    case "$step" in
        base) make_base ;;
        build) build ;;
        check) check ;;
        clean) clean ;;
        *) echo "usage: scripts/image.sh [base|build|check|clean]..." >&2; exit 2 ;;
    esac
done
