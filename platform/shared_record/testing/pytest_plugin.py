"""Loaded by pytest wherever Shared Record is installed: the fixture ``stepup_kit``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared_record.testing import StepUpKit


@pytest.fixture
def stepup_kit() -> Callable[..., StepUpKit]:
    """Return what makes a customer as a step-up method sees it, e.g. ``stepup_kit(access_code="K7M4QX")``."""
    return StepUpKit
