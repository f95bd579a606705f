"""Hook specifications. Each returns named classes, whose base classes are in ``shared_record.plugin``."""

from __future__ import annotations

import pluggy

from shared_record.plugin import CheckpointAnchor, ExportFormat, StepUpMethod, ThemeRoot

hookspec = pluggy.HookspecMarker("shared_record")


@hookspec
def register_step_up_methods() -> list[type[StepUpMethod]]:
    """Return the step-up methods of this plugin. A tenant offers those that its settings name."""
    raise NotImplementedError


@hookspec
def register_export_formats() -> list[type[ExportFormat]]:
    """Return the export formats of this plugin. A tenant offers those that its settings name."""
    raise NotImplementedError


@hookspec
def register_theme_roots() -> list[ThemeRoot]:
    """Return folders with themes. A theme's slug must be unique over all plugins."""
    raise NotImplementedError


@hookspec
def register_checkpoint_anchors() -> list[type[CheckpointAnchor]]:
    """Return the anchors of this plugin. Those that a tenant's settings name are asked about its checkpoints."""
    raise NotImplementedError
