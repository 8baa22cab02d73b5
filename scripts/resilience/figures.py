"""What is made of one run: the figures of the table, from what clients and backends saw.

Times are seconds, 0 is the start of the fault. Pure: nothing here reads a clock or a socket.
"""

import bisect
import collections
import math

# A faulty backend is out once it gets nothing for OUT_PAUSE seconds and less than OUT of its fair share for
# OUT_WINDOW seconds, and back once it gets BACK of it for a second.
OUT, OUT_WINDOW, OUT_PAUSE = 0.1, 0.5, 0.2
BACK, BACK_WINDOW = 0.5, 1.0
# After the fault, a request that took longer than this is not well yet.
WELL_SECONDS = 0.1
BUCKET = 0.1


def percentile(values, share):
    """The smallest value that `share` of all do not exceed (nearest rank); None of no values."""
    if not values:
        return None
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def is_served(result):
    return result.outcome == 200


def dark_seconds(results):
    """The seconds, in tenths, in which requests were sent and none of them was served."""
    served = collections.Counter()
    for result in results:
        # A moment such as 0.3 may be a little less in binary.
        served[int(result.at / BUCKET + 1e-6)] += is_served(result)
    return round(sum(count == 0 for count in served.values()) * BUCKET, 1)


def well_after(results, end, last):
    """From the end of the fault to the start of a second in which all is well; None if there is none until `last`.

    All is well if no request fails and at most one of a hundred takes longer than WELL_SECONDS.
    """
    after = sorted((result.at, is_served(result), result.seconds) for result in results if result.at >= end)
    moments = [at for at, *_ in after]
    bad = [at for at, served, seconds in after if not served or seconds > WELL_SECONDS]
    failed = [at for at, served, _ in after if not served]

    def within(times, begin):
        return bisect.bisect_left(times, begin + 1) - bisect.bisect_left(times, begin)

    for at in [end, *(math.nextafter(at, math.inf) for at in bad)]:
        if at + 1 > last:
            return None
        if not within(failed, at) and within(bad, at) <= 0.01 * within(moments, at):
            return round(at - end, 2)
    return None


def out_after(times, fair, end):
    """How long the faulty backends still got requests. `times`: when they did; `fair`: requests per second.

    None if they were never out.
    """
    times = sorted(time for time in times if 0 <= time < end)
    for at in [0.0, *times]:
        if at + OUT_WINDOW > end:
            return None
        within = bisect.bisect_right(times, at + OUT_WINDOW) - bisect.bisect_right(times, at)
        pauses = bisect.bisect_right(times, at + OUT_PAUSE) == bisect.bisect_right(times, at)
        if pauses and within <= OUT * fair * OUT_WINDOW:
            return round(at, 3)
    return None


def back_after(times, fair, end, last):
    """How long after the end of the fault they had their share again; None if not until `last`."""
    times = sorted(times)
    for at in [end, *(time for time in times if time > end)]:
        if at + BACK_WINDOW > last:
            return None
        within = bisect.bisect_right(times, at + BACK_WINDOW) - bisect.bisect_left(times, at)
        if within >= BACK * fair * BACK_WINDOW:
            return round(at - end, 2)
    return None


def largest_share(arrivals, end):
    """The largest share (per cent) that one backend had in any second. `arrivals`: times, by backend."""
    largest = 0.0
    ordered = [sorted(times) for times in arrivals]
    for step in range(round((end - 1) / BUCKET) + 1):
        at = step * BUCKET
        counts = [bisect.bisect_left(times, at + 1) - bisect.bisect_left(times, at) for times in ordered]
        # Of a handful, one backend may have all.
        if sum(counts) >= 50:
            largest = max(largest, max(counts) / sum(counts))
    return round(100 * largest)


def posts_seen(reports):
    """How many POSTs arrived more than once, and how many of them at two backends."""
    seen = collections.defaultdict(list)
    for index, report in enumerate(reports):
        for _, number, is_post in report["arrivals"]:
            if is_post and number >= 0:
                seen[number].append(index)
    twice = [backends for backends in seen.values() if len(backends) > 1]
    return len(twice), sum(len(set(backends)) > 1 for backends in twice)


def figures(row, results, reports, fault, start=0.0):
    """The figures of a run. `start`: the moment of 0 on the clock of the backends' reports."""
    during = [result for result in results if 0 <= result.at < fault]
    counted = [result for result in during if not result.aborts]
    # Those that were under way when the fault began may fail by it.
    before = [result for result in results if -result.seconds <= result.at < 0 and not result.aborts]
    failed = [result for result in before + counted if not is_served(result)]
    served_ms = [1000 * result.seconds for result in counted if is_served(result)]
    after = [result for result in results if result.at >= fault and not result.aborts]
    arrivals = [[time - start for time, number, _ in report["arrivals"] if number >= 0] for report in reports]
    numbers = {result.number for result in during}
    attempts = sum(number in numbers for report in reports for _, number, _ in report["arrivals"])
    twice, at_two = posts_seen(reports)
    found = {
        "requests": len(counted),
        "failed": len(failed),
        "failed_get": sum(not result.is_post for result in failed),
        "failed_post": sum(result.is_post for result in failed),
        "kinds": dict(collections.Counter(str(result.outcome) for result in failed).most_common()),
        "doomed_posts": sum(
            count for report in reports for time, count in report["doomed_posts"] if 0 <= time - start < fault
        ),
        "served": round(len(served_ms) / fault, 1),
        "p50": percentile(served_ms, 0.5),
        "p99": percentile(served_ms, 0.99),
        "p999": percentile(served_ms, 0.999),
        "dark": dark_seconds(counted),
        "dark_after": dark_seconds(after),
        "failed_after": sum(not is_served(result) for result in after),
        "well": well_after(after, fault, fault + row.after),
        "attempts": round(attempts / len(numbers), 2) if numbers else None,
        "max_share": largest_share(arrivals, fault),
        "posts_twice": twice,
        "posts_at_two": at_two,
        "health_checks": sum(report["health_checks"] for report in reports),
    }
    if row.faulty:
        times = [time for index in row.faulty for time in arrivals[index]]
        fair = row.rate * len(row.faulty) / row.backends
        found["out"] = out_after(times, fair, fault)
        found["back"] = back_after(times, fair, fault, fault + row.after)
    return {name: round(value, 1) if name[0] == "p" and isinstance(value, float) else value for name, value in found.items()}


def misses(row, found):
    """The figures that do not reach what the row asks for. A figure without a value does not.

    POSTs that a backend lost by dying are no failure of the proxy, even if they are more than the bound.
    """
    missed = []
    for name, bound in row.reach.items():
        if name in ("failed", "failed_post"):
            bound = max(bound, found.get("doomed_posts", 0))
        value = found.get(name.removeprefix("min_"))
        if value is None or (value < bound if name.startswith("min_") else value > bound):
            missed.append(name.removeprefix("min_"))
    return missed
