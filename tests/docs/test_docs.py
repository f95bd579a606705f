"""The documentation says what the software does: commands parse and run, examples work, references are complete."""

from __future__ import annotations

import ast
import base64
import dataclasses
import hashlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import click
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from client import Visitor, url_of
from servers import free_port
from shared_record import plugin
from shared_record.app import create_app
from shared_record.cli import cli
from shared_record.hooks import specs
from shared_record.hooks.loader import GROUP, Plugins, load_plugins
from shared_record.ledger import entry, note
from shared_record.manifest.schema import AnchorEntry, HostEntry, Manifest, MethodEntry, WitnessEntry
from shared_record.settings import Settings
from shared_record.tenancy.methods import put_methods
from shared_record.theming.loader import load_themes
from world import Shop

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

ELSEWHERE = ("/static/", "/log/", "/.well-known/")
"""Routes that the test of routes leaves alone: static files, and the log in public."""

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Block(NamedTuple):
    """A fenced block: its language, the word after it (a file or a label), and its text."""

    language: str
    label: str
    text: str


_FENCE = re.compile(r"^( *)```([a-z]+)(?: (\S+))?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, also those inside of lists."""
    found = []
    for indent, language, label, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        found.append(Block(language, label, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)))
    return found


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


# --- Commands --------------------------------------------------------------------------------------------------------


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each ``shared-record`` command in shell text."""
    joined = re.sub(r"\\\n\s*", " ", text)
    joined = re.sub(r"\$\((shared-record [^|)]*)[^)]*\)", r"\n\1\n", joined)
    for line in joined.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        starts = [i for i, word in enumerate(words) if word.rpartition("/")[2] == "shared-record"]
        if not starts or "install" in words[: starts[0]]:
            continue
        arguments = words[starts[0] + 1 :]
        ends = [i for i, word in enumerate(arguments) if word in ("|", "||", "&&", ";", "<", ">", "2>")]
        yield arguments[: ends[0]] if ends else arguments


def check_command(arguments: Sequence[str]) -> None:
    """Raise ``click.UsageError`` unless command and options exist, with every required one given."""
    command: click.Command = cli
    rest = list(arguments)
    context = click.Context(cli, info_name="shared-record")
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name, *rest = rest
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command {name}")
        command, context = found, click.Context(found, info_name=name, parent=context)
    if isinstance(command, click.Group):
        raise click.UsageError("a command is missing")
    given, left, _ = command.make_parser(context).parse_args(rest)
    if left:
        raise click.UsageError(f"too many arguments: {left}")
    for parameter in command.params:
        # What is not given is a sentinel of click's own.
        if parameter.required and not isinstance(given.get(parameter.name or ""), str | list | tuple):
            raise click.MissingParameter(param=parameter, ctx=context)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shown_exists(page: Path) -> None:
    for block in blocks(page):
        if block.language == "sh":
            for arguments in commands(block.text):
                check_command(arguments)


def test_the_command_check_finds_what_is_wrong() -> None:
    wrong = ("tenants chek", "link show x", "link show x --tenant a --jsn", "verify", "policy set --tenant a", "link")
    for line in wrong:
        with pytest.raises(click.UsageError):
            check_command(line.split())
    text = "KEY=$(shared-record apikey create --tenant a | cut -c1)\nA=1 bin/uv run shared-record \\\n  verify f || x"
    assert list(commands(text)) == [["apikey", "create", "--tenant", "a"], ["verify", "f"]]


# --- Guides that run -------------------------------------------------------------------------------------------------

SERVICES = ("demo", "serve", "worker")
KEEP = "declare -p LINK CODE HANDLE BASE KEY RECORD 2>/dev/null || true"


class Shell:
    """One terminal after another in a folder of its own; variables stay from block to block as in one terminal."""

    def __init__(self, folder: Path, port: int, running: ExitStack) -> None:
        self.folder, self.port, self.running = folder, port, running
        scripts = str(Path(sys.executable).parent)
        self.environ = {
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "SHARED_RECORD_PORT": str(port),
            "SHARED_RECORD_CHECKPOINT_SECONDS": "1",
        }

    def start(self, text: str) -> None:
        """Start a server; it ends with the test."""
        log = self.running.enter_context((self.folder / "services.log").open("ab"))
        process = subprocess.Popen(shlex.split(text), cwd=self.folder, env=self.environ, stdout=log, stderr=log)
        self.running.callback(_end, process)
        if "worker" not in text:
            self._wait(process)

    def run(self, text: str) -> str:
        """Run a block after all those before it; return what it printed."""
        # What a block sets is kept by writing it out at the end and reading it in at the beginning of the next.
        state = self.folder / ".state"
        lines = ("set -euo pipefail", f"touch {state}; . {state}", self._here(text), f"({KEEP}) > {state}")
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        log = self.folder / "services.log"
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}{log.read_text() if log.exists() else ''}"
        return done.stdout

    def shown(self, text: str) -> re.Pattern[str]:
        """Return a pattern for output as a page shows it: its lines in order, with anything for ``…`` and between."""
        lines = [".*".join(map(re.escape, line.split("…"))) for line in self._here(text).splitlines() if line.strip()]
        return re.compile(".*".join(lines), re.DOTALL)

    def _here(self, text: str) -> str:
        return text.replace("8000", str(self.port))

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            assert process.poll() is None, (self.folder / "services.log").read_text()
            try:
                with urllib.request.urlopen(f"http://localhost:{self.port}/healthz/ready", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError("the server was not ready")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def terminal(folder: Path) -> Iterator[Shell]:
    with ExitStack() as running:
        yield Shell(folder, free_port(), running)


def follow(page: Path, shell: Shell) -> int:
    """Do what a guide says, from top to bottom, and compare output with what it shows; return how many blocks ran."""
    found = blocks(page)
    ran = 0
    for index, block in enumerate(found):
        if block.label:
            target = shell.folder / block.label
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        if block.language != "sh":
            continue
        ran += 1
        first = next(commands(block.text), [""])[0]
        if first in SERVICES:
            shell.start(block.text)
            continue
        output = shell.run(block.text)
        after = found[index + 1] if index + 1 < len(found) else None
        if after is not None and after.language == "text" and not after.label:
            assert shell.shown(after.text).search(output), f"{block.text}\nprinted:\n{output}\nshown:\n{after.text}"
    return ran


def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    with terminal(tmp_path) as shell:
        assert follow(DOCS / "tutorial.md", shell) >= 9


def test_a_tenant_can_be_brought_as_described(tmp_path: Path) -> None:
    with terminal(tmp_path) as shell:
        assert follow(DOCS / "how-to/tenant.md", shell) >= 10


# --- Plugins ---------------------------------------------------------------------------------------------------------


def write_labelled(page: str, folder: Path) -> list[Path]:
    """Write the blocks that name a file; return the files."""
    files = []
    for block in blocks(DOCS / page):
        if "." in block.label:
            files.append(folder / block.label)
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            files[-1].write_text(block.text, encoding="utf-8")
    return files


def load_module(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def with_installed(point: EntryPoint) -> Plugins:
    return load_plugins([*entry_points(group=GROUP), point], strict=True)


def visitor(shop: Shop, plugins: Plugins) -> Visitor:
    return Visitor(create_app(Settings(port=8000), keys=shop.keys, db=shop.db, clock=shop.clock, plugins=plugins))


@sqlite_only
def test_the_step_up_method_of_the_guide_works(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    project, module, contract = write_labelled("how-to/plugin.md", tmp_path)
    checked = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(contract)],
        env=os.environ | {"PYTHONPATH": str(module.parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
    declared = tomllib.loads(project.read_text())["project"]["entry-points"][GROUP]
    [(name, value)] = declared.items()
    assert module.parent.name == value
    load_module(value, module, monkeypatch)
    plugins = with_installed(EntryPoint(name, value, GROUP))

    tenant = next(block for block in blocks(DOCS / "how-to/plugin.md") if block.text.startswith("[[methods]]"))
    [method] = tomllib.loads(tenant.text)["methods"]
    settings = plugins.step_up_methods[method["method"]].settings_model.model_validate(method["settings"])
    with pytest.raises(ValueError, match="name_lable"):
        type(settings).model_validate({"name_lable": "x"})
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [(method["method"], method["settings"])])

    shop.record("cust_1", "5")
    browser, link, code = visitor(shop, plugins), url_of(shop, "cust_1"), shop.code("cust_1")
    form = browser.get(f"{link}/unlock").text
    assert "Access code" in form
    assert method["settings"]["name_label"] in form
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form))

    def answer(code: str, person: str) -> int:
        data = hidden | {"field-code": code, "field-name": person}
        return browser.post(f"{link}/unlock", data=data).status_code

    assert answer("AAAAAA", "Jo Doe") == 403
    assert answer(code, " ") == 403
    assert browser.get(f"{link}/activity").status_code == 303
    assert answer(code, "Jo Doe") == 303
    assert browser.get(f"{link}/activity").status_code == 200


@sqlite_only
def test_the_export_format_of_the_guide_works(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    [module] = write_labelled("how-to/export-format.md", tmp_path)
    load_module(module.stem, module, monkeypatch)
    plugins = with_installed(EntryPoint("export_table", module.stem, GROUP))
    from shared_record.tenancy.tenants import update_tenant

    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"export_formats": ["csv", "json", "table"], "policy": "OPEN"})
    shop.record("cust_1", "5", "0.25")
    browser = visitor(shop, plugins)
    answer = browser.get(f"{url_of(shop, 'cust_1')}/export/file?format=table")
    assert answer.status_code == 200
    assert [line.split()[-1] for line in answer.text.splitlines() if "=" not in line] == ["5", "0.25", "5.25"]


def test_the_theme_of_the_guide_is_sound(tmp_path: Path) -> None:
    for file in write_labelled("how-to/theme.md", tmp_path / "harbour"):
        assert file.exists()
    assert load_themes([tmp_path]).sound["harbour"].title == "Harbour"


# --- References ------------------------------------------------------------------------------------------------------


def test_generated_references_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_module("generate_reference", DOCS / "generate_reference.py", monkeypatch)
    for name, page in module.PAGES.items():
        committed = (DOCS / "reference" / name).read_text(encoding="utf-8")
        assert committed == page(), f"run: python docs/generate_reference.py ({name} is out of date)"


def _signature(function: object, name: str) -> str:
    return f"def {name}{inspect.signature(function)}".replace("'", "")  # type: ignore[arg-type]


def _defined(text: str) -> str:
    """Return a documented signature in the form that ``_signature`` gives."""
    [function] = ast.parse(text.strip() + ": ...").body
    assert isinstance(function, ast.FunctionDef)
    return f"def {function.name}({ast.unparse(function.args)}) -> {ast.unparse(function.returns or ast.Constant(None))}"


def test_every_hook_is_documented_with_its_exact_signature() -> None:
    page = DOCS / "reference/hooks.md"
    shown = {_defined(block.text) for block in blocks(page) if block.language == "python"}
    hooks = {name: hook for name, hook in vars(specs).items() if hasattr(hook, f"{GROUP}_spec")}
    assert len(hooks) >= 3
    expected = {_signature(hook, name) for name, hook in hooks.items()}
    for kind in (plugin.StepUpMethod, plugin.ExportFormat, plugin.CheckpointAnchor):
        expected |= {_signature(item, name) for name, item in vars(kind).items() if inspect.isfunction(item)}
    assert shown == expected
    headings = set(re.findall(r"^## (\w+)$", prose(page), re.MULTILINE))
    assert hooks.keys() <= headings


def test_every_name_a_plugin_may_import_is_documented() -> None:
    text = (DOCS / "reference/hooks.md").read_text(encoding="utf-8")
    for name in plugin.__all__:
        assert re.search(rf"\b{name}\b", text), name
        kind = getattr(plugin, name)
        if dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                assert f"`{field.name}`" in text, f"{name}.{field.name}"


def test_every_key_of_the_tenant_file_is_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", prose(DOCS / "reference/tenant-file.md"), re.MULTILINE)
    fields: list[tuple[str, str]] = []
    models: tuple[type[BaseModel], ...] = (Manifest, HostEntry, MethodEntry, WitnessEntry, AnchorEntry)
    for model in models:
        for name, field in model.model_fields.items():
            default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
            fields.append((name, "the installation's" if name == "checkpoint_seconds" else default))
    assert rows == fields
    example = next(block for block in blocks(DOCS / "reference/tenant-file.md") if block.language == "toml")
    Manifest.model_validate(tomllib.loads(example.text))


@sqlite_only
def test_every_route_is_documented(shop: Shop, database_url: str) -> None:
    text = "\n".join((DOCS / "reference" / name).read_text() for name in ("api.md", "calls.md", "pages.md"))
    gate = create_app(Settings(), keys=shop.keys, db=shop.db, clock=shop.clock)
    for app in gate._applications.values():
        for rule in app.url_map.iter_rules():  # type: ignore[attr-defined]
            if rule.rule.startswith(ELSEWHERE):
                continue
            path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: "{" + to_camel(found[1]) + "}", rule.rule)
            assert f"{path}`" in text or f" {path}`" in text, path


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_examples_parse(page: Path) -> None:
    for block in blocks(page):
        match block.language:
            case "json":
                json.loads(block.text)
            case "toml":
                tomllib.loads(block.text)
            case "python" if not (block.text.startswith("def ") and block.text.count("\n") == 1):
                ast.parse(block.text)


# --- The worked example ----------------------------------------------------------------------------------------------


def test_the_worked_example_of_the_ledger_can_be_recomputed() -> None:
    found = {block.label: block.text.removesuffix("\n") for block in blocks(DOCS / "reference/ledger.md")}

    def leaf(data: bytes) -> bytes:
        return hashlib.sha256(b"\0" + data).digest()

    def node(left: bytes, right: bytes) -> bytes:
        return hashlib.sha256(b"\1" + left + right).digest()

    first, second = (entry.parse_entry(found[name]) for name in ("entry-1", "entry-2"))
    details = (
        (first, bytes(range(16)), {"metadata": {"region": "eu"}, "reason": "chat completion", "referenceId": "inv-1"}),
        (second, bytes(range(16, 32)), {"metadata": None, "reason": "credit after review", "referenceId": None}),
    )
    for row, salt, detail in details:
        jcs = json.dumps(detail, sort_keys=True, separators=(",", ":"))
        assert row.mh == hashlib.sha256(salt + jcs.encode()).hexdigest()
    assert (first.total, second.total) == ("12.5", "10.25")
    leaves = [leaf(found[name].encode()) for name in ("entry-1", "entry-2")]
    assert found["receipts"].split() == ["0x" + one.hex() for one in leaves]
    root = node(*leaves)
    assert found["record-root"] == base64.b64encode(root).decode()

    head = entry.parse_head(found["head"])
    [stated] = head.open
    assert (stated.root, stated.size, stated.totals) == (root, 2, (("usage", "API credits", 2, "10.25"),))
    head_leaf = leaf(found["head"].encode())
    assert found["head-leaf"] == head_leaf.hex()

    epoch = entry.parse_epoch(found["epoch"])
    assert (epoch.root, epoch.slots) == (node(head_leaf, leaf(b"\xff" + bytes(32))), 2)

    vkey, fingerprint = found["vkey"].split()
    key = note.VerifierKey.parse(vkey)
    assert (key.fingerprint, fingerprint) == (hashlib.sha256(vkey.encode()).hexdigest(), key.fingerprint)
    seed = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    assert str(note.VerifierKey.of(key.name, seed)) == vkey
    signed = found["checkpoint"] + "\n"
    checkpoint = note.parse_checkpoint(note.open_note(signed, [key]))
    assert checkpoint == (key.name, 1, leaf(found["epoch"].encode()))
    assert note.sign_note(note.checkpoint_body(*checkpoint), key.name, seed) == signed


# --- Form ------------------------------------------------------------------------------------------------------------


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


def test_every_page_can_be_reached_from_the_index() -> None:
    seen, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.is_relative_to(DOCS):
            continue
        seen.add(page)
        targets = re.findall(r"\]\(([^)\s#:]+)[^):]*\)", prose(page))
        waiting += [(page.parent / target).resolve() for target in targets]
    assert seen == set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_form_of_a_page(page: Path) -> None:
    text = prose(page)
    assert text.startswith("# ")
    # The benchmarks print their own tables and the line above them.
    longest = 160 if page.name == "benchmarks.md" else 120
    assert [line for line in text.splitlines() if len(line) > longest or line != line.rstrip()] == []
    assert not re.search(r"/work/|/tmp/|\w!", re.sub(r"`[^`]*`|<!--.*?-->", "", text))
