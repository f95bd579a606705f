"""A language made of English, for tests: accented, longer, and in brackets, so that a text nobody translated shows."""

from __future__ import annotations

import re
from gettext import NullTranslations
from html.parser import HTMLParser

from shared_record.languages import PSEUDO, register

OPEN, CLOSE = "⟦", "⟧"
LONGER = 0.4
_KEPT = re.compile(r"(%\(\w+\)[sd]|\{\w+\}|\$\w+|<[^>]*>)")
_ACCENTED = str.maketrans("AEIOUaeioucnsyz", "ÀÉÎÖÛàéîöûçñšýž")
_SILENT = ("script", "style", "pre", "code", "svg")
_SPOKEN = ("aria-label", "title", "alt", "placeholder")
_VOID = {"meta", "link", "input", "br", "img", "hr", "source", "wbr"}


class Pseudo(NullTranslations):
    """Translates whatever it is asked for."""

    def gettext(self, message: str) -> str:
        return _changed(message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return _changed(msgid1 if n == 1 else msgid2)


def speak_pseudo() -> str:
    """Make the language known to this process; return its tag."""
    register(PSEUDO, Pseudo())
    return PSEUDO


def _changed(message: str) -> str:
    parts = [part if _KEPT.fullmatch(part) else part.translate(_ACCENTED) for part in _KEPT.split(message)]
    return f"{OPEN}{''.join(parts)}{'·' * round(len(message) * LONGER)}{CLOSE}"


def left_out(html: str) -> list[str]:
    """Return the texts of a page, and those of its attributes that are read out, that stand outside of brackets."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.depth == 0, "a bracket is not closed"
    return reader.found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.found: list[str] = []
        self._stack: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        for name in _SPOKEN:
            text = attributes.get(name) or ""
            if _outside(text):
                self.found.append(_outside(text))
        if tag not in _VOID:
            is_code = "code" in (attributes.get("class") or "").split() or attributes.get("lang") not in (None, PSEUDO)
            self._stack.append((tag, tag in _SILENT or is_code))

    def handle_endtag(self, tag: str) -> None:
        while self._stack and self._stack.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if any(silent for _, silent in self._stack):
            return
        rest = ""
        for char in data:
            self.depth += (char == OPEN) - (char == CLOSE)
            rest += "" if self.depth or char == CLOSE else char
        if rest.strip():
            self.found.append(" ".join(rest.split()))


def _outside(text: str) -> str:
    depth, rest = 0, ""
    for char in text:
        depth += (char == OPEN) - (char == CLOSE)
        rest += "" if depth or char == CLOSE else char
    return rest.strip()
