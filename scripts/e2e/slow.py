"""slowhttptest in its three modes against a Weir with a good client beside it: the good client loses
nothing, and the slow ones are let go."""

import re
import statistics
import time

from e2e.servers import Weir, tool
from e2e.world import Background, children, expect, get, memory_kib, metrics, reset_peak, total, until

SECONDS = 20
CONNECTIONS = 300

CONFIG = """
pools:
  - {{name: web, health_check: off, backends: ["http://{nginx}"], timeouts: {{request: off, response: 1h}}}}
  - {{name: node, health_check: off, backends: ["http://{node}"], timeouts: {{request: off, response: 1h}}}}
routes: [{{pool: web}}, {{path: /node, pool: node}}]
limits: {{header_timeout: 5s, body_rate: 10KiB, body_grace: 3s}}
access_log: {{format: off}}
"""

MODES = {
    # Never-ending heads, a field every 2 s.
    "header": (["-H", "-i", "2", "-x", "24"], "/nginx/small.txt"),
    # A body of 64 KiB, a few bytes every 2 s.
    "body": (["-B", "-i", "2", "-s", "65536", "-x", "10"], "/node/echo"),
    # A gibibyte asked for, 32 bytes read every 5 s through a small window.
    "read": (["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32"], "/nginx/big"),
}


class Good(Background):
    """A client that asks one thing after another, on a connection each."""

    def __init__(self, address):
        super().__init__()
        self.address = address
        self.took, self.errors = [], []

    def _run(self):
        while not self._end.is_set():
            start = time.monotonic()
            try:
                answer = get(self.address, "/nginx/small.txt", timeout=10)
                if answer.status == 200:
                    self.took.append(time.monotonic() - start)
                else:
                    self.errors.append(answer.status)
            except OSError as error:
                self.errors.append(repr(error))
            time.sleep(0.01)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def median_ms(self):
        return statistics.median(self.took) * 1000 if self.took else float("nan")


def attacked(env, mode):
    flags, path = MODES[mode]
    weir = Weir(env.world, env.binary, CONFIG.format(**env.origins.addresses))
    open_now = lambda: total(metrics(weir.admin), "lb_downstream_connections")  # noqa: E731
    try:
        pids = children(weir.process.pid)
        with Good(weir.address) as calm:
            time.sleep(4)
        before = memory_kib(pids, "VmRSS")
        reset_peak(pids)
        url = f"http://{weir.address}{path}"
        command = [tool("slowhttptest"), "-c", str(CONNECTIONS), "-r", "100", "-l", str(SECONDS)]
        attack = env.world.run(f"slow-{mode}", [*command, *flags, "-p", "5", "-u", url])
        most = 0
        with Good(weir.address) as good:
            end = time.monotonic() + SECONDS + 10
            while attack.poll() is None and time.monotonic() < end:
                most = max(most, open_now())
                time.sleep(0.2)
        env.world.end(attack)
        until("the slow connections are gone", 15, lambda: open_now() == 0)
        samples = metrics(weir.admin)
        peak = memory_kib(pids, "VmHWM")
    finally:
        weir.end()
    kinds = ("client_timeout", "client_write_timeout")
    counted = {kind: int(total(samples, "lb_errors_total", type=kind)) for kind in kinds}
    said = re.findall(r"(closed|connected|error|pending): +(\d+)", env.world.said(attack))
    print(
        f"    {mode}: {int(most)} open at most, let go {counted}, slowhttptest {dict(said)};"
        f" good client: {len(good.took)} answers, {len(good.errors)} errors,"
        f" median {good.median_ms:.2f} ms, calm {calm.median_ms:.2f} ms;"
        f" memory {before} KiB, {peak} KiB at most"
    )
    expect(most > CONNECTIONS / 2, f"hardly an attack: {most} connections")
    expect(not calm.errors and not good.errors, f"the good client met {(calm.errors + good.errors)[:5]}")
    expect(len(good.took) > 50, f"only {len(good.took)} answers")
    expect(sum(counted.values()) > CONNECTIONS / 2, f"only {counted} of {CONNECTIONS} were let go")


def slow_headers_hurt_nobody(env):
    attacked(env, "header")


def slow_bodies_hurt_nobody(env):
    attacked(env, "body")


def slow_readers_hurt_nobody(env):
    attacked(env, "read")


CHECKS = [slow_headers_hurt_nobody, slow_bodies_hurt_nobody, slow_readers_hurt_nobody]
