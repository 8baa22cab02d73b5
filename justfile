# One-liners only: anything with an `if` belongs in a Rust test.

# Must pass before a push
check:
    cargo fmt --check && cargo clippy --all-targets -- -D warnings && cargo test

# The pure core and the rules of tests/tidy.rs, in seconds: run on save
core:
    cargo test --no-default-features

# Imports, file lengths, and whether the documents match the code
tidy:
    cargo test --no-default-features --test tidy

# Many seeds of the simulation; SEED=17 replays one
sim n="2000":
    SEEDS={{n}} cargo test --release --no-default-features --test simulation

# Every interleaving of the lock-free parts
loom:
    RUSTFLAGS="--cfg loom" cargo test --release --no-default-features --test loom

# A minute of one target: docs/TESTING.md
fuzz t="request" s="60":
    cargo fuzz run --sanitizer none {{t}} -- -max_total_time={{s}} -max_len=2048

bench:
    cargo bench --manifest-path benches/Cargo.toml

# A minute of reloads and upgrades under keep-alive clients: docs/TESTING.md
soak weir="target/debug/weir" minutes="1":
    scripts/soak.py --weir {{weir}} --minutes {{minutes}} --reloads 6 --upgrades 1 --requests 20000

# Rewrite the expected error messages, and show what changed
golden:
    UPDATE=1 cargo test --test config && git diff --stat tests/config

# Licences, advisories, sources
deny:
    cargo deny check

run:
    cargo run -- run --config conf/minimal.yaml

# As root, a quarter of an hour: docs/TESTING.md
image:
    scripts/image.sh
