"""The texts of our scripts in the language of the page.

A script writes them in English: ``t("… {name} …", {name})``, and ``tn("{count} record", "{count} records", count)``
where they depend on a number. The page hands over what they are in its own language.
"""

from __future__ import annotations

import json
import re
from functools import cache

from shared_record.languages import SOURCE, gettext, locale, ngettext, spoken
from shared_record.web.render import static_files

_STRING = r'"(?:[^"\\]|\\.)*"'
_CALL = re.compile(rf"\btn?\(({_STRING})(?:, ({_STRING}))?")
_COUNTS = (0, 1, 2, 3, 11, 100, 1_000_000)
"""Numbers of every plural category of the languages that pages come in."""

Text = str | tuple[str, str]


def texts_in(source: str) -> list[Text]:
    """Return the texts of a script: one, or singular and plural."""
    return [
        (json.loads(one), json.loads(many)) if many else json.loads(one)
        for one, many in (match.groups() for match in _CALL.finditer(source))
    ]


def script_texts(*names: str) -> dict[str, str | dict[str, str]]:
    """Return the translation of each text of these scripts; of a plural, by CLDR's categories. None for English."""
    return {} if spoken() == SOURCE else {_key(text): _translated(text) for text in _texts(names)}


def _key(text: Text) -> str:
    return text if isinstance(text, str) else text[0]


def _translated(text: Text) -> str | dict[str, str]:
    if isinstance(text, str):
        return gettext(text)
    category = locale(spoken()).plural_form
    return {category(count): ngettext(*text, count) for count in reversed(_COUNTS)}


@cache
def _texts(names: tuple[str, ...]) -> tuple[Text, ...]:
    return tuple(text for name in names for text in texts_in(static_files()[name].data.decode()))
