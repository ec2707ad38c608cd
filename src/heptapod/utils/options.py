"""The options of a command: the fields of settings classes, by dotted name, with type, limits, default and help."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from heptapod.utils.config import to_dict
from heptapod.utils.messages import limits_of
from heptapod.utils.yaml_text import parse_yaml

NOTHING = object()
"""Default of a required option."""


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    key: str
    """Dotted name with underscores."""
    types: tuple[Any, ...]
    """The members of its type, without annotations."""
    default: Any
    """Shown by ``--help``; NOTHING if the option is required."""
    help: str = ""
    limits: str = ""
    metavar: str | None = None
    is_positional: bool = False
    path: str = ""
    """Dotted name of the field, where it is not the key."""

    @property
    def is_flag(self) -> bool:
        """Whether it needs no value."""
        return bool in self.types

    @property
    def is_list(self) -> bool:
        """Whether it takes several values."""
        return any(typing.get_origin(member) in (list, tuple) for member in self.types)

    @property
    def hint(self) -> str:
        """Limits and default, for ``--help``."""
        default = "required" if self.default is NOTHING else f"default: {_text(self.default)}"
        return f"({self.limits}; {default})" if self.limits else f"({default})"

    def parse(self, tokens: Sequence[str]) -> Any:
        """The value of the words after the option."""
        if self.is_list:
            if len(tokens) != 1:
                return [self._element(token) for token in tokens]
            if tokens[0].startswith("["):
                return _yaml(tokens[0])
            choices = [choice for member in self.types for choice in typing.get_args(member)]
            if tokens[0] in choices or (tokens[0].lower() in ("none", "null") and type(None) in self.types):
                return _scalar(tokens[0], self.types)
            separator = "," if self._elements() == (int,) else None
            return [self._element(token) for token in (tokens[0].split(separator) if separator else tokens)]
        if self.is_positional:  # the name of a file, say, which may be "none"
            return _scalar(tokens[0], tuple(member for member in self.types if member is not type(None)))
        return _scalar(tokens[0], self.types)

    def _elements(self) -> tuple[Any, ...]:
        sequence = next(member for member in self.types if typing.get_origin(member) in (list, tuple))
        return members_of(typing.get_args(sequence)[0])

    def _element(self, token: str) -> Any:
        return _scalar(token, self._elements())


@dataclass(frozen=True)
class Group:
    """A settings class whose fields are options, with the values that a file gives them."""

    cls: type[Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    without: Collection[str] = ()
    """Dotted names of settings and groups that are no options of this command."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Short names of settings."""


Tree = dict[str, "Option | tuple[str, Tree]"]
"""Options by name; a group of them has its help and its own tree."""


def option_tree(group: Group, arguments: Sequence[str]) -> Tree:
    """The options of a group; arguments choose the kinds of its settings.

    Raises:
        ValueError: for an unknown kind.
    """
    return _tree_of(group.cls, group.values, ("", ""), frozenset(group.without), _Kinds(group, arguments))


def leaves(tree: Tree) -> Iterator[Option]:
    """All options of a tree."""
    for entry in tree.values():
        if isinstance(entry, Option):
            yield entry
        else:
            yield from leaves(entry[1])


def _tree_of(cls: type[Any], values: Any, prefixes: tuple[str, str], without: frozenset[str], kinds: _Kinds) -> Tree:
    """The options of a settings class; ``prefixes`` are those of their names and of their fields."""
    import tyro

    tree: Tree = {}
    plain, annotated = typing.get_type_hints(cls), typing.get_type_hints(cls, include_extras=True)
    fields = getattr(cls, "__pydantic_fields__", {})
    values = values if isinstance(values, Mapping) else {}
    for entry in dataclasses.fields(cls):
        notes = typing.get_args(annotated[entry.name])[1:] if hasattr(annotated[entry.name], "__metadata__") else ()
        named = next((note for note in notes if hasattr(note, "metavar") and hasattr(note, "prefix_name")), None)
        name = (named and named.name) or entry.name
        key, path = prefixes[0] + name, prefixes[1] + entry.name
        if key in without:
            continue
        text = _help_of(cls, entry) or next(filter(None, (getattr(note, "help", None) for note in notes)), "")
        registry = next((note for note in notes if hasattr(note, "config_type")), None)
        members = members_of(plain[entry.name])
        inner: Any = next(filter(dataclasses.is_dataclass, members), None)
        default = values.get(entry.name, _default_of(entry))
        within = default if isinstance(default, Mapping) else _as_values(default)
        if registry is not None:
            kind, inner = kinds.choose(key, registry)
            within = within if within.get("kind", registry.default) == kind else {"kind": kind}
        if inner is not None:
            is_flat = tyro.conf.OmitArgPrefixes in notes
            branch = _tree_of(inner, within, (prefixes[0] if is_flat else f"{key}.", f"{path}."), without, kinds)
            if registry is not None and isinstance(option := branch.get("kind"), Option):
                branch["kind"] = dataclasses.replace(option, metavar=_choices(registry.kinds()))
            tree |= branch if is_flat else {name: (text, branch)}
            continue
        metavar = (named and named.metavar) or _metavar(members)
        tree[name] = Option(
            key, members, default, text, limits_of(annotated[entry.name], fields.get(entry.name)), metavar,
            tyro.conf.Positional in notes, path,
        )  # fmt: skip
    return tree


class _Kinds:
    """The config class of a setting that has several kinds: the one that arguments or values choose."""

    def __init__(self, group: Group, arguments: Sequence[str]) -> None:
        self._arguments = [word.replace("-", "_") if word.startswith("--") else word for word in arguments]
        self._values = group.values

    def choose(self, key: str, registry: Any) -> tuple[str, type[Any]]:
        """The kind of ``key`` and its config class."""
        values: Any = self._values
        for part in key.split("."):
            values = values.get(part, {}) if isinstance(values, Mapping) else {}
        kind = values.get("kind", registry.default) if isinstance(values, Mapping) else registry.default
        option = f"__{key}.kind"
        for number, word in enumerate(self._arguments):
            name, equals, value = word.partition("=")
            if name == option:
                kind = value if equals else "".join(self._arguments[number + 1 : number + 2])
        try:
            return kind, registry.config_type(kind)
        except ValueError as error:
            raise ValueError(f"{key}.{error}") from None


def _help_of(cls: type[Any], entry: dataclasses.Field[Any]) -> str:
    described = (getattr(base, "__pydantic_fields__", {}).get(entry.name) for base in cls.__mro__)
    texts = [entry.metadata.get("help"), *(getattr(known, "description", None) for known in described)]
    return " ".join(next(filter(None, texts), "").split())


def _default_of(entry: dataclasses.Field[Any]) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    default = entry.default
    if default is dataclasses.MISSING:
        return NOTHING
    return getattr(default, "default", default) if type(default).__name__ == "FieldInfo" else default


def _as_values(default: Any) -> dict[str, Any]:
    return (
        {entry.name: getattr(default, entry.name) for entry in dataclasses.fields(default)}
        if (dataclasses.is_dataclass(default))
        else {}
    )


def members_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _scalar(text: str, members: tuple[Any, ...]) -> Any:
    """One word as YAML, or as it stands where the setting is a string."""
    if any(text in typing.get_args(member) for member in members):
        return text
    if type(None) in members and text in (("None", "null") if str in members else ("None", "none", "null")):
        return None
    if str in members:
        return text
    return _yaml(text)


def _yaml(text: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError:
        return text


def _metavar(members: tuple[Any, ...]) -> str:
    names: list[str] = []
    for member in members:
        if typing.get_origin(member) is Literal:
            names.append(_choices(map(str, typing.get_args(member))))
        elif typing.get_origin(member) in (list, tuple):
            names.append(f"{_metavar(members_of(typing.get_args(member)[0]))} ...")
        elif member is bool:
            names.append("[true|false]")
        elif member is type(None):
            names.append("null")
        else:
            names.append(getattr(member, "__name__", "value").upper().replace("ANY", "VALUE"))
    return "|".join(names)


def _choices(names: Iterable[str]) -> str:
    return "{" + ",".join(names) + "}"


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return " ".join(map(_text, value)) or "none"
    if dataclasses.is_dataclass(value):
        return str(to_dict(value))
    return str(value) or "none"
