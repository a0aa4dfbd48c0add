"""`format: auto`: which columns are the conversation, and the lines that a recipe would say it by."""

import json
from typing import Any

import pytest

from nait_assets.corpora.detection import AnyFormat, detect, recipe_lines
from nait_assets.corpora.formats import RowReader

QUESTION, ANSWER = {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}
TURNS = [QUESTION, ANSWER]
SHAREGPT = [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"messages": TURNS}, "messages"),
        ({"conversations": SHAREGPT}, "sharegpt"),
        ({"conversation": TURNS, "id": 1}, "{turns: conversation}"),
        ({"conversations": json.dumps(SHAREGPT)}, "sharegpt"),
        ({"dialogue": {"role": ["user", "assistant"], "content": ["1 + 1?", "2"]}}, "{turns: dialogue}"),
        (
            {"my turns": [{"speaker": "human", "text": "1 + 1?"}, {"speaker": "bot", "text": "2"}]},
            '{turns: "my turns", role: speaker, content: text}',
        ),
        ({"prompt": [QUESTION], "completion": [ANSWER]}, "{turns: [prompt, completion]}"),
        ({"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [ANSWER]}, "{turns: [prompt, chosen]}"),
        ({"prompt": "1 + 1?", "chosen": TURNS, "rejected": TURNS}, "{turns: chosen}"),
        ({"prompt": [QUESTION], "response": "2"}, "{turns: [prompt, response]}"),
        ({"question": "1 + 1?", "answer": 2}, '{user: "{{ question }}", assistant: "{{ answer }}"}'),
        ({"instruction": "1 + 1?", "input": "", "output": "2"}, "alpaca"),
        ({"instruction": "1 + 1?", "response": "2"}, '{user: "{{ instruction }}", assistant: "{{ response }}"}'),
        (
            {"Question": "1 + 1?", "Best Answer": "2"},
            '{user: "{{ Question }}", assistant: "{{ row[\\"Best Answer\\"] }}"}',
        ),
        (
            {"system_prompt": "", "question": "1 + 1?", "response": "2"},
            '{user: "{{ question }}", assistant: "{{ response }}", system: "{{ system_prompt }}"}',
        ),
    ],
)
def test_common_rows_are_told_and_read(fields: dict[str, Any], lines: str) -> None:
    """What was found is what a person would have written, and reads the same conversation."""
    found = detect([fields])
    assert found is not None
    assert recipe_lines(found) == lines
    assert RowReader(found)(fields).conversation.plain() == TURNS


@pytest.mark.parametrize("fields", [{}, {"text": "a"}, {"question": "a"}, {"a": [1], "b": {"c": 2}}, {"messages": []}])
def test_rows_without_a_conversation_are_not_guessed_at(fields: dict[str, Any]) -> None:
    """A column of text is no dialogue."""
    found: AnyFormat | None = detect([fields])
    assert found is None
