"""Loading plugins: one that is wrong is named and left out, and everything else works."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from shared_record.hooks.loader import GROUP, Plugins, load_plugins

HEAD = """
from shared_record.plugin import *
from shared_record.plugin import hookimpl
from pathlib import Path

class Method(StepUpMethod):
    slug, title = "mine", "Mine"
    def begin(self, ctx): return Challenge(())
    def verify(self, ctx, answer): return NotMine()

class Format(ExportFormat):
    slug, title, media_type, extension = "mine", "Mine", "text/plain", "txt"
    def write(self, rows, out, options): return ExportSummary(0, "0", None, None)
"""
GOOD = (
    HEAD
    + """
@hookimpl
def register_step_up_methods(): return [Method]
@hookimpl
def register_export_formats(): return [Format]
@hookimpl
def register_theme_roots(): return [ThemeRoot(Path(__file__).parent)]
"""
)
Write = Callable[..., EntryPoint]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return a function that makes a plugin module and gives its entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made: list[str] = []

    def make(name: str, source: str) -> EntryPoint:
        module = f"plugin_under_test_{name}"
        (tmp_path / f"{module}.py").write_text(source)
        made.append(module)
        return EntryPoint(name, module, GROUP)

    yield make
    for module in made:
        sys.modules.pop(module, None)


def hooks(body: str) -> str:
    return HEAD + body


BROKEN: dict[str, tuple[str, str]] = {
    "raises at import": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "exits at import": ("raise SystemExit('bye')", "SystemExit: bye"),
    "does not parse": ("def", "SyntaxError"),
    "imports what is not there": ("import shared_record_missing", "ModuleNotFoundError"),
    "raises in a hook": (hooks("@hookimpl\ndef register_export_formats(): raise OSError('disk')"), "OSError: disk"),
    "unknown hook": (hooks("@hookimpl\ndef register_everything(): return []"), "register_everything"),
    "unknown argument": (hooks("@hookimpl\ndef register_export_formats(request): return []"), "request"),
    "argument with a default": (hooks("@hookimpl\ndef register_export_formats(x=1): return []"), "defaults"),
    "speaks as another hook": (
        hooks("@hookimpl(specname='register_export_formats')\ndef anything(): return [Format]"),
        "specname",
    ),
    "wrapper": (hooks("@hookimpl(wrapper=True)\ndef register_export_formats(): return (yield)"), "wrappers"),
    "old wrapper": (hooks("@hookimpl(hookwrapper=True)\ndef register_export_formats(): yield"), "wrappers"),
    "returns no list": (hooks("@hookimpl\ndef register_export_formats(): return 5"), "TypeError"),
    "registers an object": (hooks("@hookimpl\ndef register_export_formats(): return [Format()]"), "not a complete"),
    "registers another type": (hooks("@hookimpl\ndef register_export_formats(): return [Method]"), "not a complete"),
    "registers the base": (hooks("@hookimpl\ndef register_step_up_methods(): return [StepUpMethod]"), "not a complete"),
    "registers an incomplete class": (
        hooks("class Half(StepUpMethod):\n slug='half'\n@hookimpl\ndef register_step_up_methods(): return [Half]"),
        "not a complete",
    ),
    "has no slug": (
        hooks(
            "class No(StepUpMethod):\n begin = verify = lambda *a: None\n"
            "@hookimpl\ndef register_step_up_methods(): return [No]"
        ),
        "slug",
    ),
    "slug is a path": (
        hooks("Format.slug = '../mine'\n@hookimpl\ndef register_export_formats(): return [Format]"),
        "no slug",
    ),
    "slug is a number": (
        hooks("Format.slug = 5\n@hookimpl\ndef register_export_formats(): return [Format]"),
        "no slug",
    ),
    "one slug twice": (hooks("@hookimpl\ndef register_export_formats(): return [Format, Format]"), "already"),
    "themes are no folder": (
        hooks("@hookimpl\ndef register_theme_roots(): return [ThemeRoot(Path('/nonexistent'))]"),
        "no folder of themes",
    ),
    "themes are a text": (hooks("@hookimpl\ndef register_theme_roots(): return ['/tmp']"), "no folder of themes"),
}


def test_a_good_plugin_registers_everything(write: Write, tmp_path: Path) -> None:
    found = load_plugins([write("good", GOOD)], strict=True)
    assert {slug: kind.__name__ for slug, kind in found.step_up_methods.items()} == {"mine": "Method"}
    assert {slug: kind.__name__ for slug, kind in found.export_formats.items()} == {"mine": "Format"}
    assert (found.theme_roots, found.quarantined) == ([tmp_path], {})


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_quarantined_with_its_reason_and_leaves_nothing(
    write: Write, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, reason = BROKEN[fault]
    points = [write("zz_good", GOOD), write("broken", source)]
    with caplog.at_level(logging.ERROR):
        found = load_plugins(points)
    assert list(found.quarantined) == ["broken"]
    assert reason in found.quarantined["broken"]
    assert "plugin.quarantined name=broken" in caplog.text
    assert (list(found.step_up_methods), list(found.export_formats), len(found.theme_roots)) == (["mine"], ["mine"], 1)


@pytest.mark.parametrize("fault", BROKEN)
def test_strict_raises(write: Write, fault: str) -> None:
    with pytest.raises((Exception, SystemExit)):
        load_plugins([write("broken", BROKEN[fault][0])], strict=True)


def test_what_a_plugin_got_right_before_it_went_wrong_does_not_count(write: Write) -> None:
    half = GOOD.replace("return [Format]", "return [Method]")
    found = load_plugins([write("half", half)])
    assert found == Plugins(quarantined=found.quarantined)


def test_the_first_by_name_keeps_a_slug_whatever_the_order_of_discovery(write: Write) -> None:
    one, two = write("b_second", GOOD), write("a_first", GOOD)
    for points in ([one, two], [two, one]):
        found = load_plugins(points)
        assert list(found.quarantined) == ["b_second"]
        assert "already a StepUpMethod 'mine'" in found.quarantined["b_second"]
        assert found.export_formats["mine"].__module__ == "plugin_under_test_a_first"


def test_a_plugin_without_hooks_is_harmless(write: Write) -> None:
    assert load_plugins([write("empty", "")]) == Plugins()


def test_tryfirst_moves_nobody_past_a_name(write: Write) -> None:
    eager = GOOD.replace("@hookimpl\n", "@hookimpl(tryfirst=True)\n")
    found = load_plugins([write("z_eager", eager), write("a_calm", GOOD)])
    assert list(found.quarantined) == ["z_eager"]


def test_the_installed_plugins_load_strictly() -> None:
    found = load_plugins(strict=True)
    assert "access_code" in found.step_up_methods
    assert {"csv", "json"} <= found.export_formats.keys()
    assert any((root / "default" / "theme.toml").is_file() for root in found.theme_roots)


def test_entry_points_that_name_nothing_are_quarantined() -> None:
    points: list[Any] = [
        EntryPoint("gone", "shared_record_gone", GROUP),
        EntryPoint("attribute", "shared_record.plugin:missing", GROUP),
    ]
    assert list(load_plugins(points).quarantined) == ["attribute", "gone"]
