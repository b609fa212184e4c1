"""Records are what typing.NamedTuple would make of the same class body, but for the time it takes."""

from __future__ import annotations

import copy
import pickle
import typing

import pytest

from procman.records import NamedTuple


class Port(NamedTuple):
    """A port and who has it."""

    number: int
    owner: str
    is_open: bool = False
    tags: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.owner}:{self.number}"


class Typed(typing.NamedTuple):
    number: int
    owner: str
    is_open: bool = False
    tags: tuple[str, ...] = ()


def test_a_record_is_a_tuple_with_names() -> None:
    port = Port(5000, owner="web")
    assert port == (5000, "web", False, ())
    assert (port.number, port.owner, port.is_open, port.tags) == port
    assert str(port) == "web:5000"
    assert repr(port) == repr(Typed(5000, "web")).replace("Typed", "Port")
    assert Port.__doc__ == "A port and who has it."
    assert port._asdict() == Typed(5000, "web")._asdict()
    assert port._replace(is_open=True) == Port(5000, "web", True)
    assert hash(port) == hash(Port(5000, "web"))
    match port:
        case Port(number, owner="web"):
            assert number == 5000
        case _:
            pytest.fail("no match")


@pytest.mark.parametrize("name", ["_fields", "_field_defaults", "__match_args__", "__slots__"])
def test_the_class_says_what_typings_own_says(name: str) -> None:
    assert getattr(Port, name) == getattr(Typed, name)


def test_records_are_immutable_and_have_no_room_for_more() -> None:
    port = Port(5000, "web")
    with pytest.raises(AttributeError):
        port.number = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        port.other = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1,), {}), ((1, "a", True, (), 5), {}), ((1, "a"), {"number": 2}), ((1, "a"), {"x": 1})],
)
def test_wrong_arguments_are_refused(values: tuple[typing.Any, ...], named: dict[str, typing.Any]) -> None:
    with pytest.raises(TypeError, match=r"Port\.__new__"):
        Port(*values, **named)


def test_copies_are_records() -> None:
    port = Port(5000, "web")
    assert type(copy.copy(port)) is Port
    assert pickle.loads(pickle.dumps(port)) == port
