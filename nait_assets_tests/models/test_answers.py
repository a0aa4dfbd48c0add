"""Answers: the tokens that a loss of responses is taken over, to the character."""

from typing import Any

import pytest

from nait_assets.errors import ModelError
from nait_assets.models.answers import AnsweredSample, encode_with_answers
from nait_assets.models.encoding import encode
from nait_assets_tests.conftest import CHAT_TEMPLATE, conversation
from nait_assets_tests.models.test_encoding import reading

Messages = list[dict[str, str]]


def answered(
    messages: Messages, tokenizer: Any, template: Any = "chat", max_tokens: int = 500, **settings: Any
) -> AnsweredSample:
    """A conversation as it is read."""
    ((sample,), refused) = encode_with_answers(
        [("one", messages)], tokenizer, reading(template, max_tokens, **settings)
    )
    assert refused == []
    return sample


def said(sample: AnsweredSample, tokenizer: Any) -> str:
    """The text of the response tokens."""
    return str(tokenizer.decode(sample.token_ids[sample.answers]))


def turns(*contents: str) -> Messages:
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]


def with_template(tokenizer: Any, template: str) -> Any:
    """The same tokenizer with another chat template."""
    import copy

    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    return own


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_answer_tokens_spell_the_response_and_nothing_else(tokenizer: Any, template: Any) -> None:
    """A heading or an end-of-turn token among them would be the same easy loss in every sample."""
    messages = turns("add three numbers", "the sum is x and y")

    sample = answered(messages, tokenizer, template)

    assert said(sample, tokenizer) == "the sum is x and y"
    assert sample.unanswered == ""


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_every_response_of_several_turns_counts(tokenizer: Any, template: Any) -> None:
    """What the user says in between does not."""
    messages = turns("add", "the sum", "and print", "print x")

    assert said(answered(messages, tokenizer, template), tokenizer) == "the sumprint x"


@pytest.mark.parametrize("response", ["assistant", "add", "s", "</s>", "|>", "x\n<|user|>\nadd"])
def test_a_response_that_the_prompt_or_the_template_also_says_is_found_in_its_own_place(
    tokenizer: Any, response: str
) -> None:
    """A search for the text would find the heading or the instruction first, or the closing mark last."""
    sample = answered(turns("add", response), tokenizer)
    before = tokenizer("<s><|user|>\nadd</s>\n<|assistant|>\n", add_special_tokens=False)["input_ids"]

    assert sample.answers.argmax() == len(before)
    assert said(sample, tokenizer) == response


def test_tokens_are_those_that_encode_gives(tokenizer: Any) -> None:
    """The activations and the losses are of the same tokens."""
    messages = turns("add three numbers", "the sum is x and y")
    ((wanted,), _) = encode([("one", messages)], tokenizer, reading(max_tokens=20))

    sample = answered(messages, tokenizer, max_tokens=20)

    assert sample.token_ids.tolist() == wanted.token_ids.tolist()
    assert (sample.sample_id, sample.cut) == (wanted.sample_id, wanted.cut)
    assert len(sample.answers) == len(sample.token_ids)


def test_a_token_across_the_edge_of_the_response_is_of_the_response(tokenizer: Any) -> None:
    """A tokenizer may join the heading's last space with the first word: the word must not be lost."""
    own = with_template(tokenizer, "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")

    sample = answered(turns("add", "the sum"), own)

    assert said(sample, own) == " the sum"


def test_response_that_is_cut_off_has_a_reason_and_what_is_left_of_one_counts(tokenizer: Any) -> None:
    """A loss over no tokens would be a number of nothing."""
    messages = turns("add three numbers", "the sum is x and y")
    whole = answered(messages, tokenizer)
    before = int(whole.answers.argmax())

    none, some = (answered(messages, tokenizer, max_tokens=before + left, truncate="answer") for left in (0, 2))

    assert none.unanswered == (
        f"its response is cut off: {before} tokens stand before it, and extraction.max_tokens is {before}"
    )
    assert not none.answers.any()
    assert some.answers.sum() == 2
    assert some.unanswered == ""


@pytest.mark.parametrize(
    "content",
    [
        "{{ m['content'] | upper }}",
        "{% if loop.last %}{{ m['content'] }}{% endif %}",
        "{{ m['content'].split('</think>')[-1] }}",
        "{% if 'sum' in m['content'] %}:{% endif %}{{ m['content'] }}",
        "{% if 'n0n' in m['content'] %}{{ raise('x') }}{% endif %}{{ m['content'] }}",
    ],
)
def test_template_that_rewrites_a_response_gives_a_reason(tokenizer: Any, content: str) -> None:
    """Where the response's place is not known for certain, no loss is better than that of other tokens."""
    own = with_template(tokenizer, CHAT_TEMPLATE.replace("{{ m['content'] }}", content))
    messages = turns("add", "x</think> the sum", "print", "y</think> print")

    sample = answered(messages, own)

    assert "the template does not write the responses unchanged" in sample.unanswered
    assert not sample.answers.any()


def test_empty_response_has_a_reason(tokenizer: Any) -> None:
    """There is nothing to take a loss of."""
    assert answered(turns("add", ""), tokenizer).unanswered == "its response is empty"


def test_alone_is_the_response_behind_the_first_token(tokenizer: Any) -> None:
    """The same tokens, so that the two losses can be compared, and none of what was asked."""
    sample = answered(turns("add", "the sum", "and print", "print x"), tokenizer)

    alone = sample.alone()

    assert alone.token_ids.tolist() == [tokenizer.bos_token_id, *sample.token_ids[sample.answers].tolist()]
    assert alone.answers.tolist() == [False] + [True] * int(sample.answers.sum())


def test_tokenizer_without_offsets_is_refused(tokenizer: Any) -> None:
    """Guessed places would give losses of other tokens."""

    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match=r"Slow, does not tell which characters a token holds.* tokenizer\.json"):
        encode_with_answers([("one", conversation("add", "x")["messages"])], Slow(), reading(max_tokens=64))
