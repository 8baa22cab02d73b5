#!/usr/bin/env python3
"""Backends fail: what do clients notice? Weir, HAProxy, Envoy and nginx on the same faults.

    scripts/setup.sh resilience                                     once: the proxies, below target/ too
    scripts/resilience.py --weir target/release/weir                everything, in less than half an hour
    scripts/resilience.py --weir … --rows R1,R2 --proxies weir,haproxy
    scripts/resilience.py --weir … --weir-old ../before/target/release/weir --proxies weir,weir-old
    scripts/resilience.py --list

A run is one row of the table with one proxy: five backends of 40 places and 20 ms, 400 requests per second at
fixed moments (an open loop), 30 % of them POST, 8 seconds of fault. Latency counts from the moment at which a request
was to be sent. The backends count what they receive, by the number of the request. docs/RESILIENCE.md says
what each row and each figure means.

Proxies are named `weir`, `haproxy`, `envoy`, `nginx`, each with `-lc` (least connections) or `-rr` (round robin) behind
it; without it the one that is usual, and both for `weir`. Weir has one configuration for all rows, with further
keys if the build knows them; `--defaults` leaves those out.

It ends by itself, and ends all that it has started. It exits 1 if a POST came twice through Weir, or if the harness itself was too
slow to be believed.
"""

import argparse
import json
import os
import sys
import time

sys.dont_write_bytecode = True
# Envoy and uvloop are in the Python that scripts/setup.sh has put below target/.
HOME = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "target", "resilience"))
PYTHON = os.path.join(HOME, "bin", "python")
if __name__ == "__main__" and os.access(PYTHON, os.X_OK) and os.path.realpath(sys.prefix) != HOME:
    os.execv(PYTHON, [PYTHON, *sys.argv])
from e2e.world import Failed, World  # noqa: E402
from resilience import proxies, table  # noqa: E402
from resilience.backend import loop_policy  # noqa: E402
from resilience.figures import misses  # noqa: E402
from resilience.rows import BY_NAME, ROWS  # noqa: E402
from resilience.runs import Runs  # noqa: E402

# Clients that are later than this (p99) do not measure the proxy.
LATE_MS = 5
# Such a run is repeated once, in this many seconds from the start.
AGAIN_UNTIL = 20 * 60


def say(row, column, found):
    """A line as soon as a run is over."""
    shown = " ".join(f"{table.NAMES[name]}={table.cell(name, found)}" for name in row.shows)
    missed = ", ".join(misses(row, found))
    late = f"  THE CLIENTS WERE LATE: {found['late_ms']} ms" if found["late_ms"] > LATE_MS else ""
    print(f"{row.name:5} {column:12} {shown}  {f'(not reached: {missed})' if missed else ''}{late}", flush=True)


def faults_of_the_run(all_figures):
    """Why the run as a whole is to be rejected."""
    wrong = []
    for (name, column), found in all_figures.items():
        if found["late_ms"] > LATE_MS:
            wrong.append(f"{name} {column}: the clients were {found['late_ms']} ms late (p99); measure again on a quiet machine")
        if found["unfinished"]:
            wrong.append(f"{name} {column}: nothing became of {found['unfinished']} requests")
        if column.startswith("weir") and found["posts_twice"]:
            wrong.append(f"{name} {column}: {found['posts_twice']} POSTs arrived more than once")
    return wrong


def compare(world, options, rows, columns):
    weirs = {}
    for name, binary in (("weir", options.weir), ("weir-old", options.weir_old)):
        if binary and any(column[:-3] == name for column in columns):
            path = os.path.abspath(binary)
            weirs[name] = (path, [] if options.defaults else proxies.weir_knows(world, path))
    versions = proxies.versions(columns, weirs)
    started = time.monotonic()
    for name, version in versions.items():
        print(f"{name}: {version}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}", flush=True)
    runs = Runs(world, weirs)
    all_figures = {}
    try:
        for row in rows:
            for column in columns:
                found = runs.measure(row, column)
                if found["late_ms"] > LATE_MS and time.monotonic() - started < AGAIN_UNTIL:
                    say(row, column, found)
                    found = runs.measure(row, column)
                all_figures[row.name, column] = found
                say(row, column, found)
    finally:
        runs.close()
    for row in rows:
        print(f"\n{row.name}: {row.title}\n\n{table.full(row, columns, all_figures)}")
    print(f"\n{table.short(rows, columns, all_figures)}")
    print(f"\n{len(all_figures)} runs in {(time.monotonic() - started) / 60:.1f} minutes")
    if options.json:
        runs_as_list = [{"row": name, "proxy": column, **found} for (name, column), found in all_figures.items()]
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"versions": versions, "runs": runs_as_list}, file, indent=1)
    return faults_of_the_run(all_figures)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weir", metavar="PATH", help="the weir binary (a release build)")
    parser.add_argument("--weir-old", metavar="PATH", help="another weir binary, measured in the same run")
    parser.add_argument("--rows", default="", metavar="R1,R2", help="only these rows")
    parser.add_argument("--proxies", default="", metavar="weir,haproxy", help="only these proxies")
    parser.add_argument("--defaults", action="store_true", help="Weir without its further keys")
    parser.add_argument("--json", metavar="FILE", help="every figure, for programs")
    parser.add_argument("--list", action="store_true", help="the rows")
    options = parser.parse_args()
    if options.list:
        for row in ROWS:
            print(f"{row.name:5} {row.title}")
        return 0
    names = [name for name in options.rows.split(",") if name]
    if unknown := [name for name in names if name not in BY_NAME]:
        parser.error(f"no such row: {', '.join(unknown)} (see --list)")
    rows = [BY_NAME[name] for name in names] or ROWS
    try:
        columns = proxies.columns([name for name in options.proxies.split(",") if name], bool(options.weir_old))
    except Failed as failed:
        parser.error(str(failed))
    for name, binary in (("weir", options.weir), ("weir-old", options.weir_old)):
        if any(column[:-3] == name for column in columns) and not (binary and os.access(binary, os.X_OK)):
            parser.error(f"--{name} PATH: a weir binary (cargo build --release makes target/release/weir)")
    loop_policy()
    world = World()
    try:
        wrong = compare(world, options, rows, columns)
    except Failed as failed:
        wrong = [str(failed)]
    finally:
        world.close()
    for line in wrong:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
