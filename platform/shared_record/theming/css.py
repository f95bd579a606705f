"""Write tokens as the custom properties that the one stylesheet of pages reads."""

from __future__ import annotations

from dataclasses import fields

from shared_record.theming.colours import Palette
from shared_record.theming.tokens import Density, FontStack, Labels, Radius, Rules, Scheme, Tokens, TotalWeight

# ``system-ui`` is left out: on Linux and on CJK Windows it is often a poorly spaced face.
_FONTS = {
    FontStack.SYSTEM: '-apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", '
    '"Liberation Sans", Arial, sans-serif',
    FontStack.HUMANIST: 'Seravek, "Gill Sans Nova", Ubuntu, Calibri, Cantarell, "Source Sans 3", "DejaVu Sans", '
    "Verdana, sans-serif",
    FontStack.SERIF: '"Iowan Old Style", Charter, "Bitstream Charter", "Sitka Text", Cambria, "Source Serif 4", '
    '"Liberation Serif", "Times New Roman", serif',
    FontStack.MONO: 'ui-monospace, "SF Mono", "Cascadia Code", Menlo, Consolas, "DejaVu Sans Mono", monospace',
}
# Faces with a small x-height are set larger, so that all themes read as the same size.
_SCALES = {FontStack.SYSTEM: "100%", FontStack.HUMANIST: "100%", FontStack.SERIF: "112.5%", FontStack.MONO: "93.75%"}
_RADII = {Radius.NONE: "0", Radius.SMALL: "0.25rem", Radius.LARGE: "0.75rem"}
_WEIGHTS = {TotalWeight.LIGHT: "300", TotalWeight.REGULAR: "400", TotalWeight.SEMIBOLD: "600"}
# The line, never lower than what a finger can hit (WCAG 2.2, 2.5.8), and what stands above and below a row.
_LINES = {
    Density.COMPACT: ("max(1.5rem,24px)", "0.375rem"),
    Density.REGULAR: ("max(1.5rem,24px)", "0.75rem"),
    Density.AIRY: ("max(1.75rem,24px)", "0.875rem"),
}
# Between rows, around tables and above the footer.
_RULES = {
    Rules.HAIRLINE: ("1px solid var(--hairline)", "1px solid var(--hairline)"),
    Rules.INK: ("1px solid var(--hairline)", "1px solid var(--text)"),
    Rules.BARE: ("1px solid transparent", "1px solid var(--hairline)"),
}
# Small capitals are as high as small letters, so their size is that of text.
_CAPS = {Labels.PLAIN: ("normal", "0", "var(--small)"), Labels.SMALL_CAPS: ("all-small-caps", "0.06em", "1rem")}


def css_variables(tokens: Tokens) -> str:
    """Write ``tokens`` as the custom properties that ``record.css`` reads."""
    first = tokens.dark if tokens.scheme is Scheme.DARK else tokens.light
    rules = [_rule([f"color-scheme:{tokens.scheme}", *_shapes(tokens), *_colours(first)])]
    if tokens.scheme is Scheme.BOTH:
        rules.append(f"@media (prefers-color-scheme:dark){{{_rule(_colours(tokens.dark))}}}")
    rules.append(f"@media print{{{_rule(['color-scheme:light', *_colours(tokens.light)])}}}")
    return "\n".join(rules) + "\n"


def _shapes(tokens: Tokens) -> list[str]:
    row, frame = _RULES[tokens.rules]
    line, row_space = _LINES[tokens.density]
    caps, spacing, label = _CAPS[tokens.labels]
    return [
        f"--font:{_FONTS[tokens.font]}",
        f"--scale:{_SCALES[tokens.font]}",
        f"--radius:{_RADII[tokens.radius]}",
        f"--total-weight:{_WEIGHTS[tokens.total_weight]}",
        f"--line:{line}",
        f"--row:{row_space}",
        f"--row-rule:{row}",
        f"--frame-rule:{frame}",
        f"--caps:{caps}",
        f"--caps-spacing:{spacing}",
        f"--label:{label}",
    ]


def _colours(palette: Palette) -> list[str]:
    return [f"--{one.name.replace('_', '-')}:{getattr(palette, one.name)}" for one in fields(Palette)]


def _rule(declarations: list[str]) -> str:
    return f":root{{{';'.join(declarations)}}}"
