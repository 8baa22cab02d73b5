#!/usr/bin/env python3
"""What a request costs in Weir, beside the plainest Pingora proxy: CPU time, pair by pair.

    export CARGO_TARGET_DIR=target
    cargo build --release
    cargo build --release --manifest-path benches/plain_proxy/Cargo.toml
    scripts/compare.py --weir target/release/weir --plain target/release/plain_proxy

Both run all the time, in front of the same nginx, and are loaded in turn: plain, weir, plain,
weir … What is compared is the CPU time of each process tree (utime + stime) divided by the
requests it served meanwhile. Unlike requests per second it hardly depends on what else the
machine does, so two shared cores are enough; compare the ratios of the pairs, not the numbers of
two machines. Weir has everything on: three backends, probes, retries, rate limit, access log.
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
from e2e.servers import nginx, tool  # noqa: E402
from e2e.world import Failed, World, children, expect, get  # noqa: E402

BACKENDS = 3
TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")

NGINX = """
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    server {{
        {listen}
        default_type text/plain;
        location / {{ return 200 "{body}"; }}
    }}
"""

WEIR = """
listeners: ["{listen}"]
admin: {{address: "{admin}"}}
threads: {threads}
pools:
  - name: web
    algorithm: least_conn
    backends: [{backends}]
    health_check: {{type: http, path: /health, interval: 1s, timeout: 500ms}}
    retry: {{attempts: 3, backoff: 50ms, on: [connect, reset, timeout, 502, 503, 504]}}
rate_limit: {{requests_per_second: 1000000, burst: 1000000}}
access_log: {{format: json, target: stdout}}
"""


def cpu_us(pid):
    """CPU time that a process tree has used, in microseconds."""
    ticks = 0
    for member in children(pid):
        with open(f"/proc/{member}/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rpartition(") ")[2].split()
        # utime and stime, and those of children that have ended.
        ticks += sum(int(field) for field in fields[11:15])
    return ticks * TICK_US


def start_origin(world):
    """nginx, as fast as it gets; the addresses it listens on."""
    addresses = [f"{world.address()}:3000" for _ in range(BACKENDS)]
    listen = " ".join(f"listen {address};" for address in addresses)
    process = nginx(world, "nginx", NGINX.format(listen=listen, body="x" * 64))
    for address in addresses:
        world.until_serving(process, address)
    return addresses


def start_plain(world, binary, backend, threads):
    listen = f"{world.address()}:8080"
    process = world.run("plain", [binary, listen, backend, str(threads)])
    world.until_serving(process, listen)
    return process, listen


def start_weir(world, binary, backends, threads):
    host = world.address()
    listen, admin = f"{host}:8080", f"{host}:9090"
    urls = ", ".join(f"http://{backend}" for backend in backends)
    text = WEIR.format(listen=listen, admin=admin, threads=threads, backends=urls)
    process = world.run(
        "weir",
        [binary, "run", "-c", world.write("weir.yaml", text)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": world.directory, "XDG_RUNTIME_DIR": world.directory},
    )
    world.until_serving(process, admin, "/readyz")
    return process, listen


def load(address, connections, seconds):
    """One run of wrk; how many requests were answered. Any failure makes the run worthless."""
    command = [tool("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", f"http://{address}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
    found = re.search(r"(\d+) requests in ", done.stdout)
    expect(done.returncode == 0 and found, f"wrk: {done.stdout}{done.stderr}")
    bad = re.search(r"Socket errors:.*|Non-2xx.*", done.stdout)
    expect(not bad, f"requests failed at {address}: {bad and bad[0]}")
    return int(found[1])


def measure(name, process, address, options):
    """CPU microseconds per request of one run."""
    before = cpu_us(process.pid)
    requests = load(address, options.connections, options.seconds)
    cost = (cpu_us(process.pid) - before) / requests
    print(f"  {name:5} {cost:7.2f} µs/request  {requests / options.seconds:8.0f} requests/s", flush=True)
    return cost


def compare(world, options):
    backends = start_origin(world)
    sides = {}
    if options.plain:
        sides["plain"] = start_plain(
            world, os.path.abspath(options.plain), backends[0], options.threads
        )
    if options.weir:
        sides["weir"] = start_weir(world, os.path.abspath(options.weir), backends, options.threads)
    for name, (_, address) in sides.items():
        expect(get(address, "/").body == b"x" * 64, f"{name} does not pass the origin's answer on")
        load(address, options.connections, 1)

    costs = {name: [] for name in sides}
    for number in range(1, options.rounds + 1):
        print(f"round {number}")
        for name, (process, address) in sides.items():
            costs[name].append(measure(name, process, address, options))
    for name, runs in costs.items():
        print(f"median of {name}: {statistics.median(runs):.2f} µs/request")
    if len(costs) == 2:
        ratios = [weir / plain for plain, weir in zip(costs["plain"], costs["weir"])]
        print("weir / plain by pair: " + ", ".join(f"{ratio:.3f}" for ratio in ratios))
        print(f"median of the ratios: {statistics.median(ratios):.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weir", metavar="PATH", help="the weir binary (a release build)")
    parser.add_argument("--plain", metavar="PATH", help="the plain_proxy binary (a release build)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="of each run")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of each proxy")
    options = parser.parse_args()
    if not (options.weir or options.plain):
        parser.error("--weir and --plain, or one of them to measure it alone")
    # A run that is told to end still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    world = World()
    try:
        compare(world, options)
    except Failed as failed:
        print(f"failed: {failed}", file=sys.stderr)
        return 1
    finally:
        world.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
