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

    scripts/compare.py --weir … --plain … --instructions 5000

counts instead what runs in user space, by valgrind: the same within a tenth of a percent whatever
else the machine does, so that a change of one percent can be seen. What is counted lies in
target/callgrind for callgrind_annotate. `--client tls`, `h2` and `h2-tls` say what Weir costs when
its clients come so; the plain proxy speaks HTTP/1.1 in clear alone.

    git worktree add ../before HEAD~1 && (cd ../before && cargo build --release)
    scripts/compare.py --weir target/release/weir --against ../before/target/release/weir

compares two builds of Weir side by side in one run, with any of the options above. The ratio that is
printed is that of `--weir` to `--against`: 1.02 means that the change costs 2 %. Of CPU time, differences
below 3 % are noise; with `--instructions 5000`, those below 0.5 %.
"""

import argparse
import glob
import os
import re
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
from e2e.certs import Authority  # noqa: E402
from e2e.servers import nginx, tool  # noqa: E402
from e2e.world import Failed, World, children, expect, get  # noqa: E402

BACKENDS = 3
CALLGRIND = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "target", "callgrind"
)
# What a client speaks: how Weir listens, how h2load is told so, and the scheme.
CLIENTS = {
    "h1": ("", ["--h1"], "http"),
    "tls": (", {tls}", ["--h1"], "https"),
    "h2": (", http2: true", [], "http"),
    "h2-tls": (", {tls}", [], "https"),
}
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
listeners: [{listener}]
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


def callgrind(world, name, options):
    """What comes before a command so that its instructions can be counted."""
    if not options.instructions:
        return []
    os.makedirs(CALLGRIND, exist_ok=True)
    for file in os.listdir(CALLGRIND):
        if file.startswith(f"{name}."):
            os.remove(os.path.join(CALLGRIND, file))
    out = f"--callgrind-out-file={CALLGRIND}/{name}.%p"
    count = ["--tool=callgrind", "--instr-atstart=no", "--trace-children=yes", "--separate-threads=yes"]
    # Else a block that is copied by one instruction would count as one for each of its bytes.
    plainly = "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=0x7fffffff"
    return ["env", plainly, tool("valgrind"), "-q", *count, out, pipes(world)]


def pipes(world):
    """Where callgrind_control finds what runs under valgrind."""
    return f"--vgdb-prefix={world.path('vgdb')}"


def start_plain(world, backend, options):
    listen = f"{world.address()}:8080"
    command = [os.path.abspath(options.plain), listen, backend, str(options.threads)]
    process = world.run("plain", callgrind(world, "plain", options) + command)
    world.until_serving(process, listen, seconds=60)
    return process, f"http://{listen}/"


def start_weir(world, backends, options, name="weir"):
    host = world.address()
    listen, admin = f"{host}:8080", f"{host}:9090"
    more, _, scheme = CLIENTS[options.client]
    if scheme == "https":
        cert, key = Authority(world, f"ca-{name}").issue(f"site-{name}", [host])
        more = more.format(tls=f"tls: {{certificates: [{{cert: {cert}, key: {key}}}]}}")
    text = WEIR.format(
        listener=f'{{address: "{listen}"{more}}}',
        admin=admin,
        threads=options.threads,
        backends=", ".join(f"http://{backend}" for backend in backends),
    )
    binary = os.path.abspath(getattr(options, name))
    command = [binary, "run", "-c", world.write(f"{name}.yaml", text)]
    process = world.run(
        name,
        callgrind(world, name, options) + command,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": world.directory, "WEIR_CONTROL": world.path(f"{name}.sock")},
    )
    world.until_serving(process, admin, "/readyz", seconds=60)
    return process, f"{scheme}://{listen}/"


def wrk(url, connections, seconds):
    """One run of wrk; how many requests were answered. Any failure makes the run worthless."""
    command = [tool("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
    found = re.search(r"(\d+) requests in ", done.stdout)
    expect(done.returncode == 0 and found, f"wrk: {done.stdout}{done.stderr}")
    bad = re.search(r"Socket errors:.*|Non-2xx.*", done.stdout)
    expect(not bad, f"requests failed at {url}: {bad and bad[0]}")
    return int(found[1])


def h2load(url, options, *much):
    """The same of h2load, which speaks HTTP/2 as well, and asks a given number of times."""
    connections = ["-t1", f"-c{options.connections}", "-m1"]
    command = [tool("h2load"), *connections, *CLIENTS[options.client][1], *much, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    expect(done.returncode == 0 and found, f"h2load: {done.stdout}{done.stderr}")
    expect(found[2] == found[3] == "0", f"requests failed at {url}: {found[0]}")
    return int(found[1])


def load(url, options, seconds):
    if options.client == "h1":
        return wrk(url, options.connections, seconds)
    return h2load(url, options, "-D", str(seconds))


def measure(name, process, url, options):
    """CPU microseconds per request of one run."""
    before = cpu_us(process.pid)
    requests = load(url, options, options.seconds)
    cost = (cpu_us(process.pid) - before) / requests
    print(f"  {name:7} {cost:7.2f} µs/request  {requests / options.seconds:8.0f} requests/s", flush=True)
    return cost


def control(world, pid, *what):
    command = [tool("callgrind_control"), pipes(world), *what, str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    expect(done.returncode == 0, f"callgrind_control {what}: {done.stdout}{done.stderr}")


def count(world, name, process, url, options):
    """Instructions per request in user space."""
    pid = children(process.pid)[-1]  # of Weir, the worker
    h2load(url, options, "-n", "1000")
    control(world, pid, "-i", "on")
    requests = h2load(url, options, "-n", str(options.instructions))
    control(world, pid, "-i", "off")
    control(world, pid, f"--dump={name}")
    spent = 0
    for file in glob.glob(f"{CALLGRIND}/{name}.*"):
        with open(file, encoding="utf-8") as dump:
            text = dump.read()
        # Probes and checkpoints cost the same whatever the load; under valgrind, that is slow.
        if "weir::worker::conduct" not in text:
            spent += sum(int(total) for total in re.findall(r"^totals: (\d+)", text, re.M))
    expect(spent, f"{name}: nothing was counted")
    return spent / requests


def compare(world, options):
    backends = start_origin(world)
    sides = {}
    if options.plain:
        sides["plain"] = start_plain(world, backends[0], options)
    if options.against:
        sides["against"] = start_weir(world, backends, options, "against")
    if options.weir:
        sides["weir"] = start_weir(world, backends, options)
    for name, (_, url) in sides.items():
        if url.startswith("http:"):
            answer = get(url.split("/")[2], "/")
            expect(answer.body == b"x" * 64, f"{name} does not pass the origin's answer on")
    if options.instructions:
        costs = {name: [count(world, name, *side, options)] for name, side in sides.items()}
        unit = "instructions/request"
    else:
        costs, unit = by_pairs(sides, options), "µs/request"
    for name, runs in costs.items():
        print(f"median of {name}: {statistics.median(runs):.2f} {unit}")
    for other in [name for name in costs if name != "weir" and "weir" in costs]:
        ratios = [weir / base for base, weir in zip(costs[other], costs["weir"])]
        print(f"weir / {other} by pair: " + ", ".join(f"{ratio:.3f}" for ratio in ratios))
        print(f"median of the ratios: {statistics.median(ratios):.3f}")


def by_pairs(sides, options):
    """What each side costs in each round."""
    for _, url in sides.values():
        load(url, options, 1)
    costs = {name: [] for name in sides}
    for number in range(1, options.rounds + 1):
        print(f"round {number}")
        for name, (process, url) in sides.items():
            costs[name].append(measure(name, process, url, options))
    return costs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weir", metavar="PATH", help="the weir binary (a release build)")
    parser.add_argument("--plain", metavar="PATH", help="the plain_proxy binary (a release build)")
    parser.add_argument("--against", metavar="PATH", help="another weir binary, compared with --weir")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="of each run")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of each proxy")
    parser.add_argument("--client", choices=CLIENTS, default="h1", help="what clients speak")
    parser.add_argument(
        "--instructions", type=int, metavar="REQUESTS", help="count instructions in place of time"
    )
    options = parser.parse_args()
    if not (options.weir or options.plain):
        parser.error("--weir and --plain, or one of them to measure it alone")
    if options.against and not options.weir:
        parser.error("--against is what --weir is compared with")
    if options.plain and options.client != "h1":
        parser.error("the plain proxy speaks HTTP/1.1 in clear alone")
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
