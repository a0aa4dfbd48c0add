"""SIGKILL at any moment: what is lost is the shard in flight, and the table comes out the same to the bit.

Children are real processes that extract with the real two-layer Llama; they are killed by the parent at random moments,
or kill themselves at the points between which a run has something on the disk that it had not before.
"""

import contextlib
import io
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from nait_assets.conversation import sample_id
from nait_assets.extraction import activation_table
from nait_assets.extraction import spool as spool_module
from nait_assets.extraction.extractor import extract
from nait_assets.extraction.spool import Spool
from nait_assets.lineage import Record
from nait_assets.models.encoding import Shard, encode, plan
from nait_assets.models.running import RunOptions
from nait_assets.recipe import Extraction
from nait_assets.resources import LanguageModel
from nait_assets.resources.warehouse import Store
from nait_assets.tables import MESSAGES, REJECTED_SAMPLES
from nait_assets_tests.conftest import conversation, pool_rows

pytestmark = pytest.mark.slow
PROCESSES = multiprocessing.get_context("forkserver")
PRELOADED = [
    "torch",
    "pandas",  # pyarrow asks for it
    "_strptime",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.tokenization_auto",
    "nait_assets_tests.extraction.test_kills",
]
SETTINGS = Extraction(max_tokens=99)
OPTIONS = RunOptions(batch_tokens=128, shard_tokens=256)
SECONDS_A_BATCH = 0.005
BOS = 1
Rows = list[tuple[Any, ...]]


def corpus_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    conversations = [row["messages"] for row in rows]
    columns = {"sample_id": [sample_id(messages) for messages in conversations], "messages": conversations}
    return pl.DataFrame(columns, schema={"sample_id": pl.String, "messages": MESSAGES})


OLD = corpus_of([*pool_rows(4), conversation("a question that leaves the corpus", "an answer that does")])
NEW = corpus_of(pool_rows(44))  # forty samples more, and one less


# The child


@dataclass(frozen=True)
class Home:
    """A folder with an activation table, and with what the model was given to read."""

    folder: Path
    model: str

    @property
    def store(self) -> Store:
        """The table."""
        return Store(self.folder / "candidates.duckdb")

    @property
    def log(self) -> Path:
        """One line of token ids for each sample that the model began to read."""
        return self.folder / "read.jsonl"

    def language_model(self) -> LanguageModel:
        """The two-layer Llama."""
        return LanguageModel(source=self.model, dtype="float32", home=str(self.folder), device="cpu")

    def extract(self, corpus: pl.DataFrame, record_of: Callable[[str], Record]) -> None:
        """One run."""
        model = self.language_model()
        extract(corpus, "candidates", model, SETTINGS, self.store, False, OPTIONS, record_of, lambda line: None)

    def spool(self) -> Spool:
        """Where finished shards lie."""
        (folder,) = [*(self.folder / "candidates.spool").glob("*"), self.folder / "candidates.spool" / "none"][:1]
        return Spool(folder, activation_table.shard_schema(48, keep_first_and_last=False))


def child(home: Home, corpus: pl.DataFrame, point: str | None, channel: Any) -> None:
    """Extract; say on the channel when the model is ready, when the fold begins and when all is done."""
    import torch

    torch.set_num_threads(1)
    network = home.language_model().load().network
    log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def slow(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        token_ids = named["input_ids"][0].tolist()
        if token_ids[0] != BOS:  # the trial whether the model can be packed
            return
        begins = [place for place, token in enumerate(token_ids) if token == BOS]
        samples = [token_ids[begin:end] for begin, end in zip(begins, [*begins[1:], None], strict=True)]
        os.write(log, "".join(json.dumps(sample) + "\n" for sample in samples).encode())
        time.sleep(SECONDS_A_BATCH)

    network.register_forward_pre_hook(slow, with_kwargs=True)
    original = activation_table.fold

    def fold(*arguments: Any) -> None:
        channel.send("fold")
        original(*arguments)

    activation_table.fold = fold  # type: ignore[assignment]
    channel.send("ready")
    if point is not None:
        POINTS[point]()
    home.extract(corpus, record)
    channel.send("done")


def record(version: str) -> Record:
    return Record("extraction/candidate_activations", "", "1", version)


def die(*_: Any, **__: Any) -> Any:
    """Be killed, here and now."""
    os.kill(os.getpid(), signal.SIGKILL)


# Points at which a child kills itself


def while_the_third_arrow_file_is_half_written() -> None:
    class HalfWritten(io.FileIO):
        n_files = 0

        def __init__(self, path: str, mode: str):
            super().__init__(path, mode)
            HalfWritten.n_files += 1
            self.n_bytes = 0

        def write(self, data: Any) -> int:
            self.n_bytes += len(data)
            if self.n_files == 3 and self.n_bytes > 1000:
                super().write(bytes(data)[: len(data) // 2])
                die()
            return super().write(data)

    pa.OSFile = HalfWritten


def between_the_third_arrow_file_and_its_manifest() -> None:
    original = spool_module.replacing

    def replacing(path: Path) -> Any:
        if path.suffix == ".json" and len(list(path.parent.glob("*.json"))) == 2:
            assert path.with_suffix(".arrow").exists()
            die()
        return original(path)

    spool_module.replacing = replacing


def when_all_shards_are_in_the_spool() -> None:
    Store.transaction = die  # type: ignore[method-assign]


def in_the_middle_of_the_insert() -> None:
    original, folded = Spool.table, []

    def table(spool: Spool, manifest: Any) -> pa.Table:
        folded.append(manifest)
        return original(spool, manifest) if len(folded) < 6 else die()

    Spool.table = table  # type: ignore


def at_the_commit(before: bool) -> None:
    attach = Store._attach

    class Connection:
        def __init__(self, connection: Any):
            self.connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self.connection, name)

        def execute(self, query: str, *parameters: Any) -> Any:
            if before and query == "COMMIT":
                die()
            found = self.connection.execute(query, *parameters)
            return die() if query == "COMMIT" else found

    def attached(store: Store, option: str) -> tuple[Any, Any]:
        engine, connection = attach(store, option)
        return engine, Connection(connection)

    Store._attach = attached  # type: ignore[method-assign]


def before_the_spool_is_removed() -> None:
    Spool.remove = die  # type: ignore[method-assign]


def when_half_of_the_spool_is_removed() -> None:
    def remove_half(folder: Path, **_: Any) -> None:
        for file in sorted(folder.glob("*/*"))[::2]:
            file.unlink()
        die()

    shutil.rmtree = remove_half  # type: ignore


POINTS: dict[str, Callable[[], None]] = {
    "half an Arrow file": while_the_third_arrow_file_is_half_written,
    "no manifest": between_the_third_arrow_file_and_its_manifest,
    "before the fold": when_all_shards_are_in_the_spool,
    "in the INSERT": in_the_middle_of_the_insert,
    "before COMMIT": lambda: at_the_commit(before=True),
    "after COMMIT": lambda: at_the_commit(before=False),
    "before the spool is removed": before_the_spool_is_removed,
    "half a spool": when_half_of_the_spool_is_removed,
}


# Tests


@pytest.fixture(scope="module", autouse=True)
def _forkserver() -> None:
    PROCESSES.set_forkserver_preload(PRELOADED)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Home:
    """A table of the old corpus."""
    home = Home(tmp_path_factory.mktemp("old"), str(model_folder))
    run(home, OLD)
    home.log.unlink()
    return home


@dataclass(frozen=True)
class Tables:
    """All that the table's file holds before and after a run that nobody disturbed, and how long that took."""

    old: dict[str, Rows]
    new: dict[str, Rows]
    seconds: float


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, old: Home, shards: list[Shard]) -> Tables:
    """In another folder."""
    home = Home(shutil.copytree(old.folder, tmp_path_factory.mktemp("undisturbed") / "home"), old.model)
    with running(home, NEW):
        begun = time.monotonic()
    seconds = time.monotonic() - begun
    assert Counter(samples_read(home)) == Counter(tokens_of(shards, {shard.name for shard in shards}))
    return Tables(everything(old), everything(home), seconds)


@pytest.fixture(scope="module")
def shards(old: Home) -> list[Shard]:
    """The plan of that run."""
    new = NEW.filter(~pl.col("sample_id").is_in(OLD["sample_id"].to_list()))
    encoded, _ = encode(new.rows(), old.language_model().tokenizer(), SETTINGS)
    shards = plan(encoded, OPTIONS.batch_tokens or 0, OPTIONS.shard_tokens)
    assert len(encoded) == 40
    assert len(shards) >= 10
    return shards


@pytest.fixture
def home(tmp_path: Path, old: Home) -> Home:
    """A copy of the old table's folder."""
    return Home(shutil.copytree(old.folder, tmp_path / "home"), old.model)


@contextlib.contextmanager
def running(home: Home, corpus: pl.DataFrame, point: str | None = None) -> Iterator[tuple[Any, Any]]:
    """A child at work, and what it says; it is waited for at the end."""
    mine, its = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=child, args=(home, corpus, point, its))
    process.start()
    its.close()
    try:
        assert heard(mine) == "ready"
        yield process, mine
    finally:
        process.join(60)
        assert process.exitcode is not None
        mine.close()


def run(home: Home, corpus: pl.DataFrame, point: str | None = None) -> None:
    """A child from beginning to end, which is that of the point if one is named."""
    with running(home, corpus, point) as (process, _):
        pass
    assert process.exitcode == (0 if point is None else -signal.SIGKILL)


def heard(channel: Any) -> str | None:
    """The next word, or None where the child has ended."""
    try:
        return channel.recv() if channel.poll(60) else None
    except EOFError:
        return None


def kill(process: Any) -> None:
    """SIGKILL, if there is anything left to kill."""
    with contextlib.suppress(ProcessLookupError):
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)


def samples_read(home: Home) -> list[str]:
    """Every sample that the model has begun to read in a home, in order; a line that was cut off is none."""
    return [str(json.loads(line)) for line in home.log.read_text().splitlines()] if home.log.exists() else []


def tokens_of(shards: list[Shard], names: set[str]) -> set[str]:
    return {str(sample.token_ids.tolist()) for shard in shards if shard.name in names for sample in shard.samples}


def everything(home: Home) -> dict[str, Rows]:
    """All that the tables hold, as they hold it: rows in their stored order, vectors as bytes."""
    with home.store.snapshot() as snapshot:
        tables = (activation_table.ACTIVATION, activation_table.SAMPLE, activation_table.IDENTITY)
        found = {name: rows_of(snapshot.connection.sql(f"FROM {name}").to_arrow_table()) for name in tables}
        for name in (REJECTED_SAMPLES.name, "lineage.versions"):
            found[name] = snapshot.connection.sql(f"FROM {name}").fetchall()
    return found


def rows_of(table: pa.Table) -> Rows:
    columns = []
    for column in table.columns:
        if pa.types.is_fixed_size_list(column.type):
            vectors = column.combine_chunks().flatten().to_numpy().reshape(len(column), -1)
            columns.append([vector.tobytes() for vector in vectors])
        else:
            columns.append(column.to_pylist())
    return list(zip(*columns, strict=True))


def finished(home: Home, shards: list[Shard]) -> set[str]:
    """Names of the shards that lie in the spool whole."""
    return {shard.name for shard in shards if home.spool().manifest(shard) is not None}


def check_after_kill(home: Home, shards: list[Shard], before: set[str], n_before: int, tables: Tables) -> bool:
    """What holds after every kill; whether the new table is there.

    Args:
        home: Whose child was killed.
        shards: The plan.
        before: Shards that lay in the spool before that child.
        n_before: Samples that had been read before it.
        tables: As the table was, and as it shall be.
    """
    table = everything(home)
    is_new = table == tables.new
    assert is_new or table == tables.old
    after = finished(home, shards)
    assert is_new or after >= before
    read = samples_read(home)[n_before:]
    assert len(read) == len(set(read))
    assert not set(read) & tokens_of(shards, before)
    lost = {shard.name for shard in shards if tokens_of([shard], {shard.name}) & set(read)} - after
    assert is_new or len(lost) <= 1
    return is_new


@pytest.mark.parametrize(("word", "n_kills"), [("ready", 20), ("fold", 8)])
def test_killed_at_any_moment_goes_on_and_gives_the_same_table(
    tmp_path: Path, old: Home, tables: Tables, shards: list[Shard], word: str, n_kills: int
) -> None:
    """A machine that goes away when it likes, again and again, costs a shard each time and nothing else."""
    dice, begin, seconds = random.Random(word), old, 1.2 * tables.seconds
    if word == "fold":  # every kill near the commit
        begin, seconds = Home(shutil.copytree(old.folder, tmp_path / "all_read"), old.model), 0.1
        run(begin, NEW, "before the fold")
    ends: Counter[tuple[bool, str]] = Counter()
    for chapter in itertools.count():
        if sum(ends.values()) == n_kills:
            break
        home = Home(shutil.copytree(begin.folder, tmp_path / str(chapter)), old.model)
        is_new = False
        while not is_new:
            before, n_before = finished(home, shards), len(samples_read(home))
            with running(home, NEW) as (process, channel):
                if sum(ends.values()) < n_kills and (word == "ready" or heard(channel) == word):
                    process.join(dice.uniform(0, seconds))
                    kill(process)
            is_new = check_after_kill(home, shards, before, n_before, tables)
            if process.exitcode == -signal.SIGKILL:
                all_read = len(finished(home, shards)) == len(shards)
                ends[is_new, "all read" if all_read else "some read"] += 1
            else:
                assert (process.exitcode, is_new) == (0, True)
        if process.exitcode != 0:
            run(home, NEW)
        assert everything(home) == tables.new
        assert not home.spool().folder.parent.exists()
    assert ends[False, "some read" if word == "ready" else "all read"] > 1  # else no kill came where it was meant to


@pytest.mark.parametrize(
    ("point", "n_finished", "is_new"),
    [
        ("half an Arrow file", 2, False),
        ("no manifest", 2, False),
        ("before the fold", None, False),
        ("in the INSERT", None, False),
        ("before COMMIT", None, False),
        ("after COMMIT", None, True),
        ("before the spool is removed", None, True),
        ("half a spool", 0, True),
    ],
)
def test_killed_at_this_point_goes_on_from_it(
    home: Home, tables: Tables, shards: list[Shard], point: str, n_finished: int | None, is_new: bool
) -> None:
    """Random kills seldom come between two system calls; these are all places where the disk is between two states."""
    run(home, NEW, point)

    assert check_after_kill(home, shards, set(), 0, tables) == is_new
    after = finished(home, shards)
    assert len(after) == (len(shards) if n_finished is None else n_finished)
    n_before = len(samples_read(home))
    run(home, NEW)
    rest = set() if is_new else tokens_of(shards, {shard.name for shard in shards} - after)
    assert set(samples_read(home)[n_before:]) == rest
    assert everything(home) == tables.new
    assert not home.spool().folder.parent.exists()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # a number: the file can still be read
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda arrow: truncate(arrow),
    "flipped byte": lambda arrow: flip_a_byte(arrow),
    "missing": lambda arrow: arrow.unlink(),
    "truncated manifest": lambda arrow: truncate(arrow.with_suffix(".json")),
    "garbled manifest": lambda arrow: arrow.with_suffix(".json").write_bytes(b"\xff\x00{"),
    "empty manifest": lambda arrow: arrow.with_suffix(".json").write_bytes(b""),
}


def test_damaged_shards_are_read_again_and_never_folded(home: Home, tables: Tables, shards: list[Shard]) -> None:
    """A disk that was full, or a power cut that the disk took worse than the file system."""
    run(home, NEW, "before the fold")
    damaged = {shard.name for shard, _ in zip(shards[1:], DAMAGES, strict=False)}
    for shard, damage in zip(shards[1:], DAMAGES.values(), strict=False):
        damage(home.spool().folder / f"{shard.name}.arrow")
    assert finished(home, shards) == {shard.name for shard in shards} - damaged

    n_before = len(samples_read(home))
    run(home, NEW)

    assert set(samples_read(home)[n_before:]) == tokens_of(shards, damaged)
    assert everything(home) == tables.new
