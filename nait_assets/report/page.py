"""The page as text: every chart, table and script in one file, which needs no server and no network."""

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup

FOLDER = Path(__file__).parent


def render(context: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The whole page.

    Everything of `context` is escaped where it is written. No text of a candidate is ever markup: a browser runs only
    the page's own scripts, which are named by their hashes, and loads nothing from anywhere.

    Args:
        context: What `page.html` writes.
        data: What `page.js` draws: `charts`, and `table` or None.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    scripts = [_vega(), (FOLDER / "page.js").read_text(encoding="utf-8")]
    assert not any("</script" in script.lower() or "\r" in script for script in scripts)
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["prose"] = prose
    return environment.get_template("page.html").render(
        context,
        policy=content_policy(scripts),
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        data=Markup(embedded_json(data)),
    )


@functools.cache
def _vega() -> str:
    """Vega and what it needs as one script; it takes seconds to put together."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def prose(text: str) -> "Markup":
    """A sentence of ours, escaped, with what stands between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def embedded_json(value: Any) -> str:
    """JSON that may stand inside a `<script>` element: no `<` in it can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def content_policy(scripts: list[str]) -> str:
    """What a browser may do on the page: run these scripts, and nothing from anywhere else.

    Vega compiles the expressions of a chart, which is what `unsafe-eval` allows.
    """
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    names = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src 'unsafe-eval' {names}; style-src 'unsafe-inline'; img-src data: blob:"
