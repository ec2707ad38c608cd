"""Command-line arguments of every command: one grammar, parsed by tyro and validated by pydantic.

An option is a field of a settings class (or a parameter of a function) by its dotted name: ``--model.head.depth 4`` or
``--model.head.depth=4``, with dashes or underscores. Lists are ``--sizes 1 2``, ``[1, 2]`` or ``1,2``; a flag is true
without a value (``--data.flip``), off with ``--data.no-flip``, and takes ``true`` or ``false``; ``null`` unsets an
optional value.

tyro parses a class derived from the settings, in which every option keeps its text. Defaults that depend on other
settings (a named size, say) therefore stay open, and every error is one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import keyword
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, TypeVar

from heptapod.utils.config import Known, from_dict, known_settings, settings, unknown_setting
from heptapod.utils.messages import quoted, shown
from heptapod.utils.options import NOTHING, Group, Option, Tree, leaves, members_of, option_tree

T = TypeVar("T")
HELP = ("-h", "--help")
FLAG_VALUES = ("true", "false", "none", "null")


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
    trees = [option_tree(group, arguments) for group in groups]
    options = {option.key: option for tree in trees for option in leaves(tree)}
    aliases = {short: key for group in groups for short, key in group.aliases.items()}
    known: dict[str, Known] = {}
    for group in groups:
        known |= known_settings(group.cls)
    words = ["--help"] if is_help else _normalized(arguments, options, aliases, known)
    given, unknown = _tyro(trees, command, words, about)
    if unknown:
        raise ValueError(_unexpected(unknown[0], arguments))
    results: list[dict[str, Any]] = []
    for tree in trees:
        values: dict[str, Any] = {}
        for option in leaves(tree):
            if option.key in given:
                _set(values, option.path or option.key, option.parse(given[option.key]))
            elif option.default is NOTHING:
                name = option.metavar or option.key.upper() if option.is_positional else f"--{_dashed(option.key)}"
                raise ValueError(f"{option.key}: none given; {name} is required (heptapod {command} --help)")
        results.append(values)
    return results


def _unexpected(word: str, arguments: Sequence[str]) -> str:
    """The message for a word that is no option's value."""
    place = arguments.index(word) if word in arguments else 0
    option, value = arguments[max(place - 2, 0)], arguments[place - 1]
    if place >= 2 and option.startswith("--") and "=" not in option and not value.startswith("--"):
        return f"unexpected argument {quoted(word)}: {shown(option)} takes one value, and {quoted(value)} is it"
    return f"unexpected argument {quoted(word)}; settings look like --train.steps 1000"


def _tyro(trees: list[Tree], command: str, words: list[str], about: str) -> tuple[dict[str, list[str]], list[str]]:
    """The words given for every option, and words that belong to none."""
    import tyro

    merged: Tree = {name: entry for tree in trees for name, entry in tree.items()}
    box = io.StringIO()  # of several lines, on standard error
    try:
        with contextlib.redirect_stderr(box):
            parsed, unknown = tyro.cli(
                _tyro_class("Options", merged), prog=f"heptapod {command}", description=about, args=words,
                return_unknown_args=True, use_underscores=False, config=(tyro.conf.AvoidSubcommands,),
            )  # fmt: skip
    except SystemExit as stop:
        if not stop.code:  # the help is printed
            raise
        given = " ".join(words)
        raise ValueError(f"arguments: {quoted(given)} not understood; see heptapod {command} --help") from None
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


def _normalized(
    arguments: Sequence[str], options: Mapping[str, Option], aliases: Mapping[str, str], known: Mapping[str, Known]
) -> list[str]:
    """The arguments with full names, and a value for every flag.

    Raises:
        ValueError: for an unknown option, one without a value, or a list given twice.
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
        following = next((text for text in arguments[position : position + 1] if not text.startswith("--")), None)
        if (switch := _switched_off(key, options)) and not equals:
            words.append(f"--{_dashed(switch)}=false")
            continue
        if key not in options:
            if below := [other for other in options if other.startswith(f"{key}.")]:
                given = text if equals else following
                inner = f"{key}.kind" if f"{key}.kind" in below else below[0]
                raise ValueError(
                    f"{key}: {quoted(given)} given, but it is a group of settings, such as --{_dashed(inner)}"
                )
            raise ValueError(unknown_setting(key, list(options), known))
        option = options[key]
        if option.is_list and f"--{_dashed(key)}" in words:
            raise ValueError(
                f"{key}: given twice; write all values after one --{_dashed(key)}, with spaces between them"
            )
        if not equals and option.is_flag and (following is None or following.lower() not in FLAG_VALUES):
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
        if required and dataclasses.is_dataclass(members_of(typing.get_type_hints(function)[name])[0]):
            default = field(default_factory=members_of(typing.get_type_hints(function)[name])[0], metadata=metadata)
        fields.append((name, hints[name], default))
    return settings(dataclasses.make_dataclass(function.__name__, fields, kw_only=True))


def _parameter_help(doc: str) -> Iterator[tuple[str, str]]:
    """The entries of the section Args of a docstring."""
    section = re.split(r"\n\w+:\n", doc.partition("\nArgs:\n")[2])[0]
    for match in re.finditer(r"^    (\w+): (.*(?:\n     .*)*)", section, flags=re.M):
        yield match[1], " ".join(match[2].split())


def _dashed(key: str) -> str:
    return key.replace("_", "-")


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value
