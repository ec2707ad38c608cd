"""Command-line arguments of every command: one grammar, parsed by tyro and validated by pydantic.

An option is a field of a settings class (or a parameter of a function) by its dotted name: ``--model.head.depth 4`` or
``--model.head.depth=4``, with dashes or underscores. Lists are ``--sizes 1 2``, ``[1, 2]`` or ``1,2``; a flag is true
without a value (``--data.flip``), off with ``--data.no-flip``, and takes ``true`` or ``false``; ``null`` unsets an
optional value.

tyro parses a class derived from the settings, in which every option keeps its text. Defaults that depend on other
settings (a named size, say) therefore stay open, and every error is one line.
"""

from __future__ import annotations

import dataclasses
import inspect
import keyword
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import yaml

from heptapod.utils.config import from_dict, nearest, settings, to_dict

T = TypeVar("T")
HELP = ("-h", "--help")
WORDS = {"true": True, "false": False, "none": None, "null": None}
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
        return _members(typing.get_args(sequence)[0])

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


def parse_function(function: Callable[..., T], command: str, arguments: Sequence[str], **text: str) -> Callable[[], T]:
    """Parses the arguments of a command that is a function.

    Args:
        function: its parameters are the options; its docstring is the help.
        command: name of the command.
        arguments: words of the command line.
        text: the description, if it is not the docstring's.

    Returns:
        The call, to be made without arguments.

    Raises:
        ValueError: in one line.
        SystemExit: once the help is printed.
    """
    cls = _options_of(function)
    about = text.get("description") or inspect.getdoc(function) or ""
    given = parse_arguments([Group(cls)], command, arguments, about.partition("\nArgs:")[0].strip())[0]
    try:
        options = from_dict(cls, given, "")
    except ValueError as error:
        flat = [entry.name for entry in dataclasses.fields(cls) if dataclasses.is_dataclass(entry.type)]
        message = str(error)
        for name in flat:
            message = message.removeprefix(f"{name}.")
        raise ValueError(message) from None
    return lambda: function(**{entry.name: getattr(options, entry.name) for entry in dataclasses.fields(options)})


def parse_arguments(
    groups: Sequence[Group], command: str, arguments: Sequence[str], about: str = ""
) -> list[dict[str, Any]]:
    """Parses arguments into nested dictionaries of the given settings only.

    Args:
        groups: the options.
        command: name of the command.
        arguments: words of the command line.
        about: the description that ``--help`` prints.

    Returns:
        One dictionary per group.

    Raises:
        ValueError: for an unknown option, a missing value or a missing required option, in one line.
        SystemExit: once the help is printed.
    """
    is_help = any(word in HELP for word in arguments)
    trees = [_tree(group, _Kinds(group, arguments)) for group in groups]
    options = {option.key: option for tree in trees for option in _leaves(tree)}
    aliases = {short: key for group in groups for short, key in group.aliases.items()}
    words = ["--help"] if is_help else _normalized(arguments, options, aliases)
    given, unknown = _tyro(trees, command, words, about)
    if unknown:
        raise ValueError(f"unexpected argument {unknown[0]!r}; settings look like --train.steps 1000")
    results: list[dict[str, Any]] = []
    for tree in trees:
        values: dict[str, Any] = {}
        for option in _leaves(tree):
            if option.key in given:
                _set(values, option.path or option.key, option.parse(given[option.key]))
            elif option.default is NOTHING:
                name = option.metavar or option.key.upper() if option.is_positional else f"--{_dashed(option.key)}"
                raise ValueError(f"{option.key}: none given; {name} is required (heptapod {command} --help)")
        results.append(values)
    return results


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


Tree = dict[str, "Option | tuple[str, Tree]"]
"""Options by name; a group of them has its help and its own tree."""


def _tree(group: Group, kinds: _Kinds) -> Tree:
    return _tree_of(group.cls, group.values, ("", ""), frozenset(group.without), kinds)


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
        members = _members(plain[entry.name])
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
            key, members, default, text, _limits(annotated[entry.name], fields.get(entry.name)), metavar,
            tyro.conf.Positional in notes, path,
        )  # fmt: skip
    return tree


def _tyro(trees: list[Tree], command: str, words: list[str], about: str) -> tuple[dict[str, list[str]], list[str]]:
    """The words given for every option, and words that belong to none."""
    import tyro

    merged: Tree = {name: entry for tree in trees for name, entry in tree.items()}
    parsed, unknown = tyro.cli(
        _tyro_class("Options", merged), prog=f"heptapod {command}", description=about, args=words,
        return_unknown_args=True, use_underscores=False, config=(tyro.conf.AvoidSubcommands,),
    )  # fmt: skip
    return dict(_given(parsed, "")), list(unknown)


def _tyro_class(name: str, tree: Tree) -> type[Any]:
    import tyro

    fields: list[Any] = []
    for field_name, entry in tree.items():
        if isinstance(entry, tuple):
            text, branch = entry
            cls = _tyro_class(field_name, branch)
            cls.__doc__ = text
            fields.append((field_name, Annotated[cls, tyro.conf.arg(help=text)], field(default_factory=cls)))
            continue
        spec = tyro.constructors.PrimitiveConstructorSpec[Any](
            nargs="*" if entry.is_list else 1,
            metavar=entry.metavar or "VALUE",
            instance_from_str=list,
            is_instance=lambda _: True,
            str_from_instance=lambda _: [""],
        )
        hint = entry.hint
        shown = tyro.conf.arg(name=field_name, help=entry.help, help_behavior_hint=hint, metavar=entry.metavar)
        notes: list[Any] = [spec, shown]
        if entry.is_positional:
            notes.append(tyro.conf.Positional)
        identifier = f"{field_name}_" if keyword.iskeyword(field_name) else field_name
        fields.append((identifier, Annotated[(object, *notes)], None))
    return dataclasses.make_dataclass(name, fields)


def _given(parsed: object, prefix: str) -> Iterator[tuple[str, list[str]]]:
    for entry in dataclasses.fields(parsed):  # type: ignore[arg-type]
        value = getattr(parsed, entry.name)
        name = entry.name.removesuffix("_")
        if isinstance(value, list):
            yield prefix + name, value
        elif dataclasses.is_dataclass(value):
            yield from _given(value, f"{prefix}{name}.")


def _normalized(arguments: Sequence[str], options: Mapping[str, Option], aliases: Mapping[str, str]) -> list[str]:
    """The arguments with full names, and a value for every flag.

    Raises:
        ValueError: for an unknown option, or one without a value.
    """
    words: list[str] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if not word.startswith("--"):
            words.append(word)
            continue
        name, equals, text = word[2:].partition("=")
        key = name.replace("-", "_")
        key = aliases.get(key, key)
        following = (
            arguments[position] if position < len(arguments) and not arguments[position].startswith("--") else None
        )
        if (switch := _switched_off(key, options)) and not equals:
            words.append(f"--{_dashed(switch)}=false")
            continue
        if key not in options:
            if below := [other for other in options if other.startswith(f"{key}.")]:
                given = text if equals else following
                raise ValueError(
                    f"{key}: {given!r} given, but this is a group of settings; write --{_dashed(below[0])}"
                )
            raise ValueError(f"unknown setting {key!r}{nearest(key, list(options))}")
        option = options[key]
        if not equals and option.is_flag and (following is None or following.lower() not in WORDS):
            equals, text = "=", "true"
        elif not equals and following is None and not option.is_list:
            raise ValueError(f"{key}: no value given; write --{_dashed(key)} VALUE")
        elif not equals and not option.is_list:
            position += 1
            equals, text = "=", str(following)
        words.append(f"--{_dashed(key)}{equals}{text}" if not option.is_list else f"--{_dashed(key)}")
        if option.is_list and equals:
            words.append(text)
    return words


def _switched_off(key: str, options: Mapping[str, Option]) -> str | None:
    """The flag that ``no_flip`` or ``data.no_flip`` turns off; None if it is no such option."""
    if key in options:
        return None
    prefix, dot, last = key.rpartition(".")
    for other in (key.removeprefix("no_"), f"{prefix}{dot}{last.removeprefix('no_')}"):
        if other != key and other in options and options[other].is_flag:
            return other
    return None


def _options_of(function: Callable[..., object]) -> type[Any]:
    """A settings class with the parameters of a function as fields."""
    hints = typing.get_type_hints(function, include_extras=True)
    text = dict(_parameter_help(inspect.getdoc(function) or ""))
    fields: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        metadata = {"help": text.get(name, "")}
        default = field(metadata=metadata) if required else field(default=parameter.default, metadata=metadata)
        if required and dataclasses.is_dataclass(_members(typing.get_type_hints(function)[name])[0]):
            default = field(default_factory=_members(typing.get_type_hints(function)[name])[0], metadata=metadata)
        fields.append((name, hints[name], default))
    return settings(dataclasses.make_dataclass(function.__name__, fields, kw_only=True))


def _parameter_help(doc: str) -> Iterator[tuple[str, str]]:
    """The entries of the section Args of a docstring."""
    section = re.split(r"\n\w+:\n", doc.partition("\nArgs:\n")[2])[0]
    for match in re.finditer(r"^    (\w+): (.*(?:\n     .*)*)", section, flags=re.M):
        yield match[1], " ".join(match[2].split())


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


def _members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _limits(*sources: Any) -> str:
    """The limits in an annotation, in words."""
    found: dict[str, str] = {}
    for source in sources:
        for note in _notes(source):
            for limit in ("ge", "gt", "le", "lt", "multiple_of"):
                if (bound := getattr(note, limit, None)) is not None:
                    found.setdefault(limit, {"ge": "at least", "gt": "above", "le": "at most", "lt": "below",
                                             "multiple_of": "a multiple of"}[limit] + f" {bound:,}")  # fmt: skip
    return ", ".join(found.values())


def _notes(source: Any) -> Iterator[Any]:
    for note in [*getattr(source, "__metadata__", ()), *getattr(source, "metadata", ())]:
        yield note
        yield from getattr(note, "metadata", ())
    for argument in typing.get_args(source):
        if not isinstance(argument, str):
            yield from _notes(argument)


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
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _metavar(members: tuple[Any, ...]) -> str:
    names: list[str] = []
    for member in members:
        if typing.get_origin(member) is Literal:
            names.append(_choices(map(str, typing.get_args(member))))
        elif typing.get_origin(member) in (list, tuple):
            names.append(f"{_metavar(_members(typing.get_args(member)[0]))} ...")
        elif member is bool:
            names.append("[true|false]")
        elif member is type(None):
            names.append("null")
        else:
            names.append(getattr(member, "__name__", "value").upper().replace("ANY", "VALUE"))
    return "|".join(names)


def _choices(names: Any) -> str:
    return "{" + ",".join(names) + "}"


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return " ".join(map(_text, value)) or "none"
    if dataclasses.is_dataclass(value):
        return str(to_dict(value))
    return str(value) or "none"


def _leaves(tree: Tree) -> Iterator[Option]:
    for entry in tree.values():
        if isinstance(entry, Option):
            yield entry
        else:
            yield from _leaves(entry[1])


def _dashed(key: str) -> str:
    return key.replace("_", "-")


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value
