"""The catalogues: complete, compiled, with the placeholders and the markup of the source, and counting as CLDR does."""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
from collections.abc import Iterator
from functools import cache
from gettext import GNUTranslations
from pathlib import Path
from types import ModuleType

import pytest
from babel import Locale
from babel.messages import Message

from shared_record import languages
from shared_record.languages import LANGUAGES, SOURCE, direction, gettext, ngettext, speak, spoken
from shared_record.manifest.schema import Manifest

SCRIPT = Path(__file__).parents[1] / "docs" / "translations.py"
TRANSLATED = [tag for tag in LANGUAGES if tag != SOURCE]
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|\{\w+\}|\$\w+|%%")
TAG = re.compile(r"</?[a-z]+[^>]*>")
CATEGORIES = ("zero", "one", "two", "few", "many", "other")
WRITTEN_OUT = {"zero", "one", "two"}
"""Forms that may say the number in words."""


@cache
def tools() -> ModuleType:
    spec = importlib.util.spec_from_file_location("translations", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["translations"] = module
    spec.loader.exec_module(module)
    return module


@cache
def texts(language: str) -> tuple[Message, ...]:
    return tuple(one for one in tools().read(language) if one.id)


def forms(message: Message) -> Iterator[tuple[str, str]]:
    """Yield each translation of a text with that form of the source that it stands for."""
    if isinstance(message.id, str):
        yield message.id, message.string
        return
    singular, plural = message.id
    categories = categories_of(len(message.string))
    for category, text in zip(categories, message.string, strict=True):
        written_out = category in WRITTEN_OUT and "%(count)" not in text and "{count}" not in text
        yield (singular if category == "one" or written_out else plural), text


def categories_of(count: int) -> list[str]:
    found = {2: ["one", "other"], 3: ["one", "many", "other"], 6: list(CATEGORIES)}
    return found[count]


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    yield
    speak(SOURCE)


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_text_of_the_source_has_a_translation(language: str) -> None:
    catalogue, source = tools().read(language), tools().collect()
    assert {str(one.id) for one in catalogue} == {str(one.id) for one in source}, "run: uv run docs/translations.py"
    assert tools().missing(catalogue) == []
    assert len(source) > 150


@pytest.mark.parametrize("language", TRANSLATED)
def test_what_is_compiled_is_what_was_translated(language: str) -> None:
    path, catalogue = tools().catalogue_path(language), tools().read(language)
    assert path.with_suffix(".mo").read_bytes() == tools().compiled(catalogue), "run: uv run docs/translations.py"
    assert not catalogue.obsolete
    assert not any(one.fuzzy for one in catalogue)


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_has_the_placeholders_of_its_source(language: str) -> None:
    for message in texts(language):
        for source, text in forms(message):
            expected = sorted(PLACEHOLDER.findall(source))
            found = sorted(PLACEHOLDER.findall(text))
            written_out = {"%(count)s", "%(count)d", "{count}"} - set(found)
            assert found == expected or (
                not isinstance(message.id, str) and found == [one for one in expected if one not in written_out]
            ), text


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_has_the_markup_of_its_source(language: str) -> None:
    for message in texts(language):
        for source, text in forms(message):
            assert sorted(TAG.findall(text)) == sorted(TAG.findall(source)), text
            assert "<" not in TAG.sub("", text), text


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_ends_and_begins_as_its_source(language: str) -> None:
    ends = {".": ".", "?": "?؟", ":": ":", "…": "…"}
    for message in texts(language):
        for source, text in forms(message):
            assert text == text.strip(), text
            if source[-1] in ends and source not in ("No.",):
                assert text[-1] in ends[source[-1]], text
            elif source[-1].isalpha():
                assert text[-1] not in ".:", text


@pytest.mark.parametrize("language", TRANSLATED)
def test_plural_forms_are_those_of_cldr(language: str) -> None:
    catalogue = languages.catalogue(language)
    assert isinstance(catalogue, GNUTranslations)
    rule = Locale.parse(language).plural_form
    ordered = [one for one in CATEGORIES if one in {*rule.tags, "other"}]
    chosen = {
        count: catalogue.plural(count)  # type: ignore[attr-defined]
        for count in [*range(1_201), 10_000, 999_999, 1_000_000, 2_000_000, 3_000_001]
    }
    assert {count: ordered[index] for count, index in chosen.items()} == {count: rule(count) for count in chosen}
    assert tools().read(language).num_plurals == len(ordered)


def test_arabic_has_six_forms() -> None:
    speak("ar")
    found = {ngettext("%(count)s record", "%(count)s records", count) for count in (0, 1, 2, 3, 11, 100)}
    assert len(found) == 6


def test_a_language_is_written_in_its_direction_and_called_by_its_own_name() -> None:
    for tag, name in LANGUAGES.items():
        speak(tag)
        assert direction() == ("rtl" if tag == "ar" else "ltr")
        assert Locale.parse(tag).get_display_name(tag).casefold() == name.casefold()


def test_a_tenant_file_takes_every_language() -> None:
    for tag in LANGUAGES:
        assert Manifest.model_validate({"name": "A", "language": tag}).language == tag


def test_an_unknown_language_and_an_unknown_text_read_in_english() -> None:
    speak("xx")
    assert spoken() == SOURCE
    speak("de")
    assert gettext("Amount") == "Menge"
    assert gettext("No text of the source") == "No text of the source"


def test_a_language_is_spoken_in_one_thread_only() -> None:
    found = []
    speak("de")
    thread = threading.Thread(target=lambda: found.append(spoken()))
    thread.start()
    thread.join()
    assert found == [SOURCE]
