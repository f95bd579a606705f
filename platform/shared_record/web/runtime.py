"""What request handlers work with: the parts that ``create_app`` put together."""

from __future__ import annotations

from dataclasses import dataclass, field

from flask import current_app

from shared_record.access.apikeys import KeyUses
from shared_record.access.stepup import StepUp
from shared_record.access.throttle import Throttle
from shared_record.access.views import ViewCounts
from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.delivery.occurrences import Occurrences
from shared_record.hooks.loader import Plugins
from shared_record.hosts.resolver import Resolver
from shared_record.keys import KeyRing
from shared_record.settings import Settings
from shared_record.theming.loader import Theme
from shared_record.web.render import Renderer

EXTENSION = "shared_record"


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts of one running application."""

    settings: Settings
    db: Database
    keys: KeyRing
    clock: Clock
    plugins: Plugins
    themes: dict[str, Theme]
    renderer: Renderer
    throttle: Throttle
    step_up: StepUp
    occurrences: Occurrences
    views: ViewCounts
    resolver: Resolver
    key_uses: KeyUses = field(default_factory=KeyUses)

    @property
    def secure(self) -> bool:
        """Whether customers reach this installation by TLS."""
        return self.settings.public_scheme == "https"


def runtime() -> Runtime:
    """Return the parts of the application that handles the current request."""
    found: Runtime = current_app.extensions[EXTENSION]
    return found
