"""Settings: dataclasses that validate themselves, to and from YAML.

A group of settings is a dataclass made with :func:`settings`; every field has a docstring under it, which ``--help``
shows. pydantic validates values from every source; the error for an unknown key suggests the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import pydantic
import pydantic.dataclasses
import yaml

T = TypeVar("T")
SHIPPED = {"recipe": "training/recipes", "study": "tools/ablation/studies"}
"""Folders of the package with YAML files, by what they hold."""
LIMITS = {
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "multiple_of": "a multiple of {multiple_of:g}",
    "finite_number": "a finite number",
}
"""Limits of a value in words, by pydantic's type of error."""


@dataclass_transform(field_specifiers=(dataclasses.field,))
def settings(cls: type[T]) -> type[T]:
    """Makes a class a group of settings: a dataclass that checks types and limits and rejects unknown names.

    A mistake is a one-line ValueError.
    """
    config = pydantic.ConfigDict(extra="forbid", validate_default=False, use_attribute_docstrings=True)
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


def to_dict(config: object) -> dict[str, Any]:
    """A group of settings as plain dictionaries, lists, numbers and strings (JSON and YAML safe)."""
    dumped = pydantic.TypeAdapter(type(config)).dump_python(config, mode="json")
    assert isinstance(dumped, dict)
    return dumped


def to_yaml(config: object) -> str:
    """A group of settings as YAML, every field written out."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True, width=100)


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


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ValueError: if the file is not YAML or not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a recipe is a mapping of settings, found {type(values).__name__}")
    return values


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


def _dotted_keys(cls: Any, prefix: str = "") -> dict[str, tuple[Any, ...]]:
    """Every setting below a class by its dotted key, with the types it may have."""
    keys: dict[str, tuple[Any, ...]] = {}
    hints = typing.get_type_hints(cls)
    annotated = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
        keys[prefix + field.name] = kinds
        for registry in (entry for entry in typing.get_args(annotated[field.name]) if hasattr(entry, "config_types")):
            kinds = (*kinds, *registry.config_types())
        for group in filter(dataclasses.is_dataclass, kinds):
            keys = _dotted_keys(group, f"{prefix}{field.name}.") | keys
    return keys


def _explain(cls: type[object], error: pydantic.ValidationError) -> str:
    """A one-line message about the first problem of a validation error."""
    first, *others = error.errors(include_url=False)
    if first["loc"] and isinstance(first["loc"][0], int):  # by position
        first["loc"] = (dataclasses.fields(cls)[first["loc"][0]].name, *first["loc"][1:])  # type: ignore[arg-type]
    # Members of a union appear in the location as the class or tag that was tried: drop what is no key.
    known = list(_dotted_keys(cls))
    names = {part for key in known for part in key.split(".")}
    *parents, last = [str(part) for part in first["loc"]] or [""]
    parents = [part for part in parents if part in names]
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        location = ".".join([*parents, last])
        return f"unknown setting {location!r}{nearest(location, known)}"
    location = ".".join([*parents, last] if last in names else parents)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{location}.{message}" if location else message
    if first["type"] in ("missing", "missing_argument"):
        return f"{location}: none given"
    if limit := LIMITS.get(first["type"]):
        bounds = first.get("ctx", {})
        value = float(first["input"]) if float in map(type, bounds.values()) else first["input"]
        words = [
            e["ctx"]["expected"] for e in others if e["type"] == "literal_error" and e["loc"][:-1] == first["loc"][:-1]
        ]
        return f"{location}: {value!r} given, must be {' or '.join([limit.format(**bounds), *words])}"
    return f"{location}: {first['input']!r} given; {message[0].lower()}{message[1:]}"


def nearest(key: str, known: Sequence[str]) -> str:
    """A hint at the setting that was meant: "; did you mean ...?", or nothing."""
    last = key.rpartition(".")[2]
    near = [other for other in known if other.endswith(f".{key}")] or difflib.get_close_matches(key, known, 1, 0.5)
    near = near or [other for other in known if other.rpartition(".")[2] == last]
    return f"; did you mean {near[0]!r}?" if near else ""
