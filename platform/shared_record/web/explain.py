"""What each tier of a record opens, read from the routes themselves: what is printed is what is checked."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass

from flask import Blueprint, Flask

from shared_record.access.policy import Surface, needs_session
from shared_record.tenancy.policies import Policy
from shared_record.web.api.operations import operations
from shared_record.web.tiers import tier_of


@dataclass(frozen=True, slots=True)
class Shown:
    """One route of a record: what it shows, and whether that needs a session under the policy asked about."""

    method: str
    path: str
    surface: Surface
    what: str
    needs_session: bool


def explain(policy: Policy, blueprints: Iterable[Blueprint]) -> list[Shown]:
    """Return every route that shows something of a record, outer tier first, each by path and method."""
    app = Flask(__name__, static_folder=None)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    declared = operations(app)
    found = []
    for rule in app.url_map.iter_rules():
        shown = tier_of(app, rule.endpoint)
        if not isinstance(shown, Surface):
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            call = declared.get((rule.rule, method))
            what = call[0].summary if call else _first_line(app.view_functions[rule.endpoint])
            path = rule.rule.replace("<path:", "{").replace("<", "{").replace(">", "}")
            found.append(Shown(method, path, shown, what.rstrip("."), needs_session(policy, shown)))
    return sorted(found, key=lambda one: (one.needs_session, one.path, one.method))


def _first_line(view: object) -> str:
    return (inspect.getdoc(view) or "").partition("\n")[0]
