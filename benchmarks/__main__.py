"""procman and its peers, side by side: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

from benchmarks import check, install, report
from benchmarks.measure import delay, idle, memory, scale, stall, start, throughput
from benchmarks.run import run
from benchmarks.tests import FULL, QUICK, Test

FAMILIES = (start, throughput, delay, memory, idle, scale, stall)
DOCS = install.ROOT / "docs" / "benchmarks"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="TEST", help="tests whose name begins so, as in throughput:pipe; or more, with ,")
    parser.add_argument("--peers", metavar="A,B", help="only these tools, beside procman and the floors")
    parser.add_argument("--repetitions", metavar="N", type=int, help="samples of each tool in each test")
    parser.add_argument("--quick", action="store_true", help="small sizes, once: only shows that all works")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all samples there")
    parser.add_argument("--docs", action="store_true", help=f"write tables, plots and samples to {DOCS.name} in docs/")
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
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    given = options()
    tests = chosen(given.only, given.quick)
    if given.list:
        print(*(f"{test.name:24} {test.title}" for test in tests), sep="\n")
        return 0
    allow_many_files()
    if given.check:
        return check.main()
    tools = install.find(given.peers.split(",") if given.peers else None, not given.no_install)
    began_s = time.monotonic()
    repetitions = given.repetitions or (1 if given.quick else 5)
    results = [run(test, tools.present, repetitions) for test in tests]
    machine = report.machine(repetitions, time.monotonic() - began_s)
    print(report.text(results, tools, machine))
    data = json.dumps(report.data(results, tools, machine), indent=1)
    if given.json:
        given.json.write_text(data + "\n")
    if given.docs:
        report.write_docs(DOCS, results, tools, machine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
