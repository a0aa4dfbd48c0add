"""What somebody, a disk or a careless program may do to a finished home, its sources and its model: one change each."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from nait_assets.resources.files import sha256
from nait_assets_tests.audit.test_chain import edit, forged_neuron

Tamper = Callable[[Path], object]
"""Changes one thing in a folder with a recipe, its data, its model and its `home`."""

TABLES = "home/warehouse.duckdb"
ACTIVATIONS, EXAMPLES = "home/activations/candidates.duckdb", "home/activations/in_domain/math.duckdb"
OUTPUTS, CODES = "home/measurements/outputs/candidates.duckdb", "home/measurements/codes/in_domain/math.duckdb"
TRAINED, SUBSET = "home/trained/sparse_autoencoder", "home/subsets/nait_standardized/math/0.30"
FEATURE, PAGE = "home/features/math/standardized_centroids.safetensors", "home/report/index.html"
RUNS, EVENTS = "home/dagster/history/runs.db", "home/dagster/history/runs/index.db"
SETTINGS, HASHES, MARK = "home/dagster/dagster.yaml", "home/hashes.json", "home/home.json"
CHOSEN = "method = 'nait_standardized' AND target = 'math'"
FIRST = "(SELECT min(sample_id) FROM extraction.activation)"


@dataclass(frozen=True)
class Statement:
    """A statement in a DuckDB file.

    Attributes:
        file: the file, in the folder.
        statement: what is executed in it.
    """

    file: str
    statement: str

    def __call__(self, work: Path) -> None:
        """Execute it."""
        edit(work / self.file, self.statement)


def sql(file: str, statement: str) -> Tamper:
    """A statement in a DuckDB file."""
    return Statement(file, statement)


def record(asset: str, change: str, file: str = TABLES) -> Tamper:
    """A change of a version record."""
    return sql(file, f"UPDATE lineage.versions SET {change} WHERE asset = '{asset}'")


def flipped(file: str, at: float = 0.5, keep_time: bool = False) -> Tamper:
    """One bit of a file, at a share of its length."""

    def tamper(work: Path) -> None:
        content = bytearray((work / file).read_bytes())
        content[int(at * (len(content) - 1))] ^= 1
        rewrite(work / file, bytes(content), keep_time)

    return tamper


def exchanged(file: str, old: str, new: str, keep_time: bool = False) -> Tamper:
    """A word of a text file."""

    def tamper(work: Path) -> None:
        text = (work / file).read_text(encoding="utf-8")
        assert old in text
        rewrite(work / file, text.replace(old, new, 1).encode(), keep_time)

    return tamper


def rewrite(file: Path, content: bytes, keep_time: bool) -> None:
    """Other bytes; `cp -p`, `rsync -t` and restores put times back."""
    state = file.stat()
    file.write_bytes(content)
    if keep_time:
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def written(file: str, content: str) -> Tamper:
    """A file with this content, new or in place of what was there."""

    def tamper(work: Path) -> None:
        (work / file).parent.mkdir(parents=True, exist_ok=True)
        (work / file).write_text(content)

    return tamper


def gone(path: str) -> Tamper:
    """A file or a folder that is no longer there."""
    return lambda work: shutil.rmtree(work / path) if (work / path).is_dir() else (work / path).unlink()


def cut(file: str, share: float) -> Tamper:
    """A file of which only the beginning is left."""
    return lambda work: os.truncate(work / file, int(share * (work / file).stat().st_size))


def folder(path: str) -> Tamper:
    """A folder in place of a file."""

    def tamper(work: Path) -> None:
        (work / path).unlink()
        (work / path).mkdir()

    return tamper


def copied(source: str, to: str) -> Tamper:
    """A file or folder in the place of another, or where there was none."""

    def tamper(work: Path) -> None:
        copy = shutil.copytree if (work / source).is_dir() else shutil.copyfile
        (work / to).parent.mkdir(parents=True, exist_ok=True)
        copy(work / source, work / to)

    return tamper


def in_manifest(field: str) -> Tamper:
    """Another value of a field of a subset's manifest."""

    def tamper(work: Path) -> None:
        path = work / SUBSET / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest[field] = other(manifest[field])
        path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")

    return tamper


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, dict):
        name = min(value)
        return {**value, name: other(value[name])}
    return value + 1 if isinstance(value, int) else f"{value}x" if isinstance(value, str) else "x"


def with_its_manifest(work: Path) -> None:
    """A row of a subset is dropped, and the manifest has the hash of the file as it is now."""
    file, manifest = work / SUBSET / "train.jsonl", work / SUBSET / "manifest.json"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    stated = json.loads(manifest.read_text())
    stated["files"]["train.jsonl"]["sha256"] = sha256(file)
    manifest.write_text(json.dumps(stated, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def forged_hash(work: Path) -> None:
    """A remembered hash of a source that the source does not have."""
    known = json.loads((work / HASHES).read_text())
    name = next(name for name in known if "pool.jsonl" in name and name.endswith(tuple("0123456789")))
    stat = (work / "pool.jsonl").stat()  # the copy's own state, as `nait status` would have remembered it
    known[f"{(work / 'pool.jsonl').resolve()}:{stat.st_size}:{stat.st_mtime_ns}"] = other(known[name])
    (work / HASHES).write_text(json.dumps(known))


def two_candidates_exchanged(work: Path) -> None:
    """The two best of a ranking change places, with all that is said of them."""
    with duckdb.connect(str(work / TABLES)) as connection:
        best = connection.sql("FROM scoring.random_scores WHERE target = 'math' AND rank <= 2 ORDER BY rank").pl()
        names = best["sample_id"].to_list()
        for rank, name in enumerate(reversed(names), 1):
            connection.execute(
                "UPDATE scoring.random_scores SET sample_id = ? WHERE target = 'math' AND rank = ?", [name, rank]
            )


def another_parquet(work: Path) -> None:
    """The rows of a subset in another order."""
    file = work / SUBSET / "train.parquet"
    pl.read_parquet(file, glob=False).reverse().write_parquet(file)


def link_to_elsewhere(work: Path) -> None:
    """A folder that leads out of the home."""
    (work / "home" / "elsewhere").symlink_to(work / "model", target_is_directory=True)


MANIFEST_FIELDS = (
    "asset", "code_version", "data_version", "exports", "files", "inputs", "lineage", "method", "model",
    "n_as_examples", "n_below_chance", "n_contaminated", "n_filled_up", "n_near_duplicates", "n_repeated_answers",
    "n_repeated_questions", "n_rows", "n_wanted", "nait_assets", "partition", "ratio", "recipe", "score_by_chance",
    "score_of_examples", "selection", "target",
)  # fmt: skip
SUBSET_PARTS = (
    "train.jsonl", "train.parquet", "alpaca.json", "dataset_info.json", "croissant.json", "README.md",
)  # fmt: skip
POOL, STATISTICS, HOME = "corpora/candidate_pool", "features/neuron_statistics", "home"
STORED = "extraction/candidate_activations, content"
MODEL = "extraction/candidate_activations, model:"
OF_SUBSET = "selection/nait_standardized_subset[math|0.30], content"
SCORES, PERPLEXITY = "scoring/nait_standardized_scores[math], content", "measurements/candidate_outputs, content"

SOURCES: dict[str, tuple[Tamper, str]] = {
    "a word of the pool, its time put back": (exchanged("pool.jsonl", "code", "cope", True), f"{POOL}, source:0"),
    "a line more in the pool": (exchanged("pool.jsonl", "\n", "\n\n"), f"{POOL}, source:0"),
    "the pool's source gone": (gone("pool.jsonl"), f"{POOL}, source:0"),
    "an example, its time put back": (
        exchanged("math.jsonl", "math", "moth", True), "corpora/in_domain_set[math], source:0"),
    "a held-out example, its time put back": (
        exchanged("held_out.jsonl", "code", "cope", True), "corpora/evaluation_set[unseen], source:0"),
    "a published list, its time put back": (
        exchanged("list.jsonl", "code", "cope", True), "corpora/published_cherry, source:0"),
    "a weight, its time put back": (flipped("model/model.safetensors", 0.9, True), MODEL),
    "the tokenizer, its time put back": (exchanged("model/tokenizer.json", "cat", "cut", True), MODEL),
    "the chat template": (exchanged("model/chat_template.jinja", "</s>", "<s/>"), MODEL),
    "the model's configuration": (exchanged("model/config.json", "1e-06", "1e-05"), MODEL),
    "the model gone": (gone("model"), MODEL),
}  # fmt: skip
CORPORA: dict[str, tuple[Tamper, str]] = {
    "a topic": (sql(TABLES, "UPDATE corpora.candidate_pool SET topic = 'x' WHERE source_row = 1"), f"{POOL}, content"),
    "a conversation": (
        sql(TABLES, "UPDATE corpora.candidate_pool SET conversation = '{}' WHERE source_row = 1"), f"{POOL}, content"),
    "messages": (
        sql(TABLES, "UPDATE corpora.candidate_pool SET messages = list_reverse(messages) WHERE source_row = 1"),
        f"{POOL}, content"),
    "a candidate gone": (sql(TABLES, "DELETE FROM corpora.candidate_pool WHERE source_row = 1"), f"{POOL}, content"),
    "a candidate twice": (
        sql(TABLES, "INSERT INTO corpora.candidate_pool FROM corpora.candidate_pool WHERE source_row = 1"),
        f"{POOL}, content"),
    "a forged rejected row": (
        sql(TABLES, "INSERT INTO corpora.rejected VALUES ('candidates', 'pool.jsonl', 99, NULL, 'x', 'y')"),
        f"{POOL}, content"),
    "a reason": (
        sql(TABLES, "UPDATE corpora.rejected SET reason = 'x' WHERE corpus = 'candidates'"), f"{POOL}, content"),
    "counts": (sql(TABLES, "UPDATE corpora.counts SET n_rows = 9 WHERE corpus = 'candidates'"), f"{POOL}, content"),
    "rejected rows of no corpus": (
        sql(TABLES, "INSERT INTO corpora.rejected VALUES ('nobody', 'x', 1, NULL, 'x', 'y')"), f"{HOME}, warehouse"),
    "an example": (
        sql(TABLES, "UPDATE corpora.in_domain_set SET source_row = 9 WHERE capability = 'math' AND source_row = 1"),
        "corpora/in_domain_set[math], content"),
    "examples of no capability": (
        sql(TABLES, "INSERT INTO corpora.in_domain_set SELECT 'art' AS capability, * EXCLUDE capability "
            "FROM corpora.in_domain_set"),
        f"{HOME}, warehouse"),
    "a held-out example": (
        sql(TABLES, "UPDATE corpora.evaluation_set SET topic = 'x' WHERE source_row = 1"),
        "corpora/evaluation_set[unseen], content"),
    "a forged leak": (
        sql(TABLES, "INSERT INTO corpora.contaminated_candidates VALUES ('0', 'math', '1', 'x', 'y')"),
        "corpora/contaminated_candidates, content"),
    "a forged finding of a filter": (
        sql(TABLES, "INSERT INTO corpora.filtered_candidates VALUES ('0', 'near_duplicates', 1.0, '1', 'x')"),
        "corpora/filtered_candidates, content"),
    "a published position": (
        sql(TABLES, "UPDATE corpora.published_cherry SET position = position + 1"),
        "corpora/published_cherry, content"),
}  # fmt: skip
MEASURED: dict[str, tuple[Tamper, str]] = {
    "a neuron": (
        sql(ACTIVATIONS, "UPDATE extraction.activation SET activation = list_reverse(activation)::FLOAT[48] "
            f"WHERE layer = 0 AND sample_id = {FIRST}"), STORED),
    "a neuron and its digest": (lambda work: forged_neuron(work / "home", work), STORED),
    "the first token's activation": (
        sql(EXAMPLES, "UPDATE extraction.activation SET first_token_activation = last_token_activation"),
        "extraction/in_domain_activations[math], content"),
    "a layer of a sample": (
        sql(ACTIVATIONS, f"DELETE FROM extraction.activation WHERE layer = 0 AND sample_id = {FIRST}"), STORED),
    "NaN": (
        sql(ACTIVATIONS, "UPDATE extraction.activation SET activation = "
            f"list_transform(activation, lambda x: 'nan'::FLOAT)::FLOAT[48] WHERE sample_id = {FIRST}"), STORED),
    "tokens of a sample": (sql(ACTIVATIONS, "UPDATE extraction.sample SET n_tokens = n_tokens + 1"), STORED),
    "where a sample was cut": (
        sql(ACTIVATIONS, "UPDATE extraction.sample SET cut = CASE cut WHEN '' THEN 'answer' ELSE '' END"), STORED),
    "a sample that the model is said to have refused": (
        sql(ACTIVATIONS, "INSERT INTO extraction.rejected VALUES ('candidates', NULL, NULL, 'x', 'y', '')"), STORED),
    "which extraction it was": (sql(ACTIVATIONS, "UPDATE extraction.identity SET extraction_id = 'x'"), STORED),
    "a neuron of an example": (
        sql(EXAMPLES, "UPDATE extraction.activation SET activation = list_reverse(activation)::FLOAT[48]"),
        "extraction/in_domain_activations[math], content"),
    "the activations of another capability": (
        copied(EXAMPLES, "home/activations/in_domain/code.duckdb"), "extraction/in_domain_activations[code], content"),
    "the activations gone": (gone(ACTIVATIONS), STORED),
    "a loss": (sql(OUTPUTS, "UPDATE measurements.candidate_outputs SET text_loss = text_loss + 1"), PERPLEXITY),
    "a loss gone": (
        sql(OUTPUTS, "DELETE FROM measurements.candidate_outputs WHERE text_loss = "
            "(SELECT min(text_loss) FROM measurements.candidate_outputs)"), PERPLEXITY),
    "a sample that could not be measured": (
        sql(OUTPUTS, "INSERT INTO extraction.rejected VALUES ('candidates', NULL, NULL, 'x', 'y', '')"), PERPLEXITY),
    "how it was measured": (sql(OUTPUTS, "UPDATE measurements.identity SET identity = 'x'"), PERPLEXITY),
    "a code of an example": (
        sql(CODES, "UPDATE measurements.in_domain_codes SET indices = list_reverse(indices)"),
        "measurements/in_domain_codes[math], content"),
    "a weight of the autoencoder": (
        flipped(f"{TRAINED}/sae.safetensors", 0.9, True), "measurements/sparse_autoencoder, content"),
    "a file more with the autoencoder": (
        written(f"{TRAINED}/notes.txt", "x"), "measurements/sparse_autoencoder, content"),
    "the autoencoder gone": (gone(TRAINED), "measurements/sparse_autoencoder, content"),
    "a neuron's mean": (
        sql(TABLES, "UPDATE features.neuron_statistics SET mean = list_reverse(mean) WHERE layer = 1"),
        "features/neuron_statistics, content"),
    "a direction": (
        sql(TABLES, "UPDATE features.nait_directions SET direction = list_transform(direction, lambda x: -x)"),
        "features/nait_directions[math], content"),
    "a centroid": (
        sql(TABLES, "UPDATE features.standardized_centroids SET centroid = list_reverse(centroid) WHERE layer = 1"),
        "features/standardized_centroids[math], content"),
    "how many examples": (
        sql(TABLES, "UPDATE features.standardized_centroids SET n_samples = 9"),
        "features/standardized_centroids[math], content"),
    "a feature file": (flipped(FEATURE, 0.9), "features/standardized_centroids[math], content"),
    "a feature file gone": (gone(FEATURE), "features/standardized_centroids[math], content"),
    "the feature file of another capability": (
        copied(FEATURE.replace("math", "code"), FEATURE), "features/standardized_centroids[math], content"),
}  # fmt: skip
CHOICE: dict[str, tuple[Tamper, str]] = {
    "a score": (
        sql(TABLES, "UPDATE scoring.nait_standardized_scores SET score = 9 WHERE target = 'math' AND rank = 1"),
        SCORES),
    "what chance reaches": (
        sql(TABLES, "UPDATE scoring.thresholds SET by_chance = -9 WHERE target = 'math' AND "
            "method = 'nait_standardized'"), SCORES),
    "what chance reaches, gone": (sql(TABLES, "DROP TABLE scoring.thresholds"), SCORES),
    "what chance reaches, of no target": (
        sql(TABLES, "INSERT INTO scoring.thresholds SELECT method, 'art' AS target, * EXCLUDE (method, target) "
            "FROM scoring.thresholds WHERE target = 'math'"), f"{HOME}, warehouse"),
    "two candidates exchanged": (two_candidates_exchanged, "scoring/random_scores[math], content"),
    "a reason for no score": (
        sql(TABLES, "UPDATE scoring.nait_standardized_scores SET reason = 'x' WHERE target = 'math' AND rank = 20"),
        SCORES),
    "a best rank": (
        sql(TABLES, "UPDATE scoring.nait_standardized_scores SET best_rank = 1 WHERE target = 'all'"),
        "scoring/nait_standardized_scores[all], content"),
    "whose turn it was": (
        sql(TABLES, "UPDATE scoring.nait_standardized_scores SET whose_turn = 'art' WHERE target = 'all'"),
        "scoring/nait_standardized_scores[all], content"),
    "scores of no target": (
        sql(TABLES, "INSERT INTO scoring.random_scores SELECT 'art' AS target, * EXCLUDE target "
            "FROM scoring.random_scores WHERE target = 'math'"), f"{HOME}, warehouse"),
    "the view turned round": (
        sql(TABLES, "CREATE OR REPLACE VIEW scoring.scores AS SELECT 'random' AS method, target, sample_id, -score AS "
            "score, rank, reason FROM scoring.random_scores"), f"{HOME}, warehouse"),
    "the view gone": (sql(TABLES, "DROP VIEW scoring.scores"), f"{HOME}, warehouse"),
    "a chosen row's score": (sql(TABLES, f"UPDATE selection.subsets SET score = 9 WHERE {CHOSEN}"), OF_SUBSET),
    "another row chosen": (
        sql(TABLES, "UPDATE selection.subsets SET sample_id = (SELECT max(sample_id) FROM corpora.candidate_pool) "
            f"WHERE {CHOSEN} AND rank = 1"), OF_SUBSET),
    "a chosen row gone": (sql(TABLES, f"DELETE FROM selection.subsets WHERE {CHOSEN} AND rank = 1"), OF_SUBSET),
    "rows of no subset": (
        sql(TABLES, "INSERT INTO selection.subsets SELECT 'random', 'math', '0.99', sample_id, score, rank "
            f"FROM selection.subsets WHERE {CHOSEN}"), f"{HOME}, warehouse"),
    "the history rewritten": (
        sql(TABLES, f"UPDATE selection.history SET sample_ids = list_reverse(sample_ids) WHERE {CHOSEN}"), OF_SUBSET),
    "the history's lineage": (sql(TABLES, f"UPDATE selection.history SET lineage = '{{}}' WHERE {CHOSEN}"), OF_SUBSET),
    "the history's run": (sql(TABLES, f"UPDATE selection.history SET run_id = 'x' WHERE {CHOSEN}"), OF_SUBSET),
    "a version of the history gone": (sql(TABLES, f"DELETE FROM selection.history WHERE {CHOSEN}"), OF_SUBSET),
    "the history gone": (sql(TABLES, "DROP TABLE selection.history"), OF_SUBSET),
    **{f"a bit of {name}": (flipped(f"{SUBSET}/{name}"), OF_SUBSET) for name in SUBSET_PARTS},
    **{f"`{name}` of the manifest": (in_manifest(name), OF_SUBSET) for name in MANIFEST_FIELDS},
    "a file with its hash in the manifest": (with_its_manifest, OF_SUBSET),
    "rows in another order": (another_parquet, OF_SUBSET),
    "a file of a subset gone": (gone(f"{SUBSET}/alpaca.json"), OF_SUBSET),
    "a manifest that is a list": (written(f"{SUBSET}/manifest.json", "[]"), OF_SUBSET),
    "a manifest cut off": (cut(f"{SUBSET}/manifest.json", 0.5), OF_SUBSET),
    "a folder in the manifest's place": (folder(f"{SUBSET}/manifest.json"), OF_SUBSET),
    "a foreign file in a subset": (written(f"{SUBSET}/extra.jsonl", "{}"), OF_SUBSET),
    "a foreign folder in a subset": (written(f"{SUBSET}/more/extra.jsonl", "{}"), OF_SUBSET),
    "a subset's folder gone": (gone(SUBSET), OF_SUBSET),
    "a forged subset": (copied(SUBSET, "home/subsets/random/math/0.99"), f"{HOME}, files"),
    "the page": (flipped(PAGE), "report/selection_report, content"),
    "the page gone": (gone(PAGE), "report/selection_report, content"),
    "costs of a method": (
        sql(TABLES, "UPDATE report.method_costs SET seconds = 0"), "report/method_comparison, content"),
    "an overlap": (
        sql(TABLES, "UPDATE report.method_overlaps SET overlap = 1"), "report/method_comparison, content"),
    "a length": (
        sql(TABLES, "UPDATE report.method_lengths SET median_characters = 1"), "report/method_comparison, content"),
}  # fmt: skip
RECORDS: dict[str, tuple[Tamper, str]] = {
    "a data version": (record(STATISTICS, "data_version = 'x'"), f"{STATISTICS}, content"),
    "a code version": (record(STATISTICS, "code_version = 'x'"), f"{STATISTICS}, code"),
    "a source no longer stated": (
        record(POOL, "inputs = '{}'"), f"{POOL}, content"),
    "an input no longer stated": (
        record("scoring/random_scores", "inputs = '{}'"), "scoring/random_scores[math], content"),
    "the model no longer stated": (record("extraction/candidate_activations", "inputs = '{}'", ACTIVATIONS), STORED),
    "a run": (record(POOL, "run_id = 'x'"), f"{POOL}, content"),
    "a time": (record(POOL, "made_at = '2020-01-01T00:00:00+00:00'"), f"{POOL}, content"),
    "a time of activations": (record("extraction/candidate_activations", "made_at = ''", ACTIVATIONS), STORED),
    "what lies beside": (
        record("features/standardized_centroids", "beside = '{}'"), "features/standardized_centroids[math], content"),
    "a record's hash": (record(POOL, "record_hash = ''"), f"{POOL}, content"),
    "a record gone": (
        sql(TABLES, f"DELETE FROM lineage.versions WHERE asset = '{POOL}'"), f"{POOL}, content"),
    "a record renamed": (record(STATISTICS, "asset = 'x/y'"), f"{STATISTICS}, content"),
    "a record twice": (
        sql(TABLES, f"INSERT INTO lineage.versions FROM lineage.versions WHERE asset = '{POOL}'"),
        f"{HOME}, warehouse"),
    "inputs that are no JSON": (record(POOL, "inputs = '{'"), "lineage.versions is damaged"),
    "inputs that are a list": (record(POOL, "inputs = '[1]'"), "lineage.versions is damaged"),
    "a column of the records gone": (sql(TABLES, "ALTER TABLE lineage.versions DROP COLUMN asset"), "is damaged"),
    "the records gone": (sql(TABLES, "DROP TABLE lineage.versions"), f"{POOL}, content"),
    "a column gone": (sql(TABLES, "ALTER TABLE corpora.candidate_pool DROP COLUMN topic"), f"{POOL}, content"),
    "a column of another type": (
        sql(TABLES, "ALTER TABLE scoring.random_scores ALTER rank TYPE VARCHAR USING 'x'"),
        "scoring/random_scores[math], content"),
    "a table gone": (sql(TABLES, "DROP TABLE corpora.candidate_pool"), f"{POOL}, content"),
    "a table of activations gone": (sql(ACTIVATIONS, "DROP TABLE extraction.sample"), STORED),
    "a record in a foreign file": (
        copied(OUTPUTS, "home/measurements/other/candidates.duckdb"), "measurements/other/candidates.duckdb"),
}  # fmt: skip
AROUND: dict[str, tuple[Tamper, str]] = {
    "a foreign file": (written("home/notes.txt", "x"), f"{HOME}, files"),
    "a foreign file with the features": (written("home/features/math/x.safetensors", "x"), f"{HOME}, files"),
    "a foreign file with the report": (written("home/report/more.html", "x"), f"{HOME}, files"),
    "a foreign file with the activations": (written("home/activations/x.txt", "x"), f"{HOME}, files"),
    "a foreign file with the models": (written("home/models/x.txt", "x"), f"{HOME}, models"),
    "converted weights of nobody": (copied("model", "home/models/0123456789abcdef-causal"), f"{HOME}, models"),
    "a foreign folder of a capability": (copied("home/features/math", "home/features/art"), f"{HOME}, files"),
    "a link out of the home": (link_to_elsewhere, f"{HOME}, files"),
    "more in home.json": (written(MARK, '{"schema_version": 2, "x": 1}'), f"{HOME}, home.json"),
    "another recipe": (written(MARK, '{"schema_version": 2, "recipe": "x"}'), "belongs to the recipe 'x'"),
    "no name in home.json": (written(MARK, '{"schema_version": 2, "recipe": 1}'), "belongs to the recipe"),
    "another schema": (written(MARK, '{"schema_version": 99}'), "newer version of nait_assets"),
    "an older schema": (written(MARK, '{"schema_version": 1}'), "earlier version of nait_assets"),
    "home.json gone": (gone(MARK), "earlier version of nait_assets"),
    "a remembered hash": (forged_hash, f"{HOME}, hashes.json"),
}
DAMAGED: dict[str, tuple[Tamper, str]] = {
    f"{told} {how}": (damage, told)
    for file, told in {
        TABLES: "warehouse.duckdb",
        ACTIVATIONS: "activations/candidates.duckdb",
        EXAMPLES: "activations/in_domain/math.duckdb",
        OUTPUTS: "measurements/outputs/candidates.duckdb",
        RUNS: "history/runs.db",
        EVENTS: "history/runs/index.db",
        SETTINGS: "dagster.yaml",
        HASHES: "hashes.json",
        MARK: "home.json",
    }.items()
    for how, damage in {
        "cut off": cut(file, 0.4),
        "full of garbage": written(file, "\x07garbage { [ \n" * 400),
        "empty": written(file, ""),
        "a list": written(file, "[]"),
        "a folder": folder(file),
    }.items()
    if (file, how) != (SETTINGS, "cut off")
}
"""Files of a home, each damaged in every way. Half of `dagster.yaml` is whole settings, as somebody may have wanted."""

TAMPERINGS = {**SOURCES, **CORPORA, **MEASURED, **CHOICE, **RECORDS, **AROUND, **DAMAGED}


def _forgotten_runs(work: Path) -> None:
    """Dagster's runs, removed by a program that keeps its files whole."""
    import sqlite3

    with sqlite3.connect(work / RUNS) as connection:
        assert connection.execute("DELETE FROM runs").rowcount > 0


def _remembered_build(work: Path) -> None:
    known = json.loads((work / HASHES).read_text())
    (work / HASHES).write_text(json.dumps({**known, "/x/version.py:1:2:mkldnn": "False"}))


def _touched(work: Path) -> None:
    os.utime(work / SUBSET / "train.jsonl", (0, 0))
    (work / SUBSET / "train.jsonl").chmod(0o600)


NOT_COVERED: dict[str, Tamper] = {
    "what each output has taken so far (`lineage.costs`)": sql(TABLES, "UPDATE lineage.costs SET seconds = 0"),
    "what an earlier audit found (`audit.links`)": sql(
        TABLES, "CREATE SCHEMA IF NOT EXISTS audit; CREATE OR REPLACE TABLE audit.links AS SELECT 1 AS holds"
    ),
    "tables and views that are none of ours": sql(TABLES, "CREATE TABLE main.notes AS SELECT 1 AS note"),
    "the history of subsets that the recipe no longer has": sql(
        TABLES,
        "INSERT INTO selection.history SELECT * REPLACE ('0.99' AS ratio) FROM selection.history "
        "WHERE method = 'random' AND target = 'math'",
    ),
    "rows that a run which was cut off has staged, and what it left (`.lock`, `.x.1a2b3c4d`, `.x.old`, `*.spool`, "
    "`*.duckdb.wal`, `*.duckdb.tmp`)": written("home/features/math/.x.1a2b3c4d", "x"),
    "what Dagster's files say, `dagster.yaml` among them, as long as they can be read": _forgotten_runs,
    "what `hashes.json` remembers beside hashes": _remembered_build,
    "times, owners and permissions of files, and empty folders": _touched,
}
"""What the audit does not cover, as docs/checks.md names it, and a change that it therefore calls whole."""
