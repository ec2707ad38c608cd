"""The fields of a settings class with every field optional: for the options of a command and the body of a request."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import pydantic

BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def optional_fields(cls: type[Any]) -> dict[str, tuple[Any, str]]:
    """Type (or None) and documentation of every field of a settings class, with its limits."""
    hints = typing.get_type_hints(cls, include_extras=True)
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):  # a class holds the docstrings of the fields that it declares
        fields: dict[str, Any] = getattr(base, "__pydantic_fields__", {})
        docs |= {name: " ".join(field.description.split()) for name, field in fields.items() if field.description}
    return {
        field.name: (hints[field.name] | None, docs[field.name] + _limits(hints[field.name]))
        for field in dataclasses.fields(cls)
    }


def _limits(hint: Any) -> str:
    schema = pydantic.TypeAdapter(hint).json_schema()
    of_kinds = [schema, *schema.get("anyOf", [])]
    limits = [f"{words} {kind[key]:g}" for kind in of_kinds for key, words in BOUNDS.items() if key in kind]
    return f" Must be {' and '.join(limits)}." if limits else ""
