"""What people are told: fixed sentences, never a provider's own words."""

from __future__ import annotations

from shared_record.plugin import gettext as _

_ACTION = {"login_required", "interaction_required", "account_selection_required", "consent_required"}
_LATER = {"server_error", "temporarily_unavailable"}
_KNOWN = {
    *_ACTION,
    *_LATER,
    *("access_denied", "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope"),
    *("invalid_client", "invalid_grant", "unsupported_grant_type", "registration_not_supported"),
    *("request_not_supported", "request_uri_not_supported", "invalid_request_object", "invalid_target"),
}


def not_finished() -> str:
    """Return the sentence for a sign-in that came back without what it needs."""
    return _("The sign-in did not finish. Start again.")


def of_error(error: str, title: str, vendor: str) -> str:
    """Return the sentence for an error that came back with the browser (RFC 6749, 4.1.2.1; OpenID Connect 3.1.2.6)."""
    if error == "access_denied":
        return _("The sign-in with %(provider)s was cancelled, or not allowed there.") % {"provider": title}
    if error in _ACTION:
        return _("%(provider)s needs you to do something there first. Start again.") % {"provider": title}
    if error in _LATER:
        return _("%(provider)s cannot sign anybody in at the moment. Try again later.") % {"provider": title}
    return set_up_wrongly(vendor)


def of_rejection(error: str, vendor: str) -> str:
    """Return the sentence for an error of the token endpoint (RFC 6749, section 5.2)."""
    return not_finished() if error == "invalid_grant" else set_up_wrongly(vendor)


def not_usable(title: str, vendor: str) -> str:
    """Return the sentence for a sign-in that proves nothing."""
    text = _("The answer of %(provider)s could not be verified. If this happens again, tell %(vendor)s.")
    return text % {"provider": title, "vendor": vendor}


def not_listed(email: str) -> str:
    """Return the sentence for somebody who is not entitled."""
    if not email:
        return _("This account is signed in but is not on the list for this record.")
    return _("%(email)s is signed in but is not on the list for this record.") % {"email": email}


def known(error: str) -> str:
    """Return an error code for the log: its own name if it is a registered one."""
    return error if error in _KNOWN else "other"


def set_up_wrongly(vendor: str) -> str:
    """Return the sentence for what only the vendor can put right."""
    return _("This sign-in is not set up correctly. Tell %(vendor)s.") % {"vendor": vendor}
