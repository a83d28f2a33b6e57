"""Formulas as MathML, and numbers kept with their units, while the site is built: without scripts or a network.

The pages write TeX between dollars and in blocks of ``math``, which GitHub renders too; arithmatex finds it,
latex2mathml converts it.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_page_content(content: str, **_: object) -> str:
    def formula(found: re.Match[str]) -> str:
        tag, tex = found.groups()
        made = convert(html.unescape(tex).strip(), display="block" if tag == "div" else "inline")
        return f'<{tag} class="formula">{made}</{tag}>'

    return re.sub(r"(?<=\d) (?=%)|(?<=±) ", "\N{NO-BREAK SPACE}", FORMULA.sub(formula, content))
