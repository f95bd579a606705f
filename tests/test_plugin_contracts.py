"""Every installed export format keeps its contract; step-up methods are checked in the tests of their own plugins."""

from __future__ import annotations

import pytest

from shared_record.hooks.loader import load_plugins
from shared_record.testing import ExportFormatContract, StepUpMethodContract

PLUGINS = load_plugins(strict=True)
CHECKS = [name for name in vars(ExportFormatContract) if name.startswith("test_")]


@pytest.mark.parametrize("slug", [slug for slug in sorted(PLUGINS.export_formats) if slug != "bundle"])
@pytest.mark.parametrize("check", CHECKS)
def test_every_export_format_keeps_the_contract(slug: str, check: str) -> None:
    class Contract(ExportFormatContract):
        format = PLUGINS.export_formats[slug]

    getattr(Contract(), check)()


def test_every_step_up_method_is_tested_by_the_contract() -> None:
    assert {"access_code", "totp_device"} <= PLUGINS.step_up_methods.keys()
    assert len([name for name in vars(StepUpMethodContract) if name.startswith("test_")]) >= 9
