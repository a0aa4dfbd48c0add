"""Judgements: how good another model, behind an API, finds each example: what AlpaGasus chooses by.

arXiv 2307.08701, figure 2 and appendix: the judge rates the accuracy (or helpfulness) of a response from 0 to 5, in the
first line of its answer, and explains itself below. The prompt is the published one. Two things are ours. The paper has
Alpaca's three fields: here everything in front of the last answer is the instruction, turn by turn where there are
several, and the input stays empty, as an Alpaca row's is part of its user message. And an answer without a number
between 0 and 5 in its first line is no score, with a reason.

What changes a score, and judges everything again: the model, the dimension, the temperature and the endpoint's host, as
a model of the same name may be another one elsewhere. Not its port and path, nor concurrency, retries, time-outs,
budgets, the most tokens of an answer (the score stands first) and where the key is.

Cost: one call a sample, of about 150 tokens more than the sample, and the explanation. Failed calls are counted too.
What is judged is stored every few seconds: a killed run loses the batch in flight. Calls under way when a budget of
tokens or cost is reached are still paid, at most as many as run at once.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
from pydantic import Field

from nait_assets.conversation import messages_of
from nait_assets.errors import BudgetError, EndpointError, UserError
from nait_assets.measurements.engine import Chunk, Measurement, MeasurementContext, store_of
from nait_assets.measurements.judge_spending import Budget, Spending, spent, write_spending
from nait_assets.models.cost import Cost
from nait_assets.recipe import Recipe
from nait_assets.recipe.measurements import MeasurementOptions
from nait_assets.resources import LanguageModel
from nait_assets.resources.chat_endpoint import (
    CallFailed,
    ChatEndpoint,
    EndpointClosed,
    EndpointOptions,
    NoPermit,
    QuestionRefused,
    host_of,
    key_of,
)

SECTION = "measurements.judgements"
SYSTEM = (
    "We would like to request your feedback on the performance of AI assistant in response to the instruction and the "
    "given input displayed following."
)
USER = """Instruction: {instruction}
Input:
Response: {response}

Please rate according to the {dimension} of the response to the instruction and the input. Each assistant receives a \
score on a scale of 0 to 5, where a higher score indicates higher level of the {dimension}. Please first output a \
single line containing the value indicating the scores. In the subsequent line, please provide a comprehensive \
explanation of your evaluation, avoiding any potential bias."""
BATCH, BATCH_SECONDS = 20, 5.0
"""Judgements, and seconds, after which what is judged is stored."""
N_IN_A_ROW = 5
"""Samples in a row that the endpoint may fail to answer before the run ends."""
N_TO_BEGIN_WITH = 10
"""Answers in a row, and none before, that may be of no use before the run ends."""
RATIONALE = 500
"""Characters of an explanation that are kept."""
COLUMNS = pl.Schema(
    {
        "score": pl.Float64(),
        "rationale": pl.String(),
        "n_prompt_tokens": pl.Int64(),
        "n_answer_tokens": pl.Int64(),
        "model": pl.String(),
    }
)
_SCALE = re.compile(r"\b0\s*(?:-|–|to)\s*5\b")
_NUMBER = re.compile(r"(?<![\w.,-])-?[0-9]+(?:\.[0-9]+)?(?![\w]|[.,][0-9])")


class JudgementsOptions(EndpointOptions, Budget, MeasurementOptions):
    """Who judges, what is rated, and how much that may cost."""

    section = "judgements"
    needed_by = ("measurements/candidate_judgements", "measurements/in_domain_judgements")
    dimension: Literal["accuracy", "helpfulness"] = Field("accuracy", description="What is rated.")
    concurrency: int = Field(4, ge=1, le=256, exclude=True, description="Calls made at once.")


def question_of(messages: Sequence[Mapping[str, str]], dimension: str) -> list[dict[str, str]]:
    """What the judge is asked about a conversation, whose last message is the response."""
    *before, last = messages
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in before]
    instruction = before[0]["content"] if len(before) == 1 else "\n\n".join(turns)
    asked = USER.format(instruction=instruction, response=last["content"], dimension=dimension)
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]


def score_of(text: str) -> tuple[float, str]:
    """The score in the first line of an answer, and the explanation in the others.

    The score is the line's first number. The scale itself ("0 to 5") is not it, nor is a number that is part of a word
    or that has a comma, which could mean two things. What a model thinks aloud before it answers is left out.

    Raises:
        ValueError: There is none between 0 and 5; the message is the reason.
    """
    answer = re.sub(r"\A\s*<think>.*?</think>", "", text, flags=re.DOTALL).strip()
    if not answer:
        raise ValueError("the answer is empty")
    first, _, rest = answer.partition("\n")
    found = _NUMBER.search(_SCALE.sub("", first))
    if found is None:
        raise ValueError(f"no number in the answer's first line: {first[:80]!r}")
    score = float(found.group())
    if not 0 <= score <= 5:
        raise ValueError(f"the score {found.group()} is not between 0 and 5: {first[:80]!r}")
    return score, rest.strip()[:RATIONALE]


@dataclass(frozen=True)
class Outcome:
    """What came of one sample.

    Attributes:
        sample_id: The sample.
        row: Row of the measurement, or None.
        reason: Why there is no row.
        blame: Party at fault: the answer is of no use, the endpoint did not answer, or the run has to end.
    """

    sample_id: str
    row: dict[str, Any] | None = None
    reason: str = ""
    blame: Literal["", "answer", "endpoint", "run"] = ""


class Judging:
    """One run of judging: several samples at once, until all are judged or something ends it.

    Attributes:
        ending: Why it ended before all were judged, or "".
        error: Class of the error that this is.
    """

    def __init__(self, endpoint: ChatEndpoint, options: JudgementsOptions, spending: Spending, n_judged_before: int):
        self.endpoint, self.options, self.spending = endpoint, options, spending
        self.ending = ""
        self.error: type[UserError] = EndpointError
        self._n_judged, self._any_before = 0, n_judged_before > 0
        self._n_useless = self._n_unanswered = 0
        self._unanswered = ""

    def batches(self, samples: Sequence[tuple[str, Sequence[Mapping[str, str]]]]) -> Iterator[list[Outcome]]:
        """What came of samples, as they are done: batches of at most a few seconds."""
        waiting = list(reversed(samples))
        flying: set[Future[Outcome]] = set()
        batch: list[Outcome] = []
        began = time.monotonic()
        pool = ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="judge")
        try:
            while True:
                while waiting and self._may_start(len(flying)):
                    flying.add(pool.submit(self._outcome, *waiting.pop()))
                if not flying:
                    break
                done, flying = wait(flying, timeout=BATCH_SECONDS, return_when=FIRST_COMPLETED)
                batch += [outcome for outcome in map(self._noted, done) if outcome.blame != "run"]
                if batch and (len(batch) >= BATCH or time.monotonic() - began > BATCH_SECONDS):
                    yield batch
                    batch, began = [], time.monotonic()
        finally:
            self.endpoint.stopped.set()
            pool.shutdown(cancel_futures=True)
        if self._unanswered and not self._n_judged:
            self._end(f"{self.options.endpoint} answers nothing: {self._unanswered}")
        yield batch

    def _may_start(self, n_flying: int) -> bool:
        """Whether another call may begin. The first goes alone: a wrong key costs one call."""
        alone = not self._n_judged and not self._n_useless
        if self.ending or n_flying >= (1 if alone else self.options.concurrency):
            return False
        if self.spending.reached(self.options) is not None:
            self._end_as_spent()
        return not self.ending

    def _outcome(self, sample_id: str, messages: Sequence[Mapping[str, str]]) -> Outcome:
        try:
            answer = self.endpoint.ask(question_of(messages, self.options.dimension))
        except QuestionRefused as error:
            return Outcome(sample_id, reason=str(error), blame="answer")
        except CallFailed as error:
            return Outcome(sample_id, reason=str(error), blame="endpoint")
        except (EndpointClosed, NoPermit) as error:
            closed = isinstance(error, EndpointClosed)
            return Outcome(sample_id, reason=str(error) if closed else "", blame="run")
        self.spending.add(answer)
        counts = answer.n_prompt_tokens, answer.n_answer_tokens
        if None in counts and (self.options.max_tokens_total or self.options.max_cost):
            reason = f"{self.options.endpoint} does not say how many tokens it took: only `max_calls` can limit it"
            return Outcome(sample_id, reason=reason, blame="run")
        if answer.finish == "length":  # what it would have gone on to say may be another score
            reason = f"the answer is cut: it needs more than `max_answer_tokens: {self.options.max_answer_tokens}`"
            return Outcome(sample_id, reason=reason, blame="answer")
        try:
            score, rationale = score_of(answer.text)
        except ValueError as error:
            ended = f" (ended by {answer.finish})" if answer.finish not in ("", "stop") else ""
            return Outcome(sample_id, reason=f"{error}{ended}", blame="answer")
        return Outcome(sample_id, dict(zip(COLUMNS, (score, rationale, *counts, answer.model), strict=True)))

    def _noted(self, done: Future[Outcome]) -> Outcome:
        """The outcome, and what it says of the run."""
        outcome = done.result()
        if outcome.blame == "run":
            self._end(outcome.reason) if outcome.reason else self._end_as_spent()
        elif outcome.blame == "endpoint":
            self._n_unanswered, self._unanswered = self._n_unanswered + 1, outcome.reason
            if self._n_unanswered >= N_IN_A_ROW:
                self._end(f"{self.options.endpoint} left {N_IN_A_ROW} questions in a row unanswered: {outcome.reason}")
        elif outcome.blame == "answer":
            self._n_unanswered, self._n_useless = 0, self._n_useless + 1
            if self._n_useless >= N_TO_BEGIN_WITH and not self._n_judged and not self._any_before:
                self._end(
                    f"the first {N_TO_BEGIN_WITH} answers of {self.options.model!r} are of no use: {outcome.reason}"
                )
        else:
            self._n_unanswered, self._n_judged = 0, self._n_judged + 1
        return outcome

    def _end(self, why: str, advice: str = "Fix this", error: type[UserError] = EndpointError) -> None:
        """End the run; its first reason counts, as the others follow from it."""
        if not self.ending:
            self.endpoint.stopped.set()
            self.ending, self.error = f"{why}. {advice}", error

    def _end_as_spent(self) -> None:
        budget = self.spending.reached(self.options)
        self._end(f"the budget is spent ({SECTION}.{budget})", "Raise it to go on", BudgetError)


def _judge(options: JudgementsOptions) -> str:
    return f"{host_of(options.endpoint)}|{options.model}"


def _read(context: MeasurementContext, samples: pl.DataFrame) -> Iterator[Chunk]:
    options = JudgementsOptions.of(context.recipe)
    store = store_of(context.warehouse, MEASUREMENT.name, context.corpus)
    table = MEASUREMENT.table_of(context.corpus)
    spending, n_before = spent(store, _judge(options), table.name)
    endpoint = ChatEndpoint(options, key_of(options, SECTION), lambda: spending.permit(options))
    judging = Judging(endpoint, options, spending, n_before)
    counted = Spending(spending.n_calls, spending.n_prompt_tokens, spending.n_answer_tokens)
    try:
        for outcomes in judging.batches(messages_of(samples)):
            now = Spending(spending.n_calls, spending.n_prompt_tokens, spending.n_answer_tokens)
            write_spending(store, _judge(options), now)
            yield _part(outcomes, Cost(n_calls=now.n_calls - counted.n_calls, n_tokens=now.n_tokens - counted.n_tokens))
            counted = now
    finally:
        endpoint.close()
    context.log_line(f"judged by {options.model}: {spending.says(options)} in all runs")
    if judging.ending:
        raise judging.error(
            f"judging by {options.model!r} ended: {judging.ending} and rerun; finished judgements are kept. "
            f"All runs took {spending.says(options)}."
        )


def _part(outcomes: Sequence[Outcome], cost: Cost) -> Chunk:
    rows = [{"sample_id": outcome.sample_id, **outcome.row} for outcome in outcomes if outcome.row is not None]
    rejected = [(outcome.sample_id, outcome.reason) for outcome in outcomes if outcome.row is None]
    return Chunk(pl.DataFrame(rows, schema={"sample_id": pl.String(), **COLUMNS}), rejected, cost)


def _settings(recipe: Recipe) -> list[Any]:
    return [JudgementsOptions.given(recipe)]


def _external_versions(recipe: Recipe, _model: LanguageModel) -> dict[str, str]:
    options = JudgementsOptions.of(recipe)
    return {f"judge:{options.model}": _judge(options)}


def _preflight(recipe: Recipe, _model: LanguageModel) -> None:
    key_of(JudgementsOptions.of(recipe), SECTION)


MEASUREMENT = Measurement(
    name="judgements",
    description="The score from 0 to 5 that a judge model behind an API gives the answer. One row is one sample.",
    columns=COLUMNS,
    read=_read,
    settings=_settings,
    external_versions=_external_versions,
    preflight=_preflight,
    kinds=frozenset({"openai", "duckdb"}),
    pool="judge",
)
