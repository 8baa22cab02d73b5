"""The statistics of the comparison: python3 -m unittest discover -s scripts/resilience -t scripts"""

import unittest

from resilience import proxies, table
from resilience.client import Result
from resilience.figures import (
    back_after,
    dark_seconds,
    figures,
    largest_share,
    misses,
    out_after,
    percentile,
    posts_seen,
    well_after,
)
from resilience.rows import BY_NAME, FAULT, ROWS, Row


def got(at, outcome=200, seconds=0.02, is_post=False, number=0, aborts=False):
    return Result(number, at, is_post, outcome, seconds, aborts)


def every(step, begin, end, **more):
    return [got(begin + n * step, **more) for n in range(round((end - begin) / step))]


def times(step, begin, end):
    return [result.at for result in every(step, begin, end)]


def report(*arrivals, doomed=()):
    return {"arrivals": list(arrivals), "doomed_posts": doomed, "health_checks": 0}


class Figures(unittest.TestCase):
    def test_a_percentile_is_a_value_that_was_measured(self):
        values = list(range(1, 1001))
        self.assertEqual(percentile(values, 0.5), 500)
        self.assertEqual(percentile(values, 0.99), 990)
        self.assertEqual(percentile(values, 0.999), 999)
        self.assertEqual(percentile([7], 0.999), 7)
        self.assertIsNone(percentile([], 0.5))

    def test_dark_is_a_tenth_of_a_second_without_one_request_served(self):
        results = every(0.01, 0, 1) + every(0.01, 1, 1.5, outcome=503) + every(0.01, 1.5, 2)
        self.assertEqual(dark_seconds(results), 0.5)
        self.assertEqual(dark_seconds(results + [got(1.25)]), 0.4)

    def test_all_is_well_with_a_second_of_good_requests(self):
        good = every(0.01, 8, 14)
        self.assertEqual(well_after(good, 8, 14), 0)
        failed = every(0.01, 8, 8.5, outcome=503)
        self.assertEqual(well_after(failed + every(0.01, 8.5, 14), 8, 14), 0.49)
        self.assertEqual(well_after(good + [got(8.5, seconds=0.2)], 8, 14), 0)
        slow = [got(8.5, seconds=0.2), got(8.7, seconds=0.2), got(8.9, seconds=0.2)]
        self.assertEqual(well_after(good + slow, 8, 14), 0.7)
        self.assertIsNone(well_after(every(0.01, 8, 14, seconds=1), 8, 14))

    def test_a_backend_is_out_after_its_last_request_before_a_pause(self):
        self.assertEqual(out_after(times(0.0125, 0, 0.05), 80, 8), 0.038)
        # One trial in the pause is no return.
        self.assertEqual(out_after([*times(0.0125, 0, 0.05), 0.3, 3.0], 80, 8), 0.038)
        self.assertEqual(out_after([], 80, 8), 0)
        self.assertIsNone(out_after(times(0.0125, 0, 8), 80, 8))

    def test_a_backend_is_back_with_half_of_its_share(self):
        self.assertEqual(back_after(times(0.0125, 0, 12), 80, 8, 12), 0)
        self.assertEqual(back_after(times(0.0125, 9.5, 12), 80, 8, 12), 1.5)
        self.assertIsNone(back_after([8.1, 8.2, 9], 80, 8, 12))

    def test_the_largest_share_is_of_any_second(self):
        others = [times(0.02, 0, 8) for _ in range(4)]
        self.assertEqual(largest_share([times(0.02, 0, 8), *others], 8), 20)
        burst = sorted(times(0.02, 0, 8) + times(0.02, 3.05, 4.05) * 3)
        self.assertEqual(largest_share([burst, *others], 8), 49)
        self.assertEqual(largest_share([[0.1], [], [], [], []], 8), 0)

    def test_a_post_that_two_backends_saw_is_found(self):
        one = report((0, 1, True), (0, 2, False), (0, 3, True))
        two = report((0, 2, False), (0, 3, True))
        self.assertEqual(posts_seen([one, two]), (1, 1))
        self.assertEqual(posts_seen([report((0, 1, True), (0, 1, True))]), (1, 0))
        self.assertEqual(posts_seen([one]), (0, 0))

    def test_only_requests_of_the_fault_count_and_clients_that_leave_do_not(self):
        results = [
            got(-0.5, 500, number=0),
            # Under way when the fault began.
            got(-0.01, "closed", number=6),
            got(0.5, 200, number=1),
            got(1.5, 500, number=2),
            got(2.5, "cut", number=3, is_post=True),
            got(3.5, "aborted", number=4, aborts=True),
            got(8.5, 503, number=5),
        ]
        arrivals = report(*((100 + result.at, result.number, result.is_post) for result in results))
        again = report((101.6, 2, False), doomed=[(99, 3), (100.1, 1)])
        found = figures(Row("X", "", [], faulty=(1,)), results, [arrivals, again], 8, start=100)
        self.assertEqual((found["requests"], found["failed_get"], found["failed_post"]), (3, 2, 1))
        self.assertEqual(found["kinds"], {"closed": 1, "500": 1, "cut": 1})
        self.assertEqual((found["attempts"], found["doomed_posts"], found["posts_twice"]), (1.25, 1, 0))
        self.assertEqual((found["p50"], found["out"], found["back"]), (20, 0, None))

    def test_a_bound_is_missed_from_either_side(self):
        row = Row("X", "", [], {"p99": 60, "min_served": 295, "out": 0.05})
        self.assertEqual(misses(row, {"p99": 60, "served": 295, "out": 0.05}), [])
        self.assertEqual(misses(row, {"p99": 61, "served": 294, "out": None}), ["p99", "served", "out"])

    def test_what_a_dead_backend_lost_is_no_failure_of_the_proxy(self):
        row = Row("X", "", [], {"failed": 2})
        self.assertEqual(misses(row, {"failed": 3, "doomed_posts": 3}), [])
        self.assertEqual(misses(row, {"failed": 4, "doomed_posts": 3}), ["failed"])


class Rows(unittest.TestCase):
    def test_a_run_has_the_requests_that_it_says(self):
        plan = BY_NAME["R1"].plan()
        during = [planned for planned in plan if 0 <= planned.at < FAULT]
        self.assertEqual(len(during), 3200)
        self.assertAlmostEqual(sum(planned.is_post for planned in during) / 3200, 0.3, delta=0.03)
        self.assertEqual(plan, BY_NAME["R1"].plan())
        self.assertEqual([planned.at for planned in plan], sorted(planned.at for planned in plan))

    def test_every_row_is_over_in_half_an_hour_with_all_the_usual_proxies(self):
        seconds = sum(row.before + FAULT + row.after + 1.5 for row in ROWS)
        self.assertLess(seconds * len(proxies.USUAL), 30 * 60)

    def test_every_row_ends_its_fault(self):
        for row in ROWS:
            last = {}
            for at, what, index, _ in row.schedule:
                self.assertLessEqual(at, FAULT)
                last[index] = what
            self.assertLessEqual(set(last.values()), {"heal", "start"}, row.name)
            self.assertLess(max(last, default=0), row.backends)


class Tables(unittest.TestCase):
    def test_a_figure_without_a_value_has_a_word(self):
        self.assertEqual(table.cell("out", {"out": None}), "never")
        self.assertEqual(table.cell("out", {}), "–")
        self.assertEqual(table.cell("kinds", {"kinds": {"502": 3, "cut": 1}}), "502×3, cut×1")
        self.assertEqual(table.bound("min_served", 245), "served/s ≥ 245")
        self.assertEqual(table.bound("failed", 0), "failed 0")

    def test_what_is_reached_is_bold(self):
        row = Row("X", "a fault", [], {"failed": 1}, ("failed",))
        text = table.short([row], ["a", "b"], {("X", "a"): {"failed": 1}, ("X", "b"): {"failed": 2}})
        self.assertIn("| **1** | 2 | failed ≤ 1 |", text)


class Proxies(unittest.TestCase):
    def test_a_name_without_an_algorithm_is_the_usual_one(self):
        self.assertEqual(proxies.columns(["weir", "haproxy"], False), ["weir-rr", "weir-lc", "haproxy-lc"])
        self.assertEqual(proxies.columns(["nginx-rr", "weir-old-lc"], True), ["nginx-rr", "weir-old-lc"])
        self.assertEqual(proxies.columns([], False), proxies.USUAL)
        for wrong in ("apache", "haproxy-old"):
            with self.assertRaises(proxies.Failed):
                proxies.columns([wrong], False)

    def test_what_a_build_does_not_know_is_left_out(self):
        plain = proxies.weir_text("127.0.0.1:80", ["127.0.0.1:81"], "round_robin", [])
        self.assertNotIn("max_requests", plain)
        full = proxies.weir_text("127.0.0.1:80", ["127.0.0.1:81"] * 5, "round_robin", list(proxies.WEIR_MORE))
        self.assertIn('{url: "http://127.0.0.1:81", max_requests: 8}', full)
        self.assertIn("\n    slow_start: 10s\n", full)


if __name__ == "__main__":
    unittest.main()
