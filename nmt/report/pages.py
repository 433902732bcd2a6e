"""Web pages that are whole in themselves: a template of this folder, filled; what all of them have in common."""

import html
import json
import re
from importlib import resources
from typing import Any


def filled(template: str, title: str, **parts: str) -> str:
    """The template with its title, the style and script that all pages share, and `parts`, which are HTML already."""
    values = {"title": html.escape(title), "style": _read("shared.css"), "script": _read("shared.js"), **parts}
    return re.sub(r"\{\{(\w+)\}\}", lambda name: values[name[1]], _read(template))


def script_data(values: Any) -> str:
    """Values as JSON that may lie in a script: no text of a user ends it."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _read(name: str) -> str:
    return resources.files("nmt.report").joinpath(name).read_text(encoding="utf-8")
