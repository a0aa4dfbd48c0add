"""Losses of answers: against a slow reference, one example at a time, whatever is read side by side."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nait_assets.conversation import Conversation
from nait_assets.errors import DataError
from nait_assets.evaluation.losses import AnswerReader, answer_losses, encoded
from nait_assets.recipe import Extraction
from nait_assets.resources import LanguageModel
from nait_assets_tests.conftest import conversation, pool_rows


@pytest.fixture
def model(causal_folder: Path, tmp_path: Path) -> LanguageModel:
    """The tiny model."""
    return LanguageModel(source=str(causal_folder), dtype="float32", home=str(tmp_path))


def conversations(rows: list[dict[str, Any]]) -> list[tuple[str, Conversation]]:
    """Rows by their ids."""
    found = [Conversation.of(row["messages"]) for row in rows]
    return [(one.sample_id, one) for one in found]


def test_losses_are_means_over_the_tokens_of_answers(model: LanguageModel) -> None:
    """By the network's own logits, in float64, example by example; and the same in batches of any size."""
    samples, refused = encoded(conversations(pool_rows(9)), model.tokenizer(), Extraction(max_tokens=64))
    assert not refused
    loaded = model.load_causal()
    wanted = {}
    for sample in samples:
        ids = torch.from_numpy(sample.token_ids.astype(np.int64))
        with torch.inference_mode():
            logits = loaded.network(input_ids=ids[None]).logits[0].double()
        of_tokens = -torch.log_softmax(logits[:-1], 1)[torch.arange(len(ids) - 1), ids[1:]].numpy()
        wanted[sample.sample_id] = (of_tokens[sample.answers[1:]].mean(), sample.answers.sum())
    for packs, batch_tokens in ((None, 10_000), (None, 50), (False, 10_000)):
        frame = answer_losses(samples, AnswerReader(loaded, packs), batch_tokens)
        assert frame["sample_id"].to_list() == sorted(wanted)
        for name, _, value, weight in frame.rows():
            assert value == pytest.approx(wanted[name][0], rel=1e-5)
            assert weight == wanted[name][1]


def test_a_task_without_an_answer_is_refused(model: LanguageModel) -> None:
    """Answers that are all cut off would leave nothing to measure."""
    rows = conversations([conversation("a cat " * 40, "x")])
    with pytest.raises(DataError, match=r"no example of the task has an answer .*evaluation\.max_tokens"):
        encoded(rows, model.tokenizer(), Extraction(max_tokens=16, truncate="answer"))
