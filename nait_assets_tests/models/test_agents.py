"""Calls, tools, reasoning and weights before a model: shown where the template takes them, learnt where they should."""

import json
from typing import Any

import pytest

from nait_assets.conversation import Conversation
from nait_assets.models.answers import encode_with_answers
from nait_assets.models.encoding import encode
from nait_assets.models.rendering import Renderer
from nait_assets.models.spans import response_spans
from nait_assets_tests.models.test_encoding import reading

TEMPLATE = (
    "{% for t in tools or [] %}<tool>{{ t.function.name }}</tool>{% endfor %}"
    "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>"
    "{% endif %}{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}</call>{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CALL = {"id": "c1", "function": {"name": "look", "arguments": '{"q": 1}'}}
AGENT = Conversation(
    Conversation.of(
        [
            {"role": "user", "content": "the cat"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "a mat", "tool_call_id": "c1"},
            {"role": "assistant", "content": "on a mat", "thinking": "two dogs"},
        ]
    ).messages,
    json.dumps([{"name": "look", "parameters": {}}]),
)


def renderer(tokenizer: Any, template: Any = "chat") -> Renderer:
    return Renderer.of(tokenizer, reading(template))


@pytest.fixture
def agentic(tokenizer: Any) -> Any:
    """The tokenizer with a template that shows everything."""
    import copy

    own = copy.deepcopy(tokenizer)
    own.chat_template = TEMPLATE
    return own


def test_a_template_is_given_tools_calls_and_reasoning(agentic: Any) -> None:
    """Arguments as an object, tools in their wrapping, thoughts under the name that it reads."""
    assert renderer(agentic, "chat").text(AGENT) == (
        '<tool>look</tool><|user|>the cat</s><|assistant|><call>look{"q": 1}</call></s><|tool|>a mat</s>'
        "<|assistant|><think>two dogs</think>on a mat</s>"
    )


def test_what_a_template_does_not_show_is_counted_or_refused(tokenizer: Any, agentic: Any) -> None:
    """By the rule that the recipe names."""
    (used,), _ = encode([("a", AGENT)], tokenizer, reading(max_tokens=64))
    assert used.unshown == "reasoning and tool calls and tools"
    assert encode([("a", AGENT)], tokenizer, reading(max_tokens=64, unshown="refuse")) == (
        [],
        [("a", "the template does not show its reasoning and tool calls and tools")],
    )
    (shown,), refused = encode([("a", AGENT)], agentic, reading(max_tokens=64, unshown="refuse"))
    assert (shown.unshown, refused) == ("", [])


def test_a_call_and_its_thoughts_are_what_is_learnt(agentic: Any) -> None:
    """From where the model begins to write to where its turn ends, and the tool's words are not."""
    text = renderer(agentic, "chat").text(AGENT)
    spans = response_spans(AGENT, renderer(agentic, "chat"), text)
    assert spans is not None
    assert [text[begin:end] for begin, end in spans] == [
        '<call>look{"q": 1}</call>',
        "<think>two dogs</think>on a mat",
    ]
    plain = renderer(agentic, "plain").text(AGENT)
    found = response_spans(AGENT, renderer(agentic, "plain"), plain)
    assert found is not None
    assert [plain[begin:end] for begin, end in found] == ['{"name": "look", "arguments": {"q": 1}}', "on a mat"]


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_no_loss_is_taken_on_a_turn_that_is_not_to_be_trained_on(tokenizer: Any, template: Any) -> None:
    """It is read, as what stands before the next."""
    turns = [
        {"role": "user", "content": "the cat"},
        {"role": "assistant", "content": "sat on", "weight": 0},
        {"role": "user", "content": "and"},
        {"role": "assistant", "content": "a mat"},
    ]
    (sample,), _ = encode_with_answers([("a", turns)], tokenizer, reading(template, 500))
    ids = sample.token_ids
    assert tokenizer.decode(ids[sample.answers]).strip() == "a mat"
    assert "sat on" in tokenizer.decode(ids)
