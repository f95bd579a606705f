"""Problems of a tenant file in words: where, what, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic_core import ErrorDetails

from shared_record.manifest.lines import Path, line_of
from shared_record.manifest.schema import Manifest, zones

_SHOW_ALL = 12


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file. ``line`` is 0 where the file as a whole is meant, ``key`` may then be empty."""

    file: str
    line: int
    key: str
    message: str
    suggestion: str

    def __str__(self) -> str:
        """Return ``file:line: key: message suggestion``."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        key = f"{self.key}: " if self.key else ""
        return f"{place}: {key}{self.message} {self.suggestion}".rstrip()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)


class Report:
    """Collects the problems of one file."""

    def __init__(self, file: str, lines: Mapping[Path, int]) -> None:
        self.file = file
        self.lines = dict(lines)
        self.problems: list[Problem] = []

    def add(self, path: Path, message: str, suggestion: str) -> None:
        """Add a problem of the key at ``path``, at the line where it stands."""
        self.problems.append(Problem(self.file, line_of(self.lines, path), dotted(path), message, suggestion))

    def add_errors(self, errors: Iterable[ErrorDetails], *, below: Path = (), known: Collection[str] = ()) -> None:
        """Add what pydantic found. ``below``: where the checked table stands; ``known``: its keys, for suggestions."""
        for error in errors:
            path = (*below, *error["loc"])
            message, suggestion = _in_words(error, known)
            self.add(path, message, suggestion)


def dotted(path: Path) -> str:
    """Return a path as people write it: ``methods[0].settings.length``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def quoted(value: object) -> str:
    """Return a text in double quotes, as TOML has it; anything long is cut."""
    text = str(value)
    return f'"{text if len(text) <= 80 else text[:77] + "…"}"'


def suggest(value: str, options: Collection[str], *, noun: str) -> str:
    """Return "Did you mean …?" for the nearest of ``options``, else those there are."""
    names = sorted(options)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(value.casefold().replace(" ", "_"), folded, n=1)
    if near:
        return f"Did you mean {quoted(folded[near[0]])}?"
    if not names:
        return f"No {noun} are installed."
    rest = ", …" if len(names) > _SHOW_ALL else ""
    return f"Known {noun}: {', '.join(names[:_SHOW_ALL])}{rest}."


_TYPES = {
    "string_type": ("must be a text", "Put it in double quotes."),
    "bool_type": ("must be true or false", "Write true or false, without quotes."),
    "int_type": ("must be a whole number", "Write digits only, without quotes."),
    "int_from_float": ("must be a whole number", "Write digits only, without a decimal point."),
    "float_type": ("must be a number", "Write digits, without quotes."),
    "list_type": ("must be a list", "Put it in square brackets."),
    "dict_type": ("must be a table", "Write key = value pairs in braces, or under a header of their own."),
    "model_type": ("must be a table", "Write key = value pairs in braces, or under a header of their own."),
    "model_attributes_type": ("must be a table", "Write key = value pairs in braces, or under a header of their own."),
    "string_too_short": ("is empty", "Write at least one character, or remove the line."),
    "string_pattern_mismatch": ("holds a character that is not allowed", "Write one line without control characters."),
}
_EXAMPLES = {
    "name": 'name = "Acme"',
    "host": 'host = "usage.acme.example"',
    "method": 'method = "access_code"',
    "anchor": 'anchor = "rfc3161"',
    "vkey": 'vkey = "witness.example/w1+…"',
    "url": 'url = "https://witness.example"',
}


def _in_words(error: ErrorDetails, known: Collection[str]) -> tuple[str, str]:
    kind, path, context = error["type"], error["loc"], error.get("ctx", {})
    name = str(path[-1]) if path else ""
    match kind:
        case "extra_forbidden":
            options = known or _keys_at(path)
            return "there is no such key.", suggest(name, options, noun="keys")
        case "missing":
            return "is required and missing.", f"Add {_EXAMPLES.get(name, f'{name} = …')}."
        case "literal_error":
            options = [option.strip("'") for option in context["expected"].replace(" or ", ", ").split(", ")]
            if not isinstance(error["input"], str):
                numbers = all(option.isdecimal() for option in options)
                message = "is none of its values." if numbers else "must be a text."
                return message, f"Write one of: {', '.join(options)}."
            return f"{quoted(error['input'])} is none of its values.", suggest(error["input"], options, noun="values")
        case "unknown_zone":
            return f"{error['msg']}.", suggest(str(error["input"]), zones(), noun="zones")
        case "string_too_long":
            return f"is longer than {context['max_length']} characters.", "Shorten it."
        case "witness_key":
            return f"is {error['msg']}.", "Copy the key as the witness publishes it: name+id+key."
        case "not_an_origin":
            return f"{error['msg']}.", "Write scheme, host and, where it is not 443, the port; no path and no wildcard."
        case "string_pattern_mismatch" if name == "url":
            return f"{quoted(error['input'])} is no address.", "Begin with https:// or http://."
        case "model_type" if path[:1] == ("hosts",):
            return "must be a host name or a table.", 'Write "usage.acme.example", or { host = "usage.acme.example" }.'
        case _ if kind in _TYPES:
            message, suggestion = _TYPES[kind]
            return f"{message}.", suggestion
        case _:
            message = error["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
            return f"{message[:1].lower()}{message[1:]}.", "Change the value, or remove the line to use the default."


def _keys_at(path: tuple[str | int, ...]) -> Collection[str]:
    """The keys of the table in which an unknown key stands."""
    match path:
        case ("hosts", _, _):
            return ("host", "role", "primary")
        case ("methods", _, _):
            return ("method", "settings")
        case ("anchors", _, _):
            return ("anchor", "settings")
        case ("witnesses", _, _):
            return ("url", "vkey")
        case _:
            return Manifest.model_fields.keys()
