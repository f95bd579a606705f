"""What every test would compile anew and always alike, compiled once per process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.util import LRUCache
from werkzeug.routing import Rule

_engines: dict[str, Engine] = {}


def share_statements(engine: Engine) -> None:
    """Let ``engine`` use the compiled statements of all engines of its kind.

    They are kept by the text of a statement and by dialect, of which each engine would make one of its own.
    """
    if engine.name not in _engines:
        engine.connect().close()  # asks the server for what a dialect has to know of it
        engine._compiled_cache = LRUCache(5_000)
        _engines[engine.name] = engine
    engine.dialect = _engines[engine.name].dialect
    engine._compiled_cache = _engines[engine.name]._compiled_cache


def remember_address_builders() -> None:
    """Keep the functions that Werkzeug compiles for each route to build its address.

    A server compiles its 400 once; the tests make more than a thousand applications, and most of the time that one
    takes are these. A function depends on nothing but what is its key here; the rule is its argument.
    """
    known: dict[Any, Callable[..., tuple[str, str]]] = {}
    compiled = Rule._compile_builder

    def remembered(self: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        defaults = tuple(sorted((self.defaults or {}).items()))
        key = (self.rule, tuple(self._trace), defaults, repr(sorted(self._converters)), append_unknown)
        if key not in known:
            known[key] = compiled(self, append_unknown)
        return known[key]

    Rule._compile_builder = remembered  # type: ignore[method-assign]
