"""The rows of the table: which load, which fault, what is to be reached.

Time 0 is the start of the fault. Before it the load runs for `before` seconds, so that every proxy knows its
backends; the fault ends after `FAULT` seconds; then the load goes on for `after` seconds.
"""

import dataclasses
import random

from resilience.client import Planned

FAULT = 8.0
SEED = 11
SERVICE = 0.020


@dataclasses.dataclass
class Row:
    name: str
    title: str
    # What happens: (seconds, what, index of the backend, changes).
    schedule: list
    # The figures that Weir is to reach, each with its bound: `<=` unless it begins with `min_`.
    reach: dict = dataclasses.field(default_factory=dict)
    # The figures that the short table shows, in this order.
    shows: tuple = ("failed_get", "failed_post")
    backends: int = 5
    places: int = 40
    service: float = SERVICE
    rate: float = 400.0
    # The rate before and after the fault, if it is another one.
    calm_rate: float = 0.0
    posts: float = 0.3
    patience: float = 10.0
    # Share of requests whose client leaves, after how many seconds.
    aborts: float = 0.0
    aborts_after: float = 0.005
    before: float = 1.0
    after: float = 2.0
    # The backends that fail, for the time until they are out and back.
    faulty: tuple = ()

    def plan(self, fault=FAULT):
        """Every request of the run; the same ones for each proxy."""
        dice = random.Random(SEED)
        calm = self.calm_rate or self.rate
        moments = [-self.before + n / calm for n in range(round(self.before * calm))]
        moments += [n / self.rate for n in range(round(fault * self.rate))]
        moments += [fault + n / calm for n in range(round(self.after * calm))]
        return [
            Planned(
                number,
                at,
                dice.random() < self.posts,
                self.aborts_after if dice.random() < self.aborts else 0,
            )
            for number, at in enumerate(moments)
        ]


def fault(index, **changes):
    """A fault of one backend that begins at 0 and is repaired at the end."""
    return [(0, "set", index, changes), (FAULT, "heal", index, None)]


def everyone(count, **changes):
    return [event for index in range(count) for event in fault(index, **changes)]


def dies(*indexes):
    return [event for index in indexes for event in ((0, "die", index, None), (FAULT, "start", index, None))]


def away(index):
    """Refuses connections during the fault, after it has finished what it had begun."""
    return [(0, "stop", index, None), (FAULT, "start", index, None)]


def flaps(index):
    """Away in every other second."""
    return [(second, ("stop", "start")[second % 2], index, None) for second in range(round(FAULT))]


def rolls(count):
    """Each backend in turn is away for a second, a second and a half apart."""
    events = []
    for index in range(count):
        events += [(0.2 + 1.5 * index, "stop", index, None), (1.2 + 1.5 * index, "start", index, None)]
    return events


def cold(index):
    """Dead at first; at 0 it comes back, and during the fault it has 4 places of 200 ms."""
    return [
        (-2.9, "die", index, None),
        (0, "set", index, {"places": 4, "service": 0.200}),
        (0, "start", index, None),
        (FAULT, "heal", index, None),
    ]


ERRORS = {"failed_get": 0, "failed_post": 2}
ROWS = [
    Row("R0", "no fault: what the harness itself costs", [], {"failed": 0, "p99": 25}, ("failed", "p50", "p99")),
    Row(
        "R1", "one answers 500 to half", fault(0, share=0.5), ERRORS,
        after=5, faulty=(0,),
    ),
    Row(
        "R2", "one answers 500 to all; its health check passes", fault(0, share=1.0),
        {"failed_get": 0, "failed_post": 2, "out": 0.05, "back": 3},
        ("failed_get", "failed_post", "out", "back"), after=5, faulty=(0,),
    ),
    Row(
        "R3", "one is 2 s slow", fault(0, slow=2.0), {"failed": 0, "p999": 50},
        ("failed", "p99", "p999"), after=5, faulty=(0,),
    ),
    Row(
        "R4", "one hangs, its health check too", fault(0, hang=True), {"failed": 1},
        after=5, faulty=(0,),
    ),
    Row(
        "R5", "one resets in mid-body", fault(0, cut=True), {"failed": 5},
        after=5, faulty=(0,),
    ),
    Row("R6", "one flaps every second", flaps(0), {"failed": 1}),
    Row(
        "R7", "three times the capacity of 250/s", [],
        {"min_served": 245, "p99": 170, "rss": 60, "well": 0.1},
        ("served", "p99", "rss", "well"), places=1, rate=750, calm_rate=100, patience=2.0, after=6,
    ),
    Row(
        "R8", "all answer 503", everyone(5, share=1.0, status=503), {"attempts": 1.2, "dark_after": 0},
        ("attempts", "dark_after", "well"), after=5,
    ),
    Row(
        "R9", "one comes back cold", cold(0), {"failed": 0, "p99": 29},
        ("failed", "p99"), before=3, after=1,
    ),
    Row("R10", "three of five die, the others have room", dies(0, 1, 2), {"failed": 2}, after=3),
    Row(
        "R10b", "three of five die, the others carry 300/s", dies(0, 1, 2), {"min_served": 295, "p99": 60},
        ("served", "p99"), places=3, after=3,
    ),
    Row(
        "R11", "two backends, one answers 500 to all", fault(0, share=1.0), {"failed": 2},
        backends=2, after=5, faulty=(0,),
    ),
    Row(
        "R11b", "two backends, both answer 500 to half", everyone(2, share=0.5), {"failed": 780}, backends=2,
    ),
    Row("R12", "clients abort 30 % after 5 ms", [], {"failed": 0}, aborts=0.3),
    Row(
        "R13a", "only POST, one refuses connections", away(0), {"failed": 0}, ("failed",),
        posts=1.0, after=5, faulty=(0,),
    ),
    Row(
        "R13b", "only POST, one resets after the request", fault(0, reset=True), {"failed": 5},
        ("failed", "kinds"), posts=1.0, after=5, faulty=(0,),
    ),
    Row(
        "R14", "rolling restart of all five", rolls(5), {"failed": 0, "max_share": 35},
        ("failed", "max_share"),
    ),
]
BY_NAME = {row.name: row for row in ROWS}
