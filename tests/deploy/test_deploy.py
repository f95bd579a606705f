"""What ``deploy/`` says is what the program has: settings, commands, folders, and one hop of forwarding fields."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

from shared_record.settings import PREFIX, SECRETS, Settings, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())


def read(name):
    return (DEPLOY / name).read_text()


def assigned(text):
    """Return the settings that compose.yaml or the Containerfile give values to."""
    return dict(re.findall(rf"^[\s\\]*(?:ENV )?({PREFIX}\w+)[=:] ?(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_named_exists(path):
    known = {PREFIX + field.name.upper() for field in fields(Settings)}
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS}
    assert set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", path.read_text())) <= known


def test_the_values_given_can_be_read(tmp_path):
    values = assigned(read("Containerfile").replace(" \\\n", "\n")) | assigned(read("compose.yaml"))
    secret = tmp_path / "secret"
    secret.write_text("postgresql://shared_record@postgres/records\n")
    for name in values:
        if name.endswith("_FILE"):
            values[name] = str(secret)
    values[f"{PREFIX}PLATFORM_HOSTS"] = "records.example"
    settings = load_settings(values)
    assert settings.lock_path == Path("/lock-store")
    assert settings.data_dir == Path("/data")
    assert settings.host == "0.0.0.0"
    assert settings.public_scheme == "https"
    assert [str(network) for network in settings.trusted_proxies] == ["172.30.0.2/32"]


def test_only_the_proxy_is_trusted():
    compose = read("compose.yaml")
    address = re.search(r"edge: \{ipv4_address: ([0-9.]+)\}", compose)[1]
    assert f"{PREFIX}TRUSTED_PROXIES: {address}/32" in compose


def test_the_compose_file_has_the_shape_of_yaml():
    """Simple rules that catch what a slip of the editor makes; Compose itself reads the rest."""
    stack, seen = [], set()
    for number, line in enumerate(read("compose.yaml").splitlines(), 1):
        assert "\t" not in line, number
        assert line == line.rstrip(), number
        bare = re.sub(r'"[^"]*"|\$\{[^}]*\}', "", line)
        if not bare.strip() or bare.lstrip().startswith("#"):
            continue
        indent = len(bare) - len(bare.lstrip())
        assert indent % 2 == 0, number
        assert re.match(r"\s*(- .+|[\w<./-]+:( .*)?)$", bare), number
        for opening, closing in ("[]", "{}"):
            assert bare.count(opening) == bare.count(closing), number
        while stack and stack[-1][0] >= indent:
            stack.pop()
        assert indent == (stack[-1][0] + 2 if stack else 0), number
        key = None if bare.lstrip().startswith("- ") else bare.strip().partition(":")[0]
        path = (*(name for _, name in stack), key)
        stack.append((indent, key))
        if key is not None:
            assert path not in seen, number
            seen.add(path)


def test_what_compose_uses_it_declares():
    compose = read("compose.yaml")
    body, _, declared = compose.partition("\nnetworks:\n")
    names = set(re.findall(r"^  ([\w-]+):", declared, re.MULTILINE))
    used = {
        name
        for names in re.findall(r"^    (?:networks|secrets): \[(.*)\]", body, re.MULTILINE)
        for name in names.split(", ")
    }
    used |= set(re.findall(r"^      - ([a-z-]+):/", body, re.MULTILINE))
    assert used <= names
    services = set(re.findall(r"^  ([\w-]+):$", body.partition("\nservices:\n")[2], re.MULTILINE))
    waited = set(re.findall(r"^      ([\w-]+): \{condition: service_\w+\}", body, re.MULTILINE))
    assert waited <= services
    for source in re.findall(r"- (\./[\w./-]+):/", body):
        assert source == "./tenants" or (DEPLOY / source).is_file()
    anchors = set(re.findall(r"&(\w+)", body))
    assert set(re.findall(r"\*(\w+)", body)) <= anchors


def test_every_command_used_exists():
    from shared_record.cli import cli

    used = [re.split(r", ", words) for words in re.findall(r"command: \[(.*)\]", read("compose.yaml"))]
    used = [words for words in used if words[0] != "valkey-server"]
    used += [json.loads(words) for words in re.findall(r"^CMD (\[.*\])", read("Containerfile"), re.MULTILINE)]
    prose = re.findall(
        r"docker compose (?:run --rm|exec) (?:web|worker|migrate) (?:shared-record )?([a-z][^\n`]*)", read("README.md")
    )
    used += [words.split() for words in prose]
    assert len(used) >= 5
    for words in used:
        command: click.Command | None = cli
        for word in words:
            if not isinstance(command, click.Group):
                options = {option for p in command.params for option in p.opts}
                assert not word.startswith("--") or word in options, words
                continue
            command = command.get_command(click.Context(command), word)
            assert command is not None, words


def test_the_image_holds_every_plugin_and_folder_that_wheels_are_built_from():
    text = read("Containerfile")
    copied = {
        source for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for source in line.split()
    }
    let_in = {line[1:] for line in read("Containerfile.dockerignore").splitlines() if line.startswith("!")}
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)
    for manifest in ROOT.glob("plugins/*/pyproject.toml"):
        assert "plugins" in copied or f"plugins/{manifest.parent.name}" in copied
    project = (ROOT / "pyproject.toml").read_text()
    bundled = re.findall(r'^"(\w+)" = "shared_record/_bundled/', project, re.MULTILINE)
    assert {"platform", "themes", *bundled} <= copied
    assert "--extra standard" in text
    assert "--all-packages" in text


def test_the_health_check_is_a_program_and_names_the_platform_host():
    text = read("Containerfile").replace("\\\n", "")
    command = json.loads(re.search(r"^HEALTHCHECK .*? CMD (\[.*\])$", text, re.MULTILINE)[1])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    assert "/healthz/ready" in command[2]
    assert "'Host': host" in command[2]


def test_the_image_does_not_run_as_root():
    final = read("Containerfile").rpartition("\nFROM ")[2]
    assert final.index("\nUSER shared-record") < final.index("\nENTRYPOINT")


@pytest.mark.parametrize(
    "line",
    [
        "request_header -*_*",
        "request_header -Forwarded",
        "request_header -X-Forwarded-*",
        "header_up X-Forwarded-For {remote_host}",
        "header_up X-Forwarded-Proto {scheme}",
        "header_up -X-Forwarded-Host",
        "strict_sni_host on",
    ],
)
def test_the_proxy_passes_no_forwarding_field_of_a_client(line):
    text = read("Caddyfile")
    assert f"\t{line}\n" in text
    assert text.count("reverse_proxy") == 1
    assert "header_up Host" not in text


def test_d05_d07_certificates_are_for_the_sites_that_are_named_and_no_others():
    """A name that somebody asks for cannot make the proxy ask for a certificate."""
    text = read("Caddyfile")
    assert re.findall(r"^(\S.*) \{$", text, re.MULTILINE) == ["{$SITES}", "http://"]
    assert "on_demand" not in text
    assert "*." not in text


def test_z04_the_store_of_the_limits_is_reached_from_inside_alone():
    services, _, networks = read("compose.yaml").partition("\nnetworks:\n")
    limits = re.findall(r"^  limits:\n((?: {4}.*\n)+)", services, re.MULTILINE)[0]
    assert "    networks: [inner]\n" in limits
    assert "ports:" not in limits
    assert re.search(r"^  inner:\n(?: {4}.*\n)*? {4}internal: true$", networks, re.MULTILINE)


def test_no_secret_and_no_machine_is_in_these_files():
    for path in FILES:
        text = path.read_text()
        assert not re.search(r"PASSWORD: \S|://\w+:[^@$\s<\"{]+@", text), path
        assert not re.search(r"/home/|/root/|/work/", text), path
