"""Every way in which data lie about: folders, patterns, shards, compressed files, URLs, and what is no data at all."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from nait_assets.errors import SourceError
from nait_assets.recipe import Recipe, Source
from nait_assets.resources.dataset_source import fingerprint_of, read_rows
from nait_assets.resources.files import HashCache
from nait_assets_tests.test_recipe import recipe_in

ROWS = [{"q": f"{number} + 1?", "a": f"a{number}"} for number in range(4)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return recipe_in(tmp_path)


def fields(recipe: Recipe, source: Any, **settings: Any) -> list[dict[str, Any]]:
    return [row.fields for row in read_rows(Source(source=source, **settings), recipe)]


def refusal(recipe: Recipe, source: Any, **settings: Any) -> str:
    with pytest.raises(SourceError) as error:
        fields(recipe, source, **settings)
    return str(error.value)


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


def gz(content: bytes) -> bytes:
    """Without the time, which would be in the ids of tests: two workers must find the same ones."""
    return gzip.compress(content, mtime=0)


def write_arrow(path: Path, rows: list[dict[str, Any]], stream: bool) -> None:
    table = pa.Table.from_pylist(rows)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("ending", ["gz", "zst", "bz2", "xz", "GZ"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_compressed_files_are_read(recipe: Recipe, tmp_path: Path, ending: str, kind: str) -> None:
    """As publishers send them; what a file is, its first bytes say."""
    plain = tmp_path / f"plain.{kind}"
    if kind == "parquet":
        pl.DataFrame(ROWS).write_parquet(plain)
    elif kind == "csv":
        pl.DataFrame(ROWS).write_csv(plain)
    else:
        plain.write_bytes(LINES if kind == "jsonl" else json.dumps(ROWS).encode())
    pack: dict[str, Callable[[bytes], bytes]]
    pack = {"gz": gzip.compress, "zst": zstd, "bz2": bz2.compress, "xz": lzma.compress}
    (tmp_path / f"pool.{kind}.{ending}").write_bytes(pack[ending.lower()](plain.read_bytes()))
    assert fields(recipe, f"pool.{kind}.{ending}") == ROWS


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_files_of_both_kinds_are_read(recipe: Recipe, tmp_path: Path, stream: bool) -> None:
    """`datasets` writes streams, others write files, under the same ending."""
    write_arrow(tmp_path / "rows.arrow", ROWS, stream)
    assert fields(recipe, "rows.arrow") == ROWS


@pytest.mark.parametrize("name", ["POOL.JSONL", "pool.NDJSON", "Pool.Jsonl"])
def test_endings_are_read_in_any_case(recipe: Recipe, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(LINES)
    assert fields(recipe, name) == ROWS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pool.json", LINES),
        ("pool.json", b"".join(json.dumps(row, indent=1).encode() + b"\n" for row in ROWS)),
        ("pool.jsonl", b"".join(json.dumps(row, indent=1).encode() + b"\n" for row in ROWS)),
        ("pool.jsonl", json.dumps(ROWS).encode()),
        ("pool.jsonl", b"\n " + json.dumps(ROWS, indent=2).encode()),
    ],
)
def test_json_is_read_as_it_stands_whatever_its_ending(
    recipe: Recipe, tmp_path: Path, name: str, content: bytes
) -> None:
    """Lines in a .json, a list in a .jsonl, objects over several lines, as `jq` prints them."""
    (tmp_path / name).write_bytes(content)
    assert fields(recipe, name) == ROWS


def test_a_list_is_read_in_parts(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a part ends: within a word, a number, an escape."""
    rows = [{"q": 'a "b" \\ é \n', "n": 12345.5e3, "l": [1, {"x": None}], "t": True}, {"q": "2"}]
    (tmp_path / "pool.json").write_text(json.dumps(rows, ensure_ascii=True))
    for size in range(1, 40):
        monkeypatch.setattr("nait_assets.resources.row_readers.CHUNK_CHARACTERS", size)
        assert fields(recipe, "pool.json") == rows


def shards(tmp_path: Path, *names: str) -> None:
    for number, name in enumerate(names):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(json.dumps(ROWS[number % len(ROWS)]).encode())


def test_shards_come_in_the_order_of_their_names(recipe: Recipe, tmp_path: Path) -> None:
    """By folder, by pattern, and by list in the list's order."""
    shards(tmp_path, "d/b.jsonl", "d/a.jsonl", "d/sub/c.jsonl", "d/_tmp.jsonl", "d/.cache/x.jsonl", "d/README.md")
    in_order = [ROWS[1], ROWS[0], ROWS[2]]
    assert fields(recipe, "d") == in_order
    assert fields(recipe, "d/**/*.jsonl") == in_order
    assert fields(recipe, "d/*.jsonl") == in_order[:2]
    assert fields(recipe, ["d/b.jsonl", "d/a.jsonl"]) == in_order[1::-1]


def test_rows_of_shards_are_counted_through_and_bad_ones_say_where_they_are(recipe: Recipe, tmp_path: Path) -> None:
    """A person has to find the row in its file."""
    shards(tmp_path, "d/a.jsonl")
    (tmp_path / "d/b.jsonl").write_bytes(b'{"q": 1}\n{broken\n')
    rows = list(read_rows(Source(source="d"), recipe))
    assert [row.number for row in rows] == [1, 2, 3]
    assert rows[2].excerpt == "b.jsonl, row 2: {broken"


def test_a_folder_with_splits_gives_the_split_that_is_asked_for(recipe: Recipe, tmp_path: Path) -> None:
    """Test rows must not come into a pool in silence."""
    shards(tmp_path, "d/test-00000-of-00001.jsonl", "d/train-00000-of-00002.jsonl", "d/train-00001-of-00002.jsonl")
    assert fields(recipe, "d") == ROWS[1:3]
    assert fields(recipe, "d", split="test") == ROWS[:1]
    assert "no file of the split 'validation'" in refusal(recipe, "d", split="validation")
    shards(tmp_path, "d/extra.jsonl")
    assert "'extra.jsonl', which is of no split" in refusal(recipe, "d")


def test_a_folder_that_is_not_of_one_kind_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    shards(tmp_path, "d/a.jsonl", "d/b.csv")
    assert "files of several kinds, .csv, .jsonl" in refusal(recipe, "d")


@pytest.mark.parametrize(
    "name", ["pool[12].parquet", "pool?.parquet", "my pool.parquet", "a#b%20.parquet", "[x]/p.parquet"]
)
def test_a_path_is_a_path(recipe: Recipe, tmp_path: Path, name: str) -> None:
    """`pool[12].parquet` as a pattern is `pool1.parquet`: other rows under this one's fingerprint."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    pl.DataFrame(ROWS[:1]).write_parquet(tmp_path / name)
    for other in ("pool1.parquet", "pool2.parquet", "poolx.parquet"):
        pl.DataFrame(ROWS[1:]).write_parquet(tmp_path / other)
    assert fields(recipe, name) == ROWS[:1]


def test_only_a_star_makes_a_pattern(recipe: Recipe, tmp_path: Path) -> None:
    """Brackets in front of it are still brackets."""
    shards(tmp_path, "d[1]/a?.jsonl", "d1/ab.jsonl")
    assert fields(recipe, "d[1]/a?*.jsonl") == ROWS[:1]
    assert "a pattern has a `*`" in refusal(recipe, "d[12]/a.jsonl")


def test_a_saved_data_set_is_read_by_its_split(recipe: Recipe, tmp_path: Path) -> None:
    """`save_to_disk` of one split, and of several."""
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"), num_shards=2)
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(tmp_path / "several"))
    assert fields(recipe, "one") == fields(recipe, "several") == ROWS
    assert fields(recipe, "several", split="test") == ROWS[:1]
    assert "has no split 'dev'; it has train, test" in refusal(recipe, "several", split="dev")


def test_a_url_is_read_by_fsspec(recipe: Recipe) -> None:
    """`memory://` stands for s3:// and the others."""
    import fsspec

    system = fsspec.filesystem("memory")
    for number, row in enumerate(ROWS):
        system.pipe(f"/pool/part-{number}.jsonl", json.dumps(row).encode())
    assert fields(recipe, "memory://pool/part-*.jsonl") == fields(recipe, "memory://pool") == ROWS
    assert fields(recipe, "memory://pool/part-2.jsonl") == [ROWS[2]]
    hashes = HashCache(recipe.path.parent / "hashes.json")
    state = fingerprint_of(Source(source="memory://pool"), recipe, hashes)
    system.pipe("/pool/part-3.jsonl", b'{"q": "new"}')
    assert fingerprint_of(Source(source="memory://pool"), recipe, hashes) != state
    assert "memory://nowhere.jsonl cannot be read: FileNotFoundError" in refusal(recipe, "memory://nowhere.jsonl")


def test_state_of_shards_is_that_of_all(recipe: Recipe, tmp_path: Path) -> None:
    """A changed, added or renamed shard is another input."""
    shards(tmp_path, "d/a.jsonl", "d/b.jsonl")
    hashes, states = HashCache(tmp_path / "hashes.json"), []
    for change in (lambda: None, lambda: shards(tmp_path, "d/c.jsonl"), lambda: (tmp_path / "d/c.jsonl").unlink()):
        change()
        states.append(fingerprint_of(Source(source="d"), recipe, hashes))
    assert states[0] == states[2] != states[1]


@pytest.mark.parametrize("name", ["pool.jsonl", "pool.json", "pool.csv", "pool.parquet", "pool.arrow"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 4321\n", ("Git LFS pointer", "git lfs pull")),
        (b"\n<!DOCTYPE html>\n<html><head>", ("web page", "/resolve/")),
        (b"<html>Log in</html>", ("web page",)),
        (b"", ("is empty, 0 bytes",)),
        (b"PK\x03\x04 xl/workbook.xml", ("ZIP archive, or an Excel workbook",)),
        (b"<!-- x -->\n<!DOCTYPE html>", ("web page",)),
        (b"Entry not found", ("answer of a server, 'Entry not found'",)),
        (b"404: Not Found\n", ("answer of a server, '404: Not Found'",)),
        (b"/annex/objects/MD5E-s100--abc.jsonl\n", ("git annex get",)),
        (b"SQLite format 3\x00" + b"\x00" * 100, ("SQLite database",)),
        (gz(b"version https://git-lfs.github.com/spec/v1\nsize 4321\n"), ("4,321 bytes", "git lfs pull")),
        (gz(b""), ("is empty",)),
        (gz(gz(LINES)), ("compressed twice",)),
    ],
)
def test_what_is_no_data_is_said_as_what_it_is(
    recipe: Recipe, tmp_path: Path, name: str, content: bytes, words: tuple[str, ...]
) -> None:
    """With the command that mends it, whatever the ending promises."""
    (tmp_path / name).write_bytes(content)
    message = refusal(recipe, name)
    assert str(tmp_path / name) in message
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd)]
)
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_a_compressed_file_that_breaks_off_is_said_as_that(
    recipe: Recipe, tmp_path: Path, ending: str, compress: Callable[[bytes], bytes], kind: str
) -> None:
    """A download that stopped: refused by name, in place of an error of the library's."""
    whole = compress(b"q,a\n" * 100 if kind == "csv" else LINES * 100)
    (tmp_path / f"pool.{kind}.{ending}").write_bytes(whole[:-9])
    assert "is damaged, or was not copied to its end" in refusal(recipe, f"pool.{kind}.{ending}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LINES.replace(b"\n", b",\n"), "a comma stands behind the object"),
        (LINES.replace(b"\n", b""), "another object stands on the same line: `jq"),
        (b"{'q': 1}\n", "looks like a Python dict"),
        ('{"q": "é"}\n'.encode("cp1252"), "`encoding: cp1252`"),
    ],
)
def test_lines_that_are_nearly_json_say_what_mends_them(
    recipe: Recipe, tmp_path: Path, content: bytes, words: str
) -> None:
    """Each line is a row with its problem."""
    (tmp_path / "pool.jsonl").write_bytes(content)
    problems = [row.problem for row in read_rows(Source(source="pool.jsonl"), recipe)]
    assert problems
    assert all(problem is not None and words in problem for problem in problems)


def test_a_list_that_breaks_off_is_said_as_that(recipe: Recipe, tmp_path: Path) -> None:
    """Behind its last whole row the file ends."""
    (tmp_path / "pool.json").write_text('[{"q": 1},\n{"q": 2},\n')
    assert "the list is not closed: the file ends before it" in refusal(recipe, "pool.json")
