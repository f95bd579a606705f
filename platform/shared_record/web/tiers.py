"""Every route says which tier it belongs to; the application does not start with one that does not."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

from flask import Flask, current_app

from shared_record.access.policy import Surface
from shared_record.errors import ConfigurationError


class Gatekeeper(StrEnum):
    """What lets a request through where no tier of a record is concerned."""

    NOBODY = "public: shows nothing of a tenant"
    STEP_UP = "the way in: shows the methods, never data"
    API_KEY = "an API key of the tenant"
    BEARER = "a personal access token of the tenant"


Tier = Surface | Gatekeeper
View = TypeVar("View", bound=Callable[..., Any])
_ATTRIBUTE = "shared_record_tier"


def tier(of: Tier) -> Callable[[View], View]:
    """Declare the tier of a view function."""

    def declare(view: View) -> View:
        setattr(view, _ATTRIBUTE, of)
        return view

    return declare


def tier_of(app: Flask, endpoint: str) -> Tier:
    """Return the declared tier of an endpoint; ``ConfigurationError`` where there is none."""
    found: Tier | None = getattr(app.view_functions[endpoint], _ATTRIBUTE, None)
    if found is None:
        raise ConfigurationError(f"the route {endpoint} declares no tier")
    return found


def declared_tier(endpoint: str | None) -> Tier | None:
    """Return the tier of an endpoint of the application that handles this request; ``None`` where no route fits."""
    return None if endpoint is None else tier_of(current_app, endpoint)


def check_tiers(app: Flask) -> None:
    """Raise ``ConfigurationError`` unless every route of ``app`` declares its tier."""
    for rule in app.url_map.iter_rules():
        tier_of(app, rule.endpoint)
