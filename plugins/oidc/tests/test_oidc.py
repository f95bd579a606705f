"""Sign-in elsewhere against a provider that lies: every lie is refused, and nothing it says is repeated."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import RSAKey
from pydantic import ValidationError
from shared_record_oidc import Oidc, exchange, messages
from shared_record_oidc.provider import KEPT, KEYS_AGAIN, Cache
from shared_record_oidc.settings import Settings

from mock_idp import SECRET, MockIdp, b64, mock_idp, sign
from shared_record.delivery.egress import Egress
from shared_record.delivery.fetch import Fetcher, FetchError
from shared_record.plugin import Challenge, NotMine, Passed, Refused, ServiceDownError, StepUpContext, Verdict

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CALLBACK = "http://usage.acme.localhost:8000/auth/oidc/acme"
FETCH = Fetcher(Egress((ipaddress.ip_network("127.0.0.0/8"),)))


@dataclass
class Listed:
    """Who may pass."""

    subjects: set[tuple[str, str]] = field(default_factory=set)
    emails: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)
    pins: dict[str, tuple[str, str]] = field(default_factory=dict)

    def email(self, text: str) -> str | None:
        return text if text.casefold() in self.emails else None

    def subject(self, issuer: str, subject: str) -> bool:
        return (issuer, subject) in self.subjects

    def domain(self, domain: str) -> bool:
        return domain in self.domains

    def pin(self, issuer: str, subject: str, email: str) -> bool:
        if not self.email(email) and not self.domain(email.rpartition("@")[2].lower()):
            return False
        return self.pins.setdefault(email.casefold(), (issuer, subject)) == (issuer, subject)


@dataclass
class Attempt:
    """One browser on its way through a sign-in."""

    idp: MockIdp
    listed: Listed
    settings: dict[str, Any]
    now: datetime = NOON
    ticket: str = "t" * 43
    challenge: Challenge | None = None
    host: str = "usage.acme.localhost"
    fetch: Any = FETCH

    def context(self, **changes: Any) -> StepUpContext:
        def no_mail(*_: object) -> None:
            raise AssertionError

        usual = StepUpContext(
            tenant_name="Acme",
            host=self.host,
            customer_label=None,
            now=self.now,
            settings=Settings.model_validate(self.settings),
            choice="acme",
            state=self.challenge.state if self.challenge else b"",
            ticket=self.ticket,
            callback_url=CALLBACK,
            customer_secret=None,
            entitlements=self.listed,
            matches_access_code=lambda _: False,
            tenant_secret={"acme": SECRET.encode()}.get,
            send_mail=no_mail,
            fetch=self.fetch,
        )
        return replace(usual, **changes)

    def start(self, **changes: Any) -> str:
        found = Oidc().start(self.context(**changes), {})
        assert isinstance(found, Challenge)
        self.challenge = found
        return found.redirect

    def verify(self, answer: Mapping[str, str], **changes: Any) -> Verdict:
        return Oidc().verify(self.context(**changes), answer)

    def go(self, **changes: str | None) -> Verdict:
        return self.verify(self.idp.sign_in(self.start(), **changes))


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port, and so an issuer, may come again."""
    monkeypatch.setattr("shared_record_oidc._cache", Cache())


@pytest.fixture
def idp() -> Iterator[MockIdp]:
    with mock_idp(lambda: NOON) as provider:
        yield provider


@pytest.fixture
def attempt(idp: MockIdp) -> Attempt:
    listed = Listed(subjects={(idp.issuer, "sub-1")})
    return Attempt(idp, listed, {"connections": [idp.connection()]})


def reason(verdict: Verdict) -> str:
    assert isinstance(verdict, Refused), verdict
    assert "<" not in verdict.public_reason
    return verdict.public_reason


# --- What works ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_listed_subject_passes(attempt: Attempt, algorithm: str) -> None:
    attempt.idp.use(algorithm)
    verdict = attempt.go()
    assert isinstance(verdict, Passed)
    assert (verdict.subject_hint, verdict.single_use) == ("sub-1 (Acme ID)", "")
    assert attempt.idp.asked["/userinfo"] == 0


def test_the_request_is_as_the_standards_say(attempt: Attempt) -> None:
    url = attempt.start()
    asked = parse_qsl(urlsplit(url).query)
    assert len(asked) == len(dict(asked)) == 9
    query = dict(asked)
    kept = json.loads(attempt.challenge.state)  # type: ignore[union-attr]
    assert query["state"] == attempt.ticket
    assert query["redirect_uri"] == CALLBACK
    assert query["scope"] == "openid email"
    assert query["nonce"] == kept["nonce"]
    assert query["code_challenge"] == b64(hashlib.sha256(kept["verifier"].encode()).digest())
    assert kept["verifier"] not in url
    assert len(kept["verifier"]) >= 43
    assert attempt.challenge.valid_for == timedelta(minutes=10)  # type: ignore[union-attr]


def test_each_attempt_has_its_own_nonce_and_verifier(attempt: Attempt) -> None:
    first = attempt.start() and json.loads(attempt.challenge.state)  # type: ignore[union-attr]
    second = attempt.start() and json.loads(attempt.challenge.state)  # type: ignore[union-attr]
    assert first["nonce"] != second["nonce"]
    assert first["verifier"] != second["verifier"]


def test_a_form_asks_for_nothing_before_it_is_sent(attempt: Attempt) -> None:
    method, context = Oidc(), attempt.context()
    assert [one.key for one in method.choices(context)] == ["acme"]
    assert method.choices(context)[0].title == "Sign in with Acme ID"
    assert method.begin(context).button == "Continue to Acme ID"
    assert attempt.idp.asked.total() == 0


def test_a_secret_can_be_sent_in_the_form(attempt: Attempt) -> None:
    attempt.settings = {"connections": [attempt.idp.connection(client_auth="client_secret_post")]}
    reply = attempt.idp.sign_in(attempt.start())
    forms = []
    real = attempt.fetch

    def fetch(method: str, url: str, **options: Any) -> tuple[int, bytes]:
        forms.append(dict(parse_qsl(options.get("body", b"").decode())))
        return real(method, url, **options)

    attempt.verify(reply, fetch=fetch)
    assert (forms[0]["client_id"], forms[0]["client_secret"]) == ("shared-record", SECRET)


# --- I02: whose answer it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("issuer", [None, "https://other.example", "", "HTTP://127.0.0.1"])
def test_i02_an_answer_of_another_issuer_is_refused_before_the_code_is_sent_anywhere(
    attempt: Attempt, issuer: str | None
) -> None:
    verdict = attempt.go(iss=issuer)
    assert reason(verdict) == messages.not_finished()
    assert isinstance(verdict, Refused)
    assert verdict.event == "mixup"
    assert attempt.idp.asked["/token"] == 0


def test_i02_an_issuer_is_compared_even_where_none_was_announced(attempt: Attempt) -> None:
    attempt.idp.sends_iss = False
    assert isinstance(attempt.go(), Passed)
    assert isinstance(attempt.go(iss="https://other.example"), Refused)


def test_i02_an_attempt_that_began_with_other_settings_is_not_taken(attempt: Attempt) -> None:
    answer = attempt.idp.sign_in(attempt.start())
    other = {"connections": [attempt.idp.connection(client_id="another")]}
    assert attempt.verify(answer, settings=Settings.model_validate(other)) == NotMine()
    assert attempt.verify(answer, state=b"") == NotMine()
    assert attempt.verify(answer, choice="elsewhere") == NotMine()


# --- I03: the code is ours -------------------------------------------------------------------------------------------


def test_i03_a_code_of_another_attempt_fails_for_want_of_its_verifier(attempt: Attempt) -> None:
    stolen = attempt.idp.sign_in(attempt.start())["code"]
    assert reason(attempt.go(code=stolen)) == messages.not_finished()


@pytest.mark.parametrize("nonce", ["", "another", None, 1, ...])
def test_i03_the_nonce_has_to_match(attempt: Attempt, nonce: object) -> None:
    attempt.idp.claims = {"nonce": nonce}
    assert "could not be verified" in reason(attempt.go())


# --- I04: the ID token alone says who it is --------------------------------------------------------------------------


def test_i04_without_an_id_token_nobody_passes_and_userinfo_is_not_asked(attempt: Attempt) -> None:
    attempt.listed.subjects.add((attempt.idp.issuer, "sub-listed"))
    attempt.idp.lie = lambda _, answer: (
        {k: v for k, v in answer.items() if k != "id_token"} | {"userinfo": {"sub": "sub-1"}}
    )
    assert "could not be verified" in reason(attempt.go())
    assert attempt.idp.asked["/userinfo"] == 0


@pytest.mark.parametrize(
    "token", [None, 1, [], "", "x", "a.b", "a.b.c", "a.b.c.d.e", "é.é.é", "....", {"sub": "sub-1"}]
)
def test_i04_what_is_no_token_is_refused(attempt: Attempt, token: object) -> None:
    attempt.idp.lie = lambda _, answer: answer | {"id_token": token}
    assert "could not be verified" in reason(attempt.go())


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"iss": ...},
        {"aud": "another"},
        {"aud": ...},
        {"aud": ["shared-record", "another"]},
        {"aud": {"shared-record": 1}},
        {"azp": "another"},
        {"sub": ""},
        {"sub": ...},
        {"sub": 1},
        {"sub": "x" * 256},
        {"sub": "a\nb"},
        {"exp": int(NOON.timestamp()) - 61},
        {"exp": ...},
        {"exp": "9999999999"},
        {"exp": True},
        {"iat": int(NOON.timestamp()) + 120},
        {"iat": int(NOON.timestamp()) - 700},
        {"iat": ...},
        {"nbf": int(NOON.timestamp()) + 120},
    ],
    ids=str,
)
def test_i04_every_claim_counts(attempt: Attempt, claims: dict[str, Any]) -> None:
    attempt.idp.claims = claims
    assert "could not be verified" in reason(attempt.go())


def test_i04_several_audiences_need_the_authorized_party(attempt: Attempt) -> None:
    attempt.idp.claims = {"aud": ["shared-record", "another"], "azp": "shared-record"}
    assert isinstance(attempt.go(), Passed)


# --- I05: the provider is the one of the settings --------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"authorization_endpoint": "http://idp.example/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://user@idp.example/authorize"},
        {"token_endpoint": "http://idp.example/token"},
        {"token_endpoint": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": ["https://idp.example/jwks"]},
    ],
    ids=str,
)
def test_i05_a_discovery_document_that_does_not_fit_is_not_used(attempt: Attempt, document: dict[str, Any]) -> None:
    attempt.idp.document = document
    with pytest.raises(ServiceDownError):
        attempt.start()
    assert set(attempt.idp.asked) == {"/.well-known/openid-configuration"}


@pytest.mark.parametrize("endpoint", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
def test_i05_a_changed_document_moves_no_endpoint_to_another_origin(attempt: Attempt, endpoint: str) -> None:
    with mock_idp(lambda: attempt.now) as elsewhere:
        assert isinstance(attempt.go(), Passed)
        attempt.idp.document = {endpoint: f"{elsewhere.issuer}/{endpoint}"}
        assert isinstance(attempt.go(), Passed), "the document is kept for a day"
        attempt.now += KEPT
        found = Oidc().start(attempt.context(), {})
        assert isinstance(found, Refused)
        assert (found.event, "not set up correctly" in found.public_reason) == ("endpoints_moved", True)
        assert not elsewhere.asked
        attempt.settings["connections"][0]["origins"] = [elsewhere.issuer]
        assert attempt.start()


def test_i05_a_document_that_moves_while_somebody_signs_in_gets_no_code(attempt: Attempt) -> None:
    url = attempt.start()
    attempt.idp.document = {"token_endpoint": "https://evil.example/token"}
    attempt.now += KEPT
    verdict = attempt.verify(attempt.idp.sign_in(url))
    assert isinstance(verdict, Refused)
    assert verdict.event == "endpoints_moved"
    assert attempt.idp.asked["/token"] == 0


@pytest.mark.parametrize(
    "origin", ["https://idp.example/x", "idp.example", "http://idp.example", "https://idp.example?x"]
)
def test_i05_an_origin_is_scheme_host_and_port(attempt: Attempt, origin: str) -> None:
    with pytest.raises(ValidationError):
        Settings(connections=[attempt.idp.connection(origins=[origin])])


def test_i05_an_issuer_is_compared_byte_for_byte(attempt: Attempt) -> None:
    attempt.idp.document = {"issuer": attempt.idp.issuer + "/"}
    with pytest.raises(ServiceDownError):
        attempt.start()


def test_i05_plain_http_is_for_development_on_this_machine(attempt: Attempt) -> None:
    with pytest.raises(ServiceDownError):
        attempt.start(callback_url="https://usage.acme.example/auth/oidc/acme", host="usage.acme.example")


# --- I06: what a signature is ----------------------------------------------------------------------------------------


def forged(attempt: Attempt, make: Any) -> Verdict:
    attempt.idp.lie = lambda claims, answer: answer | {"id_token": make(claims, answer["id_token"])}
    return attempt.go()


def head(token: str, **header: Any) -> str:
    _, payload, signature = token.split(".")
    return f"{b64(json.dumps(header).encode())}.{payload}.{signature}"


def test_i06_a_token_with_algorithm_none_is_refused(attempt: Attempt) -> None:
    for name in ("none", "None", "NONE", ""):
        assert reason(forged(attempt, lambda _, token, name=name: head(token, alg=name).rpartition(".")[0] + "."))


@pytest.mark.parametrize("key", ["the client's secret", "the public key", "an empty key"])
def test_i06_a_symmetric_signature_is_refused(attempt: Attempt, key: str) -> None:
    attempt.idp.use("RS256")
    material = {
        "the client's secret": SECRET.encode(),
        "the public key": attempt.idp.key.as_pem(private=False),
        "an empty key": b"\0" * 16,
    }[key]

    def make(claims: dict[str, Any], _: str) -> str:
        signing = f"{b64(json.dumps({'alg': 'HS256', 'kid': 'k1'}).encode())}.{b64(json.dumps(claims).encode())}"
        return f"{signing}.{b64(hmac.digest(material, signing.encode(), 'sha256'))}"

    assert "could not be verified" in reason(forged(attempt, make))


@pytest.mark.parametrize("algorithm", ["RS384", "PS256", "RS512"])
def test_i06_an_algorithm_that_we_did_not_choose_is_refused(attempt: Attempt, algorithm: str) -> None:
    attempt.idp.use("RS256")
    assert reason(forged(attempt, lambda claims, _: sign(attempt.idp.key, algorithm, claims)))


def test_i06_the_key_has_to_be_of_the_algorithms_kind(attempt: Attempt) -> None:
    assert reason(forged(attempt, lambda _, token: head(token, alg="RS256", kid="k1")))
    assert reason(forged(attempt, lambda _, token: head(token, alg="EdDSA", kid="k1")))


def test_i06_a_key_that_the_token_brings_along_is_not_used(attempt: Attempt) -> None:
    mine = RSAKey.generate_key(2048, {"kid": "mine"})
    header = {"jwk": mine.as_dict(private=False), "jku": f"{attempt.idp.issuer}/evil", "kid": "mine"}
    assert reason(forged(attempt, lambda claims, _: sign(mine, "RS256", claims, **header)))
    assert attempt.idp.asked["/evil"] == 0


def test_i06_a_changed_token_is_refused(attempt: Attempt) -> None:
    def other_subject(claims: dict[str, Any], token: str) -> str:
        before, _, signature = token.split(".")
        return f"{before}.{b64(json.dumps(claims | {'sub': 'sub-2'}).encode())}.{signature}"

    attempt.listed.subjects.add((attempt.idp.issuer, "sub-2"))
    assert "could not be verified" in reason(forged(attempt, other_subject))


def test_i06_a_huge_token_is_refused_unread(attempt: Attempt) -> None:
    attempt.idp.claims = {"filler": "x" * 20_000}
    assert "could not be verified" in reason(attempt.go())


def test_i06_a_critical_header_that_we_do_not_know_is_refused(attempt: Attempt) -> None:
    header = {"crit": ["b64"], "b64": False}
    assert reason(forged(attempt, lambda claims, _: sign(attempt.idp.key, "ES256", claims, **header)))


def test_i06_a_short_rsa_key_is_refused(attempt: Attempt) -> None:
    attempt.idp.algorithm = "RS256"
    attempt.idp.key = RSAKey(rsa.generate_private_key(65537, 1024), None, {"kid": "k1"})  # type: ignore[arg-type]
    assert "could not be verified" in reason(attempt.go())


def test_i06_without_a_key_id_there_must_be_no_choice_of_keys(attempt: Attempt) -> None:
    assert isinstance(forged(attempt, lambda claims, _: sign(attempt.idp.key, "ES256", claims, kid=None)), Passed)
    two = [attempt.idp.public_key(), attempt.idp.public_key() | {"kid": "k2"}]
    attempt.now += KEPT
    attempt.idp.now = lambda: attempt.now
    attempt.idp.raw["/jwks"] = (200, json.dumps({"keys": two}).encode())
    assert reason(forged(attempt, lambda claims, _: sign(attempt.idp.key, "ES256", claims, kid=None)))


# --- I08, I09: the right person --------------------------------------------------------------------------------------


def test_i08_who_is_not_listed_is_told_so(attempt: Attempt) -> None:
    attempt.idp.subject = "sub-2"
    attempt.idp.claims = {"email": "eve@acme.example", "email_verified": True}
    verdict = attempt.go()
    assert verdict == Refused(
        "eve@acme.example is signed in but is not on the list for this record.", event="not_entitled"
    )


def test_i08_the_same_subject_of_another_issuer_does_not_pass(attempt: Attempt) -> None:
    attempt.listed.subjects = {("https://other.example", "sub-1")}
    assert reason(attempt.go()) == "This account is signed in but is not on the list for this record."


def with_email(attempt: Attempt, subject: str, email: object, verified: object, **settings: Any) -> Verdict:
    attempt.idp.subject = subject
    attempt.idp.claims = {"email": email, "email_verified": verified}
    attempt.settings = {"connections": [attempt.idp.connection(**{"email_domains": ["acme.example"]} | settings)]}
    return attempt.go()


@pytest.mark.parametrize("verified", [False, None, "true", "True", 1, [True], ...])
def test_i09_an_address_counts_only_if_verified_is_json_true(attempt: Attempt, verified: object) -> None:
    attempt.listed.emails = {"ann@acme.example"}
    assert reason(with_email(attempt, "sub-9", "ann@acme.example", verified))
    assert attempt.listed.pins == {}


def test_i09_a_verified_address_passes_and_ties_its_subject(attempt: Attempt) -> None:
    attempt.listed.emails = {"ann@acme.example"}
    verdict = with_email(attempt, "sub-9", "Ann@Acme.example", True)
    assert isinstance(verdict, Passed)
    assert verdict.subject_hint == "Ann@Acme.example (Acme ID)"
    assert attempt.listed.pins == {"ann@acme.example": (attempt.idp.issuer, "sub-9")}
    assert isinstance(with_email(attempt, "sub-9", "ann@acme.example", True), Passed)
    assert reason(with_email(attempt, "sub-10", "ann@acme.example", True))  # the address was given to somebody else


def test_i09_a_listed_domain_passes(attempt: Attempt) -> None:
    attempt.listed.domains = {"acme.example"}
    assert isinstance(with_email(attempt, "sub-9", "bob@acme.example", True), Passed)
    assert reason(with_email(attempt, "sub-11", "bob@sub.acme.example", True))
    assert reason(with_email(attempt, "sub-12", "bob@acme.example.evil.example", True))


@pytest.mark.parametrize("domains", [[], ["other.example"], ["example"]])
def test_i09_a_provider_is_believed_for_its_own_domains_only(attempt: Attempt, domains: list[str]) -> None:
    attempt.listed.emails = {"ann@acme.example"}
    assert reason(with_email(attempt, "sub-9", "ann@acme.example", True, email_domains=domains))


def test_i09_any_domain_has_to_be_said(attempt: Attempt) -> None:
    attempt.listed.emails = {"ann@acme.example"}
    assert isinstance(with_email(attempt, "sub-9", "ann@acme.example", True, email_domains=["*"]), Passed)


@pytest.mark.parametrize(
    "email",
    ["", "ann", "@acme.example", "ann@", "a@b@acme.example", "<b>@acme.example", "ann@acme.example\n", 1, "é" * 300],
)
def test_i09_what_is_no_address_is_neither_believed_nor_shown(attempt: Attempt, email: object) -> None:
    attempt.listed.domains = {"acme.example"}
    assert reason(with_email(attempt, "sub-9", email, True)).startswith("This account is")


# --- I11: what a provider says is not repeated -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("access_denied", "was cancelled"),
        ("login_required", "needs you to do something there"),
        ("temporarily_unavailable", "cannot sign anybody in"),
        ("invalid_scope", "not set up correctly. Tell Acme."),
        ("<script>alert(1)</script>", "not set up correctly. Tell Acme."),
    ],
)
def test_i11_errors_have_sentences_of_our_own(attempt: Attempt, error: str, text: str) -> None:
    verdict = attempt.go(
        code=None, error=error, error_description="<b>call 555-0100</b>", error_uri="https://evil.example"
    )
    assert text in reason(verdict)
    assert "555" not in reason(verdict)
    assert attempt.idp.asked["/token"] == 0


def test_i11_errors_of_the_token_endpoint_have_them_too(attempt: Attempt, caplog: pytest.LogCaptureFixture) -> None:
    assert reason(attempt.go(code="unknown")) == messages.not_finished()
    verdict = attempt.verify(attempt.idp.sign_in(attempt.start()), tenant_secret=lambda _: b"wrong")
    assert reason(verdict) == "This sign-in is not set up correctly. Tell Acme."
    assert "error=invalid_client" in caplog.text
    assert "<b>" not in caplog.text
    assert "wrong" not in caplog.text


def test_i11_an_answer_without_code_or_error_is_refused(attempt: Attempt) -> None:
    assert reason(attempt.go(code=None)) == messages.not_finished()
    assert reason(attempt.go(code="")) == messages.not_finished()


# --- I12: a provider that does not work ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks", "/token"])
@pytest.mark.parametrize(
    "answer", [(500, b"{}"), (200, b"<html>"), (200, b"[]"), (302, b"http://127.0.0.1:1/")], ids=str
)
def test_i12_a_provider_that_answers_badly_makes_sign_in_unavailable(
    attempt: Attempt, path: str, answer: tuple[int, bytes]
) -> None:
    attempt.idp.raw[path] = answer
    with pytest.raises(ServiceDownError):
        attempt.go()


def test_i12_a_provider_that_is_gone_is_not_asked_by_everybody(attempt: Attempt) -> None:
    attempt.idp.raw["/.well-known/openid-configuration"] = (503, b"")
    for _ in range(5):
        with pytest.raises(ServiceDownError):
            attempt.start()
    assert attempt.idp.asked.total() == 1
    attempt.idp.raw.clear()
    attempt.now += timedelta(seconds=5)
    assert attempt.start()


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks", "/token"])
def test_i12_all_requests_of_one_call_share_one_deadline(
    attempt: Attempt, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exchange.SECONDS < Oidc.deadline <= 5
    monkeypatch.setattr(exchange, "SECONDS", 0.3)
    attempt.idp.slow = path
    started = time.monotonic()
    with pytest.raises(ServiceDownError):
        attempt.go()
    assert time.monotonic() - started < 2


def test_i12_a_secret_that_is_not_set_makes_sign_in_unavailable(attempt: Attempt) -> None:
    answer = attempt.idp.sign_in(attempt.start())
    for secret in (None, b"", b" \n", "é".encode()):
        with pytest.raises(ServiceDownError):
            attempt.verify(answer, tenant_secret=lambda _, secret=secret: secret)


# --- I15: what is fetched, and how often -----------------------------------------------------------------------------


def test_i15_documents_and_keys_are_kept_a_day(attempt: Attempt) -> None:
    attempt.idp.now = lambda: attempt.now
    for _ in range(3):
        assert isinstance(attempt.go(), Passed)
    assert (attempt.idp.asked["/.well-known/openid-configuration"], attempt.idp.asked["/jwks"]) == (1, 1)
    attempt.now += KEPT
    assert isinstance(attempt.go(), Passed)
    assert (attempt.idp.asked["/.well-known/openid-configuration"], attempt.idp.asked["/jwks"]) == (2, 2)


def test_i15_an_unknown_key_is_asked_for_once_a_minute_at_most(attempt: Attempt) -> None:
    attempt.idp.now = lambda: attempt.now
    assert isinstance(attempt.go(), Passed)
    attempt.idp.use("ES256", "k2")
    for _ in range(5):
        assert reason(attempt.go())
    assert attempt.idp.asked["/jwks"] == 1
    attempt.now += KEYS_AGAIN
    assert isinstance(attempt.go(), Passed)
    assert attempt.idp.asked["/jwks"] == 2


def test_i15_a_burst_asks_once(attempt: Attempt) -> None:
    together = threading.Barrier(16)
    urls: list[str] = []

    def begin() -> None:
        together.wait()
        found = Oidc().start(attempt.context(), {})
        assert isinstance(found, Challenge)
        urls.append(found.redirect)

    threads = [threading.Thread(target=begin) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(urls)) == 16
    assert attempt.idp.asked.total() == 1


def test_i15_what_egress_does_not_allow_is_not_fetched(attempt: Attempt) -> None:
    attempt.fetch = Fetcher(Egress())
    with pytest.raises(FetchError):
        attempt.start()
    assert attempt.idp.asked.total() == 0


def test_i15_endpoints_that_discovery_names_go_the_same_way(attempt: Attempt) -> None:
    attempt.idp.document = {"jwks_uri": "https://169.254.169.254/latest", "token_endpoint": "https://10.0.0.1/token"}
    attempt.settings["connections"][0]["origins"] = ["https://169.254.169.254", "https://10.0.0.1"]
    with pytest.raises(FetchError):
        attempt.go()
    assert attempt.idp.asked["/token"] == attempt.idp.asked["/jwks"] == 0


def test_i15_a_huge_document_is_not_read(attempt: Attempt) -> None:
    attempt.idp.document = {"filler": "x" * 300_000}
    with pytest.raises(FetchError):
        attempt.start()


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://idp.example"},
        {"issuer": "https://idp.example?x=1"},
        {"issuer": "https://idp.example#x"},
        {"issuer": "https://user:secret@idp.example"},
        {"issuer": "idp.example"},
        {"issuer": "https://"},
        {"id": "Acme"},
        {"id": "a/b"},
        {"id": ""},
        {"title": "<b>"},
        {"title": "   "},
        {"client_id": "a b"},
        {"client_secret": "The Secret Itself!"},
        {"scopes": ["email"]},
        {"scopes": ["openid", "a b"]},
        {"client_auth": "private_key_jwt"},
        {"email_domains": ["*.acme.example"]},
        {"email_domains": ["ann@acme.example"]},
        {"algorithms": ["none"]},
    ],
    ids=str,
)
def test_settings_that_cannot_be_right_are_refused(changes: dict[str, Any]) -> None:
    right = {"id": "acme", "title": "Acme ID", "issuer": "https://idp.example", "client_id": "shared-record"}
    assert Settings.model_validate({"connections": [right]})
    with pytest.raises(ValidationError):
        Settings.model_validate({"connections": [right | changes]})


def test_two_connections_have_two_ids() -> None:
    one = {"id": "acme", "title": "Acme ID", "issuer": "https://idp.example", "client_id": "shared-record"}
    with pytest.raises(ValidationError, match="same id"):
        Settings.model_validate({"connections": [one, one]})


def test_domains_are_compared_in_one_form() -> None:
    one = {"id": "acme", "title": "Acme ID", "issuer": "https://idp.example", "client_id": "x"}
    found = Settings.model_validate({"connections": [one | {"email_domains": ["BÜCHER.example.", "Acme.Example"]}]})
    assert found.connections[0].email_domains == ("xn--bcher-kva.example", "acme.example")
