"""HTML from Python values, in which every text is escaped unless this module made it. Pure.

Names of clusters, tables and tags come from outside. Besides what HTML escapes, control characters and the marks that
turn the direction of text are shown by their code point, so that no name can look like something else.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_EMPTY = {"br", "meta"}


@dataclass(frozen=True)
class Html:
    """Markup that is safe as it stands, because `tag` or `join` made it."""

    text: str

    def __str__(self) -> str:
        return self.text


Content = Html | str | int | float | None


def visible(text: str) -> str:
    """The text with every character that cannot be seen, or that moves others, shown by its code point."""
    return "".join(
        f"\N{MATHEMATICAL LEFT WHITE SQUARE BRACKET}U+{ord(c):04X}\N{MATHEMATICAL RIGHT WHITE SQUARE BRACKET}"
        if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        else c
        for c in text
    )


def safe(content: Content) -> Html:
    """Escape a text or a number; None is nothing."""
    if isinstance(content, Html):
        return content
    return Html("" if content is None else escape(visible(str(content)), quote=True))


def join(parts: Iterable[Content], separator: str = "") -> Html:
    """Several contents after one another."""
    return Html(safe(separator).text.join(safe(part).text for part in parts))


def tag(name: str, /, *content: Content, **attributes: str | float | None) -> Html:
    """An element. Attributes: a trailing underscore is dropped, others become hyphens; None leaves one out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{safe(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>" if name in _EMPTY else f"<{name}{given}>{join(content)}</{name}>")


def name(text: Content) -> Html:
    """A name from outside: isolated, so that its own direction of writing turns nothing around it."""
    return tag("bdi", text)


def page(title: str, style: str, *content: Content) -> str:
    """A whole document. It may load nothing and run nothing: its content security policy says so."""
    head = join(
        [
            Html('<meta charset="utf-8">'),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", title),
            Html(f"<style>{style}</style>"),
        ]
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{join(content)}</body></html>\n'
