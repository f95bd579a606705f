from __future__ import annotations

import base64
import os
from collections.abc import Mapping

import pytest
from shared_record_example_totp import Settings, TotpDevice, code_at, register_step_up_methods, seed_of

from shared_record.plugin import Challenge, Passed
from shared_record.testing import StepUpKit, StepUpMethodContract

SEED = b"12345678901234567890"


@pytest.mark.parametrize(
    ("at", "algorithm", "seed", "code"),
    [
        (59, "sha1", SEED, "94287082"),
        (1111111109, "sha1", SEED, "07081804"),
        (20000000000, "sha1", SEED, "65353130"),
        (59, "sha256", SEED + SEED[:12], "46119246"),
        (2000000000, "sha256", SEED + SEED[:12], "90698825"),
        (1234567890, "sha512", SEED * 3 + SEED[:4], "93441116"),
    ],
)
def test_codes_are_those_of_rfc_6238(at: int, algorithm: str, seed: bytes, code: str) -> None:
    assert code_at(seed, at // 30, 8, algorithm) == code


class TestTotpDevice(StepUpMethodContract):
    method = TotpDevice

    def kit(self) -> StepUpKit:
        return StepUpKit(settings=Settings(), customer_secret=base64.b32encode(os.urandom(20)))

    def right_answer(self, kit: StepUpKit, asked: Challenge | None) -> Mapping[str, str]:
        seed = seed_of(kit.customer_secret)
        assert seed is not None
        return {"code": code_at(seed, int(kit.now.timestamp()) // 30)}

    def test_one_step_of_skew_and_no_more(self) -> None:
        kit = self.kit()
        answer = self.right_answer(kit, None)
        kit.later(seconds=30)
        assert isinstance(kit.verify(TotpDevice, answer), Passed)
        kit.later(seconds=30)
        assert not isinstance(kit.verify(TotpDevice, answer), Passed)

    def test_m02_the_step_is_what_is_used_up(self) -> None:
        kit = self.kit()
        answer = self.right_answer(kit, None)
        first = kit.verify(TotpDevice, answer)
        kit.later(seconds=20)
        assert first == kit.verify(TotpDevice, {"code": f"{answer['code'][:3]} {answer['code'][3:]}"})
        assert isinstance(first, Passed)
        assert first.single_use


@pytest.mark.parametrize("secret", [None, b"", b"AAAA", b"\xff" * 20, b"not base 32!", b"1" * 32])
def test_without_a_seed_that_can_be_read_it_is_not_offered(secret: bytes | None) -> None:
    kit = StepUpKit(settings=Settings(), customer_secret=secret)
    assert not TotpDevice().availability(kit.context())
    assert not isinstance(kit.verify(TotpDevice, {"code": "000000"}), Passed)


def test_the_hook_names_the_method() -> None:
    assert register_step_up_methods() == [TotpDevice]
