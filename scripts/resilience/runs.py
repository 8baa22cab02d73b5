"""One run: a row of the table with one proxy."""

import asyncio
import contextlib
import os
import time

from resilience import proxies
from resilience.backend import Backends
from resilience.client import Load
from resilience.figures import figures, percentile
from resilience.rows import FAULT

# A run starts this many seconds after its order.
LEAD = 0.1


def prioritize(level):
    """Real-time priority for this thread and what it starts, so that other work on the machine does not disturb a run.

    Only root may have it; a run without it is as good on a quiet machine. The level of the clients and backends is
    above that of the proxies: what measures comes first.
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(level))


class Runs:
    """The runs of one call of the script."""

    def __init__(self, world, weirs):
        self.world, self.weirs = world, weirs
        prioritize(2)
        self.backends = Backends()
        self.addresses = [f"{world.address()}:3000" for _ in range(5)]
        self.listen = f"{world.address()}:8080"

    def measure(self, row, column, fault=FAULT):
        """One row with one proxy."""
        addresses = self.addresses[: row.backends]
        self.backends.ask("start", {"addresses": addresses, "places": row.places, "service": row.service})
        prioritize(1)
        proxy = proxies.start(self.world, column, addresses, self.listen, self.weirs)
        prioritize(2)
        try:
            start = time.monotonic() + LEAD + row.before
            schedule = [(start + at, *event) for at, *event in row.schedule]
            self.backends.ask("schedule", schedule)
            results, lateness = asyncio.run(self.load(proxy, row, start, fault))
            rss = proxy.peak_mb()
        finally:
            proxy.end()
            reports = self.backends.ask("report")
        found = figures(row, results, reports, fault, start)
        found["rss"] = round(rss, 1)
        found["late_ms"] = round(1000 * percentile(lateness, 0.99), 2)
        found["load"] = round(os.getloadavg()[0], 1)
        found["unfinished"] = len(row.plan(fault)) - len(results)
        return found

    async def load(self, proxy, row, start, fault):
        clients = Load(proxy.address, row.patience)
        results = await clients.run(row.plan(fault), start)
        return results, clients.lateness

    def close(self):
        self.backends.close()
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
