"""The command line as an operator meets it: help, JSON, and errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from shared_record.cli import COMMANDS, cli
from shared_record.cli.run import prepare
from shared_record.clock import SystemClock
from shared_record.db.engine import Database
from shared_record.db.lookup import find_tenant
from shared_record.keys import KeyRing
from shared_record.ledger.intake import Delta, record_deltas
from shared_record.settings import Settings

TENANTS = Path(__file__).parents[2] / "tenants"
Run = Callable[..., Result]


def run_in(folder: Path, *arguments: str, stdin: str | None = None) -> Result:
    environ = {
        "SHARED_RECORD_DATA_DIR": str(folder),
        "SHARED_RECORD_DATABASE_URL": None,
        "SHARED_RECORD_PORT": None,
        "SHARED_RECORD_CHECKPOINT_SECONDS": None,
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    result = CliRunner().invoke(cli, list(arguments), env=environ, input=stdin, prog_name="shared-record")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the tenants of the repository and one customer, ``cust_a``, of ``acme``."""
    folder = tmp_path_factory.mktemp("installation") / "data"
    settings = Settings(data_dir=folder)
    prepare(settings)
    assert run_in(folder, "tenants", "apply", str(TENANTS)).exit_code == 0
    db = Database(settings.sqlalchemy_url)
    tenant = find_tenant(db, "acme")
    assert tenant is not None
    record_deltas(db, KeyRing.load(settings.keys_path), SystemClock(), tenant.scope, [Delta("cust_a", "5", "usage")])
    db.dispose()
    return folder


@pytest.fixture
def run(installation: Path) -> Run:
    """Run ``shared-record`` against the installation."""
    return lambda *arguments, **options: run_in(installation, *arguments, **options)


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its words, groups too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())


# --- Help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_says_what_a_command_does_and_shows_it_in_use(words: tuple[str, ...], tmp_path: Path) -> None:
    for option in ("--help", "-h"):
        result = run_in(tmp_path, *words, option)
        assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Usage: shared-record " + " ".join(words))
    assert lines[2].strip()
    assert max(map(len, lines)) <= 120
    if not isinstance(ALL[words], click.Group):
        example = "shared-record " + " ".join(words)
        assert example in result.stdout.partition("\n")[2]
        undocumented = [
            one.name for one in ALL[words].params if isinstance(one, click.Option) and not one.help and not one.hidden
        ]
        assert undocumented == []
    assert not [*tmp_path.iterdir()]


def test_the_overview_names_every_command_and_the_exit_codes() -> None:
    text = CliRunner().invoke(cli, ["--help"]).stdout
    for name, (_, line) in COMMANDS.items():
        assert name in text
        assert line.rstrip(".")[:30] in text
    assert "Exit codes:" in text
    assert CliRunner().invoke(cli, ["--version"]).stdout.startswith("shared-record, version ")


def test_each_command_is_listed_with_its_subcommands() -> None:
    for name, (_, line) in COMMANDS.items():
        command = ALL[(name,)]
        if isinstance(command, click.Group):
            listed = line.partition(": ")[2].rstrip(".").split(", ")
            assert sorted(word.split()[0] for word in listed) == sorted(
                {"move-host": "move"}.get(one, one) for one in command.commands
            )


# --- JSON ------------------------------------------------------------------------------------------------------------

OF = ("--tenant", "acme")
JSON: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "tenants list": (("tenants", "list"), {"tenants"}),
    "tenants check": (("tenants", "check", str(TENANTS)), {"ok", "files", "problems"}),
    "tenants apply": (("tenants", "apply", str(TENANTS), "--dry-run"), {"ok", "applied", "plans"}),
    "apikey create": (("apikey", "create", *OF), {"tenant", "name", "id", "api_key"}),
    "apikey list": (("apikey", "list", *OF), {"tenant", "keys"}),
    "token create": (("token", "create", "--name", "kim", *OF), {"tenant", "name", "id", "token"}),
    "token list": (("token", "list", *OF), {"tenant", "tokens"}),
    "customer list": (("customer", "list", *OF), {"tenant", "customers"}),
    "customer move-host": (
        ("customer", "move-host", "cust_a", "record.acme.localhost", *OF),
        {"customer_id", "url", "host", "policy", "issued_at", "revoked_at"},
    ),
    "link show": (
        ("link", "show", "cust_a", *OF),
        {"customer_id", "url", "host", "policy", "issued_at", "revoked_at"},
    ),
    "code reveal": (("code", "reveal", "cust_a", *OF), {"customer_id", "access_code"}),
    "code rotate": (("code", "rotate", "cust_a", "--overlap", "90m", *OF), {"customer_id", "access_code"}),
    "policy set": (
        ("policy", "set", "gated", "--customer", "cust_a", *OF),
        {"tenant", "customer_id", "policy", "changed"},
    ),
}


@pytest.mark.parametrize("name", JSON)
def test_json_is_one_object_on_stdout(run: Run, name: str) -> None:
    arguments, fields = JSON[name]
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert set(json.loads(result.stdout)) == fields
    text = run(*arguments)
    assert text.exit_code == 0
    assert text.stdout.strip()
    assert not text.stdout.startswith("{")


def test_every_command_with_a_result_has_json() -> None:
    without = {words for words, command in ALL.items() if not isinstance(command, click.Group)} - {
        words
        for words, command in ALL.items()
        if any("--json" in one.opts for one in command.params if isinstance(one, click.Option))
    }
    assert without == {("completion",), ("demo",), ("migrate",), ("serve",), ("theme", "preview"), ("worker",)}


def test_a_link_is_revoked_issued_and_reissued(run: Run) -> None:
    def link(action: str) -> dict[str, str | None]:
        result = run("link", action, "cust_a", *OF, "--json")
        assert result.exit_code == 0, result.stderr
        found: dict[str, str | None] = json.loads(result.stdout)
        return found

    urls = [link("show")["url"]]
    assert link("revoke")["url"] is None
    assert "revoked" in run("link", "show", "cust_a", *OF).stdout
    urls += [link("issue")["url"], link("reissue")["url"]]
    assert len(set(urls)) == 3
    assert all(url and "/c/" in url for url in urls)


def test_export_and_verify_of_what_no_checkpoint_covers_yet(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    result = run("export", "cust_a", *OF, "--output", str(file), "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["rows"] == 1
    assert [*tmp_path.iterdir()] == [file]
    checked = run("verify", str(file), "--json")
    assert checked.exit_code == 5
    assert "no checkpoint covers this record yet" in json.loads(checked.stdout)["reason"]


# --- Errors ----------------------------------------------------------------------------------------------------------

ERRORS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "unknown tenant": (
        ("link", "show", "cust_a", "--tenant", "acne"),
        1,
        "there is no tenant 'acne'. Tenants here: acme",
    ),
    "unknown customer": (("link", "show", "cust_zzz", *OF), 1, "cust_zzz"),
    "unknown customer of code": (("code", "rotate", "cust_zzz", *OF), 1, "cust_zzz"),
    "unknown customer of policy": (("policy", "set", "OPEN", "--customer", "cust_zzz", *OF), 1, "cust_zzz"),
    "unknown customer of move": (("customer", "move-host", "cust_zzz", "record.acme.localhost", *OF), 1, "cust_zzz"),
    "unknown customer of export": (("export", "cust_zzz", *OF), 1, "cust_zzz"),
    "unknown format": (("export", "cust_a", *OF, "--format", "xls"), 1, "Installed: bundle, csv, einvoice, focus, "),
    "unknown period": (("export", "cust_a", *OF, "--period", "1999-01"), 1, "nothing is recorded in 1999-01"),
    "host of another tenant": (
        ("customer", "move-host", "cust_a", "energy.borealis.localhost", *OF),
        2,
        "energy.borealis.localhost is not a serving host of this tenant",
    ),
    "no host at all": (("customer", "move-host", "cust_a", "not a host", *OF), 2, "host name"),
    "bad length": (("code", "rotate", "cust_a", "--overlap", "soon", *OF), 2, "30d, 12h or 90m"),
    "zero length": (("code", "rotate", "cust_a", "--overlap", "0d", *OF), 2, "30d, 12h or 90m"),
    "unknown policy": (("policy", "set", "CLOSED", *OF), 2, "two_tier"),
    "inherit for a tenant": (("policy", "set", "INHERIT", *OF), 2, "--customer"),
    "no tenant": (("link", "show", "cust_a"), 2, "--tenant"),
    "unknown command": (("lnk",), 2, "No such command"),
    "tenant files that are not there": (("tenants", "check", "nowhere.toml"), 2, "nowhere.toml"),
    "a file that is not there": (
        ("record", "import", "no.csv", *OF, "--customer", "x", "--map", "delta=A"),
        2,
        "no.csv",
    ),
    "a bad map": (("record", "import", "-", *OF, "--customer", "x", "--map", "delta=B"), 2, "no column 'B'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_a_sentence_and_an_exit_code(run: Run, name: str) -> None:
    arguments, code, words = ERRORS[name]
    result = run(*arguments, stdin="A,C\n1,2\n")
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("link", "show", "cust_a", *OF), ("tenants", "list"), ("serve",), ("worker",), ("customer", "list", *OF)],
    ids=" ".join,
)
def test_without_an_installation_every_command_says_so(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run_in(tmp_path / "nothing", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: no database")
    assert "shared-record migrate" in result.stderr
    assert not (tmp_path / "nothing").exists()


def test_migrate_makes_an_installation_and_does_nothing_the_second_time(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert "(was: empty)" in run_in(folder, "migrate").stdout
    ring = (folder / "keys.json").read_bytes()
    again = run_in(folder, "migrate")
    assert again.exit_code == 0
    assert "was" not in again.stdout
    assert (folder / "keys.json").read_bytes() == ring


def test_a_misspelt_setting_is_an_error(tmp_path: Path) -> None:
    environ = {"SHARED_RECORD_DATADIR": str(tmp_path)}
    result = CliRunner().invoke(cli, ["tenants", "list"], env=environ)
    assert result.exit_code == 1
    assert "SHARED_RECORD_DATADIR is not a setting" in result.stderr


def test_a_key_ring_that_others_can_read_is_refused(run: Run, installation: Path) -> None:
    ring = installation / "keys.json"
    ring.chmod(0o644)
    try:
        result = run("link", "show", "cust_a", *OF)
        assert result.exit_code == 1
        assert f"chmod 600 {ring}" in result.stderr
    finally:
        ring.chmod(0o600)
