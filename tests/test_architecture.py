"""The layers of the package: who may import whom, read from the sources and tried in fresh interpreters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import heptapod

PACKAGE = Path(heptapod.__file__).parent
LAYERS = (
    "distributed",
    "utils",
    "configs",
    "grid",
    "nn",
    "tokenizers",
    "distributions",
    "models",
    "objective",
    "sampling",
    "likelihood",
    "data",
    "inference",
    "evaluation",
    "training",
    "tools",
    "studio",
    "cli",
)
"""Folders and root modules, from the lowest to the highest; each imports only itself and those before it."""
ENTRY_POINTS = {"__init__", "__main__"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module of the package that a file names in an import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "heptapod")
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{dotted(path)}: a relative import")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "heptapod":
            for alias in node.names:
                if (node.module, alias.name) == ("heptapod", "__version__"):
                    continue
                name = f"{node.module}.{alias.name}"
                yield (
                    name if (PACKAGE.parent / name.replace(".", "/")).with_suffix(".py").is_file() else str(node.module)
                )


def layer(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def test_the_root_has_at_most_five_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 5


def test_every_folder_and_root_module_has_a_layer() -> None:
    found = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    found |= {path.stem for path in PACKAGE.glob("*.py")} - ENTRY_POINTS
    assert found == set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_lower_layer_never_imports_a_higher_one(path: Path) -> None:
    own = layer(dotted(path))
    if path.parent == PACKAGE and path.stem in ENTRY_POINTS:
        return
    for module in imports(path):
        assert module != "heptapod", "the package itself re-exports higher layers"
        assert LAYERS.index(layer(module)) <= LAYERS.index(own), f"{dotted(path)} imports {module}"


def test_no_module_is_part_of_an_import_circle() -> None:
    graph = {dotted(path): {name for name in imports(path) if name != dotted(path)} for path in MODULES}
    graph.pop("heptapod")
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module in done:
            return
        for other in graph.get(module, ()):
            visit(other, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())
