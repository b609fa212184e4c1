"""Ports: base + step * position in the Procfile + instance - 1 (contract E1-E5)."""

from __future__ import annotations

import pytest

from procman.errors import ConfigError
from procman.ports import assign_ports, port_of

PORTS: dict[str, tuple[dict[str, int], int, int, dict[str, list[int]]]] = {
    "one each": ({"web": 1, "worker": 1}, 5000, 100, {"web": [5000], "worker": [5100]}),
    "a subset changes no port": ({"web": 0, "worker": 2}, 5000, 100, {"web": [], "worker": [5100, 5101]}),
    "another step": ({"web": 2, "worker": 1}, 7000, 10, {"web": [7000, 7001], "worker": [7010]}),
    "step zero, one type": ({"web": 2, "worker": 0}, 5000, 0, {"web": [5000, 5001], "worker": []}),
    "as many as the step": ({"web": 100, "worker": 1}, 5000, 100, {"web": [*range(5000, 5100)], "worker": [5100]}),
    "past a type that does not run": ({"a": 101, "b": 0, "c": 1}, 1, 100, {"a": [*range(1, 102)], "b": [], "c": [201]}),
    "the last port": ({"web": 2}, 65534, 100, {"web": [65534, 65535]}),
    "past the end, not running": ({"web": 1, "worker": 0}, 65500, 100, {"web": [65500], "worker": []}),
    "nothing": ({}, 5000, 100, {}),
}


@pytest.mark.parametrize(("counts", "base", "step", "ports"), PORTS.values(), ids=PORTS)
def test_ports(counts: dict[str, int], base: int, step: int, ports: dict[str, list[int]]) -> None:
    assert {name: list(taken) for name, taken in assign_ports(counts, base, step).items()} == ports


REFUSED: dict[str, tuple[dict[str, int], int, int, list[str]]] = {
    "collision": (
        {"web": 101, "worker": 1},
        5000,
        100,
        ["web.101 and worker.1 would both get port 5100 — choose a --p"],
    ),
    "step zero": ({"web": 1, "worker": 1}, 5000, 0, ["web.1 and worker.1 would both get port 5000"]),
    "over two types": (
        {"a": 250, "b": 1, "c": 1},
        5000,
        100,
        ["a.101 and b.1 would both get port 5100", "a.201 and c.1 would both get port 5200"],
    ),
    "too high": (
        {"web": 1, "worker": 1},
        65500,
        100,
        ["worker=1 needs port 65600, and ports end at 65535 — choose a l"],
    ),
    "too many": ({"web": 3}, 65534, 100, ["web=3 needs ports 65534 to 65536, and ports end at 65535"]),
    "too low": ({"web": 1}, 0, 100, ["web=1 needs port 0, and ports start at 1 — choose a higher base"]),
    "all at once": (
        {"a": 3, "b": 1, "c": 1},
        65534,
        1,
        [
            "a=3 needs ports 65534 to 65536",
            "c=1 needs port 65536",
            "a.2 and b.1 would both get port 65535",
            "a.3 and c.1 would both get port 65536",
        ],
    ),
}


@pytest.mark.parametrize(("counts", "base", "step", "starts"), REFUSED.values(), ids=REFUSED)
def test_refused(counts: dict[str, int], base: int, step: int, starts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        assign_ports(counts, base, step)
    lines = str(caught.value).splitlines()
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_port_of() -> None:
    assert port_of(5000, 100, 2, 3) == 5202
