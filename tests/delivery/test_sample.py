"""The receiver's code that the reference shows, run on real deliveries."""

from __future__ import annotations

import re
from pathlib import Path

from posting import Post
from receiver import Receiver
from shared_record.delivery.events import EVENTS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "webhooks.md"


def test_w05_the_code_of_the_reference_accepts_what_is_sent_and_nothing_else(
    post: Post, receiver: Receiver, monkeypatch
) -> None:
    [source] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict = {}
    exec(source, names)
    monkeypatch.setattr(names["time"], "time", lambda: post.shop.clock.now().timestamp())
    _, secret = post.endpoint(receiver.url)
    post.shop.record("cust_a", "-5")
    post.shop.checkpoint()
    assert post.send() == 2
    for sent in receiver.received:
        headers = {
            "X-PacSpace-Timestamp": sent.headers["x-pacspace-timestamp"],
            "X-PacSpace-Signature": sent.headers["x-pacspace-signature"],
        }
        assert names["is_genuine"](secret, headers, sent.body)
        assert not names["is_genuine"]("whsec_other", headers, sent.body)
        assert not names["is_genuine"](secret, headers, sent.body + b" ")
        assert not names["is_genuine"](secret, {}, sent.body)
    post.shop.clock.advance(seconds=301)
    assert not names["is_genuine"](secret, headers, sent.body)


def test_every_event_is_in_the_reference() -> None:
    text = PAGE.read_text()
    assert all(f"| `{name}` |" in text for name in EVENTS)
