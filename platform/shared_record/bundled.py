"""Files that come with the software: top-level folders in a checkout, bundled in an installed copy."""

from __future__ import annotations

from pathlib import Path

import shared_record


def bundled_folder(name: str) -> Path:
    """Return the folder ``migrations`` or ``tenants``, wherever this copy has it."""
    package = Path(shared_record.__file__).parent
    bundled = package / "_bundled" / name
    return bundled if bundled.is_dir() else package.parents[1] / name
