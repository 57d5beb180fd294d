"""The sweep: every model type that transformers knows for a task, built tiny, served, and compared with transformers itself.

    python tests/sweep/run.py                        # what is not verified yet, then docs/families.md
    python tests/sweep/run.py bert text-generation   # of these model types, heads or tasks only
    python tests/sweep/run.py --sample --again       # continuous integration: a fixed sample, and what has changed
    python tests/sweep/run.py --backend openvino     # another column

Findings are kept after each pair, so a sweep that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import over_http
import report
from pairs import HERE, Pair, all_pairs, chosen
from results import FILE, Results

MOST_CHANGED = 40
"""Continuous integration proves so many again; more are for a whole sweep."""
RESTART = 50
"""A process serves so many pairs: whatever a library leaks ends with it."""
START_S = 180.0


def main() -> int:
    """Sweeps; the status says whether all that was asked for is verified."""
    options = _options()
    pairs = all_pairs()
    results = Results(options.results)
    wanted = chosen(pairs, options.words)
    if options.sample:
        wanted = _sampled(wanted, options.backend)
    todo = wanted if options.again else results.open(wanted, options.backend)
    print(f"{len(wanted)} pairs, {len(todo)} to try on {options.backend}", flush=True)
    work: queue.SimpleQueue[list[Pair]] = queue.SimpleQueue()
    for at in range(0, len(todo), RESTART):
        work.put(todo[at : at + RESTART])
    sweeps = [threading.Thread(target=_sweep, args=(work, results, options)) for _ in range(options.jobs)]
    for sweep in sweeps:
        sweep.start()
    for sweep in sweeps:
        sweep.join()
    results.forget(pair.name for pair in pairs)
    if options.http:
        results.http |= over_http.check(_one_of_each_task(pairs, results, options.backend), options.backend)
    results.write()
    if options.results == FILE:
        report.write(pairs, results)
    missing = results.open(wanted, options.backend)
    print(f"{len(wanted) - len(missing)} of {len(wanted)} pairs verified on {options.backend}")
    return 1 if missing else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="model types, heads, tasks or pairs (bert/masked-lm); all without")
    parser.add_argument("--backend", default="cpu", help="where to serve them")
    parser.add_argument("--jobs", type=int, default=1, help="processes beside each other")
    parser.add_argument("--again", action="store_true", help="also what is verified already")
    parser.add_argument("--sample", action="store_true", help="only the pairs of sample.txt, and what has changed")
    parser.add_argument("--http", action="store_true", help="then ask one verified pair of each task through a server")
    parser.add_argument("--pair-s", type=float, default=120.0, help="longest time of a pair")
    parser.add_argument("--results", type=Path, default=FILE, help="where findings are kept")
    return parser.parse_args()


def _one_of_each_task(pairs: Sequence[Pair], results: Results, backend: str) -> list[Pair]:
    """A verified pair of every task, of the sample if there is one in it."""
    sample = _sample()
    found: dict[str, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: pair.name not in sample):
        if results.pairs.get(pair.name, {}).get(backend, {}).get("status") == "verified":
            found.setdefault(pair.task, pair)
    return list(found.values())


def _sampled(pairs: Sequence[Pair], backend: str) -> list[Pair]:
    """The fixed sample, and those that were verified with another recipe than they have now.

    Raises:
        SystemExit: if these are too many.
    """
    changed = Results().changed(pairs, backend)
    if len(changed) > MOST_CHANGED:
        names = ", ".join(pair.name for pair in changed[:5])
        sys.exit(f"{len(changed)} pairs have another recipe than they were verified with ({names}, …): run `make sweep`")
    sample = _sample()
    return [pair for pair in pairs if pair.name in sample or pair in changed]


def _sample() -> list[str]:
    return (HERE / "sample.txt").read_text(encoding="utf-8").split()


def _sweep(work: queue.SimpleQueue[list[Pair]], results: Results, options: argparse.Namespace) -> None:
    """Takes portions until there are none, each in a process of its own, and another one after each pair that ended it."""
    while True:
        try:
            rest = work.get_nowait()
        except queue.Empty:
            return
        while rest:
            rest = rest[_portion(rest, results, options) :]


def _portion(pairs: Sequence[Pair], results: Results, options: argparse.Namespace) -> int:
    """Tries pairs in one process, until it ends; how many are done with."""
    done = 0
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        command = [sys.executable, str(HERE / "child.py"), folder, options.backend, *(pair.name for pair in pairs)]
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(folder),
            stderr=None if os.environ.get("SWEEP_DEBUG") else subprocess.DEVNULL,
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
        try:
            waited = START_S
            while done < len(pairs):
                try:
                    line = lines.get(timeout=waited)
                except queue.Empty:
                    return done + _broken(pairs[done], results, options.backend, f"it took more than {waited:g} s")
                if not line:
                    how = f"the process ended with {child.wait()}"
                    return done + _broken(pairs[done], results, options.backend, how)
                waited = options.pair_s
                told = json.loads(line)
                if "pair" in told:
                    _say(told["pair"], told["status"], told["reason"], told["seconds"])
                    results.record(pairs[done], options.backend, told["status"], told["reason"])
                    done += 1
        finally:
            child.kill()
            child.wait()
    return done


def _broken(pair: Pair, results: Results, backend: str, why: str) -> int:
    _say(pair.name, "fails", why, 0.0)
    results.record(pair, backend, "fails", why)
    return 1


def _read(pipe: Any, lines: queue.SimpleQueue[str]) -> None:
    for line in pipe:
        lines.put(line)
    lines.put("")


def _say(pair: str, status: str, reason: str, seconds: float) -> None:
    print(f"{status:16} {pair:48} {seconds:6.1f} s  {reason}", flush=True)


def _environment(folder: str) -> dict[str, str]:
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1"}
    return {**os.environ, **quiet, "HF_HOME": folder}


if __name__ == "__main__":
    sys.exit(main())
