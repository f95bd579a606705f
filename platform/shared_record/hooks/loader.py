"""Find plugins by entry point, load each inside its own guard, and collect what they register.

A plugin that cannot be loaded, or that registers what it may not, is quarantined: it is named with the reason, and
everything else works. ``strict`` raises instead, for tests and CI.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from shared_record.errors import ConfigurationError
from shared_record.hooks import specs
from shared_record.plugin import LONGEST_DEADLINE, CheckpointAnchor, ExportFormat, StepUpMethod, ThemeRoot

GROUP = "shared_record"
_SLUG = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
_log = logging.getLogger("shared_record.plugins")


@dataclass(frozen=True, slots=True)
class Plugins:
    """What the installed plugins registered, by slug, and which plugins are quarantined with the reason."""

    step_up_methods: dict[str, type[StepUpMethod]] = field(default_factory=dict)
    export_formats: dict[str, type[ExportFormat]] = field(default_factory=dict)
    theme_roots: list[Path] = field(default_factory=list)
    checkpoint_anchors: dict[str, type[CheckpointAnchor]] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)


def load_plugins(found: Iterable[EntryPoint] | None = None, *, strict: bool = False) -> Plugins:
    """Load the plugins of the entry-point group ``shared_record``, in the order of their names."""
    plugins = Plugins()
    points = entry_points(group=GROUP) if found is None else found
    for point in sorted(points, key=lambda point: point.name):
        try:
            _load(point, plugins)
        except (Exception, SystemExit) as error:
            if strict:
                raise
            plugins.quarantined[point.name] = f"{type(error).__name__}: {error}"
            _log.exception("plugin.quarantined name=%s", point.name)
    return plugins


def _load(point: EntryPoint, plugins: Plugins) -> None:
    module = point.load()
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(specs)
    manager.register(module, point.name)
    manager.check_pending()
    for caller in manager.get_hookcallers(module) or []:
        for implementation in caller.get_hookimpls():
            _refuse_tricks(implementation)
    methods = _collect(manager.hook.register_step_up_methods(), StepUpMethod, plugins.step_up_methods)
    formats = _collect(manager.hook.register_export_formats(), ExportFormat, plugins.export_formats)
    anchors = _collect(manager.hook.register_checkpoint_anchors(), CheckpointAnchor, plugins.checkpoint_anchors)
    roots = [root for roots in manager.hook.register_theme_roots() for root in roots]
    for root in roots:
        if not isinstance(root, ThemeRoot) or not root.path.is_dir():
            raise ConfigurationError(f"register_theme_roots returned {root!r}, which is no folder of themes")
    plugins.step_up_methods.update(methods)
    plugins.export_formats.update(formats)
    plugins.checkpoint_anchors.update(anchors)
    plugins.theme_roots.extend(root.path for root in roots)


def _collect(
    results: list[list[Any]],
    base: type[StepUpMethod] | type[ExportFormat] | type[CheckpointAnchor],
    known: dict[str, Any],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in (item for result in results for item in result):
        if not (isinstance(item, type) and issubclass(item, base)) or inspect.isabstract(item):
            raise ConfigurationError(f"{item!r} is not a complete {base.__name__} class")
        if not (isinstance(item.slug, str) and _SLUG.fullmatch(item.slug)):
            raise ConfigurationError(f"{item.slug!r} is no slug: small letters, digits and _, at most 63")
        if issubclass(item, StepUpMethod) and not 0 < item.deadline <= LONGEST_DEADLINE:
            raise ConfigurationError(f"{item.slug}: a deadline is at most {LONGEST_DEADLINE:g} seconds")
        if item.slug in known or item.slug in found:
            raise ConfigurationError(f"there is already a {base.__name__} {item.slug!r}")
        found[item.slug] = item
    return found


def _refuse_tricks(implementation: pluggy.HookImpl) -> None:
    """Refuse what would let a plugin speak for others or escape its name."""
    if implementation.hookwrapper or implementation.wrapper or implementation.opts.get("specname"):
        raise ConfigurationError(f"{implementation.function.__name__}: wrappers and specname are not allowed")
    if implementation.kwargnames:
        raise ConfigurationError(f"{implementation.function.__name__}: arguments with defaults are never filled")
