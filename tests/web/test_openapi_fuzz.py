"""Generated requests, right and wrong ones, against the running server: it keeps to what its description says."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from live_server import serving
from shared_record.access.apikeys import SCOPES
from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.keys import KeyRing
from shared_record.tenancy.tenants import update_tenant
from world import open_shop

SECONDS, MANY_SECONDS = 40, 1800
EXAMPLES, MANY_EXAMPLES = 3, 100
CHECKS = (
    "not_a_server_error",
    "negative_data_rejection",
    "ignored_auth",
    "use_after_free",
    "ensure_resource_availability",
    "unsupported_method",
    "missing_required_header",
    "response_schema_conformance",
    "status_code_conformance",
    "content_type_conformance",
)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_generated_requests_are_answered_as_the_description_says(
    db: Database, keys: KeyRing, tmp_path: Path, soak: bool
) -> None:
    shop = open_shop(db, keys, SteppedClock(datetime.now(UTC)), tmp_path)
    with db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"api_rate": 100_000, "api_burst": 100_000})
    shop.record("cust_northwind", "1.5", "2")
    shop.checkpoint()
    key = shop.api_key(scopes=list(SCOPES))
    folder = tmp_path / "data"
    folder.mkdir()
    with serving(shop, folder, trusted_proxies="127.0.0.0/8") as live:
        said = schemathesis(live.url, key, tmp_path, soak)
    assert said.returncode == 0, said.stdout + said.stderr


def schemathesis(url: str, key: str, folder: Path, soak: bool) -> subprocess.CompletedProcess[str]:
    """Run it as a command: only that has the phase in which it follows links from answer to request."""
    line = [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/api/v1/openapi.json"]
    line += ["--header", f"X-Api-Key: {key}", "--checks", ",".join(CHECKS), "--seed", "1"]
    line += ["--max-time", str(MANY_SECONDS if soak else SECONDS)]
    line += ["--max-examples", str(MANY_EXAMPLES if soak else EXAMPLES)]
    line += ["--generation-database", "none", "--continue-on-failure", "--no-shrink", "--no-color", "--warnings", "off"]
    tests = Path(__file__).parent
    environ = os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(tests)}
    return subprocess.run(line, cwd=folder, env=environ, capture_output=True, text=True, check=False)
