"""Typed settings of one installation, read once from ``SHARED_RECORD_*`` in the environment."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from shared_record.errors import ConfigurationError

PREFIX = "SHARED_RECORD_"
SECRETS = {"database_url", "owner_database_url", "redis_url", "lock_url", "smtp_url", "smtp_password"}

N = TypeVar("N", int, float)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator can set. Every field ``x`` is read from ``SHARED_RECORD_X``.

    ``database_url`` empty means SQLite in ``data_dir``; ``owner_database_url`` is used for migrations where the
    application's own role may not alter tables. ``lock_dir`` holds the newest checkpoints and belongs on another volume
    than the database; it defaults to a folder in ``data_dir``. ``lock_url`` names a service instead: a second
    PostgreSQL, or a Redis of its own. Secrets may also come from a file named by ``SHARED_RECORD_X_FILE``.
    ``platform_hosts``: the operator's own hosts; the first one names the logs and the API. ``public_scheme`` and
    ``public_port`` are what customers' browsers see; absolute URLs are built from them, never from a request.
    ``trusted_proxies``: networks whose forwarding headers are believed, one hop. ``egress_allow``: networks that
    webhooks and sign-in may reach although they are not public, there also by plain http and on any port.
    ``smtp_url``: the mail server (``delivery.mail``); without one, an installation with SQLite prints mails.
    ``mail_from``: their sender. ``report_to``: whom readers tell of a page that poses as somebody else's, as a URL.
    """

    data_dir: Path = Path("shared-record-data")
    lock_dir: Path | None = None
    lock_url: str = field(default="", repr=False)
    database_url: str = field(default="", repr=False)
    owner_database_url: str = field(default="", repr=False)
    redis_url: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    platform_hosts: tuple[str, ...] = ("localhost",)
    public_scheme: str = "http"
    public_port: int = 0
    trusted_proxies: tuple[Network, ...] = ()
    egress_allow: tuple[Network, ...] = ()
    smtp_url: str = field(default="", repr=False)
    smtp_password: str = field(default="", repr=False)
    mail_from: str = ""
    report_to: str = ""
    web_threads: int = 4
    web_processes: int = 1
    checkpoint_seconds: float = 10.0
    log_level: str = "info"

    @property
    def sqlalchemy_url(self) -> str:
        """The database as an SQLAlchemy URL; PostgreSQL always through psycopg 3."""
        return _driver_url(self.database_url) or f"sqlite:///{self.sqlite_path.absolute()}"

    @property
    def sqlite_path(self) -> Path:
        """The SQLite database, used where no ``database_url`` is set."""
        return self.data_dir / "shared-record.sqlite3"

    @property
    def owner_url(self) -> str:
        """The database as migrations reach it."""
        return _driver_url(self.owner_database_url) or self.sqlalchemy_url

    @property
    def keys_path(self) -> Path:
        """The key ring file."""
        return self.data_dir / "keys.json"

    @property
    def exports_path(self) -> Path:
        """The folder of large exports; web servers and workers must see the same one."""
        return self.data_dir / "exports"

    @property
    def lock_path(self) -> Path:
        """The folder of the lock store."""
        return self.lock_dir or self.data_dir / "lock-store"

    @property
    def visible_port(self) -> int:
        """The port in customers' links."""
        return self.public_port or (443 if self.public_scheme == "https" else self.port)

    def url_for_host(self, host: str, path: str = "") -> str:
        """Return the absolute URL of ``path`` on a *stored* ``host``."""
        default = 443 if self.public_scheme == "https" else 80
        port = "" if self.visible_port == default else f":{self.visible_port}"
        return f"{self.public_scheme}://{host}{port}{path}"


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read settings from ``environ`` (default: the process's), with ``overrides`` on top.

    Unknown ``SHARED_RECORD_*`` names and unreadable values raise ``ConfigurationError``: a misspelt setting must not
    be ignored. ``None`` among ``overrides`` means "not given".
    """
    environ = os.environ if environ is None else environ
    known = {f.name: f for f in fields(Settings)}
    values: dict[str, Any] = {}
    for name, raw in environ.items():
        if not name.startswith(PREFIX):
            continue
        key = name.removeprefix(PREFIX).lower()
        if key.endswith("_file") and key.removesuffix("_file") in SECRETS:
            key, raw = key.removesuffix("_file"), _read_secret(name, raw)
        if key not in known:
            raise ConfigurationError(f"{name} is not a setting. Known: {', '.join(PREFIX + k.upper() for k in known)}.")
        if key in values:
            raise ConfigurationError(f"{PREFIX}{key.upper()} is given twice, itself and as a file. Keep one.")
        values[key] = _parse(name, key, raw)
    values.update({key: value for key, value in overrides.items() if value is not None})
    return Settings(**values)


def _read_secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigurationError(f"{name}: cannot read {path}: {reason}.") from error


def _parse(name: str, key: str, raw: str) -> Any:
    try:
        match key:
            case "data_dir" | "lock_dir" if raw.strip():
                return Path(raw)
            case "port" | "public_port":
                return _within(int(raw), 0, 65_535)
            case "web_threads" | "web_processes":
                return _within(int(raw), 1, 1_024)
            case "checkpoint_seconds":
                return _within(float(raw), 0.1, 86_400.0)
            case "platform_hosts" if hosts := tuple(part.strip() for part in raw.split(",") if part.strip()):
                return hosts
            case "data_dir" | "lock_dir" | "platform_hosts":
                raise ValueError("it is empty")
            case "trusted_proxies" | "egress_allow":
                return tuple(ipaddress.ip_network(part.strip()) for part in raw.split(",") if part.strip())
            case "report_to":
                return _report_url(raw.strip())
            case "public_scheme" if raw not in ("http", "https"):
                raise ValueError("expected http or https")
            case _:
                return raw
    except ValueError as error:
        raise ConfigurationError(f"{name}={raw!r} cannot be read: {error}.") from error


def _report_url(text: str) -> str:
    url = f"mailto:{text}" if "@" in text and ":" not in text else text
    if url and not url.startswith(("https://", "mailto:")):
        raise ValueError("expected an e-mail address or an https:// address")
    return url


def _within(number: N, least: N, most: N) -> N:
    if not least <= number <= most:
        raise ValueError(f"expected {least} to {most}")
    return number


def _driver_url(url: str) -> str:
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url
