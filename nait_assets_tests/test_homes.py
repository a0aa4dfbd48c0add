"""Homes of other versions: one of schema 1 is carried over, with what still serves; a newer one is refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from nait_assets.cli.carry_over import carry_over, renamed
from nait_assets.errors import WarehouseError
from nait_assets.lineage import Record
from nait_assets.measurements.engine import Chunk, Measurement, MeasurementContext, bring_up_to_date, rows_of
from nait_assets.models.running import RunOptions
from nait_assets.recipe import POOL, Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.home import FILE, SCHEMA_VERSION, schema_version
from nait_assets.resources.warehouse import Store
from nait_assets.tables import CANDIDATE_POOL, published_table
from nait_assets_tests.command import instance_of, nait, quick_home, run

MakeRecipe = Callable[..., Recipe]
CODES = "codes"
CHECKPOINTS = Record("extraction/less_checkpoints", "", "1:b", "c1", {"corpora/candidate_pool": "p1", "model:m": "m1"})
AUTOENCODER = Record("features/sparse_autoencoder", "", "1:a", "a1", {"corpora/candidate_pool": "p1", "model:m": "m1"})
ACTIVATIONS = Record("extraction/candidate_activations", "", "3:x", "v1", {"corpora/candidate_pool": "p1"})
SCORES = Record("scoring/mona_scores", "all", "3:s", "s1", {"features/candidate_codes": "k1"})


def _never(_context: MeasurementContext, _samples: pl.DataFrame) -> Iterator[Chunk]:
    raise AssertionError("the model is run again")


MEASUREMENT = Measurement(
    CODES,
    "One row is one sample.",
    pl.Schema({"length": pl.Int64()}),
    _never,
    lambda _: "settings",
    upstream=("measurements/sparse_autoencoder",),
)


def _put(path: Path, statements: list[str], *records: Record) -> None:
    """Write a file as the code of schema 1 left it."""
    with Store(path).transaction() as transaction:
        for statement in statements:
            transaction.connection.execute(statement)
        for record in records:
            transaction.put_record(record)


@pytest.fixture
def recipe(make_recipe: MakeRecipe) -> Recipe:
    """A recipe whose measurement's settings are those of the home of schema 1."""
    return make_recipe(methods=["random"])


@pytest.fixture
def home(recipe: Recipe, tmp_path: Path) -> Path:
    """A home as the code at commit 78c080b wrote it: names, folders and schemas were read off one of its homes."""
    home = tmp_path / "old"
    (home / "dagster").mkdir(parents=True)
    message = "[{'role': 'user', 'content': 'question'}, {'role': 'assistant', 'content': 'answer'}]"
    codes = Record(
        "features/candidate_codes",
        "",
        MEASUREMENT.code_version(recipe),
        "k1",
        {"corpora/candidate_pool": "p1", "features/sparse_autoencoder": "a1", "model:m": "m1"},
    )
    identity = fingerprint(codes.code_version, {"features/sparse_autoencoder": "a1", "model:m": "m1"})
    _put(
        home / "readings" / CODES / "candidates.duckdb",
        [
            "CREATE SCHEMA extraction",
            "CREATE SCHEMA features",
            "CREATE TABLE features.candidate_codes AS SELECT 'a' AS sample_id, 7::BIGINT AS length",
            "CREATE TABLE features.candidate_codes_staged AS FROM features.candidate_codes LIMIT 0",
            f"CREATE TABLE features.identity AS SELECT '{identity}' AS identity",
            "CREATE TABLE extraction.rejected AS SELECT 'candidates' AS corpus, NULL::VARCHAR AS source, NULL::BIGINT "
            "AS source_row, 'b' AS sample_id, 'it is empty' AS reason, '' AS excerpt",
        ],
        codes,
    )
    _put(
        home / "activations" / "candidates.duckdb",
        ["CREATE SCHEMA extraction", "CREATE TABLE extraction.sample AS SELECT 'a' AS sample_id"],
        ACTIVATIONS,
    )
    _put(
        home / "warehouse.duckdb",
        [
            *(f"CREATE SCHEMA {schema}" for schema in ("corpora", "features", "scoring", "selection", "lineage")),
            f"CREATE TABLE corpora.candidate_pool AS SELECT 'a' AS sample_id, {message} AS messages, 's' AS source, "
            "0::BIGINT AS source_row, NULL::VARCHAR AS topic",
            "CREATE TABLE corpora.counts AS SELECT 'candidates' AS corpus, 1 AS n_rows, 0 AS n_duplicates, "
            "0 AS n_unsampled",
            "CREATE TABLE corpora.published_best AS SELECT 'a' AS sample_id, 1::BIGINT AS place",
            "CREATE TABLE features.nait_directions AS SELECT 'math' AS capability",
            "CREATE TABLE scoring.mona_scores AS SELECT 'all' AS target, 'a' AS sample_id",
            "CREATE VIEW scoring.scores AS FROM scoring.mona_scores",
            "CREATE TABLE selection.subsets AS SELECT 'a' AS sample_id",
            "CREATE TABLE selection.history AS SELECT 'mona' AS method, 1 AS number",
            "CREATE TABLE lineage.costs AS SELECT 'extraction/less_checkpoints' AS asset, '' AS partition, "
            "12.5 AS seconds",
        ],
        Record("corpora/candidate_pool", "", "2:p", "p1"),
        CHECKPOINTS,
        AUTOENCODER,
        SCORES,
    )
    (home / "trained" / "less_checkpoints").mkdir(parents=True)
    return home


def _asked(home: Path, query: str) -> list[tuple[object, ...]]:
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        return snapshot.connection.execute(query).fetchall()


def test_what_the_model_computed_is_kept_under_its_present_name(home: Path) -> None:
    """Activations, measurements and trained folders take days; whatever rests on them takes minutes."""
    reported: list[Record] = []
    said = carry_over(home, reported.append)

    records = Warehouse(home=str(home)).records()
    kept = {f"measurements/{name}" for name in (f"candidate_{CODES}", "less_checkpoints", "sparse_autoencoder")}
    assert set(records) == {"corpora/candidate_pool", "extraction/candidate_activations", *kept}
    assert {record.reference for record in reported} == kept
    assert records["extraction/candidate_activations"] == ACTIVATIONS
    assert records[f"measurements/candidate_{CODES}"].data_version == "k1"
    assert dict(records[f"measurements/candidate_{CODES}"].inputs) == {
        "corpora/candidate_pool": "p1",
        "measurements/sparse_autoencoder": "a1",
        "model:m": "m1",
    }
    assert _asked(home, "FROM selection.history") == [("mona", 1)]
    assert _asked(home, "SELECT asset, seconds FROM lineage.costs") == [("measurements/less_checkpoints", 12.5)]
    assert not (home / "readings").exists()
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        assert snapshot.rows(CANDIDATE_POOL).select("sample_id", "conversation").rows() == [("a", None)]
        assert snapshot.rows(published_table("best")).rows() == [("a", 1)]
    assert "corpora, history and costs are kept; 1 features, scores, subsets" in said
    assert "the model reads the texts again (activations, 1 measurements): it does not say which releases" in said
    assert len(said.splitlines()) == 1


def test_a_home_that_lost_its_mark_is_told_that_what_was_read_is_kept(home: Path) -> None:
    """Its records say with which libraries each text was read; the message is true of both kinds of home."""
    for store in [Store(file) for file in sorted(home.rglob("*.duckdb"))]:
        with store.transaction() as transaction:
            for record in list(transaction.records().values()):
                transaction.put_record(replace(record, inputs={**record.inputs, "torch": "2.13"}))
    said = carry_over(home, lambda _: None)
    assert "corpora, activations, 1 measurements, history and costs are kept; 1 features" in said
    assert said.endswith("subsets and reports are made again.")


def test_a_measurement_is_not_made_again_though_the_name_of_an_input_changed(home: Path, recipe: Recipe) -> None:
    """Whether a table may be kept is decided by a hash in which the names of its inputs stand."""
    carry_over(home, lambda _: None)
    warehouse = Warehouse(home=str(home))
    context = MeasurementContext(recipe, warehouse, LanguageModel.of(recipe, home), RunOptions(), POOL, lambda _: None)
    inputs = {"measurements/sparse_autoencoder": "a1", "model:m": "m1"}
    record = warehouse.records()[f"measurements/candidate_{CODES}"]
    update = bring_up_to_date(MEASUREMENT, context, inputs, lambda _: record)
    assert (update.n_read, len(update.rows)) == (0, 1)
    assert rows_of(warehouse, MEASUREMENT, POOL)[0].rows() == [("a", 7)]


@pytest.mark.parametrize("done", ["folders", "measurements", "warehouse"])
def test_one_that_was_cut_off_is_done_over(home: Path, done: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of it must not cost what the model computed."""
    whole = shutil.copytree(home, home.with_name("whole"))
    carry_over(whole, lambda _: None)
    at = {"folders": "_rename_tables", "measurements": "_drop_remade", "warehouse": "homes.mark"}[done]

    def cut_off(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"nait_assets.cli.carry_over.{at}", cut_off)
        with pytest.raises(OSError, match="No space"):
            carry_over(home, lambda _: None)
    assert schema_version(home) == 1
    carry_over(home, lambda _: None)
    assert schema_version(home) == SCHEMA_VERSION
    assert Warehouse(home=str(home)).records() == Warehouse(home=str(whole)).records()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("extraction/candidate_outputs", "measurements/candidate_outputs"),
        ("extraction/in_domain_gates[math]", "measurements/in_domain_gates[math]"),
        ("extraction/pre_experienced_model", "measurements/pre_experienced_model"),
        ("features/in_domain_codes[math]", "measurements/in_domain_codes[math]"),
        ("extraction/candidate_activations", "extraction/candidate_activations"),
        ("extraction/in_domain_activations[math]", "extraction/in_domain_activations[math]"),
        ("extraction/calibration_statistics", "extraction/calibration_statistics"),
        ("features/nait_directions[math]", "features/nait_directions[math]"),
        ("model:features/codes", "model:features/codes"),
    ],
)
def test_outputs_of_two_rooms_have_moved_into_one(old: str, new: str) -> None:
    """Every name that a version record of schema 1 can hold."""
    assert renamed(old) == new


def test_a_new_home_says_its_schema_and_an_empty_folder_is_one(tmp_path: Path) -> None:
    """Whatever writes first, a command, Dagster's UI or a notebook."""
    home = tmp_path / "new"
    assert schema_version(home) == SCHEMA_VERSION
    with Warehouse(home=str(home)).of_corpus("activations", "math").transaction():
        pass
    assert json.loads((home / FILE).read_text()) == {"schema_version": SCHEMA_VERSION}


@pytest.fixture
def finished(recipe: Recipe, tmp_path: Path) -> Path:
    """A home with corpora, scores and subsets that has lost its mark: as the schema before it, which has none."""
    home = quick_home(tmp_path / "home")
    run(recipe, home, "--select", "not group:report")
    (home / FILE).unlink()
    return home


def test_a_reader_says_what_to_do_and_the_first_run_does_it_and_says_so(recipe: Recipe, finished: Path) -> None:
    """In one line each; the subsets and their history are then as they were."""
    query = "FROM selection.subsets ORDER BY ALL"
    before, history = _asked(finished, query), _asked(finished, "SELECT count(*) FROM selection.history")
    options = ("--recipe", recipe.path, "--home", finished)
    for command in (["status"], ["summary"], ["audit"], ["explain", "a", "--target", "all"]):
        answer = nait(*command, *options)
        assert (answer.code, answer.out) == (2, ""), command
        (line,) = answer.err.splitlines()
        assert "earlier version of nait_assets: `nait run` carries it over" in line

    answer = nait("run", *options, "--select", "not group:report")
    assert answer.code == 0, answer.err
    (line,) = [line for line in answer.out.splitlines() if "carried over" in line]
    assert line.startswith(f"{finished} was written by an earlier version")
    assert (_asked(finished, query), _asked(finished, "SELECT count(*) FROM selection.history")) == (before, history)
    assert "nothing was computed" in nait("run", *options, "--select", "not group:report").out


def test_dagster_knows_what_was_carried_over(recipe: Recipe, home: Path) -> None:
    """An output that the instance does not know under its name is made again, though its table is whole."""
    assert nait("run", "--recipe", recipe.path, "--home", home, "--select", "key:corpora/candidate_pool").code == 0
    with instance_of(home) as instance:
        known = {"/".join(key.path) for key in instance.all_asset_keys()}
    assert {f"measurements/candidate_{CODES}", "measurements/less_checkpoints"} <= known


@pytest.mark.parametrize("command", ["run", "status"])
def test_a_newer_home_is_refused_in_one_sentence(recipe: Recipe, tmp_path: Path, command: str) -> None:
    """Its tables may mean something else; nothing is written to it."""
    home = quick_home(tmp_path / "home")
    (home / FILE).write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    answer = nait(command, "--recipe", recipe.path, "--home", home)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert "newer version of nait_assets (its schema is 3, and this version reads 2): update nait_assets" in line
    assert not (home / "warehouse.duckdb").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": "two"}'])
def test_a_damaged_mark_is_no_reason_to_change_a_home(tmp_path: Path, content: str) -> None:
    """Half a file of a backup must not have the home taken for an old one."""
    (tmp_path / FILE).write_text(content)
    with pytest.raises(WarehouseError, match=r"home\.json does not say which schema the home has"):
        schema_version(tmp_path)


def test_a_run_of_dagsters_refuses_a_home_of_another_schema(home: Path) -> None:
    """The UI's runs go past the command line."""
    with pytest.raises(WarehouseError, match="earlier version"):
        Warehouse(home=str(home)).setup_for_execution(None)  # type: ignore[arg-type]
