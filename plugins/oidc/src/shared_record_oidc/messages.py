"""What people are told: fixed sentences, never a provider's own words."""

from __future__ import annotations

NOT_FINISHED = "The sign-in did not finish. Start again."
_ACTION = {"login_required", "interaction_required", "account_selection_required", "consent_required"}
_LATER = {"server_error", "temporarily_unavailable"}
_KNOWN = {
    *_ACTION,
    *_LATER,
    *("access_denied", "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope"),
    *("invalid_client", "invalid_grant", "unsupported_grant_type", "registration_not_supported"),
    *("request_not_supported", "request_uri_not_supported", "invalid_request_object", "invalid_target"),
}


def of_error(error: str, title: str, vendor: str) -> str:
    """Return the sentence for an error that came back with the browser (RFC 6749, 4.1.2.1; OpenID Connect 3.1.2.6)."""
    if error == "access_denied":
        return f"The sign-in with {title} was cancelled, or not allowed there."
    if error in _ACTION:
        return f"{title} needs you to do something there first. Start again."
    if error in _LATER:
        return f"{title} cannot sign anybody in at the moment. Try again later."
    return _set_up_wrongly(vendor)


def of_rejection(error: str, vendor: str) -> str:
    """Return the sentence for an error of the token endpoint (RFC 6749, section 5.2)."""
    return NOT_FINISHED if error == "invalid_grant" else _set_up_wrongly(vendor)


def not_usable(title: str, vendor: str) -> str:
    """Return the sentence for a sign-in that proves nothing."""
    return f"The answer of {title} could not be verified. If this happens again, tell {vendor}."


def not_listed(email: str) -> str:
    """Return the sentence for somebody who is not entitled."""
    return f"{email or 'This account'} is signed in but is not on the list for this record."


def known(error: str) -> str:
    """Return an error code for the log: its own name if it is a registered one."""
    return error if error in _KNOWN else "other"


def _set_up_wrongly(vendor: str) -> str:
    return f"This sign-in is not set up correctly. Tell {vendor}."
