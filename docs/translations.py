"""Bring the catalogues of the customer pages up to date: every text of the source, and what is compiled of it.

    uv run docs/translations.py          # collects texts, updates messages.po, writes messages.mo
    uv run docs/translations.py --check  # changes nothing; exit status 1 where a text has no translation

Both files are kept in the repository, so that a fresh clone and the wheel have them. Texts come from ``_()``,
``gettext()``, ``ngettext()`` and ``mark()`` in Python, from the templates, of core, plugins and themes, and from
``t()`` and ``tn()`` of our scripts.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from shared_record.languages import DOMAIN, LANGUAGES, LOCALE_DIR, SOURCE
from shared_record.web.script_texts import texts_in

ROOT = Path(__file__).parents[1]
PYTHON = ("platform/shared_record/**/*.py", "plugins/*/src/**/*.py")
TEMPLATES = ("platform/shared_record/web/**/templates/**/*.html", "themes/*/templates/**/*.html")
SCRIPTS = "platform/shared_record/web/static/*.js"
VERIFIER = ROOT / "platform/shared_record/verifier/standalone/verify.html"
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "mark": None}
JINJA = {"trim_blocks": "true", "lstrip_blocks": "true", "newstyle_gettext": "true", "silent": "false"}
PLURALS = {
    "de": "nplurals=2; plural=(n != 1)",
    "es": "nplurals=3; plural=(n == 1 ? 0 : n != 0 && n % 1000000 == 0 ? 1 : 2)",
    "ar": "nplurals=6; plural=(n == 0 ? 0 : n == 1 ? 1 : n == 2 ? 2 : n % 100 >= 3 && n % 100 <= 10 ? 3 : n % 100 >= 11"
    " ? 4 : 5)",
}
"""How each language counts: the rules of CLDR for whole numbers, with the forms in CLDR's order."""
STAMP = datetime(2026, 11, 22, tzinfo=UTC)
"""Stands where tools write the time of the run, so that a file changes only with its texts."""


def collect() -> Catalog:
    """Return every text of the source, without translations."""
    found = Catalog(project="Shared Record", creation_date=STAMP, fuzzy=False)
    for path, method in _sources():
        options = JINJA if path.suffix == ".html" else {}
        for _, text, comments, _ in extract_from_file(method, str(path), KEYWORDS, ("Translators:",), options, True):
            found.add(text, locations=[(path.relative_to(ROOT).as_posix(), 0)], auto_comments=comments)
    for path in (*sorted(ROOT.glob(SCRIPTS)), VERIFIER):
        for text in texts_in(path.read_text(encoding="utf-8")):
            found.add(text, locations=[(path.relative_to(ROOT).as_posix(), 0)])
    return found


def translated() -> list[str]:
    """Return the languages that have a catalogue."""
    return [tag for tag in LANGUAGES if tag != SOURCE]


def catalogue_path(language: str) -> Path:
    """Return where the texts of a language are translated; the compiled file stands beside it."""
    return LOCALE_DIR / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def read(language: str) -> Catalog:
    """Return a catalogue as it is kept."""
    with catalogue_path(language).open("rb") as file:
        return read_po(file, locale=language, domain=DOMAIN)


def update(language: str, source: Catalog) -> Catalog:
    """Write a catalogue with exactly the texts of ``source``, and compile it. New texts wait for a translation."""
    path = catalogue_path(language)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = read(language) if path.exists() else Catalog(locale=language, domain=DOMAIN, fuzzy=False)
    kept.update(source, no_fuzzy_matching=True)
    kept.obsolete.clear()
    kept.mime_headers = [("Plural-Forms", PLURALS[language])]
    kept.project, kept.creation_date, kept.revision_date = "Shared Record", STAMP, STAMP
    kept.version, kept.msgid_bugs_address, kept.last_translator = "1", "", ""
    kept.language_team = LANGUAGES[language]
    kept.header_comment = f"# The texts of customer pages: {LANGUAGES[language]}."
    path.write_bytes(as_po(kept))
    path.with_suffix(".mo").write_bytes(compiled(kept))
    return kept


def as_po(texts: Catalog) -> bytes:
    """Return a catalogue as it is written for translators."""
    out = io.BytesIO()
    write_po(out, texts, width=120, sort_output=True, omit_header=False, include_lineno=False)
    return out.getvalue()


def compiled(texts: Catalog) -> bytes:
    """Return a catalogue as it is read when pages are made."""
    out = io.BytesIO()
    write_mo(out, texts)
    return out.getvalue()


def missing(texts: Catalog) -> list[str]:
    """Return the texts that are not translated, or not in all plural forms, or only by a guess."""
    return [
        str(one.id)
        for one in texts
        if one.id and (one.fuzzy or not all(one.string if isinstance(one.string, tuple | list) else (one.string,)))
    ]


def _sources() -> Iterator[tuple[Path, str]]:
    for patterns, method in ((PYTHON, "python"), (TEMPLATES, "jinja2.ext:babel_extract")):
        for pattern in patterns:
            for path in sorted(ROOT.glob(pattern)):
                yield path, method


def main(arguments: list[str]) -> int:
    """Update or check every catalogue; return the exit status."""
    source, is_check, wrong = collect(), "--check" in arguments, 0
    for language in translated():
        texts = read(language) if is_check else update(language, source)
        gaps = missing(texts) + sorted({str(one.id) for one in source if one.id} - {str(one.id) for one in texts})
        print(f"{language}: {len(source)} texts, {len(gaps)} without translation", file=sys.stderr)
        for text in gaps:
            print(f"  {text}", file=sys.stderr)
        wrong += len(gaps)
    return 1 if is_check and wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
