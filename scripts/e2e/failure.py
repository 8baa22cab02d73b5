"""Checks of origins that die, hang and come back. Each has its own Weir and its own origins."""

import contextlib
import signal
import time

from e2e.servers import Weir, NamedOrigin
from e2e.world import Load, ask, expect, get, metrics, send, total, until

# Two failed probes of half a second each, and some room for the jitter.
CHECKED = (
    "health_check: {type: http, path: /health, interval: 500ms, timeout: 400ms,"
    " unhealthy_after: 2, healthy_after: 2}"
)
# Nothing is found out by probes while such a check runs.
UNCHECKED = "health_check: {type: http, path: /health, interval: 1h}"


@contextlib.contextmanager
def three_origins(env, pool):
    """Three origins and a Weir in front of them; `pool` is more of the pool's settings."""
    running = []
    try:
        origins = []
        for number in (1, 2, 3):
            origins.append(NamedOrigin(env.world, f"o{number}"))
            running.append(origins[-1])
        urls = ", ".join(f"http://{origin.address}" for origin in origins)
        config = f"pools:\n  - name: web\n    backends: [{urls}]\n    {pool}\n"
        weir = Weir(env.world, env.binary, config)
        running.append(weir)
        yield weir, origins
    finally:
        for process in reversed(running):
            process.end()


def attempts(weir, backend):
    """How often a backend was tried, as far as the metrics tell: answers and errors."""
    samples = metrics(weir.admin)
    name = label_of(samples, backend.address)
    return sum(
        total(samples, metric, backend=name) for metric in ("lb_requests_total", "lb_errors_total")
    )


def label_of(samples, address):
    """How the metrics call a backend: its address, with or without a scheme."""
    for _, labels in samples:
        for label, value in labels:
            if label == "backend" and value.removeprefix("http://").rstrip("/") == address:
                return value
    return address


def ask_often(weir, count):
    """Asks `count` times; gives how often each origin answered."""
    by_origin = {}
    for _ in range(count):
        answer = get(weir.address, "/")
        expect(answer.status == 200, f"status {answer.status}: {answer.text!r}")
        name = answer.headers["X-Origin"]
        by_origin[name] = by_origin.get(name, 0) + 1
    return by_origin


def kill_9_under_load_fails_no_request(env):
    with three_origins(env, CHECKED) as (weir, origins):
        load = Load(weir.address).start()
        try:
            time.sleep(5)
            origins[1].kill()
            time.sleep(15)
        finally:
            load.stop()
    print(f"    {load.account()}")
    expect(load.done > 1000, f"hardly a load: {load.account()}")
    expect(load.failed == 0, f"{load.failed} failed: {load.account()}")


def dead_origin_gets_no_attempts(env):
    with three_origins(env, CHECKED) as (weir, origins):
        ask_often(weir, 30)
        origins[1].kill()
        weir.until_state(origins[1].address, "unhealthy", seconds=5)
        before = attempts(weir, origins[1])
        by_origin = ask_often(weir, 300)
        tried = attempts(weir, origins[1]) - before
        samples = metrics(weir.admin)
        up = total(samples, "lb_backend_up", backend=label_of(samples, origins[1].address))
    expect(tried == 0, f"{tried} attempts at an unhealthy backend")
    expect(up == 0, f"lb_backend_up is {up}")
    expect(set(by_origin) == {"o1", "o3"}, f"answers by {by_origin}")


def restarted_origin_gets_traffic_again(env):
    with three_origins(env, CHECKED) as (weir, origins):
        origins[1].kill()
        weir.until_state(origins[1].address, "unhealthy", seconds=5)
        origins[1].start()
        weir.until_state(origins[1].address, "healthy", seconds=20)
        by_origin = ask_often(weir, 300)
    expect(by_origin.get("o2", 0) >= 50, f"answers by {by_origin}")


def stopped_origin_meets_the_deadline(env):
    pool = (
        f"{UNCHECKED}\n    retry: {{attempts: 1}}\n"
        "    timeouts: {connect: 500ms, response: 1s, request: 2s}"
    )
    with three_origins(env, pool) as (weir, origins):
        ask_often(weir, 6)
        send(origins[1].process.pid, signal.SIGSTOP)
        try:
            late, took = [], []
            for _ in range(12):
                start = time.monotonic()
                answer = get(weir.address, "/")
                seconds = time.monotonic() - start
                (late if answer.status == 504 else took).append(seconds)
                expect(answer.status in (200, 504), f"status {answer.status}")
        finally:
            send(origins[1].process.pid, signal.SIGCONT)
    expect(late, "no request went to the stopped origin")
    expect(max(late) < 2.5, f"a deadline of 2 s took {max(late):.2f} s")
    expect(len(took) >= 6 and max(took) < 0.5, f"others were held up: {took}")


def all_down_is_503(env):
    with three_origins(env, CHECKED) as (weir, origins):
        for origin in origins:
            origin.kill()
        until("/readyz is 503", 10, lambda: get(weir.admin, "/readyz").status == 503)
        answer = ask(weir.address, "GET", "/", headers={"Accept": "text/plain"})
        expect(answer.status == 503, f"status {answer.status}")
        expect("Service Unavailable: all backends are down" in answer.text, repr(answer.text))
        expect(answer.headers["Retry-After"], "no Retry-After")
        expect(get(weir.admin, "/healthz").status == 200, "/healthz is not 200")


CHECKS = [
    kill_9_under_load_fails_no_request,
    dead_origin_gets_no_attempts,
    restarted_origin_gets_traffic_again,
    stopped_origin_meets_the_deadline,
    all_down_is_503,
]
