"""For the site: roles in docstrings, as in :func:`heptapod.inference.editing.edit`, become links into the reference."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(~?)([\w.]+)`")


class DocstringRoles(griffe.Extension):
    """What is named is looked up where it is named, then in the whole package; without an entry it gets no link."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrites every docstring of a package."""
        objects = list(members(pkg))
        paths = {obj.name: obj.path for obj in objects if obj.is_class or obj.is_function}
        for scope in objects:
            if scope.docstring is not None:
                scope.docstring.value = ROLE.sub(
                    lambda match, scope=scope: link(scope, match[2], match[1] == "~", paths), scope.docstring.value
                )


def members(scope: griffe.Object) -> Iterator[griffe.Object]:
    """An object and all that is defined in it."""
    yield scope
    for member in scope.members.values():
        if not member.is_alias:
            yield from members(member)


def link(scope: griffe.Object, name: str, short: bool, paths: dict[str, str]) -> str:
    """A name as code, linked; ``short`` shows only what comes after its last dot."""
    first, dot, rest = name.partition(".")
    path = name
    if first != "heptapod":
        try:
            path = scope.resolve(name)
        except griffe.NameResolutionError:
            path = paths.get(first, first) + dot + rest
    shown = name.rpartition(".")[2] if short else name
    return f'<autoref optional identifier="{path}">`{shown}`</autoref>'
