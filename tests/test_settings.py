"""Settings: what is misspelt or cannot be read is refused, never ignored."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network
from pathlib import Path

import pytest

from shared_record.errors import ConfigurationError
from shared_record.settings import SECRETS, Settings, load_settings


def test_an_empty_environment_is_the_embedded_default() -> None:
    found = load_settings({"PATH": "/bin", "SHARED_RECORDS": "another program's"})
    assert found == Settings()
    assert found.sqlalchemy_url == f"sqlite:///{Path('shared-record-data').absolute()}/shared-record.sqlite3"
    assert found.owner_url == found.sqlalchemy_url
    assert found.keys_path == Path("shared-record-data/keys.json")


def test_every_setting_is_read_with_its_type() -> None:
    found = load_settings(
        {
            "SHARED_RECORD_DATA_DIR": "/srv/sr",
            "SHARED_RECORD_DATABASE_URL": "postgresql://app@db/sr",
            "SHARED_RECORD_OWNER_DATABASE_URL": "postgres://owner@db/sr",
            "SHARED_RECORD_REDIS_URL": "redis://cache",
            "SHARED_RECORD_HOST": "0.0.0.0",
            "SHARED_RECORD_PORT": "80",
            "SHARED_RECORD_PLATFORM_HOSTS": " app.example , www.example,",
            "SHARED_RECORD_PUBLIC_SCHEME": "https",
            "SHARED_RECORD_PUBLIC_PORT": "8443",
            "SHARED_RECORD_TRUSTED_PROXIES": "10.0.0.0/8, fd00::/8",
            "SHARED_RECORD_WEB_THREADS": "4",
            "SHARED_RECORD_WEB_PROCESSES": "2",
            "SHARED_RECORD_CHECKPOINT_SECONDS": "2.5",
            "SHARED_RECORD_LOG_LEVEL": "debug",
        }
    )
    assert found.data_dir == Path("/srv/sr")
    assert found.sqlalchemy_url == "postgresql+psycopg://app@db/sr"
    assert found.owner_url == "postgresql+psycopg://owner@db/sr"
    assert found.platform_hosts == ("app.example", "www.example")
    assert found.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert (found.port, found.public_port, found.web_threads, found.web_processes) == (80, 8443, 4, 2)
    assert (found.checkpoint_seconds, found.log_level, found.redis_url) == (2.5, "debug", "redis://cache")
    assert (found.host, found.public_scheme) == ("0.0.0.0", "https")


def test_other_drivers_are_left_alone() -> None:
    url = "postgresql+psycopg://db/sr"
    assert load_settings({"SHARED_RECORD_DATABASE_URL": url}).sqlalchemy_url == url


@pytest.mark.parametrize(
    "name", ["SHARED_RECORD_PROT", "SHARED_RECORD_", "SHARED_RECORD_PORT_FILE", "SHARED_RECORD_FILE"]
)
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is not a setting.*SHARED_RECORD_PLATFORM_HOSTS"):
        load_settings({name: "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", ""),
        ("PORT", "http"),
        ("PORT", "80.5"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PUBLIC_PORT", "99999"),
        ("WEB_THREADS", "0"),
        ("WEB_PROCESSES", "-2"),
        ("CHECKPOINT_SECONDS", "soon"),
        ("CHECKPOINT_SECONDS", "0"),
        ("CHECKPOINT_SECONDS", "-1"),
        ("CHECKPOINT_SECONDS", "nan"),
        ("CHECKPOINT_SECONDS", "inf"),
        ("PUBLIC_SCHEME", "ftp"),
        ("PUBLIC_SCHEME", "HTTPS"),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("PLATFORM_HOSTS", " , "),
        ("DATA_DIR", ""),
        ("REPORT_TO", "javascript:alert(1)"),
        ("REPORT_TO", "http://records.example"),
        ("REPORT_TO", "records.example"),
    ],
)
def test_a_value_that_cannot_be_read_names_the_setting(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^SHARED_RECORD_{name}="):
        load_settings({f"SHARED_RECORD_{name}": value})


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("", ""),
        ("abuse@records.example", "mailto:abuse@records.example"),
        ("mailto:abuse@records.example", "mailto:abuse@records.example"),
        (" https://records.example/report ", "https://records.example/report"),
    ],
)
def test_a_page_is_reported_to_an_address_of_mail_or_the_web(value: str, url: str) -> None:
    assert load_settings({"SHARED_RECORD_REPORT_TO": value}).report_to == url


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_secrets_may_come_from_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "secret"
    path.write_text("scheme://user:hush@host/x\n")
    variable = f"SHARED_RECORD_{name.upper()}"
    found = load_settings({f"{variable}_FILE": str(path)})
    assert getattr(found, name) == "scheme://user:hush@host/x"
    assert "hush" not in repr(found)
    for order in ((variable, f"{variable}_FILE"), (f"{variable}_FILE", variable)):
        with pytest.raises(ConfigurationError, match=f"{variable} is given twice"):
            load_settings({key: str(path) for key in order})


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^SHARED_RECORD_REDIS_URL_FILE: cannot read {path}"):
        load_settings({"SHARED_RECORD_REDIS_URL_FILE": str(path)})


def test_overrides_win_and_none_means_not_given() -> None:
    environ = {"SHARED_RECORD_PORT": "8001", "SHARED_RECORD_HOST": "::"}
    found = load_settings(environ, port=9000, host=None)
    assert (found.port, found.host) == (9000, "::")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("scheme", "port", "public_port", "expected"),
    [
        ("http", 8000, 0, "http://h.example:8000/c/x"),
        ("http", 80, 0, "http://h.example/c/x"),
        ("http", 8000, 80, "http://h.example/c/x"),
        ("https", 8000, 0, "https://h.example/c/x"),
        ("https", 8000, 443, "https://h.example/c/x"),
        ("https", 443, 8443, "https://h.example:8443/c/x"),
        ("http", 443, 443, "http://h.example:443/c/x"),
    ],
)
def test_links_show_what_browsers_see(scheme: str, port: int, public_port: int, expected: str) -> None:
    settings = Settings(public_scheme=scheme, port=port, public_port=public_port)
    assert settings.url_for_host("h.example", "/c/x") == expected
