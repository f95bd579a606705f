"""What is wrong with a theme: the file, the key, what was found there and what is expected."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class ThemeProblem:
    """One thing to mend. ``key`` is empty where the file as a whole is meant."""

    file: str
    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        """Return ``file: key: found …, expected …``."""
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}: {key}found {self.found}, expected {self.expected}"

    def as_dict(self) -> dict[str, str]:
        """Return the fields, for JSON."""
        return asdict(self)


def shown(value: object) -> str:
    """Return a value of a file as a message shows it: on one line, cut where it is long."""
    text = " ".join(str(value).split()) if isinstance(value, str) else repr(value)
    return f'"{text[:57]}…"' if len(text) > 60 else f'"{text}"' if isinstance(value, str) else text
