#!/usr/bin/env python3
"""Breaks the code on purpose, one place at a time, and checks that a simulation fails.

Works on a copy of HEAD, prints one line for each change, and exits with the number of changes that no
simulation has noticed. `--list` only checks that each place still exists. `ONLY=word` selects changes.
"""

import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What is broken, where, the code, and what it becomes.
CHANGES = [
    ("a retry goes to a backend that has failed", "src/runtime/pool.rs",
     "let fresh = closed.without(tried);", "let fresh = *closed;"),
    ("an unhealthy backend is picked", "src/runtime/pool.rs",
     "Eligibility::Unhealthy | Eligibility::TakenOut(_) => {}",
     "Eligibility::Unhealthy | Eligibility::TakenOut(_) => sorted.closed.insert(BackendId::new(position)),"),
    ("a lease leaks", "src/exchange/pick.rs",
     "exchange.current.lease.take().is_some()",
     "exchange.current.lease.take().map(std::mem::forget).is_some()"),
    ("a POST is retried after it was sent", "src/policy/retry.rs",
     "context.idempotent && context.body_whole", "context.body_whole"),
    ("retries are not limited", "src/policy/retry.rs",
     "&& context.attempts_made < u32::from(self.attempts.get())", ""),
    ("a retry needs no token", "src/exchange/retry_limits.rs",
     "is_reserved || budget(exchange).is_none_or(|budget| budget.take(now))", "true"),
    ("a failed retry returns its token", "src/exchange/retry_limits.rs",
     "exchange.current.token = false; // used up", ""),
    ("an empty budget is refilled at once", "src/policy/retry_budget.rs",
     "floor.saturating_mul(steps) / STEPS", "floor.saturating_mul(steps)"),
    ("a breaker opens for the last backend that gets requests", "src/policy/breaker/mod.rs",
     "peers.eligible_others == 0 || ", ""),
    ("more backends are out than out_max", "src/policy/breaker/terms.rs",
     "if peers.out >= most.max(1) {", "if false {"),
    ("a breaker opens although the others fail alike", "src/policy/breaker/terms.rs",
     "let is_no_chance = peers.usual.rules_out(why.failed, why.of);", "let is_no_chance = true;"),
    ("a breaker never opens for a share of failures", "src/policy/breaker/mod.rs",
     "let is_share = is_enough && is_share_now;", "let is_share = false;"),
    ("a refused connection does not open", "src/policy/breaker/mod.rs",
     "AttemptFault::Refused => (Cause::Refused, row, row),", "AttemptFault::Refused => return None,"),
    ("a POST is a trial", "src/runtime/pool.rs",
     "if ask.may_try\n                && ", "if "),
    ("trials are not limited", "src/policy/breaker/mod.rs",
     "let is_full = self.trials >= params.trials.get() && now < self.tried + TRIAL_MAX;",
     "let is_full = false;"),
    ("a trial never ends", "src/runtime/lease.rs",
     "if self.trial {\n            self.backend.circuit.end_trial();", "if false {"),
    ("a trial comes before its time", "src/runtime/circuit.rs",
     "self.open_until_ns.store(until.map_or(0, |until| until.as_nanos().max(1)), Relaxed);",
     "self.open_until_ns.store(u64::from(until.is_some()), Relaxed);"),
    ("a breaker never closes", "src/policy/breaker/mod.rs",
     "fn close(&mut self, params: &BreakerParams, now: Timestamp) -> Transition {\n        self.open = None;",
     "fn close(&mut self, params: &BreakerParams, now: Timestamp) -> Transition {"),
    ("the next worker forgets the breakers", "src/runtime/circuit.rs",
     "breaker.import(params, &state.breaker, age, now);", "let _ = age;"),
    ("the next worker starts with a full budget", "src/runtime/handoff.rs",
     "budget.import(level, self.age, now);", "let _ = (budget, level, now);"),
]


def broken(text: str, change: tuple[str, str, str, str]) -> str:
    what, path, sound, wrong = change
    if sound not in text:
        sys.exit(f"{path} no longer has the code of the change `{what}`: {sound}")
    return text.replace(sound, wrong, 1)


def run(folder: pathlib.Path) -> str | None:
    """The first message of a failed test, or `None` if all pass. An error if the tests do not compile."""
    tests = ["cargo", "test", "--quiet", "--no-default-features", "--test", "simulation"]
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target" / "sabotage"))
    variables = os.environ | {"CARGO_TARGET_DIR": target, "CARGO_INCREMENTAL": "0"}
    done = subprocess.run(tests, cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    if "test result: FAILED" not in done.stdout:
        raise RuntimeError(done.stderr[-2000:])
    lines = (done.stdout + done.stderr).splitlines()
    after = (later for line, later in zip(lines, lines[1:]) if "panicked at" in line)
    return next(after, "no message")


def main() -> int:
    only = os.environ.get("ONLY", "")
    chosen = [change for change in CHANGES if only in change[0]]
    if sys.argv[1:] == ["--list"]:
        for change in chosen:
            broken((ROOT / change[1]).read_text(), change)
            print(change[0])
        return 0
    unnoticed = 0
    with tempfile.TemporaryDirectory() as name:
        copy = pathlib.Path(name)
        head = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(head.stdout)) as archive:
            archive.extractall(copy, filter="data")
        if (message := run(copy)) is not None:
            sys.exit(f"the simulation fails without any change: {message}")
        for change in chosen:
            path = copy / change[1]
            sound = path.read_text()
            path.write_text(broken(sound, change))
            try:
                message = run(copy)
                said = f"caught: {change[0]} ({message})" if message else f"UNNOTICED: {change[0]}"
            except RuntimeError as error:
                message, said = None, f"DOES NOT COMPILE: {change[0]}\n{error}"
            path.write_text(sound)
            unnoticed += message is None
            print(said, flush=True)
    return unnoticed


if __name__ == "__main__":
    sys.exit(main())
