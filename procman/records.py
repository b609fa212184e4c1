"""Records: `class Port(NamedTuple)` as typing has it, defined in a fifth of the time.

typing.NamedTuple compiles each annotation and a `__new__` for each class: 0.1 ms, and thirty classes are defined on the
way to the first child. Here the annotations stay the strings they are, and classes with as many fields share the code
of `__new__`. Type checkers see typing's own.
"""

from __future__ import annotations

from types import CodeType, FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would be an import on the start path
    from typing import Any
    from typing import NamedTuple as NamedTuple
else:
    from _collections import _tuplegetter  # of which collections.namedtuple makes its fields

    _codes: dict[int, CodeType] = {}  # of `__new__`, by the number of fields

    def _new_code(count: int) -> CodeType:
        if count not in _codes:
            values = "".join(f"_{at}, " for at in range(count))
            _codes[count] = eval(f"lambda cls, {values}: new(cls, ({values}))").__code__
        return _codes[count]

    class _Fields(type):
        """Turns the annotations of a class body into the fields of a tuple."""

        def __new__(cls, name: str, bases: tuple[type, ...], members: dict[str, Any]) -> type:
            fields = tuple(members.get("__annotations__", ()))
            defaults = {field: members[field] for field in fields if field in members}
            code = _new_code(len(fields)).replace(co_varnames=("cls", *fields), co_qualname=f"{name}.__new__")
            members["__new__"] = FunctionType(code, {"new": tuple.__new__}, "__new__", tuple(defaults.values()))
            members |= {field: _tuplegetter(at, "") for at, field in enumerate(fields)}
            members |= {"_fields": fields, "_field_defaults": defaults, "__match_args__": fields, "__slots__": ()}
            return super().__new__(cls, name, bases, members)

    class NamedTuple(tuple, metaclass=_Fields):
        """A tuple with names for its places."""

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

        def __repr__(self) -> str:
            values = ", ".join(f"{field}={value!r}" for field, value in self._asdict().items())
            return f"{type(self).__name__}({values})"

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **changes: Any) -> Any:
            return type(self)(**(self._asdict() | changes))
