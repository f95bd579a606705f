"""The fixture ``demo`` for this folder; see ``tests/demo_server.py``."""

from __future__ import annotations

import pytest

import demo_server


def pytest_configure(config: pytest.Config) -> None:
    # Registered once for the run: imported into two conftests it would be two fixtures, and two servers.
    if not config.pluginmanager.has_plugin("demo_server"):
        config.pluginmanager.register(demo_server, "demo_server")
