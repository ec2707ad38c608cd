"""Settings: dataclasses that validate themselves, to and from YAML.

A group of settings is a dataclass made with :func:`settings`; every field has a docstring under it, which ``--help``
shows. pydantic validates values from every source; the error for an unknown key suggests the nearest known one.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, dataclass_transform

import pydantic
import pydantic.dataclasses
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from heptapod.utils.messages import limits_of, nearest, quoted, shown
from heptapod.utils.yaml_text import dump_yaml

T = TypeVar("T")
SHIPPED = {"recipe": "training/recipes", "study": "tools/ablation/studies"}
"""Folders of the package with YAML files, by what they hold."""
LIMIT_ERRORS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of", "finite_number")
"""pydantic's types of error for a value out of range."""


@dataclass_transform(field_specifiers=(dataclasses.field,))
def settings(cls: type[T]) -> type[T]:
    """Makes a class a group of settings: a dataclass that checks types and limits and rejects unknown names.

    Numbers are finite numbers, not text or booleans. A mistake is a one-line ValueError.
    """
    config = pydantic.ConfigDict(
        extra="forbid", validate_default=False, use_attribute_docstrings=True, allow_inf_nan=False
    )
    cls.__get_pydantic_core_schema__ = classmethod(_with_plain_numbers)  # type: ignore[attr-defined]
    made: Any = pydantic.dataclasses.dataclass(config=config)(cls)
    validating_init = made.__init__

    @functools.wraps(validating_init)
    def init(self: T, *args: Any, **kwargs: Any) -> None:
        try:
            validating_init(self, *args, **kwargs)
        except pydantic.ValidationError as error:
            raise ValueError(_explain(made, error)) from None

    made.__init__ = init
    return made  # type: ignore[no-any-return]


def _with_plain_numbers(cls: type[Any], source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """The schema of a settings class whose numbers are not converted from text or booleans."""
    return _plain(handler(source), handler.resolve_ref_schema)  # type: ignore[no-any-return]


def _plain(schema: Any, resolve: Callable[[Any], Any]) -> Any:
    """A schema, and those within it, with a check in front of every number; changed in place where it is possible."""
    if isinstance(schema, list):
        schema[:] = [_plain(part, resolve) for part in schema]
    elif isinstance(schema, tuple):
        return tuple(_plain(part, resolve) for part in schema)
    elif isinstance(schema, dict):
        if schema.get("type") in ("int", "float"):
            return core_schema.no_info_before_validator_function(_plain_number(schema["type"]), schema)
        inside = resolve(schema) if schema.get("type") == "definition-ref" else schema
        for name, part in inside.items():
            if name not in ("cls", "metadata", "function", "serialization"):
                inside[name] = _plain(part, resolve)
    return schema


def _plain_number(kind: str) -> Callable[[Any], Any]:
    name = "integer" if kind == "int" else "number"

    def check(value: Any) -> Any:
        if isinstance(value, str | bytes | bool):
            raise PydanticCustomError(f"{kind}_type", f"Input should be a valid {name}")
        return value

    return check


def to_dict(config: object) -> dict[str, Any]:
    """A group of settings as plain dictionaries, lists, numbers and strings (JSON and YAML safe)."""
    dumped = pydantic.TypeAdapter(type(config)).dump_python(config, mode="json")
    assert isinstance(dumped, dict)
    return dumped


def to_yaml(config: object) -> str:
    """A group of settings as YAML, every field written out."""
    return dump_yaml(to_dict(config))


def from_dict(cls: type[T], values: dict[str, Any], source: str = "settings") -> T:
    """Builds settings from nested dictionaries.

    Args:
        cls: the settings class.
        values: nested dictionary; missing keys take their defaults.
        source: name of the origin in errors (a file name, say); empty for none.

    Raises:
        ValueError: in one line, with the path of the key, the value given and what is allowed.
    """
    try:
        return pydantic.TypeAdapter(cls).validate_python(values)
    except pydantic.ValidationError as error:
        raise ValueError(f"{source}: {_explain(cls, error)}" if source else _explain(cls, error)) from None


def shipped_names(kind: str) -> list[str]:
    """Names of the YAML files of a kind (recipe, study) that come with the package."""
    folder = resources.files("heptapod") / SHIPPED[kind]
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def find_yaml(kind: str, name: str) -> Path:
    """The file of a shipped recipe or study by name, or the path itself.

    Raises:
        FileNotFoundError: if there is none.
    """
    source = resources.files("heptapod") / SHIPPED[kind] / f"{name}.yaml"
    path = Path(str(source)) if source.is_file() else Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"{kind}: {name} is neither a file nor one of {', '.join(shipped_names(kind))}")
    return path


def merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries with changes applied; neither argument is modified."""
    merged = {key: merge(value, {}) if isinstance(value, Mapping) else value for key, value in values.items()}
    for key, value in changes.items():
        before = merged.get(key)
        merged[key] = merge(before if isinstance(before, dict) else {}, value) if isinstance(value, Mapping) else value
    return merged


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested settings with their dotted names, as ("model.head.depth", 2)."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


class Known(NamedTuple):
    """A setting below a settings class."""

    hint: Any
    """Its annotation."""
    kinds: tuple[str, ...] = ()
    """The kinds that it belongs to, if it is one of a group with several kinds."""


def known_settings(cls: Any, prefix: str = "", kinds: tuple[str, ...] = ()) -> dict[str, Known]:
    """Every setting below a class by its dotted key, of all kinds."""
    known: dict[str, Known] = {}
    hints, annotated = _hints(cls)
    for field in dataclasses.fields(cls):
        key = prefix + field.name
        known[key] = Known(annotated[field.name], kinds)
        groups = dict.fromkeys((hints[field.name], *typing.get_args(hints[field.name])), kinds)
        for registry in (note for note in typing.get_args(annotated[field.name]) if hasattr(note, "config_types")):
            groups = {group: tuple(registry.kinds_of(group)) for group in registry.config_types()}
        for group, names in groups.items():
            if dataclasses.is_dataclass(group):
                for inner, setting in known_settings(group, f"{key}.", names).items():
                    before = known.get(inner, Known(None)).kinds
                    known[inner] = setting._replace(kinds=(*before, *setting.kinds))
    return known


@functools.cache
def _hints(cls: type[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The types of the fields of a class, without and with annotations."""
    return typing.get_type_hints(cls), typing.get_type_hints(cls, include_extras=True)


def unknown_setting(key: str, accepted: Sequence[str], known: Mapping[str, Known]) -> str:
    """The message for a setting that is not accepted: the kinds it belongs to, or the name that was meant."""
    name = shown(key)
    if key.rpartition(".")[2] in GUIDANCE:
        return f"unknown setting {name!r}: there is no guidance; the model samples without it"
    if key in known and known[key].kinds:
        return f"unknown setting {name!r}: it belongs to kind {' and '.join(known[key].kinds)}"
    return f"unknown setting {name!r}{nearest(name, accepted)}"


GUIDANCE = ("cfg", "cfg_scale", "guidance", "guidance_scale", "negative_prompt")
"""Settings of classifier-free guidance in other programs."""


def _explain(cls: type[object], error: pydantic.ValidationError) -> str:
    """A one-line message about the first problem of a validation error."""
    first, *others = error.errors(include_url=False)
    if first["loc"] and isinstance(first["loc"][0], int):  # by position
        first["loc"] = (dataclasses.fields(cls)[first["loc"][0]].name, *first["loc"][1:])  # type: ignore[arg-type]
    # Members of a union appear in the location as the class or tag that was tried: drop what is no key.
    known = known_settings(cls)
    names = {part for key in known for part in key.split(".")}
    *parents, last = [str(part) for part in first["loc"]] or [""]
    parents = [part for part in parents if part in names]
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown_setting(".".join([*parents, last]), list(known), known)
    location = ".".join([*parents, last] if last in names else parents)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{location}.{message}" if location else message
    if first["type"] in ("missing", "missing_argument"):
        return f"{location}: none given"
    value = first["input"]
    if first["type"] in LIMIT_ERRORS:
        bounds = first.get("ctx", {})
        if float in map(type, bounds.values()) and isinstance(value, int) and abs(value) < 2**53:
            value = float(value)
        words = [
            e["ctx"]["expected"] for e in others if e["type"] == "literal_error" and e["loc"][:-1] == first["loc"][:-1]
        ]
        allowed = limits_of(known[location].hint) if location in known else ""
        finite = ["a finite number"] if first["type"] == "finite_number" else []
        limits = ", ".join([*finite, *filter(None, [allowed])]) or message
        return f"{location}: {quoted(value)} given, must be {' or '.join([limits, *words])}"
    return f"{location}: {quoted(value)} given; {message[0].lower()}{message[1:]}"
