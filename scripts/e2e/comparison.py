"""The harness of scripts/resilience.py: does it see what happens, and nothing else?"""

import dataclasses

from e2e.world import expect
from resilience.rows import BY_NAME
from resilience.runs import Runs

SECONDS = 1.5


def the_comparison_of_resilience_sees_a_fault_and_only_that(env):
    runs = Runs(env.world, {"weir": (env.binary, [])})
    try:
        calm = dataclasses.replace(BY_NAME["R0"], rate=100, before=0.5, after=0.5)
        found = runs.measure(calm, "weir-rr", SECONDS)
        expect((found["requests"], found["failed"], found["unfinished"]) == (150, 0, 0), f"without a fault: {found}")
        expect(found["attempts"] == 1, f"backends saw another number of requests: {found}")
        # No policy can hide this one: every backend cuts every response.
        events = [
            (at, what, index, changes)
            for index in range(5)
            for at, what, _, changes in ((0, "set", index, {"cut": True}), (SECONDS, "heal", index, None))
        ]
        found = runs.measure(dataclasses.replace(calm, schedule=events), "weir-rr", SECONDS)
        expect(found["failed"] == 150 and found["dark"] == SECONDS, f"with a fault: {found}")
        expect(found["posts_twice"] == 0, f"a POST was sent twice: {found}")
    finally:
        runs.close()


CHECKS = [the_comparison_of_resilience_sees_a_fault_and_only_that]
