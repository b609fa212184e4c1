"""Who needs whom: order, circles, closure (issue 7, must hold 3)."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.needs import Circle, circles, closure, dependents, order, shown

SHOP = {"web": ("DATABASE_URL", "assets", "api"), "api": ("migrate",), "assets": (), "migrate": (), "clock": ("web",)}


def test_order_goes_in_steps() -> None:
    assert order(SHOP) == [("assets", "migrate"), ("api",), ("web",), ("clock",)]
    assert order({}) == []
    assert order({"b": (), "a": ("b", "b")}) == [("b",), ("a",)]


def test_a_step_keeps_the_order_of_the_procfile() -> None:
    assert order({"c": ("x",), "a": ("y",), "b": ("x",), "y": (), "x": ()}) == [("y", "x"), ("c", "a", "b")]


def test_closure() -> None:
    assert closure(["web"], SHOP) == ("web", "api", "assets", "migrate")
    assert closure(["assets", "unknown"], SHOP) == ("assets",)
    assert closure([], SHOP) == ()
    assert closure(["a"], {"a": ("b",), "b": ("a",), "c": ("a",)}) == ("a", "b")


def test_dependents_turn_the_arrows_round() -> None:
    assert dependents(SHOP) == {
        "web": ("clock",), "api": ("web",), "assets": ("web",), "migrate": ("api",), "clock": ()
    }  # fmt: skip
    assert closure(["migrate"], dependents(SHOP)) == ("web", "api", "migrate", "clock")


@pytest.mark.parametrize(
    ("needs", "found"),
    [
        ({"a": ("a",)}, [("a", "a")]),
        ({"web": ("assets",), "assets": ("web",)}, [("web", "assets", "web")]),
        ({"x": ("a",), "a": ("b",), "b": ("c",), "c": ("a",), "y": ()}, [("a", "b", "c", "a")]),
        ({"a": ("b",), "b": ("a",), "c": ("d", "a"), "d": ("c",)}, [("a", "b", "a"), ("c", "d", "c")]),
        ({"a": ("b", "c"), "b": ("a",), "c": ("a",)}, [("a", "b", "a")]),  # two that share a type are one finding
        ({"a": ("b", "c"), "b": ("d",), "c": ("d",), "d": ()}, []),  # two ways are no circle
    ],
)
def test_circles(needs: dict[str, tuple[str, ...]], found: list[tuple[str, ...]]) -> None:
    assert circles(needs) == found
    if found:
        with pytest.raises(Circle) as caught:
            order(needs)
        assert caught.value.names == found[0]


def test_shown() -> None:
    assert shown(("web", "assets", "web")) == "web → assets → web"
    long = [f"p{number}" for number in range(100)]
    assert shown([*long, "p0"]) == "p0 → p1 → p2 → p3 → p4 → p5 → … → p95 → p96 → p97 → p98 → p99 → p0"


def test_thousands_take_no_time_and_no_stack() -> None:
    size = 20_000
    chain = {f"p{number}": (f"p{number + 1}",) for number in range(size)}
    began = time.perf_counter()
    assert circles(chain) == []
    assert len(order(chain)) == size  # the last need is no key
    assert len(closure(["p0"], chain)) == size
    ring = {**chain, f"p{size}": ("p0",)}
    assert len(circles(ring)[0]) == size + 2
    ladder = {f"p{number}": (f"p{number - 1}", f"p{number + 1}") for number in range(size)}
    assert len(circles(ladder)) == size // 2
    assert time.perf_counter() - began < 5


NAMES = st.sampled_from("abcdef")


@given(st.dictionaries(NAMES, st.lists(NAMES | st.just("X"), max_size=4)))
def test_order_or_a_circle(needs: dict[str, list[str]]) -> None:
    found = circles(needs)
    for circle in found:
        assert circle[0] == circle[-1]
        assert all(after in needs[name] for name, after in pairwise(circle))
    members = [name for circle in found for name in circle[1:]]
    assert len(set(members)) == len(members)
    if found:
        with pytest.raises(Circle) as caught:
            order(needs)
        assert caught.value.names == found[0]
        return
    steps = order(needs)
    place = {name: at for at, step in enumerate(steps) for name in step}
    assert set(place) == set(needs)
    assert all(place[need] < place[name] for name in needs for need in needs[name] if need in needs)
