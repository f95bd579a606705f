"""Step-up by a code from an authenticator app: time-based one-time passwords (RFC 6238) with the standard library.

The operator gives each customer a seed, in base 32 as apps show it:

    shared-record access secret CUSTOMER --tenant acme --method totp_device --file seed
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from typing import Literal

from shared_record.plugin import (
    Challenge,
    Field,
    MethodSettings,
    Passed,
    Refused,
    StepUpContext,
    StepUpMethod,
    Verdict,
    hookimpl,
    mark,
)
from shared_record.plugin import gettext as _

STEP_SECONDS = 30
SHORTEST_SEED = 16
"""Bytes: RFC 4226, section 4, requires a shared secret of at least 128 bits."""


class Settings(MethodSettings):
    """What a tenant may set in its file; the defaults are what every app uses."""

    digits: Literal[6, 8] = 6
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha1"


class TotpDevice(StepUpMethod):
    """Passes whoever has the device that holds the customer's seed."""

    slug = "totp_device"
    title = mark("Code from your authenticator app")
    hint = mark("The app that your vendor set up with you.")
    factor = "TOTP"
    settings_model = Settings

    def availability(self, ctx: StepUpContext) -> bool:
        """Tell whether this customer has a seed that can be read."""
        return seed_of(ctx.customer_secret) is not None

    def begin(self, ctx: StepUpContext) -> Challenge:  # noqa: ARG002  the same for every customer
        """Ask for the code."""
        return Challenge((Field("code", _("Code"), autocomplete="one-time-code", inputmode="numeric"),))

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        """Pass a code of this step, the one before or the one after; the core lets each step pass once."""
        settings, seed = ctx.settings, seed_of(ctx.customer_secret)
        typed = re.sub(r"[ -]", "", answer.get("code", ""))
        if not isinstance(settings, Settings) or seed is None or not re.fullmatch(r"[0-9]{6,8}", typed, re.ASCII):
            return Refused(_("Enter the code that your app shows."))
        now = int(ctx.now.timestamp()) // STEP_SECONDS
        matching = [
            step
            for step in (now - 1, now, now + 1)
            if hmac.compare_digest(code_at(seed, step, settings.digits, settings.algorithm), typed)
        ]
        if not matching:
            return Refused(_("That code is not the one that your app shows now. Wait for the next one."))
        return Passed(single_use=f"step {matching[0]}")


def seed_of(secret: bytes | None) -> bytes | None:
    """Return the seed that the operator set, or ``None`` if there is none that can be used."""
    try:
        text = re.sub(r"[\s=-]", "", (secret or b"").decode("ascii")).upper()
        seed = base64.b32decode(text + "=" * (-len(text) % 8))
    except (ValueError, binascii.Error):
        return None
    return seed if len(seed) >= SHORTEST_SEED else None


def code_at(seed: bytes, step: int, digits: int = 6, algorithm: str = "sha1") -> str:
    """Return the code of one time step (RFC 4226, section 5.3, with the step as the counter)."""
    mac = hmac.digest(seed, step.to_bytes(8), algorithm)
    offset = mac[-1] & 0x0F
    number = int.from_bytes(mac[offset : offset + 4]) & 0x7FFF_FFFF
    return f"{number % 10**digits:0{digits}}"


@hookimpl
def register_step_up_methods() -> list[type[StepUpMethod]]:
    """Register the method."""
    return [TotpDevice]
