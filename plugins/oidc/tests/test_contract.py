from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from shared_record_oidc import Oidc, register_step_up_methods
from shared_record_oidc.settings import Settings

from mock_idp import SECRET, MockIdp
from shared_record.plugin import Challenge
from shared_record.testing import StepUpKit, StepUpMethodContract

IDP = MockIdp(lambda: StepUpKit().now, name="https://id.acme.example")


def fetch(method: str, url: str, *, body: bytes = b"", headers: Mapping[str, str] = {}, **_: Any) -> tuple[int, bytes]:
    """Answer for the provider."""
    parts = urlsplit(url)
    assert (method, parts.scheme, parts.netloc) in {(one, "https", "id.acme.example") for one in ("GET", "POST")}
    return IDP.answer(parts.path, headers.get("Authorization", ""), body)


class TestOidc(StepUpMethodContract):
    method = Oidc

    def kit(self) -> StepUpKit:
        return StepUpKit(
            settings=Settings.model_validate({"connections": [IDP.connection()]}),
            tenant_secrets={"acme": SECRET.encode()},
            subjects=((IDP.issuer, IDP.subject),),
            fetch=fetch,
            choice="acme",
        )

    def right_answer(self, kit: StepUpKit, asked: Challenge | None) -> Mapping[str, str]:
        assert asked is not None
        return IDP.sign_in(asked.redirect)

    def wrong_answers(self) -> Iterable[Mapping[str, str]]:
        yield from super().wrong_answers()
        for text in ("", "x", "\0", "\ud800", "\N{KELVIN SIGN}", "x" * 5000, "' OR 1=1 --"):
            yield {"iss": IDP.issuer, "state": "s", "code": text}
            yield {"iss": IDP.issuer, "state": "s", "error": text or "access_denied", "error_description": text}


def test_the_hook_names_the_method() -> None:
    assert register_step_up_methods() == [Oidc]
