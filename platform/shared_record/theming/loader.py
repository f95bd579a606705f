"""Find themes on disk, check them, and build the template environment of each.

A theme may replace files below ``templates/partials/`` only: the page frame, and with it the attribution footer, stays
the core's. Everything is read and checked once; later changes on disk have no effect on a running server.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

from jinja2 import BytecodeCache, ChoiceLoader, DictLoader, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

from shared_record.errors import ConfigurationError
from shared_record.languages import LANGUAGES, direction, gettext, ngettext, spoken
from shared_record.theming.css import css_variables
from shared_record.theming.markup import check_partial
from shared_record.theming.png import reencode
from shared_record.theming.problems import ThemeProblem, shown
from shared_record.theming.tokens import PICTURE_NAME, Tokens, TomlFile, check_tokens

SLUG = re.compile(r"[a-z][a-z0-9-]{0,39}")
DEFAULT = "default"
MAX_PARTIAL = 64 * 1024


@dataclass(frozen=True, slots=True)
class Picture:
    """A file below ``static/``, written anew; ``digest`` names its content in URLs."""

    name: str
    data: bytes = field(repr=False)
    width: int
    height: int
    digest: str


@dataclass(frozen=True, slots=True)
class Theme:
    """A checked theme. ``css`` is its whole stylesheet, ``css_hash`` names that text in a URL."""

    slug: str
    title: str
    description: str
    tokens: Tokens
    folder: Path
    partials: Mapping[str, str] = field(repr=False)
    pictures: Mapping[str, Picture] = field(repr=False)
    css: str = field(repr=False)
    css_hash: str

    @property
    def logo(self) -> Picture | None:
        """The logo on light ground, which is also that of paper."""
        return self.pictures.get(self.tokens.logo)

    @property
    def logo_dark(self) -> Picture | None:
        """The logo on dark ground, where the theme has one of its own for it."""
        return self.pictures.get(self.tokens.logo_dark)


@dataclass(frozen=True, slots=True)
class Themes:
    """What the installed folders hold: themes that can be used, and why the others cannot."""

    sound: dict[str, Theme]
    broken: dict[str, list[ThemeProblem]]


def load_themes(roots: Iterable[Path]) -> Themes:
    """Load every theme below ``roots``, by slug. A broken one is left out and does no harm to the others.

    A root that does not exist is a ``ConfigurationError``.
    """
    sound: dict[str, Theme] = {}
    broken: dict[str, list[ThemeProblem]] = {}
    seen: dict[str, Path] = {}
    for root in roots:
        for folder in _folders(root):
            theme, problems = check_theme(folder)
            slug = folder.name
            if slug in seen:
                problems = [ThemeProblem(str(folder), "", f"the slug {slug} a second time", f"one: {seen[slug]}")]
                sound.pop(slug, None)
                theme = None
            seen.setdefault(slug, folder)
            if theme is None or slug in broken:
                broken[slug] = [*broken.get(slug, []), *problems]
            else:
                sound[slug] = theme
    return Themes(sound, broken)


def check_theme(folder: Path) -> tuple[Theme | None, list[ThemeProblem]]:
    """Read one theme; return it if it can be used, and everything that is wrong with it."""
    slug = folder.resolve().name
    problems: list[ThemeProblem] = []
    if SLUG.fullmatch(slug) is None:
        problems.append(
            ThemeProblem(str(folder), "", shown(slug), "a folder name of lower-case letters, digits, dashes")
        )
    about = TomlFile(folder / "theme.toml", str(folder / "theme.toml"))
    title = description = ""
    if not about.problems:
        about.only(about.data, ("title", "description"))
        title, description = about.text("title"), about.text("description")
    tokens, wrong = check_tokens(folder / "tokens.toml", str(folder / "tokens.toml"))
    pictures, unfit = _pictures(folder / "static")
    partials, unsafe = _partials(folder / "templates")
    problems += [*about.problems, *wrong, *unfit, *unsafe]
    if tokens is not None:
        problems += _missing_logos(tokens, pictures, folder)
    if tokens is None or problems:
        return None, problems
    css = css_variables(tokens)
    return Theme(slug, title, description, tokens, folder, partials, pictures, css, _digest(css.encode())), []


def environment(
    core_templates: Path, theme: Theme | None = None, picture_url: Callable[[Picture], str] | None = None
) -> Environment:
    """Build a template environment: the partials of ``theme`` first, then the core's templates.

    Each theme needs one of its own, made once: templates are cached by name, so a shared one would show one tenant's
    template to another. In a theme's templates, ``theme_file("name.png")`` is the URL of one of its pictures.
    """
    core = FileSystemLoader(core_templates)
    made = Environment(
        loader=core if theme is None else ChoiceLoader([DictLoader(theme.partials), core]),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        extensions=["jinja2.ext.i18n"],
        bytecode_cache=_COMPILED,
    )
    made.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]
    made.globals.update(spoken=spoken, direction=direction, languages=LANGUAGES)
    if theme is not None and picture_url is not None:
        pictures, url = theme.pictures, picture_url
        made.globals["theme_file"] = lambda name: url(pictures[name])
    return made


class _Compiled(BytecodeCache):
    """Compiled templates, by name and source: themes share the core's, which is compiled once and not per theme."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill in what is known of a template; Jinja compiles it where nothing is."""
        bucket.code = self._known.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what Jinja compiled."""
        if bucket.code is not None:
            self._known[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _Compiled()


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise ConfigurationError(f"{root}: this theme folder does not exist.")
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._")


def _missing_logos(tokens: Tokens, pictures: Mapping[str, Picture], folder: Path) -> list[ThemeProblem]:
    named = (("logo", tokens.logo), ("logo_dark", tokens.logo_dark))
    found = [(key, name) for key, name in named if name and name not in pictures]
    problems = [
        ThemeProblem(str(folder / "tokens.toml"), key, shown(name), f"a picture {folder / 'static' / name}")
        for key, name in found
    ]
    if tokens.logo_dark and not tokens.logo:
        problems.append(ThemeProblem(str(folder / "tokens.toml"), "logo", "nothing", "a logo, as logo_dark has one"))
    return problems


def _pictures(folder: Path) -> tuple[dict[str, Picture], list[ThemeProblem]]:
    """Read what a theme serves: PNG files right in ``static/``, none of them a link to elsewhere."""
    pictures: dict[str, Picture] = {}
    problems = []
    for path in _files(folder):
        try:
            if path.parent != folder or path.is_symlink() or not PICTURE_NAME.fullmatch(path.name):
                raise ValueError(shown(path.relative_to(folder).as_posix()))
            made = reencode(path.read_bytes())
            pictures[path.name] = Picture(path.name, made.data, made.width, made.height, _digest(made.data))
        except (ValueError, OSError) as error:
            expected = "a PNG file named such as logo.png, up to 512 KiB and 2000 × 2000 pixels, not interlaced"
            problems.append(ThemeProblem(str(path), "", str(error), expected))
    return pictures, problems


def _partials(folder: Path) -> tuple[dict[str, str], list[ThemeProblem]]:
    partials: dict[str, str] = {}
    problems = []
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not re.fullmatch(r"partials/[a-z][a-z0-9_]*\.html", name):
            problems.append(ThemeProblem(str(path), "", shown(name), "templates right in partials/, named x.html"))
            continue
        try:
            partials[name] = _partial(path)
        except (OSError, ValueError) as error:
            problems.append(ThemeProblem(str(path), "", shown(str(error)), "a template in UTF-8, up to 64 KiB"))
            continue
        problems += [ThemeProblem(str(path), "", *finding) for finding in check_partial(partials[name])]
    return partials, problems


def _partial(path: Path) -> str:
    data = path.read_bytes()
    if len(data) > MAX_PARTIAL:
        raise ValueError(f"{len(data) // 1024} KiB")
    return data.decode("utf-8")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir() and path.name != ".keep")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
