"""The fields of a settings class with every field optional: for the options of a command and the body of a request."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any


def optional_fields(cls: type[Any]) -> dict[str, tuple[Any, str]]:
    """Type (or None) and documentation of every field of a settings class."""
    hints = typing.get_type_hints(cls, include_extras=True)
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):  # a class holds the docstrings of the fields that it declares
        fields: dict[str, Any] = getattr(base, "__pydantic_fields__", {})
        docs |= {name: " ".join(field.description.split()) for name, field in fields.items() if field.description}
    return {field.name: (hints[field.name] | None, docs[field.name]) for field in dataclasses.fields(cls)}
