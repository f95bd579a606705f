from __future__ import annotations

import secrets
from collections.abc import Mapping

from shared_record_access_code import FIELD, AccessCode, register_step_up_methods

from shared_record.plugin import Challenge, Passed
from shared_record.testing import StepUpKit, StepUpMethodContract


class TestAccessCode(StepUpMethodContract):
    method = AccessCode

    def kit(self) -> StepUpKit:
        return StepUpKit(access_code="".join(secrets.choice("23456789ABCDEFGHJKMNPQRSTVWXYZ") for _ in range(6)))

    def right_answer(self, kit: StepUpKit, asked: Challenge | None) -> Mapping[str, str]:
        return {FIELD: f"{kit.access_code[:3]}-{kit.access_code[3:]}".lower()}

    def test_it_proves_nobody(self) -> None:
        kit = self.kit()
        assert kit.verify(AccessCode, self.right_answer(kit, None)) == Passed()


def test_the_hook_names_the_method() -> None:
    assert register_step_up_methods() == [AccessCode]
