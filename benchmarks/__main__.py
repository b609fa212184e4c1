"""procman and its peers, side by side: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import time
from pathlib import Path

from benchmarks import check, install, report
from benchmarks.measure import delay, idle, memory, scale, stall, start, throughput
from benchmarks.plan import FULL, QUICK, Test
from benchmarks.run import Result, run

FAMILIES = (start, throughput, delay, memory, idle, scale, stall)
DOCS = install.ROOT / "docs" / "benchmarks"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", metavar="TEST", help="tests whose name begins so: start,throughput:pipe")
    parser.add_argument("--peers", metavar="A,B", help="only these tools, beside procman and the floors")
    parser.add_argument("--repetitions", metavar="N", type=int, help="samples of each tool in each test; else 3 to 20")
    parser.add_argument("--quick", action="store_true", help="small sizes, once: only shows that all works")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all samples there")
    parser.add_argument("--docs", action="store_true", help="write tables, plots and all samples to docs/benchmarks")
    parser.add_argument(
        "--from", metavar="FILE", nargs="+", dest="earlier", help="measure nothing, report what --json wrote"
    )
    parser.add_argument("--no-install", action="store_true", help="measure only what is there already")
    parser.add_argument("--list", action="store_true", help="name the tests")
    parser.add_argument("--check", action="store_true", help="procman only: is every line there? Exits with 1 if not")
    return parser.parse_args()


def chosen(only: str | None, quick: bool) -> list[Test]:
    tests = [test for family in FAMILIES for test in family.tests(QUICK if quick else FULL)]
    if only is None:
        return tests
    found = [test for test in tests if test.name.startswith(tuple(only.split(",")))]
    return found or sys.exit(f"no test begins with {only}; --list names them")


def allow_many_files() -> None:
    """A manager of thousands needs thousands of descriptors, and inherits the limit from us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    given = options()
    tests = chosen(given.only, given.quick)
    if given.list:
        print(*(f"{test.name:24} {test.title}" for test in tests), sep="\n")
        return 0
    allow_many_files()
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # so that nothing is left running
    if given.check:
        return check.main()
    if given.earlier:
        results, tools, about = report.load(given.earlier, chosen(None, given.quick))
    else:
        tools = install.find(given.peers.split(",") if given.peers else None, not given.no_install)
        results, about = measure(tests, tools, given.repetitions or (1 if given.quick else None))
    print(report.text(results, tools, about))
    if given.json:
        given.json.write_text(json.dumps(report.data(results, tools, about), indent=1) + "\n")
    if given.docs:
        report.write_docs(DOCS, results, tools, about)
    return 0


def measure(tests: list[Test], tools: install.Tools, repetitions: int | None) -> tuple[list[Result], report.About]:
    began_s = time.monotonic()
    results = []
    try:
        for test in tests:
            results.append(run(test, tools.present, repetitions))
    except KeyboardInterrupt:
        print(f"interrupted: only {len(results)} of {len(tests)} tests are complete", file=sys.stderr)
    return results, report.machine(time.monotonic() - began_s)


if __name__ == "__main__":
    sys.exit(main())
