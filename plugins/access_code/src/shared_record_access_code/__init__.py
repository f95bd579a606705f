"""Step-up by the access code that the vendor prints next to the link on each invoice."""

from __future__ import annotations

from collections.abc import Mapping

from shared_record.plugin import (
    Challenge,
    Field,
    Passed,
    Refused,
    StepUpContext,
    StepUpMethod,
    Verdict,
    hookimpl,
    mark,
)
from shared_record.plugin import gettext as _

FIELD = "code"
SHORTEST = 6
"""Characters of the codes made here; those that a vendor brought along are longer."""


class AccessCode(StepUpMethod):
    """The printed code: a viewing code shared by whoever holds the invoice. It proves no identity."""

    slug = "access_code"
    title = mark("Access code from your invoice")
    hint = mark("Six letters and numbers printed next to the link on your invoice.")
    factor = "ACCESS_HINT"

    def begin(self, ctx: StepUpContext) -> Challenge:  # noqa: ARG002  the same for every customer
        """Return one text field: pasting works, capitals and dashes do not matter."""
        return Challenge(
            (
                Field(
                    name=FIELD,
                    label=_("Access code"),
                    hint=_(
                        "Six letters and numbers printed next to the link on your invoice, for example K7M-4QX."
                        " Capitals and dashes do not matter."
                    ),
                    autocapitalize="characters",
                ),
            )
        )

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        """Pass the person whose text is an access code now valid for this customer."""
        text = answer.get(FIELD, "").strip()
        if ctx.matches_access_code(text):
            return Passed()
        if not text:
            return Refused(_("Enter the access code."))
        if sum(character.isalnum() for character in text) < SHORTEST:
            return Refused(_("The access code has six letters and numbers."))
        return Refused(_("That code does not match this record. Check your most recent invoice."))


@hookimpl
def register_step_up_methods() -> list[type[StepUpMethod]]:
    """Register the access code."""
    return [AccessCode]
