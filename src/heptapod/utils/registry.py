"""Registries: classes by kind, from this package, from a user's file, or from an installed package (entry points).

A registry is also the type annotation of its config: ``head: Annotated[HeadConfig, HEADS]`` accepts a mapping whose
``kind`` is registered and validates it with the config class of that kind.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import pydantic
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from heptapod.utils.config import from_dict, settings, to_dict
from heptapod.utils.extensions import origin_of
from heptapod.utils.messages import nearest, quoted, shown


@dataclasses.dataclass(frozen=True)
class Builtin:
    """A class of this package, imported on first use."""

    module: str
    """Where it is; importing it registers the class."""
    config: type[Any]
    """Its config class."""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Attributes of the class that settings depend on."""


class Registry:
    """Classes by kind, each with the config class that holds its settings.

    Args:
        noun: what the classes are, for errors ("head").
        default: the kind where a config names none.
        shared_config: config class of every class that is registered without one; if None, each has its own without
            settings.
        config_base: base of such classes without settings.
        builtin: the classes of this package by kind.
    """

    def __init__(
        self,
        noun: str,
        default: str,
        shared_config: type[Any] | None = None,
        config_base: type[Any] = object,
        builtin: Mapping[str, Builtin] | None = None,
    ) -> None:
        self.noun = noun
        self.default = default
        self.group = f"heptapod.{noun}s"
        self.shared_config = shared_config
        self.config_base = config_base
        self._classes: dict[str, type[Any]] = {}
        self._builtin = dict(builtin or {})
        self._configs: dict[str, type[Any]] = {kind: entry.config for kind, entry in self._builtin.items()}

    def register(self, kind: str, cls: type[Any], config: type[Any] | None) -> None:
        """Adds a class; the same class defined again (a notebook cell, say) replaces the earlier one.

        Args:
            kind: name in recipes and in saved models.
            cls: the class.
            config: its config class, a dataclass made with :func:`heptapod.utils.config.settings`, with a field
                ``kind`` whose default is this kind; None for no extra settings.

        Raises:
            ValueError: if another class is registered under that name, or the config class is not as described.
        """
        if kind in self._builtin and cls.__module__ != self._builtin[kind].module:
            raise ValueError(f"{self.noun}: {kind!r} is already registered by {self._builtin[kind].module}")
        present = self._classes.get(kind)
        if present is not None and (present.__module__, present.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{self.noun}: {kind!r} is already registered by {present.__module__}")
        config = config or self.shared_config or _plain_config(kind, self.config_base)
        if config is not self.shared_config and _default_kind(config) != kind:
            raise ValueError(
                f"{self.noun}: {config.__name__} needs the decorator heptapod.settings and a field kind: str = {kind!r}"
            )
        self._classes[kind], self._configs[kind] = cls, config

    def kinds(self) -> list[str]:
        """Every kind: the registered ones, then those of installed packages."""
        return list(dict.fromkeys([*self._builtin, *self._classes, *_entry_points(self.group)]))

    def check(self, kind: str) -> None:
        """Raises like :meth:`get`; imports no class of this package."""
        if not isinstance(kind, str) or kind not in self._builtin:  # a file can name anything
            self.get(kind)

    def fact(self, kind: str, name: str) -> Any:
        """An attribute of the class of a kind, where possible without importing it; raises like :meth:`get`."""
        facts = self._builtin[kind].facts if kind in self._builtin else {}
        return facts[name] if name in facts else getattr(self.get(kind), name, None)

    def get(self, kind: str) -> type[Any]:
        """The class of a kind; that of an installed package is imported.

        Raises:
            ValueError: for a kind that is not registered, with the nearest one that is.
        """
        known = isinstance(kind, str)
        if known and kind not in self._classes and kind in self._builtin:
            importlib.import_module(self._builtin[kind].module)
        if known and kind not in self._classes and (point := _entry_points(self.group).get(kind)):
            point.load()
        if not known or kind not in self._classes:
            hint = nearest(shown(kind), self.kinds())
            raise ValueError(f"kind: {quoted(kind)} given, must be one of {', '.join(self.kinds())}{hint}")
        return self._classes[kind]

    def config_type(self, kind: str) -> type[Any]:
        """The config class of a kind; raises like :meth:`get`."""
        self.check(kind)
        return self._configs[kind]

    def config_types(self) -> list[type[Any]]:
        """The config classes of all registered kinds, without repetition."""
        return list(dict.fromkeys(self._configs.values()))

    def kinds_of(self, config: type[Any]) -> list[str]:
        """The kinds that have a config class."""
        return [kind for kind, other in self._configs.items() if other is config]

    def same_settings(self, first: str, second: str) -> bool:
        """Whether two kinds take the same settings; raises like :meth:`get`."""
        is_same = self.config_type(first) is self.config_type(second)
        return is_same and self.fact(first, "has_mlp") == self.fact(second, "has_mlp")

    def origin(self, kind: str) -> str | None:
        """The file, module or package that registers a kind; None for one of this package."""
        if kind in self._builtin:
            return None
        point = _entry_points(self.group).get(kind)
        if point is not None and point.dist is not None:
            return point.dist.name
        return origin_of(self.get(kind))

    def require(self, kind: object, imports: object, source: str) -> None:
        """Raises an error that names what to import, if a saved model needs a kind that is not registered.

        Args:
            kind: the kind that the model names.
            imports: the files, modules or packages that registered it when the model was saved.
            source: the file that names it.

        Raises:
            ValueError: in one line.
        """
        if not isinstance(kind, str) or kind in self.kinds() or not isinstance(imports, list) or not imports:
            return
        names = ", ".join(map(str, imports))
        raise ValueError(
            f"{source}: {self.noun} {quoted(kind)} is not registered; first import {shown(names)} (on the command "
            f"line: --imports {shown(','.join(map(str, imports)))})"
        )

    def validate(self, value: Any) -> Any:
        """A config of the kind that a mapping names; an instance of a registered config class passes as it is."""
        if isinstance(value, tuple(self._configs.values())):
            expected = self.config_type(getattr(value, "kind", self.default))
            return value if isinstance(value, expected) else from_dict(expected, to_dict(value), self.noun)
        kind = value.get("kind", self.default) if isinstance(value, dict) else self.default
        return pydantic.TypeAdapter(self.config_type(kind)).validate_python(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validation by kind, decided when a value is validated, so that later registrations count."""
        return core_schema.no_info_plain_validator_function(
            self.validate, serialization=core_schema.plain_serializer_function_ser_schema(to_dict)
        )


def further_settings(config: object, base: type[Any]) -> dict[str, Any]:
    """The settings that the class of a config has in addition to those of its base class."""
    assert dataclasses.is_dataclass(config)
    known = {field.name for field in dataclasses.fields(base)}
    names = [field.name for field in dataclasses.fields(config) if field.name not in known]
    return {name: getattr(config, name) for name in names}


def _default_kind(config: type[Any]) -> object:
    fields = dataclasses.fields(config) if dataclasses.is_dataclass(config) else ()
    return next((field.default for field in fields if field.name == "kind"), None)


def _plain_config(kind: str, base: type[Any]) -> type[Any]:
    field = ("kind", Literal[kind], kind)
    return settings(dataclasses.make_dataclass(f"{kind}_config", [field], bases=(base,)))


@functools.cache
def _entry_points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}
