"""A conversation: what of it is identity, what is kept to the byte, and how tables and templates have it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nait_assets.conversation import Conversation, conversations_of
from nait_assets.corpora.formats import RowReader

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q": "ä", "n": null}'}}
TOOLS = [{"name": "look", "parameters": {"type": "object"}}]
AGENT = [
    {"role": "user", "content": "How warm is it?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "21", "tool_call_id": "c1"},
    {"role": "assistant", "content": "21 degrees.\n", "reasoning_content": "The tool says so."},
]
PLAIN = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]


def with_keys(**keys: Any) -> list[dict[str, Any]]:
    return [PLAIN[0], {**PLAIN[1], **keys}]


@pytest.mark.parametrize(
    "keys",
    [
        {"reasoning_content": "one and one"},
        {"thinking": "two"},
        {"tool_calls": [CALL]},
        {"function_call": {"name": "look", "arguments": "{}"}},
        {"weight": 0},
        {"train": False},
        {"weight": 0.5},
        {"name": "Ann"},
    ],
)
def test_what_a_model_sees_or_learns_is_identity(keys: dict[str, Any]) -> None:
    """Two rows that differ in such a key are no duplicates, and do not share activations."""
    assert Conversation.of(with_keys(**keys)).sample_id != Conversation.of(PLAIN).sample_id


@pytest.mark.parametrize(
    "keys",
    [
        *({"weight": 1}, {"train": True}, {"tool_calls": []}, {"tool_calls": None}, {"reasoning_content": ""}),
        *({"id": "17"}, {"timestamp": 3}, {"thinking": None}, {"name": None}),
    ],
)
def test_what_changes_nothing_is_no_identity(keys: dict[str, Any]) -> None:
    """Defaults, nulls and a publisher's own notes: the row is the one that others publish without them."""
    assert Conversation.of(with_keys(**keys)).sample_id == Conversation.of(PLAIN).sample_id


def test_calls_are_the_same_however_their_arguments_are_written() -> None:
    """JSON text, an object, or the struct that Arrow makes, with a null for what another call has."""
    shapes = ['{"q":"ä"}', {"q": "ä"}, {"q": "ä", "other": None}]
    calls = [{"id": "c1", "function": {"name": "look", "arguments": shape}} for shape in shapes]
    assert len({Conversation.of(with_keys(tool_calls=[call])).sample_id for call in calls}) == 1


def test_tables_hold_all_of_it_and_give_it_back() -> None:
    """The text of the source, its line ends and nulls, and keys that nobody knows."""
    messages = [*AGENT[:-1], {**AGENT[-1], "own": {"a": [1]}}]
    conversation = Conversation(Conversation.of(messages).messages, json.dumps(TOOLS))
    again = Conversation.stored(conversation.plain(), conversation.source_text())
    assert again.source() == {"messages": messages, "tools": json.dumps(TOOLS)}
    assert again.sample_id == conversation.sample_id


def test_a_plain_conversation_takes_no_further_room() -> None:
    """Most pools are plain: the text stands in the table once."""
    assert Conversation.of(PLAIN).source_text() is None
    assert Conversation.of(with_keys(content="2 ")).source_text() is not None


def test_text_methods_read_what_is_called() -> None:
    """A response that is a call says something."""
    assert Conversation.of(AGENT).plain()[1]["content"] == '{"name": "look", "arguments": {"q": "ä", "n": null}}'


def test_a_template_gets_calls_as_objects_and_reasoning_under_the_name_that_it_reads() -> None:
    """As the documentation of chat templates has them: arguments as text would be quoted twice."""
    call, answer = (Conversation.of(AGENT).messages[place].for_template("thinking".__eq__) for place in (1, 3))
    assert call["tool_calls"][0]["function"] == {"name": "look", "arguments": {"q": "ä", "n": None}}
    assert call["content"] == ""
    assert (answer["thinking"], "reasoning_content" in answer) == ("The tool says so.", False)


def test_a_frame_without_the_source_s_text_is_of_plain_conversations() -> None:
    """What others hand over as `messages` alone."""
    import polars as pl

    frame = pl.DataFrame({"sample_id": ["a"], "messages": [PLAIN]})
    assert [(name, one.plain()) for name, one in conversations_of(frame)] == [("a", PLAIN)]


def test_openai_s_agent_row_is_read_whole() -> None:
    """A null content beside a call is the usual shape."""
    read = RowReader()({"messages": AGENT, "tools": TOOLS}).conversation
    assert [message.role for message in read.messages] == ["user", "assistant", "tool", "assistant"]
    assert read.source()["tools"] == TOOLS


TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": st.text("ab \n", max_size=4)}
    ),
    max_size=8,
)


@given(TURNS)
def test_folding_loses_no_text_and_leaves_no_system_message(turns: list[dict[str, str]]) -> None:
    """Whatever the turns: every text stays, in order, and what had no system message is as it was."""
    whole = Conversation.of(turns)
    folded = whole.folded()
    assert all(message.role != "system" for message in folded.messages)
    letters, kept = ("".join(sorted("".join(m.text for m in one.messages))) for one in (whole, folded))
    assert kept.replace("\n", "").strip() == letters.replace("\n", "").strip()
    assert all(message.text in "\n".join(other.text for other in folded.messages) for message in whole.messages)
    if all(message.role != "system" for message in whole.messages):
        assert folded.plain() == whole.plain()
