"""Importing a user's code by file or module name, so that what it registers has a name in recipes and models."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

PREFIX = "heptapod_imports."
"""Modules imported by file name are named after their files below this prefix."""

_by_command: list[str] = []


def take_imports(arguments: list[str]) -> list[str]:
    """Imports what ``--imports A,B`` names in a command's arguments; returns the other arguments.

    Raises:
        ValueError: if the option has no value, or what it names cannot be imported.
    """
    others: list[str] = []
    names: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        option, equals, value = argument.partition("=")
        if option != "--imports":
            others.append(argument)
            continue
        value = value if equals else next(remaining, "")
        if not value or value.startswith("-"):
            raise ValueError("imports: no value given; write --imports my_head.py")
        names += value.split(",")
    import_extensions(names)
    _by_command[:] = names
    return others


def imported_by_command() -> list[str]:
    """The files and modules that ``--imports`` of this process's command named."""
    return list(_by_command)


def read_imports(values: dict[str, Any], source: str) -> list[str]:
    """The entry ``imports`` of a recipe or study.

    Raises:
        ValueError: if it is not a list of names.
    """
    names = values.get("imports", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{source}: imports: {names!r} given, must be a list of files or modules")
    return names


def import_extensions(names: Iterable[str]) -> None:
    """Imports modules by name (``my_package.heads``) or by file (``my_head.py``), each once.

    A file that this process runs or has already imported is not run again.

    Raises:
        ValueError: if a file or module is missing or fails to import, in one line.
    """
    for name in names:
        try:
            if name.endswith(".py"):
                _import_file(Path(name))
            else:
                importlib.import_module(name)
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"imports: {name}: {type(error).__name__}: {reason}") from error


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    path = path.resolve()
    if any(_file(module) == path for module in list(sys.modules.values()) if _is_called(module, path.name)):
        return
    name = PREFIX + path.stem
    while name in sys.modules:  # another file of the same name
        name += "_"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def origin_of(cls: type[object]) -> str | None:
    """What to import for a class: the name of its file or module; None for a class of this package."""
    if cls.__module__.partition(".")[0] == "heptapod":
        return None
    file = _file(sys.modules.get(cls.__module__))
    by_file = cls.__module__ == "__main__" or cls.__module__.startswith(PREFIX)
    return file.name if by_file and file else cls.__module__


def _is_called(module: ModuleType | None, name: str) -> bool:
    return str(getattr(module, "__file__", "")).endswith(name)


def _file(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None
