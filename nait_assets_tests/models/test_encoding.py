"""Encoding: one beginning token for every sample, and batches that hold every sample once."""

import copy
import random
from typing import Any

import numpy as np
import pytest

from nait_assets.errors import ModelError, RecipeError
from nait_assets.models.encoding import EncodedSample, encode, plan
from nait_assets.recipe import Extraction

QUESTION = [{"role": "user", "content": "add two numbers"}, {"role": "assistant", "content": "three"}]


def reading(template: Any = "chat", max_tokens: int = 99, **settings: Any) -> Extraction:
    """Settings of an extraction."""
    return Extraction(template=template, max_tokens=max_tokens, **settings)


def samples_of(lengths: list[int]) -> list[EncodedSample]:
    return [EncodedSample(f"{n:03d}", np.ones(length, np.int32)) for n, length in enumerate(lengths)]


def facts(sample: EncodedSample) -> tuple[str, list[int], str]:
    """What two samples are compared by."""
    assert sample.token_ids.dtype == np.int32
    return sample.sample_id, sample.token_ids.tolist(), sample.cut


def encoded(
    tokenizer: Any, template: Any = "chat", max_tokens: int = 99, **settings: Any
) -> tuple[str, list[int], str]:
    """The question, encoded."""
    (sample,), refused = encode([("a", QUESTION)], tokenizer, reading(template, max_tokens, **settings))
    assert refused == []
    return facts(sample)


def with_template(tokenizer: Any, template: str | None) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_beginning_token_is_put_in_front_where_the_template_does_not(tokenizer: Any, template: Any) -> None:
    """The first token is an attention sink and left out of the mean: without BOS, a word of the text would be lost."""
    (sample,), refused = encode([("a", QUESTION)], tokenizer, reading(template))

    text = tokenizer.decode(sample.token_ids[1:])
    assert sample.token_ids[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in sample.token_ids[1:]
    assert (
        text
        == {
            "chat": "<|user|>\nadd two numbers</s>\n<|assistant|>\nthree</s>\n",
            "plain": "### Instruction:\nadd two numbers\n\n### Response:\nthree",
        }[template]
    )
    assert refused == []


def test_beginning_token_of_the_template_is_not_doubled(tokenizer: Any) -> None:
    """A second BOS would be a sink inside the mean."""
    begins_itself = with_template(tokenizer, "{{ bos_token }}" + tokenizer.chat_template)

    assert encoded(begins_itself) == encoded(tokenizer)


def test_end_token_begins_the_sequence_where_there_is_no_beginning_token(tokenizer: Any) -> None:
    """Qwen has no BOS; its end token separates documents and stands at their beginning."""
    without = copy.deepcopy(tokenizer)
    without.bos_token = None

    _, token_ids, _ = encoded(without)

    assert token_ids == [tokenizer.eos_token_id, *encoded(tokenizer)[1][1:]]


def test_tokenizer_without_a_token_to_begin_with_is_an_error(tokenizer: Any) -> None:
    """An invented beginning would put a text token where the sink belongs."""
    without = copy.deepcopy(tokenizer)
    without.bos_token = without.eos_token = None

    with pytest.raises(ModelError, match="neither a beginning- nor an end-of-sequence token"):
        encode([("a", QUESTION)], without, reading())


def test_tokenizer_without_chat_template_asks_for_the_plain_one(tokenizer: Any) -> None:
    """Base models have no chat template; the message says which field to change, and to what."""
    without = with_template(tokenizer, None)

    with pytest.raises(RecipeError, match=r"extraction\.template: .*no chat template; use `template: plain`"):
        encode([("a", QUESTION)], without, reading())
    assert encoded(without, "plain") == encoded(tokenizer, "plain")


def test_sample_is_cut_to_the_tokens_of_the_recipe_and_says_so(tokenizer: Any) -> None:
    """`max_tokens` counts the beginning token; a sample of just that length is whole."""
    _, whole, _ = encoded(tokenizer)

    longer, same, cut = (encoded(tokenizer, max_tokens=len(whole) + more, truncate="answer") for more in (1, 0, -1))

    assert longer == same == ("a", whole, "")
    assert cut == ("a", whole[:-1], "answer")


def test_conversation_that_the_template_refuses_is_returned_with_the_reason(tokenizer: Any) -> None:
    """Many templates allow no system message; such a row is reported by id and the others go on."""
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    picky = with_template(tokenizer, strict + tokenizer.chat_template)
    system = [{"role": "system", "content": "be brief"}, *QUESTION]

    samples, refused = encode([("a", QUESTION), ("b", system), ("c", QUESTION)], picky, reading())

    assert [sample.sample_id for sample in samples] == ["a", "c"]
    remedy = "`extraction: {system: fold}`, `extraction: {template: plain}` or another model reads it"
    assert refused == [("b", f"the chat template refuses it: no system role; {remedy}")]
    folded, refused = encode([("b", system)], picky, reading(system="fold"))
    merged = [{"role": "user", "content": "be brief\n\nadd two numbers"}, QUESTION[1]]
    assert refused == []
    assert facts(folded[0]) == facts(encode([("b", merged)], tokenizer, reading())[0][0])


def test_a_remedy_that_would_not_help_is_not_named(tokenizer: Any) -> None:
    """Whoever follows it would run everything once more to be refused again."""
    system = [{"role": "system", "content": "be brief"}, *QUESTION]
    never = with_template(tokenizer, "{{ raise_exception('never') }}")
    for conversation in (system, QUESTION):
        _, ((_, reason),) = encode([("a", conversation)], never, reading())
        assert "fold" not in reason
        assert "`extraction: {template: plain}`" in reason


def test_conversation_without_tokens_is_refused(tokenizer: Any) -> None:
    """A mean over no tokens is not zero; the sample has none."""
    nothing = with_template(tokenizer, "{{ bos_token }}")

    assert encode([("a", QUESTION)], nothing, reading()) == ([], [("a", "no tokens after the template")])


def test_plan_holds_every_sample_once_within_the_budget() -> None:
    """A lost sample is a missing row, a doubled one is paid for twice, and the budget is what fits in memory."""
    samples = samples_of(random.Random(0).choices(range(2, 40), k=200))

    shards = plan(samples, batch_tokens=100, shard_tokens=500)

    planned = [sample for shard in shards for sample in shard.samples]
    assert sorted(sample.sample_id for sample in planned) == [sample.sample_id for sample in samples]
    for shard in shards:
        for batch in shard.batches:
            assert sum(len(sample.token_ids) for sample in batch) <= 100
    assert all(shard.n_tokens <= 500 for shard in shards)


def test_batches_are_as_full_as_the_budget_allows() -> None:
    """A batch costs its tokens and no padding: 9, 6 and 5 make 20, and a fourth would be over."""
    (shard,) = plan(samples_of([5, 9, 4, 6, 5, 2]), batch_tokens=20, shard_tokens=1000)

    lengths = [[len(sample.token_ids) for sample in batch] for batch in shard.batches]
    assert lengths == [[9, 6, 5], [5, 4, 2]]


def test_sample_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    """It is read all the same: the budget is about memory, not about which samples count."""
    (shard,) = plan(samples_of([3, 50, 3]), batch_tokens=10, shard_tokens=1000)

    assert [[sample.sample_id for sample in batch] for batch in shard.batches] == [["001"], ["000", "002"]]


def test_full_shard_is_closed() -> None:
    """A killed run loses at most the shard that it was at."""
    shards = plan(samples_of([5] * 9), batch_tokens=10, shard_tokens=20)

    assert [[len(batch) for batch in shard.batches] for shard in shards] == [[2, 2], [2, 2], [1]]
    assert [shard.n_tokens for shard in shards] == [20, 20, 5]


def test_longest_samples_come_first() -> None:
    """A batch that does not fit in memory should fail in the first second, not in the last."""
    shards = plan(samples_of(random.Random(0).choices(range(2, 40), k=50)), batch_tokens=100, shard_tokens=300)

    lengths = [len(sample.token_ids) for shard in shards for sample in shard.samples]
    assert lengths == sorted(lengths, reverse=True)


def test_plan_does_not_depend_on_the_order_of_the_samples() -> None:
    """A run that was cut off finds its shards only if the next run makes the same ones; ties are broken by id."""
    samples = samples_of(random.Random(0).choices(range(2, 6), k=50))
    shuffled = random.Random(1).sample(samples, k=50)

    def planned(samples: list[EncodedSample]) -> list[Any]:
        return [
            (shard.name, [[sample.sample_id for sample in batch] for batch in shard.batches])
            for shard in plan(samples, 30, 60)
        ]

    assert planned(samples) == planned(shuffled)


def test_shard_is_named_by_its_samples_and_their_batches() -> None:
    """A shard on disk is used again only for the same samples, batched alike: other batches round differently."""
    samples = samples_of([5] * 8)

    names = [plan(samples, batch_tokens, 1000)[0].name for batch_tokens in (20, 10)] + [
        plan(samples[:-1], 20, 1000)[0].name
    ]

    assert len(set(names)) == 3


def test_nothing_to_read_makes_no_shard() -> None:
    """A corpus that is up to date needs no model."""
    assert plan([], 100, 100) == []
