"""Checks of what Prometheus sees, with the tools that read it in production."""

import contextlib
import functools
import http.client
import json
import random
import signal
import socket
import string
import subprocess
import time
import urllib.parse

from e2e.servers import NamedOrigin, Weir, tool
from e2e.world import expect, get, metrics, until

# The labels that may take a new value because of traffic: closed sets both.
CLOSED = {"method", "status"}
SERIES_REQUESTS = 500
RELOADS = 20


def promtool_has_nothing_to_say(env):
    get(env.address("/nginx/"), "/nginx/small.txt")
    text = get(env.weir.admin, "/metrics").body
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=30
    )
    said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
    expect(done.returncode == 0 and not said, f"exit {done.returncode}: {said}")


@contextlib.contextmanager
def prometheus(world, target):
    """A real Prometheus that scrapes `target` every second; gives a function that asks it."""
    config = (
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        f"  - {{job_name: weir, static_configs: [{{targets: ['{target}']}}]}}\n"
    )
    address = f"{world.address()}:9091"
    process = world.run(
        "prometheus",
        [
            tool("prometheus"),
            f"--config.file={world.write('prometheus.yml', config)}",
            f"--storage.tsdb.path={world.path('prometheus-data')}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ],
    )

    def ask(query):
        answer = get(address, "/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        return answer.status == 200 and json.loads(answer.body)["data"]["result"]

    try:
        yield ask
    finally:
        world.end(process)


def prometheus_scrapes_and_answers(env):
    get(env.address("/nginx/"), "/nginx/small.txt")
    with prometheus(env.world, env.weir.admin) as ask:
        asked = functools.partial(ask, "lb_requests_total")
        found = until("Prometheus knows lb_requests_total", 30, asked)
    expect(any(float(one["value"][1]) > 0 for one in found), f"all zero: {found}")


def prometheus_sees_no_reset_over_reloads(env):
    """Twenty reloads while it is asked all the time: nothing that counts may begin anew."""
    with prometheus(env.world, env.weir.admin) as ask:
        until("Prometheus knows Weir", 30, functools.partial(ask, "up == 1"))
        for _ in range(RELOADS):
            env.weir.process.send_signal(signal.SIGHUP)
            end = time.monotonic() + 0.8
            while time.monotonic() < end:
                answer = get(env.address("/nginx/"), "/nginx/small.txt")
                expect(answer.status == 200, f"status {answer.status} over a reload")
        until(
            f"{RELOADS} reloads in Prometheus",
            30,
            lambda: ask(f'lb_config_reloads_total{{outcome="done"}} >= {RELOADS // 2}'),
        )
        resets = ask('sum by (__name__) (resets({__name__=~"lb_.*_(total|count|sum|bucket)"}[5m])) > 0')
    expect(not resets, f"Prometheus saw resets: {resets}")


def prometheus_is_told_the_truth_while_an_old_worker_drains(env):
    """Prometheus keeps its connection. What it reads must not come from the worker that drains."""
    world, silent = env.world, env.world.address()
    origin = NamedOrigin(world, "truth")
    with socket.create_server((silent, 3000)):
        weir = Weir(
            world,
            env.binary,
            "routes: [{path: /silent, pool: silent}, {pool: web}]\n"
            "pools:\n"
            f"  - {{name: web, health_check: {{interval: 1s}}, backends: [http://{origin.address}]}}\n"
            f"  - {{name: silent, health_check: off, backends: [http://{silent}:3000]}}\n",
        )
        waiting = http.client.HTTPConnection(weir.address, timeout=60)
        with contextlib.closing(waiting), prometheus(world, weir.admin) as ask:
            until("Prometheus knows Weir", 30, functools.partial(ask, "lb_worker_generation == 1"))
            waiting.request("GET", "/silent")
            until("the request is in flight", 10, lambda: weir.status()["downstream_connections"] == 1)
            weir.command("reload")
            origin.end()
            dead = 'lb_healthy_backends{pool="web"} == 0'
            until("Prometheus sees the dead backend", 20, functools.partial(ask, dead))
            expect(ask("lb_draining_workers == 1"), "no worker drained meanwhile")
    weir.end()


def no_request_makes_a_series(env):
    # Every pool has been asked, and a path of none, so what traffic may make is there.
    for path in ("/nginx/small.txt", "/python/small.txt", "/node/"):
        get(env.address(path), path)
    get(env.weir.address, "/of/no/route")
    before = open_series(metrics(env.weir.admin))
    dice = random.Random(17)
    answered = sum(ask_anything(env.address("/nginx/"), dice) for _ in range(SERIES_REQUESTS))
    expect(answered > SERIES_REQUESTS // 2, f"only {answered} of {SERIES_REQUESTS} were answered")
    new = open_series(metrics(env.weir.admin)) - before
    expect(not new, f"{len(new)} new, such as {sorted(map(str, new))[:3]}")
    methods = {
        dict(labels)["method"]
        for (name, labels) in metrics(env.weir.admin)
        if name == "lb_requests_total"
    }
    known = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "OTHER"}
    expect(methods <= known, f"methods {sorted(methods - known)}")


def open_series(samples):
    """Series without the labels that are closed sets."""
    return {
        (name, frozenset((label, value) for label, value in labels if label not in CLOSED))
        for name, labels in samples
    }


def ask_anything(address, dice):
    """One odd request; whether there was any answer."""

    def word(length=8):
        return "".join(dice.choice(string.ascii_letters) for _ in range(length))

    method = dice.choice(["GET", "POST", "DELETE", "PURGE", word(), word(3).upper()])
    prefix = dice.choice(["/", "/nginx/", "/python/", "/node/"])
    path = f"{prefix}{word()}?{word()}={word()}"
    host = dice.choice([address, f"{word()}.example", f"{word()}:81", "[::1]:80"])
    headers = {"Host": host, f"X-{word()}": word(), "User-Agent": word(), "X-Request-Id": word(30)}
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        try:
            connection.request(method, path, headers=headers)
            connection.getresponse().read()
            return True
        except (OSError, http.client.HTTPException):
            return False


CHECKS = [
    promtool_has_nothing_to_say,
    prometheus_scrapes_and_answers,
    prometheus_sees_no_reset_over_reloads,
    prometheus_is_told_the_truth_while_an_old_worker_drains,
    no_request_makes_a_series,
]
