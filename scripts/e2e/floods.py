"""Floods of HTTP/2 beside a good client, in the clear and over TLS."""

import contextlib
import json
import os
import statistics
import struct
import subprocess
import sys
import time

from e2e.frames import (
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RESET, SETTINGS,
    WINDOW, Connection, frame,
)
from e2e.http2 import site_of
from e2e.servers import clients
from e2e.world import Background, children, expect, memory_kib, metrics, reset_peak, total, until

ATTACK_SECONDS = 5
ATTACKERS = 2


class Good(Background):
    """One client that asks over and over on a connection of HTTP/2, and takes the time."""

    def __init__(self, place):
        super().__init__()
        self.place = place
        self.times, self.errors = [], []

    def _run(self):
        while not self._end.is_set():
            try:
                self._ask_on_one_connection()
            except (OSError, ValueError) as error:
                self.errors.append(repr(error))
                time.sleep(0.05)

    def _ask_on_one_connection(self):
        with Connection(*self.place) as client:
            while not self._end.is_set():
                start = time.monotonic()
                mine = client.ask()
                client.flush()
                over = False
                while not over:
                    for kind, stream, what in client.receive(10):
                        if kind == GOAWAY:
                            return  # told to go; the next connection
                        if stream == mine and kind == HEADERS and what != "200":
                            raise ValueError(f"status {what}")
                        if stream == mine and kind == RESET:
                            raise ValueError(f"reset {what}")
                        over |= stream == mine and kind == "end"
                self.times.append(time.monotonic() - start)
                time.sleep(0.005)

    @property
    def median_ms(self):
        return statistics.median(self.times) * 1000 if self.times else float("inf")


def rapid_reset(attacker):
    stream, first, packed = 1, attacker.head(), attacker.head()
    while True:
        batch = b""
        for _ in range(100):
            head = first if stream == 1 else packed
            batch += frame(HEADERS, END_STREAM | END_HEADERS, stream, head)
            batch += frame(RESET, 0, stream, struct.pack(">I", 8))
            stream += 2
        yield batch


def endless_continuation(attacker):
    yield frame(HEADERS, END_STREAM, 1, attacker.head())
    while True:
        # A literal field, never indexed: name and value of one letter.
        yield frame(CONTINUATION, 0, 1, b"\x10\x01x\x01y" * 2000)


def settings(attacker):
    while True:
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)) * 200


def pings(attacker):
    while True:
        yield frame(PING, 0, 0, b"12345678") * 200


def empty_data(attacker):
    packed = attacker.head().replace(b"\x82", b"\x83", 1)  # :method: POST
    yield frame(HEADERS, END_HEADERS, 1, packed)
    while True:
        yield frame(DATA, 0, 1) * 500


def priorities(attacker):
    while True:
        yield frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 16)) * 500


def windows(attacker):
    yield frame(HEADERS, END_HEADERS, 1, attacker.head().replace(b"\x82", b"\x83", 1))
    while True:
        yield frame(WINDOW, 0, 1, struct.pack(">I", 1)) * 500


FLOODS = [
    rapid_reset, endless_continuation, settings, pings, empty_data, priorities, windows
]


def attack(flood, seconds, *place):
    """Floods connection after connection, and counts how many were ended by the other side."""
    # It has a machine of its own elsewhere: what it takes of this one is not the matter here.
    os.nice(10)
    end, ended, sent = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            with Connection(*place) as attacker:
                attacker.socket.settimeout(1)
                for batch in flood(attacker):
                    if time.monotonic() > end:
                        break
                    try:
                        attacker.socket.sendall(batch)
                    except OSError:
                        ended += 1
                        break
                    sent += len(batch)
        time.sleep(0.01)
    print(json.dumps({"ended": ended, "sent": sent}))


def attackers(world, flood, place):
    """Floods from processes of their own, and gives back what came of it."""
    command = [sys.executable, "-m", "e2e.floods", flood.__name__, str(ATTACK_SECONDS)]
    command += [part for part in place if part]
    scripts = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    processes = [
        world.run("attacker", command, stdout=subprocess.PIPE, cwd=scripts) for _ in range(ATTACKERS)
    ]
    counts = []
    for process in processes:
        out, _ = process.communicate(timeout=ATTACK_SECONDS + 15)
        expect(process.returncode == 0, f"an attacker failed: {world.said(process)}")
        counts.append(json.loads(out))
        world.end(process)
    return [sum(each[what] for each in counts) for what in ("ended", "sent")]


def beside(site, place, flood, calm_ms):
    """What a good client has of it."""
    pids = children(site.weir.process.pid)
    reset_peak(pids)
    counted = floods_counted(site)
    good = Good(place).start()
    ended, sent = attackers(site.world, flood, place)
    good.stop()
    peak = memory_kib(pids, "VmHWM") / 1024
    print(f"    {flood.__name__}: good client {len(good.times)} requests, {len(good.errors)} errors,"
          f" median {good.median_ms:.1f} ms ({good.median_ms / calm_ms:.1f} of calm);"
          f" {sent >> 10} KiB sent, {ended} connections ended; peak {peak:.0f} MiB")
    expect(not good.errors, f"{flood.__name__}: {good.errors[:3]}")
    expect(len(good.times) > 50, f"{flood.__name__}: {len(good.times)} requests")
    expect(ended > 0, f"{flood.__name__} was let go on")
    expect(peak < 400, f"{flood.__name__}: {peak:.0f} MiB")
    until(f"{flood.__name__} is counted", 5, lambda: floods_counted(site) >= counted + ended)


def floods_counted(site):
    samples = metrics(site.weir.admin)
    return total(samples, "lb_connection_failures_total", reason="http2_flood")


def do_not_reach_a_good_client(env, secure):
    clients()
    with site_of(env) as site:
        place = site.place(secure)
        calm = Good(place).start()
        time.sleep(3)
        calm.stop()
        expect(not calm.errors and len(calm.times) > 100, f"calm: {calm.errors[:3]}")
        pids = children(site.weir.process.pid)
        print(f"    calm: {len(calm.times)} requests, median {calm.median_ms:.1f} ms,"
              f" memory {memory_kib(pids, 'VmRSS') / 1024:.0f} MiB")
        for flood in FLOODS:
            beside(site, place, flood, calm.median_ms)


def floods_do_not_reach_a_good_client(env):
    do_not_reach_a_good_client(env, secure=False)


def floods_over_tls_do_not_reach_a_good_client(env):
    do_not_reach_a_good_client(env, secure=True)


CHECKS = [
    floods_do_not_reach_a_good_client,
    floods_over_tls_do_not_reach_a_good_client,
]

if __name__ == "__main__":
    name, how_long, *where = sys.argv[1:]
    attack(next(flood for flood in FLOODS if flood.__name__ == name), float(how_long), *where)
