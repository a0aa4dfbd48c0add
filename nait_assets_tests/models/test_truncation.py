"""Truncation: what gives way where a conversation is too long, and that what is left is where it was."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nait_assets.models.answers import AnsweredSample, encode_with_answers
from nait_assets.models.encoding import encode
from nait_assets.models.truncation import PROMPT_SHARE, shortened, without_the_middle
from nait_assets_tests.models.test_encoding import reading, with_template

Messages = list[dict[str, str]]
WORDS = ["the", "cat", "sat", "on", "two", "mats", "ä", "\n", "日本"]


def turns(*contents: str) -> Messages:
    return [{"role": ("user", "assistant")[place % 2], "content": content} for place, content in enumerate(contents)]


def read(messages: Messages, tokenizer: Any, max_tokens: int, **more: Any) -> AnsweredSample:
    ((sample,), _) = encode_with_answers([("one", messages)], tokenizer, reading(max_tokens=max_tokens, **more))
    return sample


def text(tokenizer: Any, sample: AnsweredSample) -> str:
    return str(tokenizer.decode(sample.token_ids))


def is_subsequence(part: list[int], whole: list[int]) -> bool:
    rest = iter(whole)
    return all(each in rest for each in part)


contents = st.lists(st.sampled_from(WORDS), min_size=1, max_size=40).map(" ".join).filter(lambda text: text.strip())


@settings(max_examples=60, deadline=None)
@given(
    question=contents,
    answer=contents,
    system=st.none() | contents,
    max_tokens=st.integers(24, 160),
    template=st.sampled_from(["chat", "plain"]),
)
def test_what_is_kept_is_what_was_there_with_the_same_labels(
    tokenizer: Any, question: str, answer: str, system: str | None, max_tokens: int, template: Any
) -> None:
    """A loss of other tokens, or of tokens in another order, would be of a text that nobody wrote."""
    messages = [*([{"role": "system", "content": system}] if system else []), *turns(question, answer)]
    whole = read(messages, tokenizer, 10_000, template=template)

    cut = read(messages, tokenizer, max_tokens, template=template)

    assert len(cut.token_ids) == min(max_tokens, len(whole.token_ids))
    assert len(cut.answers) == len(cut.token_ids)
    assert is_subsequence(cut.token_ids.tolist(), whole.token_ids.tolist())
    places = np.flatnonzero(cut.answers)
    assert (np.diff(places) == 1).all()
    of_answer = whole.token_ids[whole.answers].tolist()
    left = cut.token_ids[cut.answers].tolist()
    assert left == of_answer[: len(left)]
    assert cut.cut == ("" if len(whole.token_ids) <= max_tokens else "prompt" if left == of_answer else "answer")
    assert cut.n_answers_whole == int(left == of_answer)
    added = len(whole.token_ids) - sum(len(tokenizer(each["content"].strip())["input_ids"]) for each in messages)
    if len(of_answer) + max_tokens // PROMPT_SHARE + added + 4 <= max_tokens:  # words may join what the template adds
        assert left == of_answer
    ((alike,), _) = encode([("one", messages)], tokenizer, reading(template, max_tokens))
    assert (alike.token_ids.tolist(), alike.cut, alike.n_answers_whole) == (
        cut.token_ids.tolist(),
        cut.cut,
        cut.n_answers_whole,
    )


@settings(max_examples=40, deadline=None)
@given(
    said=st.sampled_from([4, 6, 8]).flatmap(lambda n: st.lists(contents, min_size=n, max_size=n)),
    room=st.integers(24, 200),
)
def test_of_several_turns_the_first_ones_are_read_whole(tokenizer: Any, said: list[str], room: int) -> None:
    """And the sample says how many."""
    messages = turns(*said)
    whole, cut = read(messages, tokenizer, 10_000), read(messages, tokenizer, room)

    assert is_subsequence(cut.token_ids.tolist(), whole.token_ids.tolist())
    left, of_answers = cut.token_ids[cut.answers].tolist(), whole.token_ids[whole.answers].tolist()
    assert left == of_answers[: len(left)]
    sizes = [len(tokenizer(each.strip())["input_ids"]) for each in said[1::2]]
    assert cut.n_answers == len(sizes)
    assert cut.n_answers_whole is not None
    if cut.n_answers_whole < cut.n_answers:
        assert cut.cut == "answer"
        if cut.n_answers_whole > 0:  # nothing of a turn that is not read whole
            assert len(left) == sum(sizes[: cut.n_answers_whole])


def test_the_templates_markers_and_both_ends_of_the_prompt_stay(tokenizer: Any) -> None:
    """A prompt without its heading is another conversation."""
    question = " ".join(["first", *["and"] * 100, "last"])

    sample = read(turns(question, "the sum is x"), tokenizer, 60)

    shown = text(tokenizer, sample)
    assert shown.startswith("<s><|user|>\nfirst and and")
    assert shown.endswith("and last</s>\n<|assistant|>\nthe sum is x</s>\n")
    assert sample.cut == "prompt"


def test_the_prompt_keeps_its_share_where_the_answer_is_longer_than_all(tokenizer: Any) -> None:
    """An answer to nothing would be read otherwise."""
    sample = read(turns(" ".join(["first", *["and"] * 30, "last"]), "x " * 500), tokenizer, 80)

    assert "first and" in text(tokenizer, sample)
    assert (sample.cut, sample.n_answers_whole) == ("answer", 0)
    assert int(sample.answers.sum()) > 40


def test_by_the_recipes_word_the_end_is_cut_or_the_row_refused(tokenizer: Any) -> None:
    """The reason says which length would do."""
    messages = turns("and " * 100, "the sum")

    assert read(messages, tokenizer, 40, truncate="answer").unanswered.startswith("its response is cut off: ")
    samples, refused = encode([("one", messages)], tokenizer, reading(max_tokens=40, truncate="refuse"))
    assert samples == []
    assert "more than extraction.max_tokens: 40" in refused[0][1]


@pytest.mark.parametrize("content", ["{{ m['content'] | upper }}", "{{ m['content'].split('x')[0] }}"])
def test_where_a_template_rewrites_the_answer_the_end_is_cut_and_said(tokenizer: Any, content: str) -> None:
    """Nobody knows then where the answer stands."""
    own = with_template(tokenizer, tokenizer.chat_template.replace("{{ m['content'] }}", content))

    sample = read(turns("and " * 100, "the sum x y"), own, 40)

    assert (sample.cut, sample.n_answers_whole) == ("answer", None)


def test_a_prompt_that_the_template_rewrites_gives_way_as_a_whole(tokenizer: Any) -> None:
    """The answer is found, so it is read."""
    content = "{% if m['role'] == 'user' %}{{ m['content'] | upper }}{% else %}{{ m['content'] }}{% endif %}"
    own = with_template(tokenizer, tokenizer.chat_template.replace("{{ m['content'] }}", content))

    sample = read(turns("and " * 100, "the sum x y"), own, 60)

    assert sample.cut == "prompt"
    assert text(tokenizer, sample).endswith("AND</s>\n<|assistant|>\nthe sum x y</s>\n")


@given(sizes=st.lists(st.integers(0, 50), max_size=6), room=st.integers(0, 200))
def test_the_longest_give_way_and_no_more_than_they_must(sizes: list[int], room: int) -> None:
    """A short system message is not cut for a long question."""
    found = shortened(sizes, room)

    assert sum(found) == min(room, sum(sizes))
    assert all(0 <= new <= old for new, old in zip(found, sizes, strict=True))
    level = max(found, default=0)
    assert all(new == old or new >= level - 1 for new, old in zip(found, sizes, strict=True))


def test_many_tools_are_the_prompts_too() -> None:
    """Or what describes them would leave no room for the answer."""
    answer = np.arange(90, 100)

    kept = without_the_middle(102, [np.arange(80, 85)], [answer], 30)

    assert len(kept) == 30
    assert np.isin(answer, kept).all()


@pytest.mark.parametrize(
    "clock", ["{{ strftime_now('%d %b %Y') }}", "{% if date_string is defined %}{{ date_string }}{% endif %}"]
)
def test_a_template_that_prints_the_date_prints_the_recipes(tokenizer: Any, clock: str) -> None:
    """The same conversation is the same text every day, and the day is part of what identifies a reading."""
    own = with_template(tokenizer, clock + tokenizer.chat_template)
    dated = reading(template_date="2030-01-02")

    ((one,), _), ((other,), _) = (encode([("a", turns("add", "x"))], own, each) for each in (reading(), dated))

    assert tokenizer.decode(one.token_ids).startswith("<s>26 Jul 2024")
    assert tokenizer.decode(other.token_ids).startswith("<s>02 Jan 2030")
    assert reading().reading != dated.reading
