"""Where each key of a TOML document stands, so that a problem can name its line. ``tomllib`` does not say."""

from __future__ import annotations

import re
import tomllib

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_KEY_PART = re.compile(r"""[ \t]*("(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*""")
_TEXT = re.compile(r""""{3}(?:\\.|[^\\])*?"{3,5}(?!")|'{3}.*?'{3,5}(?!')|"(?:\\.|[^"\\])*"|'[^']*\'""", re.DOTALL)
_PLAIN = re.compile(r"[^,\]}#\n]+")


def key_lines(text: str) -> dict[Path, int]:
    """Return the line (from 1) of every table, key and list item of ``text``, by its path, e.g. ``("hosts", 0)``.

    ``text`` must be valid TOML (``tomllib`` reads it); what else is given may raise ``ValueError``.
    """
    return _Scanner(text).scan()


def line_of(lines: dict[Path, int], path: Path) -> int:
    """Return the line of ``path``, or of the nearest thing around it that stands in the file; 1 when nothing does."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.last_item: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text.startswith("[[", self.at):
                table = self._header("[[", "]]")
            elif self.text.startswith("[", self.at):
                table = self._header("[", "]")
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self.lines

    def _header(self, opening: str, closing: str) -> Path:
        line = self._line()
        self.at += len(opening)
        names = self._key()
        self._expect(closing)
        table: Path = ()
        for place, name in enumerate(names):
            table += (name,)
            self.lines.setdefault(table, line)
            if opening == "[[" and place == len(names) - 1:
                self.last_item[table] = self.last_item.get(table, -1) + 1
            if table in self.last_item:
                table += (self.last_item[table],)
                self.lines.setdefault(table, line)
        return table

    def _pair(self, table: Path) -> None:
        line = self._line()
        for name in self._key():
            table += (name,)
            self.lines.setdefault(table, line)
        self._expect("=")
        self._skip(_BLANK)
        self._value(table)

    def _value(self, path: Path) -> None:
        self.lines.setdefault(path, self._line())
        match self.text[self.at : self.at + 1]:
            case "[":
                self._list(path)
            case "{":
                self._inline_table(path)
            case mark:
                self._scalar(_TEXT if mark in ('"', "'") else _PLAIN)

    def _scalar(self, pattern: re.Pattern[str]) -> None:
        start = self.at
        self._skip(pattern)
        if self.at == start:
            raise ValueError("not TOML")

    def _list(self, path: Path) -> None:
        self.at += 1
        index = 0
        while not self._closed("]"):
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while not self._closed("}"):
            self._pair(path)

    def _closed(self, closing: str) -> bool:
        """Skip blanks and a comma; tell whether the list or table ends here, and step over its end."""
        self._skip(_BLANK)
        if self.text.startswith(",", self.at):
            self.at += 1
            self._skip(_BLANK)
        if self.at >= len(self.text):
            raise ValueError("not TOML")
        if not self.text.startswith(closing, self.at):
            return False
        self.at += 1
        return True

    def _key(self) -> list[str]:
        names = []
        while True:
            found = _KEY_PART.match(self.text, self.at)
            if found is None:
                raise ValueError("not TOML")
            self.at = found.end()
            raw = found[1]
            names.append(str(tomllib.loads(f"x = {raw}")["x"]) if raw[0] in "\"'" else raw)
            if not self.text.startswith(".", self.at):
                return names
            self.at += 1

    def _expect(self, mark: str) -> None:
        if not self.text.startswith(mark, self.at):
            raise ValueError("not TOML")
        self.at += len(mark)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()

    def _line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1
