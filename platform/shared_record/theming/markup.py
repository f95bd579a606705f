"""What a theme's partial may hold: elements that end where they began, our own texts, and no way around escaping.

A partial stands inside the page frame. One that left an element open, or opened a comment, would swallow what follows
it, and so the attribution footer; one that switched escaping off would let a vendor's data write HTML. Both are refused
when the theme is loaded, so nothing has to be looked for in pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html.parser import HTMLParser

from jinja2 import Environment, TemplateSyntaxError, nodes

_ELEMENT = re.compile(
    "a|abbr|b|bdi|bdo|br|button|caption|cite|code|col|colgroup|dd|details|dfn|div|dl|dt|em|fieldset|form|h[1-3]|header|"
    "hr|i|img|input|kbd|label|legend|li|nav|ol|p|picture|section|small|source|span|strong|sub|summary|sup|table|tbody|"
    "td|tfoot|th|thead|time|tr|u|ul|wbr"
)
_VOID = frozenset(("br", "col", "hr", "img", "input", "source", "wbr"))
_STATEMENTS = (
    nodes.Assign,
    nodes.For,
    nodes.FromImport,
    nodes.If,
    nodes.Include,
    nodes.Macro,
    nodes.Output,
    nodes.With,
)
_FILTERS = frozenset(
    ("capitalize", "default", "e", "escape", "first", "join", "last", "length", "lower", "title", "trim", "upper")
)
_TEXTS = {"_": 1, "gettext": 1, "ngettext": 2}
"""Functions whose result is taken as HTML, and how many of their first arguments are."""

_VALUE = "\ue000"
"""Stands for what an expression gives."""
_BARE_ATTRIBUTE = re.compile(r"""=\s*[^"\s]""")

Finding = tuple[str, str]
"""What was found, and what is expected."""


def check_partial(source: str) -> list[Finding]:
    """Return what keeps ``source``, a Jinja template, from being used as a partial."""
    try:
        tree = Environment(autoescape=True, extensions=["jinja2.ext.i18n"]).parse(source)
    except TemplateSyntaxError as error:
        return [(f"line {error.lineno}: {error.message}", "a Jinja template")]
    check = _Check({name for one in tree.find_all(nodes.FromImport) for name in _imported(one)})
    check.markup(check.text_of(tree.body))
    check.expressions(tree)
    return list(dict.fromkeys(check.found))


class _Check:
    """Goes through one template."""

    def __init__(self, macros: set[str]) -> None:
        self.found: list[Finding] = []
        self._macros = macros | {"theme_file", "spoken", "direction"}

    def text_of(self, body: Sequence[nodes.Node]) -> str:
        """Return the HTML of some statements, expressions as one placeholder each; every branch stands for itself."""
        parts = []
        for node in body:
            if not isinstance(node, _STATEMENTS):
                self.found.append(
                    (f"line {node.lineno}: {type(node).__name__.lower()}", "if, for, set, include, macro")
                )
            elif isinstance(node, nodes.Output):
                parts += [one.data if isinstance(one, nodes.TemplateData) else _VALUE for one in node.nodes]
            else:
                parts += [self._branch(branch) for branch in _branches(node)]
                if isinstance(node, nodes.Macro):
                    self._macros.add(node.name)
        return "".join(parts)

    def _branch(self, body: Sequence[nodes.Node]) -> str:
        text = self.text_of(body)
        if "<" in text or ">" in text:
            self.markup(text)
        if text.count('"') % 2:
            self.found.append((f"a branch that opens a quote and leaves it open: {text.strip()[:40]}", "both quotes"))
        return text

    def markup(self, text: str) -> None:
        """Check one piece of HTML that must be whole."""
        reader = _Elements()
        reader.feed(text)
        if reader.rawdata:
            reader.found.append((f"an unfinished tag {reader.rawdata[:40]}", "whole tags"))
        reader.found += [(f"<{name}> without its end", f"</{name}> in the same branch") for name in reader.open]
        self.found += reader.found

    def expressions(self, tree: nodes.Template) -> None:
        """Check everything that is worked out: nothing in it may make HTML of data."""
        for one in tree.find_all(nodes.Filter):
            if one.name not in _FILTERS:
                self.found.append(
                    (f"line {one.lineno}: the filter {one.name}", f"one of {', '.join(sorted(_FILTERS))}")
                )
        called = []
        for call in tree.find_all(nodes.Call):
            name = call.node.name if isinstance(call.node, nodes.Name) else ""
            called.append(call.node)
            if name in _TEXTS:
                self._text(call, _TEXTS[name])
            elif name not in self._macros:
                self.found.append(
                    (f"line {call.lineno}: a call of {name or 'a method'}", "_(), theme_file() or a macro")
                )
        for name_node in tree.find_all(nodes.Name):
            if name_node.name in _TEXTS and all(name_node is not one for one in called):
                self.found.append((f"line {name_node.lineno}: {name_node.name} as a value", "a call with a fixed text"))
        for got in tree.find_all(nodes.Getattr):
            if got.attr.startswith("_"):
                self.found.append((f"line {got.lineno}: .{got.attr}", "a public attribute"))

    def _text(self, call: nodes.Call, count: int) -> None:
        for argument in call.args[:count]:
            if isinstance(argument, nodes.Const) and isinstance(argument.value, str):
                self.markup(argument.value)
            else:
                self.found.append((f"line {call.lineno}: a text that is worked out", "a fixed text in quotes"))


class _Elements(HTMLParser):
    """Follows elements as they open and close."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[Finding] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raw = self.get_starttag_text() or ""
        if not _ELEMENT.fullmatch(tag):
            self.found.append(
                (f"<{tag.replace(_VALUE, '{{ … }}')}>", "an element of text, lists, tables, forms or pictures")
            )
        if tag not in _VOID:
            self.open.append(tag)
        for name, _ in attrs:
            if name == "style" or name.startswith("on") or name == "srcdoc" or _VALUE in name:
                self.found.append((f"the attribute {name.replace(_VALUE, '{{ … }}')}", "no styles, no scripts"))
        if _BARE_ATTRIBUTE.search(re.sub(r'"[^"]*"', '""', raw)):
            self.found.append((f"an attribute without double quotes in {raw[:40]}", 'attributes in double quotes (")'))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.found.append((f"<{tag}/>", f"<{tag}></{tag}>"))
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.found.append((f"</{tag}> where it was not opened", "elements that nest"))

    def handle_data(self, data: str) -> None:
        if "<" in data or ">" in data:
            self.found.append((f"a loose {'<' if '<' in data else '>'} in {data.strip()[:40]}", "&lt; or &gt;"))

    def handle_comment(self, data: str) -> None:
        self.found.append((f"an HTML comment {data.strip()[:40]}", "a Jinja comment {# … #}"))

    def handle_decl(self, decl: str) -> None:
        self.found.append((f"<!{decl[:40]}>", "no declarations"))

    def handle_pi(self, data: str) -> None:
        self.found.append((f"<?{data[:40]}>", "no processing instructions"))

    def unknown_decl(self, data: str) -> None:
        self.handle_decl(data)


def _branches(node: nodes.Node) -> Iterable[Sequence[nodes.Node]]:
    """Return the bodies of a statement, each of which may or may not be shown."""
    if isinstance(node, nodes.If):
        return [node.body, *(one.body for one in node.elif_), node.else_]
    if isinstance(node, nodes.For):
        return [node.body, node.else_]
    if isinstance(node, nodes.Macro | nodes.With):
        return [node.body]
    return []


def _imported(node: nodes.FromImport) -> set[str]:
    return {name if isinstance(name, str) else name[1] for name in node.names}
