"""Every installed export format keeps its contract; step-up methods are checked in the tests of their own plugins."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from shared_record.exports.statement import StatementFacts, write_statement
from shared_record.hooks.loader import load_plugins
from shared_record.plugin import ExportOptions
from shared_record.testing import ExportFormatContract, StepUpMethodContract

PLUGINS = load_plugins(strict=True)
CHECKS = [name for name in vars(ExportFormatContract) if name.startswith("test_")]


@pytest.mark.parametrize("slug", [slug for slug in sorted(PLUGINS.export_formats) if slug != "bundle"])
@pytest.mark.parametrize("check", CHECKS)
def test_every_export_format_keeps_the_contract(slug: str, check: str) -> None:
    class Contract(ExportFormatContract):
        format = PLUGINS.export_formats[slug]

        def options(self, size: int, total: str) -> ExportOptions:
            plain = super().options(size, total)
            statement = partial(write_statement, StatementFacts(plain.record, csv="usage.csv"))
            return replace(plain, formats=PLUGINS.export_formats, statement=statement)

    getattr(Contract(), check)()


def test_every_step_up_method_is_tested_by_the_contract() -> None:
    assert PLUGINS.step_up_methods.keys() == {"access_code", "email_otp", "oidc", "totp_device"}
    for kind in PLUGINS.step_up_methods.values():
        source = Path(inspect.getfile(kind))
        tests = next(folder for folder in source.parents if folder.name == "src").parent / "tests"
        texts = "".join(one.read_text() for one in tests.glob("test_*.py"))
        assert re.search(rf"\(StepUpMethodContract\):\s+method = {kind.__name__}\b", texts), kind
    assert len([name for name in vars(StepUpMethodContract) if name.startswith("test_")]) >= 9
