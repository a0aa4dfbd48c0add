"""One row as one conversation: each format, the normalisation, the identity, and why a row is rejected."""

from typing import Any

import pytest

from nait_assets.conversation import Conversation, sample_id
from nait_assets.corpora.formats import ReadRow, RowReader, RowRejected
from nait_assets.recipe import FieldTemplates, FormatName, TurnsFormat

QUESTION_AND_ANSWER = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]


def messages(*turns: tuple[Any, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


AnyFormat = FormatName | FieldTemplates | TurnsFormat


def read_row(fields: dict[str, Any], row_format: AnyFormat = "messages", **settings: Any) -> ReadRow:
    return RowReader(row_format, **settings)(fields)


def conversation(fields: dict[str, Any], row_format: AnyFormat = "messages", **settings: Any) -> Conversation:
    return read_row(fields, row_format, **settings).conversation


def read(fields: dict[str, Any], row_format: AnyFormat = "messages", **settings: Any) -> list[dict[str, str]]:
    return conversation(fields, row_format, **settings).plain()


def columns_of(row_format: AnyFormat) -> set[str]:
    return set(RowReader(row_format).columns)


def rejection_of(fields: dict[str, Any], row_format: AnyFormat = "messages", **settings: Any) -> str:
    with pytest.raises(RowRejected) as reason:
        read(fields, row_format, **settings)
    return str(reason.value)


@pytest.mark.parametrize(
    ("row_format", "fields"),
    [
        ("messages", messages(("user", "1 + 1?"), ("assistant", "2"))),
        ("sharegpt", {"conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]}),
        ("alpaca", {"instruction": "1 + 1?", "output": "2"}),
        (FieldTemplates(user="{{ a }} + {{ b }}?", assistant="{{ sum }}"), {"a": 1, "b": 1, "sum": 2}),
    ],
)
def test_formats_of_one_conversation_have_one_id(
    row_format: FormatName | FieldTemplates, fields: dict[str, Any]
) -> None:
    """The same example from two sources is one sample: duplicates are found across formats."""
    assert read(fields, row_format) == QUESTION_AND_ANSWER
    assert sample_id(read(fields, row_format)) == sample_id(QUESTION_AND_ANSWER)


def test_every_turn_and_role_of_a_conversation_is_kept() -> None:
    """Multi-turn conversations are not cut to their first exchange."""
    turns = [("system", "s"), ("user", "u1"), ("assistant", "a1"), ("tool", "t"), ("user", "u2"), ("assistant", "a2")]
    assert [(message["role"], message["content"]) for message in read(messages(*turns))] == turns


@pytest.mark.parametrize(
    ("instruction", "context", "user"),
    [
        ("Add.", "1 and 1", "Add.\n\n1 and 1"),
        ("Add.", "", "Add."),
        ("Add.", None, "Add."),
        ("Add. \n", " \n", "Add."),
        ("", "1 and 1", "1 and 1"),
    ],
)
def test_alpaca_input_follows_the_instruction_after_an_empty_line(
    instruction: str, context: str | None, user: str
) -> None:
    """Alpaca's `input` is part of the question; most rows have none."""
    assert read({"instruction": instruction, "input": context, "output": "2"}, "alpaca")[0]["content"] == user


def test_alpaca_without_an_input_column_is_read() -> None:
    """Some publications of Alpaca data leave the column out."""
    assert read({"instruction": "1 + 1?", "output": "2"}, "alpaca") == QUESTION_AND_ANSWER
    assert columns_of("alpaca") == {"instruction", "output"}


@pytest.mark.parametrize("content", ["1 + 1?\r\n", "\n\t 1 + 1?  ", "\u00a01 + 1?\u2003"])
def test_outer_white_space_does_not_change_the_id(content: str) -> None:
    """Two publications of one row differ in such details."""
    assert sample_id(read(messages(("user", content), ("assistant", "2")))) == sample_id(QUESTION_AND_ANSWER)


@pytest.mark.parametrize(
    ("content", "normalised"),
    [
        ("caf" + "e\u0301", "caf\u00e9"),
        ("a\r\nb\rc\nd", "a\nb\nc\nd"),
        ("  def f():\n    return 1 \n", "def f():\n    return 1"),
    ],
)
def test_content_is_normalised(content: str, normalised: str) -> None:
    """Composed accents, line feeds, nothing around it; the white space inside is the content's own."""
    assert read(messages(("user", content), ("assistant", "x")))[0]["content"] == normalised


@pytest.mark.parametrize(
    "other",
    [
        [("user", "1 + 1?"), ("assistant", "2.")],
        [("user", "1 + 1? "), ("user", "2"), ("assistant", "2")],
        [("system", "1 + 1?"), ("user", "1 + 1?"), ("assistant", "2")],
        [("user", "1 +  1?"), ("assistant", "2")],
    ],
)
def test_other_content_has_another_id(other: list[tuple[str, str]]) -> None:
    """Activations are kept by id: two contents under one would share them."""
    assert sample_id(read(messages(*other))) != sample_id(QUESTION_AND_ANSWER)


def test_id_stays_what_it_is() -> None:
    """Ids are the keys of activations that took hours: changing them extracts everything again."""
    assert sample_id(QUESTION_AND_ANSWER) == "eb86c7f0975d35c5"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (messages(), "empty: no messages"),
        (messages(("user", " \n"), ("assistant", "2")), "empty user message"),
        (messages(("user", "1 + 1?"), ("assistant", "")), "empty assistant message"),
        (messages(("user", None), ("assistant", "2")), "not text: the user message is NoneType"),
        (messages(("user", "1 + 1?"), ("assistant", 2)), "not text: the assistant message is int"),
        (messages(("user", "\ud800"), ("assistant", "2")), "invalid UTF-8: a lone surrogate in the user message"),
        (messages(("narrator", "x"), ("assistant", "2")), "unknown role 'narrator'"),
        (messages((None, "x"), ("assistant", "2")), "unknown role None"),
        (messages(("user", "1 + 1?")), "no response: the last message is not the assistant's"),
        (messages(("system", "x"), ("assistant", "2")), "no instruction: there is no user message"),
        ({"messages": "1 + 1?"}, "'messages' is not a list of messages"),
        ({"messages": ["1 + 1?", "2"]}, "'messages' is not a list of messages"),
        ({"messages": None}, "'messages' is not a list of messages"),
        ({}, "'messages' is not a list of messages"),
    ],
)
def test_row_that_is_no_conversation_is_rejected_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    """The `rejected` table states the reason; no row is repaired by guessing."""
    assert rejection_of(fields).startswith(reason)


@pytest.mark.parametrize(
    ("row_format", "fields", "reason"),
    [
        ("alpaca", {"instruction": None, "output": "2"}, "not text: instruction and input must be strings"),
        ("alpaca", {"instruction": "a", "input": 3, "output": "2"}, "not text: instruction and input must be strings"),
        ("alpaca", {"instruction": "a", "output": None}, "not text: the assistant message is NoneType"),
        ("alpaca", {"instruction": "", "input": "", "output": "2"}, "empty user message"),
        (
            "sharegpt",
            {"conversations": [{"from": "human"}, {"from": "gpt", "value": "2"}]},
            "not text: the user message is NoneType",
        ),
    ],
)
def test_reason_names_what_the_format_lacks(row_format: FormatName, fields: dict[str, Any], reason: str) -> None:
    """Each format meets nulls and other types in its own columns."""
    assert rejection_of(fields, row_format) == reason


def test_template_reads_lists_and_nested_columns() -> None:
    """TyDiQA's answers are a list, MMLU's choices another."""
    templates = FieldTemplates(
        system="Answer with a letter.",
        user="{{ question }}{% for choice in choices %}\n{{ 'ABCD'[loop.index0] }}. {{ choice }}{% endfor %}",
        assistant="{{ 'ABCD'[answer] }}",
    )
    fields = {"question": "1 + 1?", "choices": ["1", "2"], "answer": 1}
    assert [message["content"] for message in read(fields, templates)] == [
        "Answer with a letter.",
        "1 + 1?\nA. 1\nB. 2",
        "B",
    ]
    assert columns_of(templates) == {"question", "choices", "answer"}


@pytest.mark.parametrize(
    ("user", "fields", "reason"),
    [
        ("{{ q }}", {}, "a column that the template prints is null (q); write {% if q %}"),
        ("{{ q }}", {"q": None}, "a column that the template prints is null"),
        ("{{ q[0] }}", {"q": []}, "the template fails: list object has no element 0"),
        ("{{ 1 / q }}", {"q": 0}, "the template fails: division by zero"),
        ("{{ q + 1 }}", {"q": "a"}, "the template fails: can only concatenate str"),
        ("{{ q.index('z') }}", {"q": "a"}, "the template fails: substring not found"),
        ("{{ q }}", {"q": " "}, "empty user message"),
        ("{{ q }}", {"q": "\ud800"}, "invalid UTF-8: a lone surrogate in the user message"),
    ],
)
def test_row_that_a_template_cannot_print_is_rejected(user: str, fields: dict[str, Any], reason: str) -> None:
    """One odd row among thousands must not end the run, and `None` must not become the text "None"."""
    assert rejection_of(fields, FieldTemplates(user=user, assistant="2")).startswith(reason)


def test_template_prints_text_as_it_is() -> None:
    """Code and formulas must not be escaped as for a web page, nor be read as templates themselves."""
    templates = FieldTemplates(user="{{ q }}", assistant="{{ a }}")
    assert read({"q": "<b> & {{ x }}", "a": "{% y %}"}, templates)[0]["content"] == "<b> & {{ x }}"


def test_template_cannot_reach_the_interpreter() -> None:
    """A recipe from elsewhere is data, not a program."""
    template = "{{ q.__class__.__mro__[1].__subclasses__() }}"
    assert "unsafe" in rejection_of({"q": "a"}, FieldTemplates(user=template, assistant="2"))


def test_columns_may_have_any_name() -> None:
    """A column called `self`, as some data sets have, is no argument of the template engine."""
    templates = FieldTemplates(user="{{ q }}", assistant="{{ a }}")
    assert read({"self": 3, "q": "1 + 1?", "a": "2"}, templates) == QUESTION_AND_ANSWER


def turns(*roles: str) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": role} for role in roles]}


@pytest.mark.parametrize(
    ("names", "role"),
    [
        (("human", "user", "prompter", "User"), "user"),
        (("gpt", "assistant", "chatgpt", "bing", "bard", "bot", "model", "function_call", "tool_call"), "assistant"),
        (("observation", "tool", "ipython", "function", "tool-response", "Function Response"), "tool"),
        (("system", "developer", "SYSTEM"), "system"),
    ],
)
def test_role_names_of_the_field_are_known(names: tuple[str, ...], role: str) -> None:
    """In any case, with hyphens, spaces or underscores."""
    for name in names:
        others = ["human", "gpt"]
        read_roles = [message["role"] for message in read(turns(name, *others), "sharegpt")]
        assert read_roles == [role, "user", "assistant"]


def test_an_unknown_role_names_the_known_ones_and_can_be_mapped() -> None:
    """Every data set has one of its own."""
    fields = turns("Story Teller", "human", "gpt")
    reason = rejection_of(fields, "sharegpt")
    assert "unknown role 'Story Teller'; known are system, developer," in reason
    assert "`roles: {Story Teller: user}`" in reason
    assert read(fields, "sharegpt", roles={"story teller": "system"})[0]["role"] == "system"


@pytest.mark.parametrize("behind", [["human"], ["human", "human"], ["observation"], ["system"]])
def test_turns_behind_the_last_response_are_cut_and_counted(behind: list[str]) -> None:
    """Nothing can be learnt from a question without an answer; the conversation before it stays."""
    row = read_row(turns("human", "gpt", *behind), "sharegpt")
    assert (len(row.conversation.messages), row.is_cut) == (2, True)
    assert not read_row(turns("human", "gpt"), "sharegpt").is_cut
    assert "no response" in rejection_of(turns("human", "gpt", *behind), "sharegpt", unanswered="refuse")


@pytest.mark.parametrize("system", ["", " \n", None, float("nan"), []])
def test_no_system_text_is_no_system_message(system: Any) -> None:
    """Half of OpenOrca has none; the conversation stays."""
    own = {"role": "system", "content": system}
    assert read({"messages": [own, *QUESTION_AND_ANSWER]}) == QUESTION_AND_ANSWER
    if system != []:
        assert read({"messages": QUESTION_AND_ANSWER, "system": system}) == QUESTION_AND_ANSWER
        for template in ("{{ s }}", "{% if s %}{{ s }}{% endif %}"):
            templates = FieldTemplates(system=template, user="1 + 1?", assistant="2")
            assert read({"s": system}, templates) == QUESTION_AND_ANSWER
            assert not read_row({"s": system}, templates).is_cut


def test_system_history_and_tools_of_a_row_are_read() -> None:
    """Columns that LLaMA-Factory documents, and that the exports of this project have."""
    fields = {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]], "tools": '[{"name": "look"}]'}
    found = conversation(fields, "alpaca")
    assert [message.content for message in found.messages] == ["s", "a", "b", "c", "d"]
    assert found.tool_list == [{"type": "function", "function": {"name": "look"}}]
    assert "two system prompts" in rejection_of(
        {"messages": [{"role": "system", "content": "one"}, *QUESTION_AND_ANSWER], "system": "other"}
    )


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "1 + "}, {"type": "text", "text": "1?"}],
        [{"type": "input_text", "text": "1 + 1?"}],
        ["1 + 1?"],
        [{"type": "text", "text": "1 + 1?", "image_url": None}],
    ],
)
def test_parts_of_text_are_joined_as_they_stand(content: list[Any]) -> None:
    """As OpenAI and TRL write a message."""
    assert read({"messages": [{"role": "user", "content": content}, QUESTION_AND_ANSWER[1]]}) == QUESTION_AND_ANSWER


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"type": "image_url", "image_url": {"url": "x"}}, "an image"),
        ({"type": "image"}, "an image"),
        ({"type": "input_audio"}, "an audio"),
        ({"type": "video"}, "a video"),
        ({"type": "hologram"}, "a part of type 'hologram'"),
    ],
)
def test_a_part_that_is_no_text_refuses_the_row_by_name(part: dict[str, Any], named: str) -> None:
    """A question about a picture is another question without it."""
    content = [{"type": "text", "text": "What is it?"}, part]
    reason = rejection_of({"messages": [{"role": "user", "content": content}, QUESTION_AND_ANSWER[1]]})
    assert f"the user message holds {named}" in reason
    assert "'images'" in rejection_of({"messages": QUESTION_AND_ANSWER, "images": ["a.png"]})


@pytest.mark.parametrize(
    "stored",
    [
        QUESTION_AND_ANSWER,
        '[{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]',
        {"role": ["user", "assistant"], "content": ["1 + 1?", "2"]},
        ['{"role": "user", "content": "1 + 1?"}', '{"role": "assistant", "content": "2"}'],
        [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}],
    ],
)
@pytest.mark.parametrize("row_format", ["messages", TurnsFormat(turns="messages")])
def test_turns_are_read_however_they_are_stored(stored: Any, row_format: AnyFormat) -> None:
    """JSON text, Arrow's struct of lists, lists of JSON text, either pair of keys."""
    assert read({"messages": stored}, row_format) == QUESTION_AND_ANSWER


def test_turns_whose_keys_are_others_are_told_and_can_be_named() -> None:
    """What a turn has is what a person has to choose from."""
    fields = {"x y": [{"who": "human", "says": "1 + 1?"}, {"who": "gpt", "says": "2"}]}
    assert "a turn has the keys who, says" in rejection_of(fields, TurnsFormat(turns="x y"))
    assert read(fields, TurnsFormat(turns="x y", role="who", content="says")) == QUESTION_AND_ANSWER


def test_indentation_of_an_alpaca_input_is_kept() -> None:
    """It is code, often."""
    fields = {"instruction": "Explain.\n", "input": "\n    x = 1\n    y = 2\n", "output": "\tz"}
    assert [message.content for message in conversation(fields, "alpaca").messages] == [
        "Explain.\n\n    x = 1\n    y = 2\n",
        "\tz",
    ]


def test_a_conversation_with_nothing_to_learn_is_refused() -> None:
    """Every response has the weight 0."""
    fields = {"messages": [QUESTION_AND_ANSWER[0], {**QUESTION_AND_ANSWER[1], "weight": 0}]}
    assert "no response to learn from" in rejection_of(fields)
