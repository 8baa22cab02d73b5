# Weir and its shared libraries only: no shell, no package manager, no root.
#
#   docker build -t weir .
#   docker run -v ./weir:/etc/weir:ro -p 8080:8080 weir            # a directory with weir.yaml in it
#   docker run -e WEIR_BACKENDS=http://10.0.0.1:3000 -p 8080:8080 weir
#
# docs/OPERATIONS.md, "Container", says what to mount. scripts/image.sh builds and tests the image
# on a machine with buildah and without a container engine.

FROM rust:1.95-bookworm AS builder
# zlib-ng is built from source.
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /weir

# The dependencies take minutes to build and rarely change, so they have their own layer: they are built
# once without Weir's code.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin weir

# Cargo compares file times, and a checkout may be older than the layer above.
COPY src src
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bin weir

# /image becomes the root of the image. libc resolves names by its built-in `files` and `dns`; without
# nsswitch.conf it would use DNS before /etc/hosts.
COPY deploy/container/weir.yaml LICENSE ./
# The profile keeps function names in the binary, for backtraces of panics.
RUN install -D target/release/weir /image/usr/bin/weir \
    && cp -L --parents $(ldd target/release/weir | grep -o '/[^ ]*') /image \
    && install -D -m 644 weir.yaml /image/etc/weir/weir.yaml \
    && install -D -m 644 LICENSE /image/usr/share/doc/weir/LICENSE \
    && echo 'weir:x:65532:65532:Weir:/:/usr/sbin/nologin' > /image/etc/passwd \
    && echo 'weir:x:65532:' > /image/etc/group \
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
    && install -d -m 700 /run-of-weir/weir

FROM scratch
COPY --from=builder /image/ /
# The directory of the control socket, the only one that Weir writes to.
COPY --from=builder --chown=65532:65532 /run-of-weir/ /run/
ENV PATH=/usr/bin \
    WEIR_CONFIG=/etc/weir/weir.yaml \
    WEIR_CONTROL=/run/weir/control.sock
# By number, so that Kubernetes can verify that it is not root.
USER 65532:65532
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# Succeeds only while a worker serves; a start that waits for slow health checks is not a failure.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["/usr/bin/weir", "status"]
ENTRYPOINT ["/usr/bin/weir"]
CMD ["run"]
