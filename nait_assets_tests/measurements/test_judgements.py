"""Judgements: what is asked, what an answer means, and what becomes of the money when something goes wrong."""

import dataclasses
import datetime
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nait_assets.conversation import sample_id
from nait_assets.errors import BudgetError, EndpointError, RecipeError, SetupError
from nait_assets.lineage import Record
from nait_assets.measurements import judgements
from nait_assets.measurements.engine import Chunk, MeasurementContext, Update, bring_up_to_date
from nait_assets.measurements.judgements import MEASUREMENT, question_of, score_of
from nait_assets.models.cost import cost_of
from nait_assets.models.running import RunOptions
from nait_assets.recipe import POOL, Recipe
from nait_assets.resources import LanguageModel, Warehouse, chat_endpoint
from nait_assets.tables import CANDIDATE_POOL
from nait_assets_tests.command import nait, quick_home, run
from nait_assets_tests.conftest import pool_rows
from nait_assets_tests.measurements.judge_server import Judge, fails, says, serving

KEY = "sk-secret-0123456789"
N = 20
ASSET = MEASUREMENT.assets[0]


@pytest.fixture(autouse=True)
def _quick_and_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses; nothing leaves this machine; the key is where recipes say."""
    monkeypatch.setattr(chat_endpoint, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def judging(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> Callable[..., Update]:
    """Judge a pool of twenty in a home under `tmp_path`; called again, go on there."""
    warehouse = Warehouse(home=str(tmp_path / "home"))
    conversations = [row["messages"] for row in pool_rows(N)]
    columns: dict[str, Any] = {"sample_id": [sample_id(one) for one in conversations], "messages": conversations}
    pool = pl.DataFrame(
        {**columns, "conversation": None, "source": "", "source_row": range(N), "topic": ""},
        schema=CANDIDATE_POOL.columns,
    )
    with warehouse.tables.transaction() as transaction:
        transaction.replace(CANDIDATE_POOL, pool)
        transaction.put_record(Record(CANDIDATE_POOL.asset, "", "1", "pool"))

    def judge(url: str, reading: Any = MEASUREMENT, **options: Any) -> Update:
        recipe = make_recipe(methods=["alpagasus"], measurements={"judgements": section(url, **options)})
        model = LanguageModel.of(recipe, tmp_path / "home")
        context = MeasurementContext(recipe, warehouse, model, RunOptions(), POOL, logging.getLogger("told").info)
        inputs = reading.external_versions(recipe, model)
        return bring_up_to_date(reading, context, inputs, lambda version: Record(ASSET, "", "1", version, inputs))

    return judge


def section(url: str, **options: Any) -> dict[str, Any]:
    return {"endpoint": url, "model": "judge", "retries": 3, "timeout_seconds": 5, **options}


def times_asked(judge: Judge) -> Counter[str]:
    return Counter(judge.questions)


# What is asked, and what an answer means


def test_the_question_is_the_published_one() -> None:
    """Scores of another wording are another method's."""
    messages = [{"role": "user", "content": "Add 1 and 2."}, {"role": "assistant", "content": "3"}]

    system, user = question_of(messages, "accuracy")

    assert system["content"].startswith("We would like to request your feedback on the performance of AI assistant")
    assert user["content"].startswith("Instruction: Add 1 and 2.\nInput:\nResponse: 3\n")
    assert "Please rate according to the accuracy of the response to the instruction and the input." in user["content"]
    assert "on a scale of 0 to 5, where a higher score indicates higher level of the accuracy." in user["content"]


def test_a_long_conversation_is_judged_by_its_last_answer() -> None:
    """The earlier turns are what it answers to; left out, a good answer looks senseless."""
    roles = ["system", "user", "assistant", "user", "assistant"]
    messages = [{"role": role, "content": f"text {place}"} for place, role in enumerate(roles)]

    _, user = question_of(messages, "helpfulness")

    wanted = (
        "Instruction: System: text 0\n\nUser: text 1\n\nAssistant: text 2\n\nUser: text 3\nInput:\nResponse: text 4\n"
    )
    assert user["content"].startswith(wanted)
    assert "level of the helpfulness" in user["content"]


def test_braces_in_an_example_stay_as_they_are() -> None:
    """Code is full of them, and templates take them for places to fill."""
    messages = [{"role": "user", "content": "{dimension} {0} {"}, {"role": "assistant", "content": "}{response}"}]

    assert (
        "Instruction: {dimension} {0} {\nInput:\nResponse: }{response}\n"
        in question_of(messages, "accuracy")[1]["content"]
    )


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("4.5\nGood.", 4.5),
        ("Score: 4\nGood.", 4.0),
        ("\n\n**Score:** 3.5/5\nFair.", 3.5),
        ("On a scale of 0 to 5: 2", 2.0),
        ("Accuracy (0-5): 1\nPoor.", 1.0),
        ("0", 0.0),
        ("5.0 out of 5", 5.0),
        ("<think>\nat first 1, then 2\n</think>\n\n4\nGood.", 4.0),
        ("As GPT-4 I give 3.", 3.0),
    ],
)
def test_the_score_is_the_first_number_of_the_first_line(text: str, score: float) -> None:
    assert score_of(text)[0] == score


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the answer is empty"),
        ("<think>4</think>", "the answer is empty"),
        ("The response is good.\n5", "no number in the answer's first line: 'The response is good.'"),
        ("10\nGreat", "the score 10 is not between 0 and 5"),
        ("-1", "the score -1 is not between 0 and 5"),
        ("4,5\nGood", "no number"),
        ("nan", "no number"),
        ("85%", "the score 85 is not between 0 and 5"),
    ],
)
def test_an_answer_without_a_score_is_no_score(text: str, reason: str) -> None:
    """A guessed number would be ranked like a judged one."""
    with pytest.raises(ValueError, match=reason):
        score_of(text)


def test_an_explanation_is_kept_but_not_a_book() -> None:
    assert score_of("4\n" + "x" * 10_000) == (4.0, "x" * judgements.RATIONALE)


# Calls


def test_good_answers_are_stored_and_calls_overlap(judging: Callable[..., Update]) -> None:
    """Judging is waiting: one call after the other would take hours where minutes will do."""
    with serving(Judge(lambda number, question: says("4.5\nFine."), delay_seconds=0.03)) as judge:
        outcome = judging(judge.url, concurrency=5)

    assert outcome.rows["score"].to_list() == [4.5] * N
    assert set(outcome.rows["rationale"]) == {"Fine."}
    assert set(outcome.rows["model"]) == {"judge-0301"}
    assert outcome.rows["n_prompt_tokens"].sum() == 100 * N
    assert (outcome.cost.n_calls, outcome.cost.n_tokens) == (N, 130 * N)
    assert judge.at_once == 5
    assert {(body["model"], body["temperature"]) for body in judge.bodies} == {("judge", 0.0)}


def test_each_score_belongs_to_the_sample_that_was_asked_about(judging: Callable[..., Update]) -> None:
    """Calls end in another order than they begin; a shifted score would never be noticed."""

    def reply(number: int, question: str) -> Any:
        time.sleep(0.03 * (number % 3))
        return says(f"{len(question) % 50 / 10}\n{question[:60]}")

    with serving(Judge(reply)) as judge:
        rows = judging(judge.url, concurrency=8).rows

    questions = {sample_id(row["messages"]): question_of(row["messages"], "accuracy") for row in pool_rows(N)}
    for name, score, rationale in rows.select("sample_id", "score", "rationale").iter_rows():
        asked = questions[name][1]["content"]
        assert (score, rationale) == (len(asked) % 50 / 10, asked[:60].strip())


def test_a_malformed_answer_costs_one_sample_its_score(judging: Callable[..., Update]) -> None:
    with serving(Judge(lambda number, question: says("I cannot say." if number == 3 else "4"))) as judge:
        outcome = judging(judge.url)

    assert outcome.n_read == N - 1
    ((_, reason),) = outcome.rejected
    assert reason == "no number in the answer's first line: 'I cannot say.'"
    assert len(judge.questions) == N  # at temperature 0 the same question gets the same answer


def test_an_answer_that_is_cut_is_no_score(judging: Callable[..., Update]) -> None:
    """A larger `max_answer_tokens` might have had it say another one."""

    def reply(number: int, question: str) -> Any:
        return says("3\nas it", finish="length" if number == 15 else "stop")

    with serving(Judge(reply)) as judge:
        update = judging(judge.url, concurrency=1)
    assert len(update.rows) == N - 1
    assert "max_answer_tokens: 512" in update.rejected[0][1]


def test_a_judge_on_this_machine_is_not_asked_through_a_proxy(
    judging: Callable[..., Update], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key would go over plain http to the proxy."""
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with serving(Judge(lambda *_: says("4"))) as judge:
        assert len(judging(judge.url).rows) == N


def test_retry_after_is_kept_to(judging: Callable[..., Update]) -> None:
    """An endpoint that is asked again too soon may shut out the key."""
    with serving(Judge(lambda number, _: fails(429, retry_after="0.4") if number == 1 else says("4"))) as judge:
        outcome = judging(judge.url)

    assert outcome.n_read == N
    assert judge.times[1] - judge.times[0] >= 0.4
    assert outcome.cost.n_calls == N + 1


def test_retry_after_may_be_a_date() -> None:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)

    assert 28 <= (chat_endpoint._seconds_of(format_datetime(at, usegmt=True)) or 0) <= 30
    assert chat_endpoint._seconds_of("soon") is None


def test_a_failure_that_passes_is_tried_again(judging: Callable[..., Update]) -> None:
    with serving(Judge(lambda number, _: fails(500) if number in (1, 4, 5) else says("4"))) as judge:
        outcome = judging(judge.url)

    assert outcome.n_read == N
    assert outcome.rejected == ()
    assert outcome.cost.n_calls == N + 3


def test_a_question_that_always_fails_is_one_sample_without_a_score(judging: Callable[..., Update]) -> None:
    with serving(Judge(lambda _, question: fails(500) if "question 7:" in question else says("4"))) as judge:
        outcome = judging(judge.url, retries=1)

    ((_, reason),) = outcome.rejected
    assert "fails with 500" in reason
    assert reason.endswith("2 time(s)")
    assert outcome.n_read == N - 1


def test_a_question_that_is_refused_is_not_asked_again(judging: Callable[..., Update]) -> None:
    """Such as one that is longer than the judge's context."""
    with serving(
        Judge(lambda _, question: fails(400, "too long") if "question 7:" in question else says("4"))
    ) as judge:
        outcome = judging(judge.url)

    ((_, reason),) = outcome.rejected
    assert "refuses it with 400" in reason
    assert "too long" in reason
    assert max(times_asked(judge).values()) == 1


def test_a_slow_answer_is_given_up(judging: Callable[..., Update]) -> None:
    def slow(number: int, _: str) -> Any:
        time.sleep(1.0 if number == 2 else 0)
        return says("4")

    with serving(Judge(slow)) as judge:
        outcome = judging(judge.url, timeout_seconds=0.3)

    assert outcome.n_read == N
    assert outcome.cost.n_calls == N + 1


def test_an_answer_that_is_not_json_is_tried_again(judging: Callable[..., Update]) -> None:
    """Proxies answer with pages of their own when what is behind them restarts."""
    with serving(Judge(lambda number, _: (200, {}, "<html>") if number == 2 else says("4"))) as judge:
        outcome = judging(judge.url)

    assert outcome.n_read == N


def test_nobody_there_ends_the_run(judging: Callable[..., Update]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    with pytest.raises(EndpointError, match=rf"http://127.0.0.1:{port}/v1 cannot be reached: .*rerun"):
        judging(f"http://127.0.0.1:{port}/v1", retries=1)


def test_an_endpoint_that_breaks_down_ends_the_run(judging: Callable[..., Update]) -> None:
    """Else every sample left would be noted as one without a score."""
    with serving(Judge(lambda number, _: says("4") if number <= 8 else fails(503))) as judge:
        with pytest.raises(EndpointError, match=r"left 5 questions in a row unanswered: .*503"):
            judging(judge.url, retries=1)
        judge.reply = lambda *_: says("3")
        outcome = judging(judge.url)

    assert sorted(outcome.rows["score"]) == [3.0] * (N - 8) + [4.0] * 8


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "`model`"), (402, "paid")]
)
def test_what_no_retry_can_mend_ends_at_once(judging: Callable[..., Update], status: int, advice: str) -> None:
    """A wrong key must not cost one call for each of 52 thousand samples."""
    message = f"refuses with {status}: .*{advice}"
    with (
        serving(Judge(lambda *_: fails(status, f"bad key {KEY}"))) as judge,
        pytest.raises(EndpointError, match=message) as caught,
    ):
        judging(judge.url, concurrency=8)

    assert len(judge.questions) == 1
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_used_up_quota_ends_at_once(judging: Callable[..., Update]) -> None:
    """It is told as 429, as if waiting helped."""
    judge = Judge(lambda *_: fails(429, code="insufficient_quota"))
    with serving(judge), pytest.raises(EndpointError, match="quota is used up"):
        judging(judge.url)

    assert len(judge.questions) == 1


def test_a_judge_that_cannot_judge_ends_the_run(judging: Callable[..., Update]) -> None:
    """A model that does not keep to the form would be paid for the whole pool."""
    judge = Judge(lambda *_: says("Great response!"))
    with serving(judge), pytest.raises(EndpointError, match="the first 10 answers of 'judge' are of no use: no number"):
        judging(judge.url, concurrency=2)

    assert len(judge.questions) <= 12


# What is kept


def crashing(after: int) -> Any:
    """The reading, in a process that dies after so many parts."""

    def read(context: MeasurementContext, samples: pl.DataFrame) -> Iterator[Chunk]:
        for number, part in enumerate(MEASUREMENT.read(context, samples)):
            if number == after:
                raise KeyboardInterrupt
            yield part

    return dataclasses.replace(MEASUREMENT, read=read)


def test_a_killed_run_goes_on_where_it_was(judging: Callable[..., Update], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged is paid for: nothing that was stored is judged twice."""
    monkeypatch.setattr(judgements, "BATCH", 4)
    with serving(Judge(lambda *_: says("4"))) as judge:
        with pytest.raises(KeyboardInterrupt):
            judging(judge.url, crashing(after=3), concurrency=2)
        before = times_asked(judge)
        outcome = judging(judge.url, concurrency=2)

    stored = N - outcome.cost.n_calls
    assert 12 <= stored < len(before) < N  # three parts; then the one in flight, and the calls under way
    assert outcome.rows["sample_id"].n_unique() == N
    assert sorted(times_asked(judge).values()) == [1] * (N - len(before) + stored) + [2] * (len(before) - stored)


def test_a_second_run_asks_nothing(judging: Callable[..., Update]) -> None:
    with serving(Judge(lambda *_: says("4"))) as judge:
        judging(judge.url)
        outcome = judging(judge.url, concurrency=1, retries=0, max_calls=N, timeout_seconds=1)

    assert len(judge.questions) == N
    assert (outcome.n_read, outcome.cost.n_calls) == (0, 0)


def test_another_port_of_the_same_host_asks_nothing_and_another_dimension_everything(
    judging: Callable[..., Update],
) -> None:
    """A server started again listens elsewhere; another question has another answer."""
    with serving(Judge(lambda *_: says("4"))) as first:
        judging(first.url)
    with serving(Judge(lambda *_: says("2"))) as second:
        kept = judging(second.url)
        assert second.questions == []
        anew = judging(second.url, dimension="helpfulness")

    assert set(kept.rows["score"]) == {4.0}
    assert set(anew.rows["score"]) == {2.0}


def test_a_failed_sample_is_tried_again_next_time(judging: Callable[..., Update]) -> None:
    with serving(Judge(lambda number, _: says("?" if number == 2 else "4"))) as judge:
        assert judging(judge.url).n_read == N - 1
        outcome = judging(judge.url)

    assert (outcome.n_read, outcome.rejected) == (1, ())
    assert len(judge.questions) == N + 1


# What it may cost


@pytest.mark.parametrize(
    "budget",
    [
        {"max_calls": 7},
        {"max_tokens_total": 7 * 130},
        {"max_cost": 6.5 * 160e-6, "price_per_million_input_tokens": 1, "price_per_million_output_tokens": 2},
    ],
)
def test_a_budget_ends_the_run_and_keeps_what_was_judged(
    judging: Callable[..., Update], budget: dict[str, Any]
) -> None:
    """And all runs share it: the next one spends nothing until somebody raises it."""
    with serving(Judge(lambda *_: says("4"), delay_seconds=0.01)) as judge:
        with pytest.raises(
            BudgetError, match=rf"budget is spent \(measurements.judgements.{next(iter(budget))}.*7 call"
        ) as told:
            judging(judge.url, concurrency=1, **budget)
        assert len(judge.questions) == 7
        assert "Raise it to go on and rerun; finished judgements are kept" in str(told.value)

        with pytest.raises(BudgetError, match="budget is spent"):
            judging(judge.url, concurrency=1, **budget)
        assert len(judge.questions) == 7

        outcome = judging(judge.url, concurrency=3)

    assert outcome.rows["sample_id"].n_unique() == N
    assert max(times_asked(judge).values()) == 1


@pytest.mark.parametrize("concurrency", [1, 6])
def test_calls_never_exceed_their_budget(judging: Callable[..., Update], concurrency: int) -> None:
    """Failed calls count, and several threads share what is left."""
    judge = Judge(lambda number, _: fails(500) if number % 3 == 0 else says("4"))
    with serving(judge), pytest.raises(BudgetError, match="max_calls: 11"):
        judging(judge.url, concurrency=concurrency, max_calls=11)

    assert len(judge.questions) == 11


def test_what_a_failed_run_took_is_on_the_bill(judging: Callable[..., Update], tmp_path: Path) -> None:
    """The comparison of methods by cost would else find a judge that is stopped often a cheap one."""
    with serving(Judge(lambda *_: says("4"))) as judge, pytest.raises(BudgetError, match="max_calls: 7"):
        judging(judge.url, max_calls=7)

    with Warehouse(home=str(tmp_path / "home")).tables.snapshot() as tables:
        cost = cost_of(tables, ASSET)
    assert (cost.n_calls, cost.n_tokens) == (7, 7 * 130)


def test_a_budget_that_is_just_enough_is_enough(judging: Callable[..., Update]) -> None:
    with serving(Judge(lambda *_: says("4"))) as judge:
        assert judging(judge.url, max_calls=N).n_read == N


def test_tokens_that_nobody_counts_cannot_be_limited(judging: Callable[..., Update]) -> None:
    with serving(Judge(lambda *_: says("4", usage=False))) as judge:
        with pytest.raises(EndpointError, match="does not say how many tokens it took"):
            judging(judge.url, max_tokens_total=1000)
        assert len(judge.questions) == 1
        outcome = judging(judge.url)

    assert outcome.rows["n_prompt_tokens"].to_list() == [None] * N


# What a user can get wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "localhost:8000"}, "'localhost:8000' is not the base URL of an API"),
        ({"endpoint": "http://127.0.0.1:80:80/v1"}, "is not the base URL of an API"),
        ({"endpoint": "http://me:word@host/v1"}, "must not hold a name or password"),
        ({"dimension": "beauty"}, "'accuracy' or 'helpfulness'"),
        ({"max_cost": 1}, "max_cost 1 needs `price_per_million_input_tokens`"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"api_key": KEY}, "unknown field; did you mean 'api_key_variable'"),
        ({"api_key_variable": KEY}, "must be the name of an environment variable"),
    ],
)
def test_a_wrong_option_is_told_when_the_recipe_is_read(
    make_recipe: Callable[..., Recipe], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        make_recipe(methods=["alpagasus"], measurements={"judgements": section("http://localhost/v1", **options)})

    assert KEY not in str(caught.value)
    assert "word" not in str(caught.value).replace("password", "")


def test_the_method_needs_its_section(make_recipe: Callable[..., Recipe]) -> None:
    """No endpoint is a good default."""
    with pytest.raises(RecipeError, match=r"method 'alpagasus' needs the section `measurements.judgements`"):
        make_recipe(methods=["alpagasus"])


@pytest.mark.parametrize(("value", "message"), [(None, "is not set"), (" ", "is not set"), ("sk a", "white space")])
def test_a_missing_key_is_told_before_anything_is_made(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None, message: str
) -> None:
    """And no call is made to find out."""
    monkeypatch.delenv("OPENAI_API_KEY")
    if value is not None:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    recipe = make_recipe(methods=["alpagasus"], measurements={"judgements": section("http://localhost:1/v1")})

    with pytest.raises(SetupError, match=message):
        MEASUREMENT.preflight(recipe, LanguageModel.of(recipe, tmp_path))


def test_an_endpoint_without_a_key_works(judging: Callable[..., Update], monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers on one's own machine ask for none, and another service's key is none of their business."""
    with serving(Judge(lambda *_: says("4"))) as judge:
        judging(judge.url, api_key_variable=None)

    assert KEY not in str(judge.headers)


# All of it


def test_a_recipe_with_a_judge(tmp_path: Path, make_recipe: Callable[..., Recipe], caplog: Any) -> None:
    """A spent budget is one sentence; raised, the rest is judged, and once. The key is in nothing that was written."""
    caplog.set_level(logging.DEBUG)
    home = quick_home(tmp_path / "home")
    with serving(Judge(lambda number, _: says(f"{number % 6}\nIt says {KEY}."))) as judge:

        def recipe_with(**options: Any) -> Recipe:
            return make_recipe(
                methods=["alpagasus"],
                ratios=[0.3],
                options={"alpagasus": {"threshold": 3}},
                measurements={"judgements": section(judge.url, **options)},
            )

        stopped = nait("run", "--recipe", recipe_with(max_calls=5).path, "--home", home)
        assert len(judge.questions) == 5
        made = run(recipe_with(max_calls=50), home)
        again = run(recipe_with(concurrency=2), home)
        assert len(judge.questions) == N

    assert stopped.code == 2
    assert "max_calls: 5" in stopped.err
    assert "Traceback" not in stopped.err
    assert judge.headers["authorization"] == f"Bearer {KEY}"
    assert ASSET in made
    assert not any("in_domain_judgements" in name for name in made)  # nothing reads them, and each would cost
    assert again == set()
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        scores = tables.connection.sql("SELECT target, score, reason FROM scoring.alpagasus_scores").pl()
    assert set(scores["target"]) == {"code", "math", "all"}
    assert scores.filter(pl.col("score") < 3).is_empty()
    reasons = scores.filter(pl.col("score").is_null())["reason"]
    assert len(reasons) == 3 * 11
    assert "judged 2, below the threshold of 3" in set(reasons)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".duckdb" for file in files)
    assert [file for file in files if KEY.encode() in file.read_bytes()] == []
    assert KEY not in caplog.text + stopped.out + stopped.err
