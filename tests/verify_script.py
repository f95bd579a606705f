"""The verifier that is handed out with the data, ``verify.py``, as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SCRIPT = Path(__file__).parents[1] / "platform/shared_record/verifier/standalone/verify.py"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("verify_script_standalone", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


VERIFY = _load()


def quick_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """What may stand in for the script's own, which has a test of its own and takes most of a check's time."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (ValueError, InvalidSignature):
        return False
    return True
