"""Which process type needs which: the order of their starts, circles, and who belongs to whom.

A graph is a mapping from each process type, in Procfile order, to the types it needs. Names that are no key of it (a
backing service's variable) are passed over. All answers keep the order of the mapping; all work is linear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Needs = Mapping[str, Sequence[str]]


class Circle(ValueError):
    """Types that need each other. `names` begins and ends with the same one."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"needs go in a circle: {shown(names)}")
        self.names = tuple(names)


def order(needs: Needs) -> list[tuple[str, ...]]:
    """Return the types in steps: those of a step need only types of earlier steps. Raises Circle."""
    waiting = {name: {need for need in wanted if need in needs} for name, wanted in needs.items()}
    reverse = dependents(needs)
    place = {name: at for at, name in enumerate(needs)}
    steps: list[tuple[str, ...]] = []
    step = [name for name, wanted in waiting.items() if not wanted]
    while step:
        steps.append(tuple(step))
        freed = []
        for name in step:
            for dependent in reverse[name]:
                waiting[dependent].discard(name)
                if not waiting[dependent]:
                    freed.append(dependent)
        step = sorted(freed, key=place.__getitem__)
    if sum(len(step) for step in steps) < len(waiting):
        raise Circle(circles(needs)[0])
    return steps


def closure(names: Iterable[str], needs: Needs) -> tuple[str, ...]:
    """Return `names` and all that they need, directly or not. Circles do no harm."""
    found: set[str] = set()
    left = [name for name in names if name in needs]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [need for need in needs[name] if need in needs]
    return tuple(name for name in needs if name in found)


def dependents(needs: Needs) -> dict[str, tuple[str, ...]]:
    """Return for each type those that need it directly: the same graph, with its arrows turned round."""
    found: dict[str, dict[str, None]] = {name: {} for name in needs}
    for name, wanted in needs.items():
        for need in wanted:
            if need in found:
                found[need][name] = None
    return {name: tuple(names) for name, names in found.items()}


def circles(needs: Needs) -> list[tuple[str, ...]]:
    """Return circles such as (web, assets, web) that have no type in common; [] if order() would raise nothing."""
    found: list[tuple[str, ...]] = []
    done: set[str] = set()
    for start in needs:
        if start in done:
            continue
        trail, place = [start], {start: 0}  # from `start` to where we are
        told = [-1]  # for each of them the last place, up to it, whose type is in a circle found already
        branches = [iter(needs[start])]
        while branches:
            name = next(branches[-1], None)
            if name is None:
                branches.pop()
                told.pop()
                del place[trail[-1]]
                done.add(trail.pop())
            elif name in place:
                if told[-1] < place[name]:
                    told[place[name] :] = range(place[name], len(trail))
                    found.append((*trail[place[name] :], name))
            elif name in needs and name not in done:
                place[name] = len(trail)
                trail.append(name)
                told.append(told[-1])
                branches.append(iter(needs[name]))
    return found


MOST_SHOWN = 12


def shown(circle: Sequence[str]) -> str:
    """Return `web → assets → web` for a message, cut in the middle if it is very long."""
    names = [*circle]
    if len(names) > MOST_SHOWN:
        names[MOST_SHOWN // 2 : -MOST_SHOWN // 2] = ["…"]
    return " → ".join(names)
