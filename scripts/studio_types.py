"""Prints the TypeScript types of the studio's API, from its OpenAPI description: web/src/api/types.ts."""

from __future__ import annotations

import json
import sys
from typing import Any

from heptapod.studio.app import create_app
from heptapod.studio.models import Collection
from heptapod.studio.schemas import Limits

HEADER = "/** The types of the server's API. Generated from its OpenAPI description by scripts/studio_types.py. */\n"
SCALARS = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}
LEFT_OUT = ("Body_", "HTTPValidationError", "ValidationError")
"""FastAPI's own schemas."""


def openapi() -> dict[str, Any]:
    """The OpenAPI description of the studio."""
    limits = Limits(count=1, steps=1, side=1, cells=1, upload_bytes=1, upload_pixels=1, waiting=1)
    return create_app(Collection({}, [], [], []), limits).openapi()


def expression(schema: dict[str, Any]) -> str:
    """The TypeScript type of a JSON schema."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema or "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(map(expression, schema["anyOf"])))
    if "prefixItems" in schema:
        return f"[{', '.join(map(expression, schema['prefixItems']))}]"
    if schema.get("type") == "array":
        items = expression(schema["items"])
        return f"({items})[]" if " " in items else f"{items}[]"
    if schema.get("type") == "object":
        values = schema["additionalProperties"]
        return f"Record<string, {'unknown' if values is True else expression(values)}>"
    return SCALARS[schema["type"]]


def comment(schema: dict[str, Any], indent: str = "") -> str:
    """The description of a schema as a comment."""
    text = " ".join(schema.get("description", "").split())
    return f"{indent}/** {text} */\n" if text else ""


def declaration(name: str, schema: dict[str, Any]) -> str:
    """An exported interface, or a type if the schema has no properties."""
    if "properties" not in schema:
        return f"{comment(schema)}export type {name} = {expression(schema)};\n"
    lines = [f"{comment(schema)}export interface {name} {{\n"]
    for key, value in schema["properties"].items():
        optional = "" if key in schema.get("required", []) else "?"
        lines.append(f"{comment(value, '  ')}  {key}{optional}: {expression(value)};\n")
    return "".join([*lines, "}\n"])


def types() -> str:
    """The whole file."""
    schemas = openapi()["components"]["schemas"]
    declared = (declaration(name, schemas[name]) for name in sorted(schemas) if not name.startswith(LEFT_OUT))
    return "\n".join([HEADER, *declared])


if __name__ == "__main__":
    sys.stdout.write(types())
