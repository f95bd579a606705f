"""The language of the page being made, and its texts, by GNU gettext catalogues below ``locale/``.

Each request speaks one language, kept in a context variable: templates and view models ask for texts without passing it
about. The source texts are English, so English needs no catalogue and a missing text reads in English.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import cache
from gettext import GNUTranslations, NullTranslations, translation
from pathlib import Path

LOCALE_DIR = Path(__file__).parent / "locale"
DOMAIN = "messages"
SOURCE = "en"
LANGUAGES = {"en": "English", "de": "Deutsch", "es": "Español", "ar": "العربية"}
"""Every language pages come in: its BCP 47 tag and its name in itself."""

_spoken: ContextVar[str] = ContextVar("spoken", default=SOURCE)


def speak(language: str) -> None:
    """Use ``language`` from here on in this context; one that is not in ``LANGUAGES`` means English."""
    _spoken.set(language if language in LANGUAGES else SOURCE)


def spoken() -> str:
    """Return the language in use."""
    return _spoken.get()


def gettext(message: str) -> str:
    """Return ``message`` in the language in use."""
    return catalogue(spoken()).gettext(message)


def ngettext(singular: str, plural: str, count: int) -> str:
    """Return the form of a text that ``count`` takes in the language in use (CLDR plural rules)."""
    return catalogue(spoken()).ngettext(singular, plural, count)


@cache
def catalogue(language: str) -> NullTranslations | GNUTranslations:
    """Return the texts of ``language``, read once."""
    return translation(DOMAIN, LOCALE_DIR, [language], fallback=True)
