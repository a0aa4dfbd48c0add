"""Which tokens are the response: a loss over the question, or over half an answer, would be another method's."""

from typing import Any

import numpy as np
import pytest

from nait_assets.extraction.supervision import supervise
from nait_assets.recipe import RecipeError

WITH_PROMPT = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TURNS = [
    {"role": "user", "content": "two cats?"},
    {"role": "assistant", "content": "the cats sat"},
    {"role": "user", "content": "and the cats sat?"},
    {"role": "assistant", "content": "on a mat"},
]


@pytest.fixture
def tokenizer_of(tokenizer: Any) -> Any:
    """The tokenizer with another chat template."""

    def of(template: str) -> Any:
        import copy

        other = copy.deepcopy(tokenizer)
        other.chat_template = template
        return other

    return of


def response(tokenizer: Any, messages: list[dict[str, str]], template: Any = "chat", max_tokens: int = 200) -> str:
    """The text of the tokens that are marked."""
    (sample,), refused = supervise([("a", messages)], tokenizer, template, max_tokens)
    assert not refused
    return tokenizer.decode(sample.token_ids[sample.is_response])


def test_response_is_every_turn_of_the_assistant_with_its_end(tokenizer_of: Any) -> None:
    """The end of the turn is learnt, too; what the user says, even the same words, is not."""
    assert response(tokenizer_of(WITH_PROMPT), TURNS) == "the cats sat</s>\non a mat</s>\n"


def test_template_without_generation_prompt_gives_the_same_response(tokenizer: Any, tokenizer_of: Any) -> None:
    """The heading of a turn is not the model's to say, whether or not the template can be asked for it."""
    assert response(tokenizer, TURNS) == response(tokenizer_of(WITH_PROMPT), TURNS)


def test_plain_headings_are_not_the_response(tokenizer: Any) -> None:
    """A model without a chat template has headings instead."""
    assert response(tokenizer, TURNS[:2], "plain") == "the cats sat"


def test_marks_fit_the_tokens_where_a_first_token_was_put_in_front(tokenizer: Any) -> None:
    """The beginning-of-sequence token shifts every place by one; a shift would mark the wrong tokens."""
    (sample,), _ = supervise([("a", TURNS[:2])], tokenizer, "chat", 200)
    assert sample.token_ids[0] == tokenizer.bos_token_id
    assert not sample.is_response[0]
    assert tokenizer.decode(sample.token_ids[~sample.is_response]) == "<s><|user|>\ntwo cats?</s>\n<|assistant|>\n"


def test_sample_without_response_tokens_has_a_reason(tokenizer: Any) -> None:
    """A mean over no tokens is NaN: a question alone, or one that is so long that its answer is cut off."""
    long = [{"role": "user", "content": "the cat " * 40}, TURNS[1]]
    samples, refused = supervise([("question", TURNS[:1]), ("long", long), ("good", TURNS)], tokenizer, "chat", 32)
    assert [sample.sample_id for sample in samples] == ["good"]
    assert dict(refused) == {
        "question": "no response tokens among its first 32 tokens",
        "long": "no response tokens among its first 32 tokens",
    }


def test_response_that_is_cut_is_marked_up_to_the_cut(tokenizer: Any) -> None:
    """As everything else, the loss is over the first `max_tokens` tokens."""
    (whole,), _ = supervise([("a", TURNS)], tokenizer, "chat", 200)
    n = int(np.flatnonzero(whole.is_response)[2]) + 1
    (cut,), _ = supervise([("a", TURNS)], tokenizer, "chat", n)
    assert np.array_equal(cut.is_response, whole.is_response[:n])
    assert cut.is_response.sum() == 3


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for m in messages %}{{ m['content'] | upper }}\n{% endfor %}", "does not show a response as it is"),
        ("{{ messages | length }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "otherwise than"),
        ("{{ raise_exception('no two turns') if messages | length > 3 }}x", "no two turns"),
    ],
    ids=["changes responses", "changes with length", "raises"],
)
def test_template_that_hides_the_response_gives_a_reason(tokenizer_of: Any, template: str, says: str) -> None:
    """What cannot be told from the question is refused, never guessed."""
    samples, [(name, reason)] = supervise([("a", TURNS)], tokenizer_of(template), "chat", 200)
    assert (samples, name) == ([], "a")
    assert says in reason


def test_tokenizer_that_tells_no_places_is_refused(tokenizer: Any) -> None:
    """Its tokens cannot be laid beside the text."""

    class Slow:
        is_fast = False

    with pytest.raises(RecipeError, match="Slow, does not tell where"):
        supervise([("a", TURNS)], Slow(), "chat", 200)
