"""Settings as pydantic dataclasses: checked when made, with errors in the words of a configuration file."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    with_config,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict, dataclass_transform, is_typeddict

from haste.errors import ConfigError, suggest
from haste.files import read_yaml

_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*", re.IGNORECASE)
_YAML_NUMBER = r"^[-+]?[0-9]+([eE][-+]?[0-9]+)$"
"""what YAML 1.1 reads as text: 1e-3, without a dot"""

T = TypeVar("T")


class SettingError(ValueError):
    """For `__post_init__`: what is wrong with a key, given the others; becomes a ConfigError with its place."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not allowed. Input should be a number")
    return value


def plain_name(value: Any) -> str:
    """`value` if it is safe as part of a path; raises ValueError."""
    if not isinstance(value, str) or not _PLAIN_NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a plain name; letters, digits, '.', '_' and '-' make one, and the first is "
            "a letter or digit"
        )
    return value


def expand_home(value: str) -> str:
    """`value` with a leading ~ replaced by the home folder; raises ValueError where there is none."""
    if not value.startswith("~"):
        return value
    try:
        return str(Path(value).expanduser())
    except RuntimeError:
        raise ValueError(f"there is no home folder for {value!r}") from None


_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}
"""which pydantic leaves as they are behind a validator of our own"""


class _OrText:
    """Lets a number's JSON schema take text such as 1e-3 too, as validation does."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        number = {_BOUNDS.get(key, key): value for key, value in handler(core_schema).items()}
        return {"anyOf": [number, {"type": "string", "pattern": _YAML_NUMBER}]}


Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]
Float = Annotated[float, BeforeValidator(_no_bool), _OrText()]
Seed = Annotated[Int, Field(ge=0, le=2**31 - 1)]
Share = Annotated[Float, Field(ge=0, le=1)]
"""of steps, labels or documents"""
Name = Annotated[
    str,
    PlainValidator(plain_name),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$"}),
]
"""safe as part of a path"""
PathText = Annotated[str, Field(min_length=1), AfterValidator(expand_home)]
"""a path; a leading ~ is the home folder"""


def _without_repeats(values: tuple) -> tuple:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} is named more than once")
    return values


UNIQUE = (AfterValidator(_without_repeats), Field(json_schema_extra={"uniqueItems": True}))
"""of a list: names nothing twice"""
FILLED = (Field(min_length=1), *UNIQUE)
"""of a list: that, and something"""


@dataclass_transform(frozen_default=True)
def settings(where: str) -> Callable[[type[T]], type[T]]:
    """A frozen pydantic dataclass that raises ConfigError for a wrong value; `where` is said before it."""

    def decorate(cls: type[T]) -> type[T]:
        made = pydantic_dataclass(cls, frozen=True, config=_CONFIG)
        init = made.__init__

        @functools.wraps(init)
        def checked(self: Any, *args: Any, **values: Any) -> None:
            try:
                init(self, *args, **values)
            except ValidationError as error:
                raise _config_error(error, made, where) from None

        made.__init__ = checked  # type: ignore[method-assign]  # on purpose, for the ConfigError
        return made  # type: ignore[return-value]  # pydantic's type does not say that it is `cls`

    return decorate


def parse(cls: type[T], value: Any, where: str) -> T:
    """`cls`, a class made by `settings` or a typed dictionary, from plain values of a YAML file.

    Raises ConfigError that says `where` and which key is wrong, with the nearest known key.
    """
    try:
        return _adapter(cls).validate_python(value)  # type: ignore[arg-type]  # classes are hashable
    except ValidationError as error:
        raise _config_error(error, cls, where) from None


@functools.cache
def _adapter(cls: type) -> TypeAdapter:
    return TypeAdapter(cls)


def check_integer(name: str, value: Any, least: int) -> int:
    """An argument as an int, numpy's integers among them; raises ConfigError for what is none, or less than `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ConfigError(
            f"{name}: {value!r} is not allowed; give a whole number of at least {least}."
        )
    return number


def partial_settings(cls: type) -> Any:
    """A dictionary type of any of the settings of `cls`, each checked by itself, none with a default."""
    known: dict[str, FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]  # of `settings`
    hints = {
        field.name: Annotated[
            hint,
            Field(
                description=known[field.name].description,
                json_schema_extra={} if field.default is MISSING else {"default": field.default},
            ),
        ]
        for field, hint in zip(
            fields(cls), get_type_hints(cls, include_extras=True).values(), strict=True
        )
    }
    made: Any = TypedDict(f"{cls.__name__}Delta", hints, total=False)  # type: ignore[misc]  # made when run
    return with_config(_CONFIG)(made)


def read_settings(path: Path) -> Mapping[str, Any]:
    """The mapping in a YAML file; raises DataError for a damaged file, ConfigError for another value."""
    value = read_yaml(path)
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{path}: no configuration in it; expected settings (key: value), like config.yaml."
        )
    return value


@contextmanager
def naming(*paths: Path) -> Iterator[None]:
    """Put the files that settings come from before each line of a ConfigError that does not name them."""
    named = ", ".join(map(str, paths))
    try:
        yield
    except ConfigError as error:
        if str(error).startswith(named):
            raise
        lines = (f"{named}: {line}" for line in str(error).splitlines())
        raise ConfigError("\n".join(lines)) from error


def _config_error(error: ValidationError, cls: Any, root: str) -> ConfigError:
    """One line for each thing that is wrong."""
    # a list that is too short because its items are wrong: that is said of each
    details = error.errors()
    wrong = (detail for detail in details if detail["type"] != "too_short" or not detail["input"])
    return ConfigError("\n".join(dict.fromkeys(_line(detail, cls, root) for detail in wrong)))


def _line(detail: ErrorDetails, cls: Any, root: str) -> str:
    kind, value, path = detail["type"], detail["input"], list(detail["loc"])
    if path[-1:] == ["[key]"]:
        # the key itself is wrong, not what stands below it
        path = path[:-2]
    path = [part for part in path if part != "[key]"]
    if path and isinstance(path[0], int) and is_dataclass(cls):
        # given by position
        path[0] = fields(cls)[path[0]].name
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        key = str(path.pop())
        return f"{_place(root, path)}: unknown key {key!r}.{suggest(key, _keys(_hint(cls, path)))}"
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        path.append(cause.key)
    place = _place(root, path)
    if kind == "value_error":
        text = str(cause)
        return f"{place}: {text}{'' if text.endswith(('?', '.')) else '.'}"
    if kind in ("missing", "missing_argument"):
        return f"{place}: missing."
    if kind == "tuple_type":
        return f"{place}: expected a list, got {value!r}; write [{value}]."
    if kind in ("dict_type", "mapping_type", "dataclass_type"):
        return f"{place}: expected settings (key: value), got {value!r}."
    return f"{place}: {value!r} is not allowed. {detail['msg']}."


def _place(root: str, path: list[str | int]) -> str:
    """Where a value stands, as a user finds it: the sections of a file by their own name."""
    if not path:
        return root
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text[1:] if root in ("config", "run") and len(path) > 1 else f"{root}{text}"


def _keys(hint: Any) -> list[str]:
    return list(get_type_hints(hint)) if is_dataclass(hint) or is_typeddict(hint) else []


def _hint(hint: Any, path: list[str | int]) -> Any:
    """The type that stands at a path of keys below a type; None where that is not known."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
        return _hint(hint, path)
    if not path:
        return hint
    if is_dataclass(hint) or is_typeddict(hint):
        below = get_type_hints(hint, include_extras=True).get(str(path[0]))
    elif get_origin(hint) is tuple:
        below = get_args(hint)[0]
    else:
        below = next(iter(get_args(hint)[1:]), None)
    return _hint(below, path[1:])
