"""Recipes and rows that a stranger may write: each is read, or refused in a sentence; none ends in a traceback or hangs.

`python -m nait_assets_tests.bad_inputs` tries all of them and prints how many were what.
"""

# ruff: noqa: E501  inputs stand as they are written

import contextlib
import io
import json
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml

from nait_assets.corpora.corpus import read_corpus
from nait_assets.errors import UserError
from nait_assets.recipe import POOL, load_recipe

Outcome = Literal["read", "rejected", "refused"]
SECONDS = 20
BASE: dict[str, Any] = {
    "name": "tiny",
    "model": {"source": "model"},
    "candidates": {"source": "pool.jsonl"},
    "capabilities": {"math": {"source": "math.jsonl"}},
    "methods": ["random"],
    "ratios": [0.5],
}
ROW = {"messages": [{"role": "user", "content": "add two"}, {"role": "assistant", "content": "sum"}]}
LONG = "a" * 300
BOMB = (
    "["
    + ", ".join(
        ["&a0 [x, x, x, x, x, x, x, x, x]"] + [f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    )
    + "]"
)
DEEP_TEMPLATE = "{{ " + "(" * 3000 + "q" + ")" * 3000 + " }}"


def with_fields(**fields: Any) -> str:
    """The text of a recipe with some fields replaced."""
    return yaml.safe_dump({**BASE, **fields}, allow_unicode=True)


def with_line(name: str, written: str) -> str:
    """The text of a recipe with a field as it is written."""
    return yaml.safe_dump({key: value for key, value in BASE.items() if key != name}) + f"{name}: {written}\n"


def with_template(template: str) -> str:
    """The text of a recipe whose pool is read by a template."""
    return with_fields(candidates={"source": "pool.jsonl", "format": {"user": template, "assistant": "a"}})


def with_source(**fields: Any) -> str:
    """The text of a recipe whose pool has some fields."""
    return with_fields(candidates={"source": "pool.jsonl", **fields})


RECIPES: dict[str, tuple[str | bytes, Outcome]] = {
    "as it should be": (with_fields(), "read"),
    "empty": ("", "refused"),
    "a word": ("recipe", "refused"),
    "a list": ("[1, 2]", "refused"),
    "a number": ("5", "refused"),
    "null": ("null", "refused"),
    "not UTF-8": (b"name: \xff\xfe", "refused"),
    "UTF-16": ("name: tiny".encode("utf-16"), "refused"),
    "NUL in the file": (b"name: a\0b", "refused"),
    "tabs": ("name:\n\t- a", "refused"),
    "two documents": (with_fields() + "---\nname: b\n", "refused"),
    "unclosed quote": ("name: 'tiny", "refused"),
    "unclosed bracket": ("name: [tiny", "refused"),
    "5,000 brackets": ("name: " + "[" * 5000, "refused"),
    "5,000 closed brackets": ("name: " + "[" * 5000 + "]" * 5000, "refused"),
    "5,000 braces": ("name: " + "{a: " * 5000 + "}" * 5000, "refused"),
    "5,000 levels of indentation": ("\n".join(" " * n + "a:" for n in range(1500)), "refused"),
    "100 levels": ("name: " + "[" * 100 + "]" * 100, "refused"),
    "Python object": ("name: !!python/object/apply:os.system ['true']", "refused"),
    "Python name": ("name: !!python/name:os.system", "refused"),
    "unknown tag": ("name: !secret x", "refused"),
    "binary": (with_line("name", "!!binary aGVsbG8="), "read"),
    "set": (with_line("name", "!!set {a, b}"), "refused"),
    "bad int": (with_line("seed", '!!int "abc"'), "refused"),
    "bad float": (with_line("max_rejected", '!!float "abc"'), "refused"),
    "bad bool": (with_line("seed", '!!bool "abc"'), "refused"),
    "bad timestamp": (with_line("name", '!!timestamp "abc"'), "refused"),
    "bad binary": (with_line("name", '!!binary "a"'), "refused"),
    "month 13": (with_line("name", "2024-13-45"), "refused"),
    "hour 99": (with_line("name", "2024-01-01T99:99:99Z"), "refused"),
    "a date as name": (with_line("name", "2024-01-01"), "refused"),
    "5,000 digits": (with_line("seed", "9" * 5000), "refused"),
    "hexadecimal of 5,000 digits": (with_line("seed", "0x" + "f" * 5000), "refused"),
    "seed of 100 digits": (with_line("seed", "9" * 100), "refused"),
    "seed of 64 bits": (with_line("seed", str(2**63)), "refused"),
    "largest seed": (with_line("seed", str(2**63 - 1)), "read"),
    "negative seed": (with_line("seed", "-1"), "read"),
    "sexagesimal seed": (with_line("seed", "1:" * 400 + "1"), "refused"),
    "seed is a float": (with_line("seed", "1.5"), "refused"),
    "seed is infinite": (with_line("seed", ".inf"), "refused"),
    "seed is not a number": (with_line("seed", ".nan"), "refused"),
    "seed is a word": (with_line("seed", "many"), "refused"),
    "share is not a number": (with_line("max_rejected", ".nan"), "refused"),
    "share is infinite": (with_line("max_rejected", ".inf"), "refused"),
    "share above 1": (with_line("max_rejected", "1.1"), "refused"),
    "ratio is not a number": (with_line("ratios", "[.nan]"), "refused"),
    "ratio is infinite": (with_line("ratios", "[.inf]"), "refused"),
    "ratio of 1e999": (with_line("ratios", "[1e999]"), "refused"),
    "ratio of 0": (with_line("ratios", "[0]"), "refused"),
    "ratio of many digits": (with_line("ratios", "['0." + "1" * 5000 + "']"), "refused"),
    "ratio with an exponent": (with_line("ratios", "['1e-999999999']"), "refused"),
    "ratio with a large exponent": (with_line("ratios", "['1e999999999']"), "refused"),
    "ratio is true": (with_line("ratios", "[true]"), "refused"),
    "ratio is a mapping": (with_line("ratios", "[{a: 1}]"), "refused"),
    "ratios is a number": (with_line("ratios", "0.5"), "refused"),
    "no ratios": (with_line("ratios", "[]"), "refused"),
    "anchors in the name": (with_line("name", BOMB), "refused"),
    "anchors in methods": (with_line("methods", BOMB), "refused"),
    "anchors in ratios": (with_line("ratios", BOMB), "refused"),
    "anchors in the definitions": (with_fields() + f"definitions: {BOMB}\n", "refused"),
    "anchors in a mapping": (
        with_fields()
        + "definitions:\n  a: &a {x: 1}\n"
        + "".join(
            f"  {b}: &{b} {{{', '.join(f'k{n}: *{a}' for n in range(9))}}}\n"
            for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
        ),
        "refused",
    ),
    "merged anchors": (
        with_fields()
        + "definitions:\n  a: &a {x: 1}\n"
        + "".join(
            f"  {b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n"
            for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
        ),
        "refused",
    ),
    "anchor of itself": (with_line("name", "&a [*a]"), "refused"),
    "anchor of itself, merged": (with_fields() + "definitions: &a {<<: *a}\n", "refused"),
    "unknown anchor": (with_line("name", "*b"), "refused"),
    "anchor that is used": (with_fields() + "definitions: {s: &s {source: pool.jsonl}}\n", "read"),
    "key is a list": (with_fields() + "? [a, b]\n: 1\n", "refused"),
    "key is a mapping": (with_fields() + "? {a: b}\n: 1\n", "refused"),
    "key is null": (with_fields() + "null: 1\n", "refused"),
    "key is a number": (with_fields() + "5: 1\n", "refused"),
    "key written twice": (with_fields() + "name: b\n", "refused"),
    "unknown field": (with_fields(colour="red"), "refused"),
    "unknown field of 1 MB": (with_fields(**{"a" * 1_000_000: 1}), "refused"),
    "1,000 unknown fields": (with_fields(**{f"field{n}": n for n in range(1000)}), "refused"),
    "path": (with_fields(path="/etc"), "refused"),
    "dunder field": (with_fields(__class__="x"), "refused"),
    "no name": (yaml.safe_dump({k: v for k, v in BASE.items() if k != "name"}), "refused"),
    "name of 300 letters": (with_fields(name=LONG), "refused"),
    "name of 1 MB": (with_fields(name="a" * 1_000_000), "refused"),
    "name with a slash": (with_fields(name="../x"), "refused"),
    "name with a line feed": (with_fields(name="a\n"), "refused"),
    "name with NUL": (with_line("name", '"a\\0b"'), "refused"),
    "name with a surrogate": (with_line("name", '"a\\ud800"'), "refused"),
    "name with ESC": (with_line("name", '"\\e[2J"'), "refused"),
    "name is a mapping": (with_fields(name={"a": 1}), "refused"),
    "name is null": (with_fields(name=None), "refused"),
    "name is true": (with_fields(name=True), "refused"),
    "capability of 300 letters": (with_fields(capabilities={LONG: {"source": "math.jsonl"}}), "refused"),
    "capability with a slash": (with_fields(capabilities={"../x": {"source": "math.jsonl"}}), "refused"),
    "capability with a dot": (with_fields(capabilities={".": {"source": "math.jsonl"}}), "refused"),
    "capability is a number": (with_fields(capabilities={5: {"source": "math.jsonl"}}), "refused"),
    "capability is empty": (with_fields(capabilities={"": {"source": "math.jsonl"}}), "refused"),
    "capability all": (with_fields(capabilities={"all": {"source": "math.jsonl"}}), "refused"),
    "capability with a surrogate": (with_line("capabilities", '{"a\\udfff": {source: math.jsonl}}'), "refused"),
    "capabilities is a list": (with_fields(capabilities=[1]), "refused"),
    "capabilities is a text": (with_fields(capabilities="math"), "refused"),
    "no capabilities": (with_fields(capabilities={}), "refused"),
    "2,000 capabilities": (with_fields(capabilities={f"c{n}": {"source": "math.jsonl"} for n in range(2000)}), "read"),
    "held-out set of 300 letters": (with_fields(evaluation={"held_out": {LONG: {"source": "math.jsonl"}}}), "refused"),
    "published list of 300 letters": (with_fields(published={LONG: {"source": "math.jsonl"}}), "refused"),
    "published list with a slash": (with_fields(published={"a/b": {"source": "math.jsonl"}}), "refused"),
    "unknown method": (with_fields(methods=["magic"]), "refused"),
    "method of 1 MB": (with_fields(methods=["a" * 1_000_000]), "refused"),
    "method is a mapping": (with_fields(methods=[{"a": 1}]), "refused"),
    "10,000 methods": (with_fields(methods=["random"] * 10_000), "refused"),
    "methods is a text": (with_fields(methods="random"), "refused"),
    "source with NUL": (with_line("candidates", '{source: "a\\0.jsonl"}'), "refused"),
    "source with a surrogate": (with_line("candidates", '{source: "a\\ud800.jsonl"}'), "refused"),
    "source of nobody": (with_source(source="~nobody_at_all/x.jsonl"), "refused"),
    "source of 300 letters": (with_source(source=f"{LONG}.jsonl"), "refused"),
    "source of 5,000 letters": (with_source(source="a" * 5000), "refused"),
    "source of 5,000 folders": (with_source(source="a/" * 5000 + "b.jsonl"), "refused"),
    "source with a line feed": (with_source(source="a\nb.jsonl"), "refused"),
    "source with ESC": (with_source(source="\x1b[2J.jsonl"), "refused"),
    "source is empty": (with_source(source=""), "refused"),
    "source is a dot": (with_source(source="."), "read"),
    "source is the root": (with_source(source="/dev/null"), "refused"),
    "source is a number": (with_source(source=5), "refused"),
    "source is null": (with_source(source=None), "refused"),
    "source is an empty list": (with_source(source=[]), "refused"),
    "source is a list of lists": (with_source(source=[["a"]]), "refused"),
    "source is the hub": (with_source(source="hub:"), "refused"),
    "source is the hub with blanks": (with_source(source="hub: a b"), "refused"),
    "source is the hub with dots": (with_source(source="hub:../../x"), "refused"),
    "source is the hub with three parts": (with_source(source="hub:a/b/c"), "refused"),
    "source is the hub, 300 letters": (with_source(source=f"hub:{LONG}"), "refused"),
    "source of an unknown protocol": (with_source(source="nosuch://x/y.jsonl"), "refused"),
    "source with an unset variable": (with_source(source="${NO_SUCH_VARIABLE}/x.jsonl"), "refused"),
    "source with many stars": (with_source(source="*" * 30 + ".jsonl"), "refused"),
    "source with stars between letters": (with_source(source="*o" * 12 + "*.jsonl"), "refused"),
    "source with brackets": (with_source(source="pool[1].jsonl"), "refused"),
    "source in a file": (with_source(source="pool.jsonl/x"), "refused"),
    "no source": (with_fields(candidates={"format": "messages"}), "refused"),
    "candidates is a list": (with_fields(candidates=[]), "refused"),
    "candidates is a text": (with_fields(candidates="pool.jsonl"), "refused"),
    "unknown format": (with_source(format="xml"), "refused"),
    "format is a number": (with_source(format=5), "refused"),
    "format is an empty mapping": (with_source(format={}), "refused"),
    "turns in no column": (with_source(format={"turns": "nothing"}), "refused"),
    "unknown encoding": (with_source(encoding="klingon"), "refused"),
    "encoding with NUL": (with_line("candidates", '{source: pool.jsonl, encoding: "a\\0"}'), "refused"),
    "encoding that is no text's": (with_source(encoding="zlib"), "refused"),
    "encoding that is no characters'": (with_source(encoding="base64"), "refused"),
    "encoding of names": (with_source(encoding="idna"), "refused"),
    "limit of 0": (with_source(limit=0), "refused"),
    "limit that is negative": (with_source(limit=-1), "refused"),
    "limit that is huge": (with_source(limit=2**62), "read"),
    "skip that is huge": (with_source(skip=2**62), "refused"),
    "where that nothing meets": (with_source(where={"topic": "none"}), "refused"),
    "where with a list": (with_source(where={"topic": [1]}), "refused"),
    "topic of 1 MB": (with_source(topic="a" * 1_000_000), "read"),
    "topic with ESC": (with_line("candidates", '{source: pool.jsonl, topic: "\\e]0;x\\a\\r\\n"}'), "read"),
    "topic and topic_field": (with_source(topic="a", topic_field="b"), "refused"),
    "role that is unknown": (with_source(roles={"narrator": "king"}), "refused"),
    "delimiter of two letters": (with_source(csv={"delimiter": ";;"}), "refused"),
    "layers of -1": (with_fields(extraction={"layers": [-1]}), "refused"),
    "layers are none": (with_fields(extraction={"layers": []}), "refused"),
    "max_tokens of 1": (with_fields(extraction={"max_tokens": 1}), "refused"),
    "max_tokens is infinite": (with_line("extraction", "{max_tokens: .inf}"), "refused"),
    "projection is huge": (with_fields(extraction={"projection": 2**40}), "refused"),
    "revision without a hub": (with_fields(model={"source": "model", "revision": "a"}), "refused"),
    "hub without a revision": (with_fields(model={"source": "hub:a/b"}), "refused"),
    "model is the hub": (with_fields(model={"source": "hub:", "revision": "a"}), "refused"),
    "model is a text": (with_fields(model="m"), "refused"),
    "template is no template": (with_template("{% if %}"), "refused"),
    "template with an unknown filter": (with_template("{{ q | nosuch }}"), "refused"),
    "template of 3,000 brackets": (with_template(DEEP_TEMPLATE), "refused"),
    "template of 200 ifs": (with_template("{% if q %}" * 200 + "{% endif %}" * 200), "refused"),
    "template of 1 MB": (with_template("x" * 1_000_000), "refused"),
    "template with a large number": (with_template("{{ " + "9" * 5000 + " }}"), "refused"),
    "template with a power": (with_template("{{ 10 ** (10 ** 8) }}"), "refused"),
    "template with a power of texts": (with_template("{{ 'a' * 10 ** 10 }}"), "refused"),
    "template with loops": (
        with_template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        "refused",
    ),
    "template with lipsum": (with_template("{{ lipsum(n=10 ** 6) }}"), "refused"),
    "template with recursion": (with_template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), "refused"),
    "template that escapes": (with_template("{{ q.__class__.__mro__ }}"), "refused"),
    "template that includes": (with_template("{% include '/etc/passwd' %}"), "refused"),
    "template that imports": (with_template("{% from 'os' import system %}{{ system('true') }}"), "refused"),
    "template with a generator": (with_template("{{ messages | map('length') }}"), "refused"),
    "template with dictsort of text": (with_template("{{ messages[0].content | dictsort }}"), "refused"),
    "template with xmlattr of text": (with_template("{{ messages[0].content | xmlattr }}"), "refused"),
    "template with the wrong type": (with_template("{{ messages + 1 }}"), "refused"),
    "template that divides by zero": (with_template("{{ 1 // 0 }}"), "refused"),
    "template that prints nothing": (with_template(""), "refused"),
    "template that is a list": (
        with_fields(candidates={"source": "pool.jsonl", "format": {"user": ["a"], "assistant": "a"}}),
        "refused",
    ),
}


def rows(*lines: Any) -> bytes:
    """A file of JSON lines behind a good row: text as it stands, else as JSON."""
    written = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    return b"\n".join([json.dumps(ROW).encode(), *written]) + b"\n"


def turns(*contents: Any, role: Any = "user") -> dict[str, Any]:
    """A row with these contents as a user's, and a response."""
    return {"messages": [*({"role": role, "content": one} for one in contents), {"role": "assistant", "content": "a"}]}


NEST = "[" * 100_000
ROWS: dict[str, tuple[bytes, Outcome]] = {
    "no JSON": (rows("{"), "rejected"),
    "a number": (rows("5"), "rejected"),
    "null": (rows("null"), "rejected"),
    "a list": (rows("[1]"), "rejected"),
    "an empty object": (rows("{}"), "rejected"),
    "NaN": (rows('{"messages": NaN}'), "rejected"),
    "infinity": (rows('{"messages": Infinity}'), "rejected"),
    "100,000 brackets": (rows(NEST), "rejected"),
    "100,000 brackets in a field": (rows('{"messages": ' + NEST), "rejected"),
    "900 levels in a field": (rows('{"messages": ' + "[" * 900 + "]" * 900 + "}"), "rejected"),
    "900 levels beside the messages": (rows(json.dumps(ROW)[:-1] + ', "x": ' + "[" * 900 + "]" * 900 + "}"), "read"),
    "900 levels in a message": (
        rows(
            '{"messages": [{"role": "user", "content": "b", "x": '
            + "[" * 900
            + "]" * 900
            + '}, {"role": "assistant", "content": "a"}]}'
        ),
        "rejected",
    ),
    "900 levels in tools": (
        rows(
            '{"tools": '
            + "[" * 900
            + "]" * 900
            + ', "messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "a"}]}'
        ),
        "rejected",
    ),
    "JSON text of 100,000 brackets": (rows({"messages": NEST}), "rejected"),
    "tools of 100,000 brackets": (rows({**turns("d"), "tools": NEST}), "read"),
    "5,000 digits": (rows('{"messages": ' + "9" * 5000 + "}"), "rejected"),
    "5,000 digits as text": (rows({"messages": "9" * 5000}), "rejected"),
    "not UTF-8": (rows(b'{"messages": "\xff"}'), "rejected"),
    "NUL": (rows(b'{"messages": "\0"}'), "rejected"),
    "NUL in a text": (rows(turns("a\0b")), "read"),
    "lone surrogate": (
        rows('{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "a"}]}'),
        "rejected",
    ),
    "lone surrogate as a role": (rows('{"messages": [{"role": "\\ud800", "content": "a"}]}'), "rejected"),
    "lone surrogate as a key": (
        rows('{"messages": [{"role": "user", "content": "e", "\\ud800": 1}, {"role": "assistant", "content": "a"}]}'),
        "rejected",
    ),
    "lone surrogate in a column": (rows(json.dumps(turns("f"))[:-1] + ', "\\ud800": 1}'), "read"),
    "lone surrogate in tools": (rows(json.dumps(turns("g"))[:-1] + ', "tools": "\\ud800"}'), "rejected"),
    "ESC": (rows(turns("\x1b[2J\x1b]0;x\x07")), "read"),
    "bidi": (rows(turns("\u202e\u2066x\u2069")), "read"),
    "role of 1 MB": (rows(turns("a", role="x" * 1_000_000)), "rejected"),
    "role is a list": (rows(turns("a", role=[1])), "rejected"),
    "role is a mapping": (rows(turns("a", role={})), "rejected"),
    "role is null": (rows(turns("a", role=None)), "rejected"),
    "role is true": (rows(turns("a", role=True)), "rejected"),
    "role with a link": (rows(turns("a", role="![x](http://attacker.example/x.png)")), "rejected"),
    "role with ESC": (rows(turns("a", role="\x1b[2J")), "rejected"),
    "content is a number": (rows(turns(5)), "rejected"),
    "content is a mapping": (rows(turns({"a": 1})), "rejected"),
    "content is empty": (rows(turns("")), "rejected"),
    "content is blank": (rows(turns(" \n\t\u3000")), "rejected"),
    "content is null": (rows(turns(None)), "rejected"),
    "content is a list of numbers": (rows(turns([1])), "rejected"),
    "content is an image": (rows(turns([{"type": "image_url", "image_url": {}}])), "rejected"),
    "content of 2 MB": (rows(turns("b" * 2_000_000)), "read"),
    "10,000 turns": (rows(turns(*(str(n) for n in range(10_000)))), "read"),
    "10,000 keys": (rows({**turns("h"), **{f"k{n}": n for n in range(10_000)}}), "read"),
    "no response": (rows({"messages": [{"role": "user", "content": "a"}]}), "rejected"),
    "no messages": (rows({"messages": []}), "rejected"),
    "messages is a text": (rows({"messages": "hello"}), "rejected"),
    "messages is a number": (rows({"messages": 5}), "rejected"),
    "messages is a list of texts": (rows({"messages": ["a", "b"]}), "rejected"),
    "messages of unequal length": (rows({"messages": {"role": ["user"], "content": ["a", "b"]}}), "rejected"),
    "two system prompts": (rows({**turns("i"), "system": "a", "system_prompt": "b"}), "rejected"),
    "tool calls that are no JSON": (
        rows(
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": "{x"}]}
        ),
        "rejected",
    ),
    "tool calls that are a number": (
        rows({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "j", "tool_calls": 5}]}),
        "read",
    ),
    "tool call without a name": (
        rows(
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "k", "tool_calls": [{}]}]}
        ),
        "read",
    ),
    "weight is a text": (
        rows({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "l", "weight": "much"}]}),
        "read",
    ),
    "weight is infinite": (
        rows(
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "m", "weight": 1e999}]}'
        ),
        "read",
    ),
    "weight is a list": (
        rows({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "n", "weight": [1]}]}),
        "read",
    ),
    "history is a text": (rows({**turns("o"), "history": "x"}), "read"),
    "key written twice": (
        rows('{"messages": [], "messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]}'),
        "rejected",
    ),
}
FILES: dict[str, tuple[str, bytes, str, Outcome]] = {
    "empty file": ("pool.jsonl", b"", "messages", "refused"),
    "blank file": ("pool.jsonl", b"\n\n \n", "messages", "refused"),
    "byte order mark alone": ("pool.jsonl", b"\xef\xbb\xbf", "messages", "refused"),
    "zeros": ("pool.jsonl", b"\0" * 10_000, "messages", "refused"),
    "gzip in name alone": ("pool.jsonl.gz", b"hello", "messages", "refused"),
    "cut gzip": ("pool.jsonl.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "messages", "refused"),
    "Parquet in name alone": ("pool.parquet", b"hello", "messages", "refused"),
    "Parquet without an end": ("pool.parquet", b"PAR1" + b"\xff" * 100, "messages", "refused"),
    "Parquet with a large footer": (
        "pool.parquet",
        b"PAR1" + b"\0" * 20 + b"\xff\xff\xff\x7fPAR1",
        "messages",
        "refused",
    ),
    "Arrow in name alone": ("pool.arrow", b"hello", "messages", "refused"),
    "Arrow without an end": ("pool.arrow", b"ARROW1\0\0" + b"\xff" * 100, "messages", "refused"),
    "a JSON list that is not closed": ("pool.json", b"[" + json.dumps(ROW).encode(), "messages", "refused"),
    "a JSON list of brackets": ("pool.json", b"[" * 100_000, "messages", "refused"),
    "a JSON list of numbers": ("pool.json", b"[1, 2]", "messages", "refused"),
    "a JSON object": ("pool.json", b'{"data": []}', "messages", "refused"),
    "a web page": ("pool.jsonl", b"<!DOCTYPE html><html>", "messages", "refused"),
    "a ZIP archive": ("pool.jsonl", b"PK\x03\x04" + b"\0" * 100, "messages", "refused"),
    "a Git LFS pointer": ("pool.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "messages", "refused"),
    "CSV of one line": ("pool.csv", b"instruction,output\n", "alpaca", "refused"),
    "CSV with an open quote": ("pool.csv", b'instruction,input,output\na,,b\n"c,,d\ne,,f\n', "alpaca", "refused"),
    "CSV with a column twice": ("pool.csv", b"instruction,input,output,output\na,,b,c\n", "alpaca", "refused"),
    "CSV with too many fields": ("pool.csv", b"instruction,input,output\na,,b\nc,,d,e\n", "alpaca", "rejected"),
    "CSV with a field of 200 kB": (
        "pool.csv",
        b"instruction,input,output\na,,b\n" + b"x" * 200_000 + b",,d\n",
        "alpaca",
        "read",
    ),
    "CSV with NUL": ("pool.csv", b"instruction,input,output\na,,b\nc\0,,d\n", "alpaca", "read"),
    "another ending": ("pool.xml", b"<a/>", "messages", "refused"),
}


@contextlib.contextmanager
def limited(seconds: int = SECONDS) -> Iterator[None]:
    """A block that ends in TimeoutError where it takes too long."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(folder: Path) -> tuple[Outcome, str]:
    """What becomes of the recipe in a folder and its pool, and what is said."""
    try:
        read = read_corpus(load_recipe(folder / "recipe.yaml"), POOL)
    except UserError as error:
        return "refused", str(error)
    reasons = read.rejected["reason"].to_list()
    return ("rejected" if reasons else "read"), "; ".join(reasons)


def of_recipe(folder: Path, name: str) -> tuple[Outcome, str]:
    """What becomes of a recipe of `RECIPES`."""
    text = RECIPES[name][0]
    (folder / "pool.jsonl").write_bytes(rows())
    (folder / "recipe.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return outcome(folder)


def of_rows(folder: Path, name: str) -> tuple[Outcome, str]:
    """What becomes of a file of `ROWS`."""
    (folder / "pool.jsonl").write_bytes(ROWS[name][0])
    (folder / "recipe.yaml").write_text(with_fields())
    return outcome(folder)


def of_file(folder: Path, name: str) -> tuple[Outcome, str]:
    """What becomes of a file of `FILES`."""
    file, content, row_format, _ = FILES[name]
    (folder / file).write_bytes(content)
    (folder / "recipe.yaml").write_text(with_fields(candidates={"source": file, "format": row_format}))
    return outcome(folder)


def all_cases() -> Iterator[tuple[str, Callable[[Path], tuple[Outcome, str]], Outcome]]:
    """Name, what becomes of it in a folder, and what should."""
    for name, (_, expected) in RECIPES.items():
        yield f"recipe: {name}", lambda folder, name=name: of_recipe(folder, name), expected
    for name, (_, expected) in ROWS.items():
        yield f"row: {name}", lambda folder, name=name: of_rows(folder, name), expected
    for name, (_, _, _, expected) in FILES.items():
        yield f"file: {name}", lambda folder, name=name: of_file(folder, name), expected


def main() -> None:
    """Try all, and print how many were what."""
    counts: Counter[str] = Counter()
    for name, case, expected in all_cases():
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            try:
                with limited():
                    found, said = case(Path(folder))
            except TimeoutError:
                found, said = "hang", ""
            except Exception as error:  # noqa: BLE001  which one is what is asked
                found, said = "traceback", repr(error)
        counts[found] += 1
        if found != expected:
            print(f"{name}: {found} instead of {expected}: {said[:300]}")  # noqa: T201
    said = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    print(f"{sum(counts.values())} tried: {said}")  # noqa: T201


if __name__ == "__main__":
    main()
