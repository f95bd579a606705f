"""The language of the page being made, and its texts, by GNU gettext catalogues below ``locale/``.

Each request speaks one language, kept in a context variable: templates and view models ask for texts without passing it
about. The source texts are English, so English needs no catalogue and a missing text reads in English.
"""

from __future__ import annotations

from contextvars import ContextVar
from datetime import date
from functools import cache
from gettext import GNUTranslations, NullTranslations, translation
from pathlib import Path

from babel import Locale
from babel.dates import format_date

LOCALE_DIR = Path(__file__).parent / "locale"
DOMAIN = "messages"
SOURCE = "en"
PSEUDO = "en-XA"
"""English made conspicuous, for tests (see ``register``): whatever reads plain in it was never given to ``gettext``."""
LANGUAGES = {"en": "English", "de": "Deutsch", "es": "Español", "ar": "العربية"}
"""Every language pages come in: its BCP 47 tag and its name in itself."""

_spoken: ContextVar[str] = ContextVar("spoken", default=SOURCE)
_registered: dict[str, NullTranslations] = {}


def speak(language: str) -> None:
    """Use ``language`` from here on in this context; one that is not known means English."""
    _spoken.set(language if is_known(language) else SOURCE)


def is_known(language: str | None) -> bool:
    """Tell whether pages can speak ``language``."""
    return language in LANGUAGES or language in _registered


def spoken() -> str:
    """Return the language in use."""
    return _spoken.get()


def direction() -> str:
    """Return how the language in use is written: ``ltr`` or ``rtl``."""
    return str(locale(spoken()).text_direction)


def gettext(message: str) -> str:
    """Return ``message`` in the language in use."""
    return catalogue(spoken()).gettext(message)


def ngettext(singular: str, plural: str, count: int) -> str:
    """Return the form of a text that ``count`` takes in the language in use (CLDR plural rules)."""
    return catalogue(spoken()).ngettext(singular, plural, count)


def mark(message: str) -> str:
    """Return ``message`` as it is, and have it translated: whoever shows it asks ``gettext`` for it then."""
    return message


def day_text(day: date) -> str:
    """Return a day in the language in use: ``22 November 2026``."""
    return format_date(day, "long", locale=locale(spoken()))


def catalogue(language: str) -> NullTranslations | GNUTranslations:
    """Return the texts of ``language``, read once."""
    return _registered.get(language) or _read(language)


def register(language: str, texts: NullTranslations) -> None:
    """Let this process speak one more language, beside those that pages offer. ``language`` is a tag CLDR knows."""
    _registered[language] = texts


@cache
def _read(language: str) -> NullTranslations | GNUTranslations:
    return translation(DOMAIN, LOCALE_DIR, [language], fallback=True)


@cache
def locale(language: str) -> Locale:
    """Return what CLDR knows of ``language``, for numbers, dates and plurals."""
    # Plain "en" is American in CLDR (November 22, 2026); this service writes 22 November 2026.
    return Locale.parse("en-150" if language in (SOURCE, PSEUDO) else language, sep="-")
