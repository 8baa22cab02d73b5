#!/usr/bin/env python3
"""End to end: a weir binary in front of real origins, watched by the tools of production.

    scripts/e2e.py --weir target/debug/weir [--only NAME]… [--slow]
    scripts/e2e.py --list
    scripts/e2e.py --direct            the checks of content, without Weir: is the run itself sound?

A line per check, and `N passed, N failed` at the end; exit 1 if any failed. Servers and clients
come from `scripts/setup.sh e2e`. Everything is on 127.0.0.0/8, every process that is started is
ended, and each check has two minutes (four with --slow).
"""

import argparse
import os
import signal
import sys
import time
import traceback

sys.dont_write_bytecode = True
# The clients that scripts/setup.sh has put below target/ come with a Python of their own.
CLIENTS = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "target", "e2e-clients"))
PYTHON = os.path.join(CLIENTS, "bin", "python")
if os.access(PYTHON, os.X_OK) and os.path.realpath(sys.prefix) != CLIENTS:
    os.execv(PYTHON, [PYTHON, *sys.argv])
from e2e import comparison, content, failure, floods, grpc_calls, hostile, http2, metrics, slow, tls, websocket  # noqa: E402
from e2e.servers import Origins, Weir  # noqa: E402
from e2e.world import Failed, World  # noqa: E402

SECONDS_PER_CHECK = 120

CONTENT = """
routes:
  - {{path: /nginx, pool: nginx}}
  - {{path: /python, pool: python}}
  - {{path: /node, pool: node}}
pools:
  - {{name: nginx, backends: ["http://{nginx}"], timeouts: {{request: 100s}}}}
  - {{name: python, backends: ["http://{python}"]}}
  - {{name: node, backends: ["http://{node}"], timeouts: {{request: 100s}}}}
access_log: {{format: json, target: stdout}}
"""


class Env:
    """What a check is given. The shared origins, and Weir before them, start when first asked."""

    def __init__(self, world, binary, slow):
        self.world = world
        self.slow = slow
        self.binary = binary
        self._origins = None
        self._weir = None

    @property
    def origins(self):
        if self._origins is None:
            self._origins = Origins(self.world)
        return self._origins

    @property
    def weir(self):
        if self._weir is None and self.binary:
            config = CONTENT.format(**self.origins.addresses)
            self._weir = Weir(self.world, self.binary, config)
        return self._weir

    def address(self, path):
        """Where to ask for a path."""
        return self.weir.address if self.binary else self.origins.address(path)


def out_of_time(*_):
    raise Failed(f"not done within {SECONDS_PER_CHECK} s")


def run(check, env):
    """Runs one check and prints how it went; whether it passed."""
    start = time.monotonic()
    signal.alarm(SECONDS_PER_CHECK * (2 if env.slow else 1))
    try:
        check(env)
        verdict = "ok"
    except Failed as failed:
        verdict = f"FAILED: {failed}"
    except Exception as error:  # a check that breaks has not passed, and the others still count
        verdict = f"FAILED: {error!r}\n{traceback.format_exc(limit=-3)}"
    finally:
        signal.alarm(0)
    print(f"{check.__name__} ({time.monotonic() - start:.1f} s): {verdict}", flush=True)
    return verdict == "ok"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--weir", metavar="PATH", help="the binary")
    what.add_argument("--direct", action="store_true", help="content checks, without Weir")
    what.add_argument("--list", action="store_true", help="the names of the checks")
    parser.add_argument("--only", metavar="NAME", action="append", help="only this check; may be repeated")
    parser.add_argument("--slow", action="store_true", help="what takes minutes, too: two minutes of silence")
    options = parser.parse_args()

    checks = list(content.CHECKS)
    if not options.direct:
        for subject in (failure, metrics, hostile, slow, tls, websocket, http2, floods, grpc_calls, comparison):
            checks += subject.CHECKS
    if options.list:
        print("\n".join(check.__name__ for check in checks))
        return 0
    if options.only:
        unknown = set(options.only) - {check.__name__ for check in checks}
        if unknown:
            parser.error(f"no such check: {', '.join(sorted(unknown))} (see --list)")
        checks = [check for check in checks if check.__name__ in options.only]
    binary = os.path.abspath(options.weir) if options.weir else None
    if binary and not os.access(binary, os.X_OK):
        parser.error(f"{options.weir} is not a program (cargo build makes target/debug/weir)")

    signal.signal(signal.SIGALRM, out_of_time)
    world = World()
    try:
        env = Env(world, binary, options.slow)
        passed = sum(run(check, env) for check in checks)
    finally:
        world.close()
    print(f"{passed} passed, {len(checks) - passed} failed")
    return 0 if passed == len(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
