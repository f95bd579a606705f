"""pacspace-sdk 0.7.0 from the index, unchanged, in a virtual environment of its own, against a live server.

Every method of the vendor contract's section 4, on both databases. Downloads: ``SR_TEST_INTEROP=1`` or
``SR_TEST_REQUIRE_ALL=1``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from demo_server import Demo, wait_for
from receiver import Receiver, receiving

SDK = "pacspace-sdk==0.7.0"
REQUIRED = os.environ.get("SR_TEST_REQUIRE_ALL") == "1"
DOWNLOADS = REQUIRED or os.environ.get("SR_TEST_INTEROP") == "1"
CALLS = Path(__file__).with_name("sdk_calls.py")
CUSTOMER = "cust_sdk"

pytestmark = pytest.mark.skipif(not DOWNLOADS, reason="downloads the vendor's client: set SR_TEST_INTEROP=1")


@pytest.fixture(scope="module")
def sdk_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment that holds the client and nothing of ours."""
    uv = shutil.which("uv") or str(Path(__file__).parents[2] / ".venv" / "bin" / "uv")
    folder = tmp_path_factory.mktemp("sdk") / "venv"
    subprocess.run([uv, "venv", "--quiet", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), SDK], check=True)
    return python


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def demo(tmp_path: Path, database_url: str) -> Iterator[Demo]:
    """A server and a worker over the database under test."""
    if database_url.startswith("sqlite"):
        database_url = ""
    server = Demo(tmp_path / "demo", database_url, variables={"SHARED_RECORD_EGRESS_ALLOW": "127.0.0.0/8"})
    with server.running("--no-seed"):
        yield server


def test_every_method_works_unchanged(demo: Demo, sdk_python: Path, receiver: Receiver) -> None:
    given = prepare(demo, receiver)
    done = subprocess.run([sdk_python, CALLS, json.dumps(given)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    check_recording(found)
    check_reading(found)
    check_documents(found)
    check_links(found)
    refused = {name: one["refused"] for name, one in found.items() if isinstance(one, dict) and "refused" in one}
    assert refused == {
        "emit_conflict": "REFERENCE_CONFLICT",
        "unknown_record": "NOT_FOUND",
        "unknown_customer": "NOT_FOUND",
        "wrong_key": "INVALID_API_KEY",
        "open_wrong_code": "ACCESS_CODE_INVALID",
        "open_elsewhere": "RECORD_MOVED",
    }, found


def prepare(demo: Demo, receiver: Receiver) -> dict[str, Any]:
    """Make what a vendor has before the first call: key, token, webhook endpoint, and a customer with a link."""
    tenant = ("--tenant", "acme")
    hook = demo.cli_json("webhook", "create", receiver.url, *tenant)
    token = demo.cli_json("token", "create", "--name", "console", *tenant)
    person = demo.new_customer("acme", "cust_with_link")
    wait_for("a delivery", lambda: receiver.received)
    home = person.url.partition("/c/")[0]
    sent = receiver.received[0]
    webhook = {"headers": dict(sent.headers), "body": sent.body.decode()}
    return {
        "api_key": demo.tenant("acme")["api_key"],
        "base_url": f"http://localhost:{demo.port}",
        "home_url": home,
        "other_url": f"http://{demo.tenant('acme')['hosts'][1]}:{demo.port}",
        "customer": CUSTOMER,
        "period": datetime.now(UTC).strftime("%Y-%m"),
        "webhook_secret": hook["secret"],
        "webhook": webhook,
        "event_id": json.loads(webhook["body"])["id"],
        "token": token["token"],
        "link": person.url,
        "code": person.code,
    }


def check_recording(found: dict[str, Any]) -> None:
    assert found["emit"]["status"] == "QUEUED"
    assert found["emit_again"] == found["emit"]
    assert found["emit_keyed_again"] == found["emit_keyed"]
    assert found["emit_and_wait"]["status"] == "VERIFIED"
    assert found["wait_for_verified"]["status"] == "VERIFIED"
    assert found["delta_status"]["recordId"] == found["emit_keyed"]["recordId"]
    flushed, again = found["flush_summaries"], found["flush_summaries_again"]
    assert (flushed["submitted"], flushed["failed"], flushed["replayed"]) == (3, 0, 0)
    assert (again["submitted"], again["failed"], again["replayed"]) == (3, 0, 3)
    assert found["queue_state"]["queuedCount"] == 0
    assert found["customer_odd_id"]["customerId"] == "a:b-c.d_e"


def check_reading(found: dict[str, Any]) -> None:
    assert found["usage"]["allowed"] is True
    assert found["gaps"]["gaps"] == []
    for name in ("derive", "derive_current_month", "derive_for_period"):
        assert found[name]["computedBalance"] == -6.5, name
        assert found[name]["deltaCount"] == found[name]["deltasCount"] == 4, name
    assert found["derive_months_back"]["computedBalance"] in (-6.5, 0)
    assert found["derive_from_checkpoint"]["deltaCount"] == 1
    assert (found["compare"]["matchesYours"], found["compare"]["matchesTheirs"]) == (True, False)
    assert found["customer"]["totalDeltas"] == 4
    assert len(found["customer"]["recentActivity"]["items"]) == 3
    assert any(one["customerId"] == CUSTOMER for one in found["customers"]["customers"])
    assert found["customer_odd_detail"]["totalDeltas"] == 1
    assert found["customers_create"]["customerId"] == "cust_made_by_sdk"


def check_documents(found: dict[str, Any]) -> None:
    made = found["checkpoint"]
    assert made["checkpointId"].startswith("chk_")
    assert made["proofRoot"] == made["merkleRoot"]
    assert found["checkpoint_all"]["checkpoints"]
    assert made["checkpointId"] in [one["checkpointId"] for one in found["list_checkpoints"]["checkpoints"]]
    proof = found["invoice_proof"]
    assert {"verifyUrl", "verificationApiUrl", "verificationExplorerUrl", "accessHint"} <= set(proof)
    assert (proof["finalBalance"], proof["deltaCount"]) == (-6.5, 4)
    assert found["receipt_scoped"]["proofRoot"] == proof["proofRoot"]
    assert found["receipt"]["customerId"] == CUSTOMER
    assert found["verify"]["verified"] is True
    assert found["verify_root"]["verified"] is True
    assert found["verify_chain"]["verified"] is False
    assert found["verify_webhook"]["event"]
    assert found["list_webhook_deliveries"]["deliveries"]
    assert found["retry_webhook"]["queued"] is True


def check_links(found: dict[str, Any]) -> None:
    assert found["open"]["sealHistory"] == {"schema": "shared-record/usage@v1", "entries": []}
    assert found["open"]["disclosure"] is None
