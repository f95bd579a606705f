"""The method alone; through the application it is tested in ``tests/access/test_email_code.py``."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from pydantic import ValidationError
from shared_record_email_otp import EmailCode, EmailCodeSettings

from shared_record.delivery.mail import Letter
from shared_record.languages import LANGUAGES, SOURCE, speak
from shared_record.plugin import Challenge, Passed, Refused
from shared_record.testing import StepUpKit, StepUpMethodContract

ANNA = "Anna@northwind.example"


def kit(**settings: str) -> StepUpKit:
    return StepUpKit(settings=EmailCodeSettings(**settings), emails=(ANNA,))


def start(customer: StepUpKit, address: str = ANNA) -> Challenge:
    found = customer.start(EmailCode, {"address": address})
    assert isinstance(found, Challenge)
    return found


def code_in(customer: StepUpKit) -> str:
    found = re.search(r"Your code: (\d{4} \d{4})", customer.mails[-1].body)
    assert found
    return found[1]


class TestEmailCode(StepUpMethodContract):
    method = EmailCode

    def kit(self) -> StepUpKit:
        return kit()

    def first_answer(self, kit: StepUpKit) -> Mapping[str, str]:
        return {"address": ANNA}

    def unknown_first_answer(self, kit: StepUpKit) -> Mapping[str, str]:
        return {"address": "mallory@northwind.example"}

    def right_answer(self, kit: StepUpKit, asked: Challenge | None) -> Mapping[str, str]:
        return {"code": code_in(kit)}


@pytest.mark.parametrize("spelling", ["{0}{1}", "{0}-{1}", " {0} {1} ", "{0}\u00a0{1}", "{0}\u2013{1}"])
def test_the_code_may_be_typed_and_pasted_in_any_usual_form(spelling: str) -> None:
    customer = kit()
    asked = start(customer)
    halves = code_in(customer).split()
    assert isinstance(customer.verify(EmailCode, {"code": spelling.format(*halves)}, asked), Passed)


def test_a_stray_letter_is_not_ignored() -> None:
    customer = kit()
    asked = start(customer)
    assert isinstance(customer.verify(EmailCode, {"code": f"{code_in(customer)}x"}, asked), Refused)


def test_the_same_code_is_sent_again_with_the_same_end() -> None:
    customer = kit()
    asked = start(customer)
    customer.later(minutes=3)
    customer.again(EmailCode, asked)
    first, second = customer.mails
    assert (first.to, first.subject, first.body) == (second.to, second.subject, second.body)
    assert "until 12:10 UTC on 22 November 2026" in second.body


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_mail_is_in_the_language_of_the_page_and_can_be_sent(language: str) -> None:
    customer = kit()
    try:
        speak(language)
        start(customer)
    finally:
        speak(SOURCE)
    mail = customer.mails[0]
    code = re.search(r"\d{4} \d{4}", mail.body)
    assert code is not None
    assert code[0] in mail.subject
    assert Letter(ANNA, mail.subject, mail.body)
    assert ("Your code" in mail.body) == (language == SOURCE)
    assert {"en": "November", "de": "November", "es": "noviembre", "ar": "نوفمبر"}[language] in mail.body


def test_again_stays_a_decoy() -> None:
    customer = kit()
    customer.again(EmailCode, start(customer, "mallory@northwind.example"))
    assert [mail.to for mail in customer.mails] == [None, None]


def test_codes_are_eight_digits_and_differ() -> None:
    codes = set()
    for _ in range(50):
        customer = kit()
        start(customer)
        codes.add(code_in(customer))
    assert len(codes) == 50


def test_o08_the_subject_is_the_tenants_within_a_closed_set() -> None:
    customer = kit(subject="$host: ${code}")
    start(customer)
    assert customer.mails[0].subject == f"usage.acme.example: {code_in(customer)}"
    with pytest.raises(ValidationError):
        EmailCodeSettings(subject="$customer $code")
