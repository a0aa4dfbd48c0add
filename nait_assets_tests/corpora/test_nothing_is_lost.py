"""What a row says in less usual places reaches the conversation, tells it from others, or refuses the row."""

import json
from typing import Any

import pytest

from nait_assets.conversation import Conversation
from nait_assets.corpora.formats import RowReader, RowRejected
from nait_assets.recipe import FieldTemplates

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
TOOL = {"name": "f", "parameters": {}}


def conversation(*messages: dict[str, Any], **columns: Any) -> Conversation:
    return RowReader("messages")({"messages": list(messages), **columns}).conversation


def answered(**keys: Any) -> Conversation:
    return conversation(USER, {**ASSISTANT, **keys})


def texts(read: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in read.messages]


@pytest.mark.parametrize(
    "columns",
    [
        {"tools": [json.dumps(TOOL)]},
        {"tools": [], "functions": [TOOL]},
        {"tools": "", "functions": json.dumps([TOOL])},
    ],
)
def test_tools_are_read_wherever_they_stand(columns: dict[str, Any]) -> None:
    """As a list of JSON texts, or in the second column where the first is empty."""
    assert [tool["function"] for tool in conversation(USER, ASSISTANT, **columns).tool_list] == [TOOL]


@pytest.mark.parametrize("content", ["", None])
def test_tools_of_a_system_message_without_text_are_the_conversations(content: str | None) -> None:
    """The message is dropped as empty; what it says is not."""
    system = {"role": "system", "content": content, "tools": [TOOL]}
    assert conversation(system, USER, ASSISTANT).sample_id == conversation(USER, ASSISTANT, tools=[TOOL]).sample_id


def test_first_system_column_that_says_something_is_read_and_two_are_refused() -> None:
    """An empty cell is no system prompt; of two different ones neither is dropped."""
    assert texts(conversation(USER, ASSISTANT, system="", system_prompt="s"))[0] == ("system", "s")
    assert texts(conversation(USER, ASSISTANT, system=[{"type": "text", "text": "s"}]))[0] == ("system", "s")
    with pytest.raises(RowRejected, match="two system prompts, in the columns system and system_prompt"):
        conversation(USER, ASSISTANT, system="s", system_prompt="t")


@pytest.mark.parametrize(
    "history", [[["hq", "ha"]], [{"role": "user", "content": "hq"}, {"role": "assistant", "content": "ha"}]]
)
def test_history_of_a_row_of_turns_stands_between_system_prompt_and_turns(history: Any) -> None:
    """As pairs or as turns, in Alpaca rows and in rows of turns; one that the turns begin with is not repeated."""
    expected = [("user", "hq"), ("assistant", "ha"), ("user", "q"), ("assistant", "a")]
    system = {"role": "system", "content": "s"}
    assert texts(conversation(system, USER, ASSISTANT, history=history)) == [("system", "s"), *expected]
    alpaca = RowReader("alpaca")({"instruction": "q", "output": "a", "history": history}).conversation
    assert texts(alpaca) == expected
    assert texts(conversation(*(one.source() for one in alpaca.messages), history=history)) == expected


@pytest.mark.parametrize(
    ("keys", "others"),
    [
        ({"reasoning": [{"text": "r"}]}, {"reasoning": [{"text": "s"}]}),
        ({"reasoning_details": [{"text": "r"}]}, {}),
        ({"thought": "r"}, {}),
        ({"thinking": "r", "reasoning_content": "s"}, {"thinking": "t", "reasoning_content": "s"}),
        ({"training": False}, {}),
        ({"loss_mask": 0}, {}),
        ({"tool_calls": [{"name": "f", "input": {"x": 1}}]}, {"tool_calls": [{"name": "f", "input": {"x": 2}}]}),
    ],
)
def test_rows_that_differ_in_a_key_are_no_duplicates(keys: dict[str, Any], others: dict[str, Any]) -> None:
    """Reasoning in parts or under two names, further flags of training, arguments under another name."""
    before = {"role": "assistant", "content": "b"}
    first, second = (conversation(USER, {**ASSISTANT, **each}, USER, before) for each in (keys, others))
    assert first.sample_id != second.sample_id


def test_reasoning_that_no_template_reads_is_shown_under_a_name_that_one_may() -> None:
    """Of a template that reads none, no name is better than another."""
    message = answered(thought="r").messages[-1]
    assert message.for_template(lambda _: False) == {**ASSISTANT, "reasoning_content": "r"}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({**USER, "images": ["a.png"]}, "the user message holds images"),
        ({"role": "user", "content": [{"text": "q", "image": "a.png"}]}, "the user message holds an image"),
        ({"role": "assistant", "content": None, "tool_calls": "[{'name': 'f'}]"}, "text that is no JSON"),
    ],
)
def test_row_that_cannot_be_read_whole_is_refused(message: dict[str, Any], reason: str) -> None:
    """An image beside the text, a part without a type, calls as Python prints them."""
    with pytest.raises(RowRejected, match=reason):
        conversation(message, USER, ASSISTANT)


def test_templates_leave_tools_and_history_to_the_conversation_unless_they_print_them() -> None:
    """As `auto` writes templates for a pair of columns, beside which others stand."""
    row = {"q": "q", "a": "a", "tools": json.dumps([TOOL]), "history": [["hq", "ha"]]}
    read = RowReader(FieldTemplates(user="{{ q }}", assistant="{{ a }}"))(row).conversation
    assert texts(read) == [("user", "hq"), ("assistant", "ha"), ("user", "q"), ("assistant", "a")]
    assert read.tools == row["tools"]
    prints = FieldTemplates(user="{{ q }} {{ tools }} {{ history[0][0] }}", assistant="{{ a }}")
    printed = RowReader(prints)(row).conversation
    assert (len(printed.messages), printed.tools) == (2, None)
    assert (
        RowReader(FieldTemplates(user="{{ q }}", assistant="{{ a }}"))({**row, "tools": "saw"}).conversation.tools
        is None
    )


def test_role_with_a_colon_is_known_and_one_that_is_a_number_can_be_mapped() -> None:
    """The message has the line of recipe, in quotation marks where YAML would take it for something else."""
    turns = {"messages": [{"role": "Human:", "content": "q"}, {"role": 1, "content": "a"}]}
    with pytest.raises(RowRejected, match=r'roles: \{"1": user\}'):
        RowReader("messages")(turns)
    assert texts(RowReader("messages", {"1": "assistant"})(turns).conversation) == [("user", "q"), ("assistant", "a")]


def test_what_a_tool_returns_may_be_a_mapping() -> None:
    """It is read as the JSON text that a model would be given."""
    assert texts(conversation(USER, ASSISTANT, {"role": "tool", "content": {"x": "é"}}, ASSISTANT))[2] == (
        "tool",
        '{"x": "é"}',
    )


def test_names_of_tools_are_the_same_as_a_list_and_as_its_json_text() -> None:
    """The text is what `train.parquet` has of it."""
    named, other = (conversation(USER, ASSISTANT, tools=tools) for tools in (["f", "g"], ["f"]))
    assert named.sample_id == conversation(USER, ASSISTANT, tools='["f", "g"]').sample_id != other.sample_id


@pytest.mark.parametrize("keys", [{"name": 5}, {"tools": [TOOL]}])
def test_keys_of_a_message_are_the_same_as_their_json_text(keys: dict[str, Any]) -> None:
    """The text is what `train.parquet` has of them."""
    written = {name: json.dumps(value) for name, value in keys.items()}
    assert answered(**keys).sample_id == answered(**written).sample_id != answered().sample_id
