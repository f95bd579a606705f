"""Signatures, computed here once more and compared with published vectors."""

from __future__ import annotations

import base64
import hashlib
import hmac

from shared_record.delivery import signing

BODY = b'{"event":"delta.verified","data":{"delta":-5}}'
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_w05_the_pacspace_family_is_keyed_with_the_whole_secret() -> None:
    expected = hmac.new(SECRET.encode(), b"1700000000." + BODY, hashlib.sha256).hexdigest()
    assert signing.pacspace_signature(SECRET, 1_700_000_000, BODY) == f"v1={expected}"


def test_w05_the_standard_family_agrees_with_the_vector_of_its_reference_libraries() -> None:
    found = signing.standard_signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_w05_two_signatures_while_a_secret_is_rotated_the_current_one_first() -> None:
    fresh = signing.new_secret()
    headers = signing.headers([fresh, SECRET], "customer.created", "evt_1", 1_700_000_000, BODY)
    assert headers["X-PacSpace-Signature"].split(",") == [
        signing.pacspace_signature(fresh, 1_700_000_000, BODY),
        signing.pacspace_signature(SECRET, 1_700_000_000, BODY),
    ]
    key = base64.b64decode(fresh.removeprefix("whsec_"))
    first, second = headers["webhook-signature"].split(" ")
    digest = hmac.digest(key, b"evt_1.1700000000." + BODY, hashlib.sha256)
    assert first == "v1," + base64.b64encode(digest).decode()
    assert second == signing.standard_signature(SECRET, "evt_1", 1_700_000_000, BODY)
    assert headers["X-PacSpace-Timestamp"] == headers["webhook-timestamp"] == "1700000000"
    assert headers["X-Event-ID"] == headers["webhook-id"] == "evt_1"
    assert headers["X-Webhook-Event"] == "customer.created"


def test_a_secret_has_the_form_and_length_that_standard_webhooks_asks_for() -> None:
    secret = signing.new_secret()
    assert secret.startswith("whsec_")
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
    assert secret != signing.new_secret()
