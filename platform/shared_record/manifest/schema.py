"""What a file ``tenants/<slug>.toml`` may say. Every tenant setting is a key here."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from shared_record.hosts.names import HostError, claim_host
from shared_record.ledger.note import WitnessKey
from shared_record.ledger.tiles import GROUP


@lru_cache(maxsize=1)
def zones() -> frozenset[str]:
    """Return the names of all time zones this machine knows."""
    return frozenset(available_timezones())


def _known_zone(name: str) -> str:
    if name not in zones():
        raise PydanticCustomError("unknown_zone", "there is no time zone {zone}", {"zone": f'"{name}"'})
    return name


def _bare_host(value: object) -> object:
    """A host may be written as a text alone: a serving host."""
    return {"host": value} if isinstance(value, str) else value


def _line(max_length: int, min_length: int = 1) -> StringConstraints:
    """One line of text; control characters have no place in a page, a header or a file name."""
    return StringConstraints(
        min_length=min_length, max_length=max_length, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]*$"
    )


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class HostEntry(_Table):
    """A branded host. An ``alias`` redirects to the primary host, which is the one that links are printed with."""

    host: str
    role: Literal["serving", "alias"] = "serving"
    primary: bool = False


class MethodEntry(_Table):
    """A step-up method, offered in the order of the file; ``settings`` are the plugin's own."""

    method: str
    settings: dict[str, Any] = {}


def _witness_key(vkey: str) -> str:
    try:
        key = WitnessKey.parse(vkey)
        if key.name in ("none", GROUP):
            raise ValueError(f"of a witness that cannot be called {key.name}")
        return str(key)
    except ValueError as error:
        raise PydanticCustomError("witness_key", "{error}", {"error": str(error)}) from error


class WitnessEntry(_Table):
    """A witness: the prefix below which it takes checkpoints, and its verifier key."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=500)]
    vkey: Annotated[str, AfterValidator(_witness_key)]


_ORIGIN = re.compile(r"https://([^/:?#@\[\]]+)(?::([1-9][0-9]{0,4}))?")


def _origin(text: str) -> str:
    """Return an https origin as browsers write it (RFC 6454, section 6.2): no path, no wildcard, A-labels."""
    match = _ORIGIN.fullmatch(text)
    try:
        if match is None or int(match[2] or 443) > 65_535:
            raise ValueError
        host, _ = claim_host(match[1])
    except (ValueError, HostError) as error:
        raise PydanticCustomError(
            "not_an_origin",
            "{origin} is not an https origin such as https://portal.example",
            {"origin": f'"{text}"'},
        ) from error
    return f"https://{host}" if match[2] in (None, "443") else f"https://{host}:{match[2]}"


def _each_once(names: list[str]) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise PydanticCustomError("named_twice", "{name} is named twice", {"name": f'"{name}"'})
    return names


BreakdownKey = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f:]+$", max_length=64)]
"""A key of metadata. It stands before a colon in addresses, so it has none."""


class AnchorEntry(_Table):
    """An anchor of checkpoints; ``settings`` are the plugin's own."""

    anchor: str
    settings: dict[str, Any] = {}


class Manifest(_Table):
    """The whole file. What it does not mention it does not manage; the defaults are those of a new tenant."""

    name: Annotated[str, _line(200)]
    hosts: list[Annotated[HostEntry, BeforeValidator(_bare_host)]] = []
    theme: str = "default"
    language: Literal["en", "de", "es", "ar"] | None = None
    policy: Literal["TWO_TIER", "GATED", "OPEN"] = "TWO_TIER"
    unit: Annotated[str, _line(64)] = "units"
    zone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    contact: Annotated[str, _line(200, min_length=0)] = ""
    hide_amounts: bool = False
    export_formats: list[str] = []
    embed_origins: Annotated[list[Annotated[str, AfterValidator(_origin)]], Field(max_length=20)] = []
    breakdowns: Annotated[list[BreakdownKey], Field(max_length=5), AfterValidator(_each_once)] = []
    checkpoint_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    retention_days: Literal[7, 30, 90] | None = None
    api_rate: Annotated[int, Field(ge=1, le=100_000)] = 100
    api_burst: Annotated[int, Field(ge=1, le=100_000)] = 200
    methods: list[MethodEntry] = []
    witnesses: list[WitnessEntry] = []
    witness_quorum: Annotated[int, Field(ge=0, le=32)] = 0
    anchors: list[AnchorEntry] = []
    anchor_seconds: Annotated[int, Field(ge=60, le=86_400)] = 600


SETTINGS = (
    "name",
    "theme",
    "language",
    "policy",
    "unit",
    "zone",
    "contact",
    "hide_amounts",
    "export_formats",
    "embed_origins",
    "breakdowns",
    "checkpoint_seconds",
    "retention_days",
    "api_rate",
    "api_burst",
    "witnesses",
    "witness_quorum",
    "anchors",
    "anchor_seconds",
)
"""The keys that are one value each; ``hosts`` and ``methods`` are compared item by item."""
DEFAULTS: dict[str, Any] = {name: Manifest.model_fields[name].default for name in SETTINGS if name != "name"}
"""What a setting returns to when its line is taken out of the file."""
