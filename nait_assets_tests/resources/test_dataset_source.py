"""Sources: every row of every file format, and what is said of those that cannot be read. The hub is a local server."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nait_assets.corpora.sensors import LOOKING_SECONDS
from nait_assets.errors import ModelError, SourceError
from nait_assets.recipe import Recipe, Source
from nait_assets.resources.dataset_source import SourceRow, fingerprint_of, read_rows
from nait_assets.resources.files import HashCache, sha256
from nait_assets.resources.hub import PATIENCE_SECONDS, PAUSES_SECONDS, TIMEOUT_SECONDS, hub_commit
from nait_assets_tests.local_server import LocalServer
from nait_assets_tests.test_recipe import recipe_in

ROWS = [{"q": "1 + 1?", "a": "2"}, {"q": 'naïve, "two"\nlines', "a": "ä"}]
COMMIT = "c" * 40


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe whose folder is the test's."""
    return recipe_in(tmp_path)


def rows_of(recipe: Recipe, name: str, content: bytes | None = None) -> list[SourceRow]:
    """The rows of a file in the recipe's folder, written first where content is given."""
    if content is not None:
        (recipe.path.parent / name).write_bytes(content)
    return list(read_rows(Source(source=name), recipe))


def refusal_of(recipe: Recipe, name: str, content: bytes | None = None) -> str:
    with pytest.raises(SourceError) as error:
        rows_of(recipe, name, content)
    return str(error.value)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_rows_are_the_same_in_every_file_format(recipe: Recipe, name: str) -> None:
    """Accents, quotation marks and line ends inside a value survive; rows are counted from 1."""
    file, frame = recipe.path.parent / name, pl.DataFrame(ROWS)
    if name.endswith(".jsonl"):
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif name.endswith(".json"):
        file.write_text(json.dumps(ROWS, ensure_ascii=False), encoding="utf-8")
    elif name.endswith(".csv"):
        frame.write_csv(file)
    else:
        frame.write_parquet(file)
    assert rows_of(recipe, name) == [SourceRow(1, ROWS[0]), SourceRow(2, ROWS[1])]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b'{"q": "1"}\r\n'),
        ("rows.jsonl", b'\n{"q": "1"}\n\n'),
        ("rows.json", b'[{"q": "1"}]'),
        ("rows.csv", b"q\r\n1\r\n"),
    ],
)
def test_byte_order_mark_and_empty_lines_are_no_content(recipe: Recipe, name: str, content: bytes) -> None:
    """Spreadsheets and Windows editors put a mark in front, which would become part of the first column's name."""
    for mark in (b"", b"\xef\xbb\xbf"):
        assert [row.fields for row in rows_of(recipe, name, mark + content) if not row.problem] == [{"q": "1"}]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"q": "\xff"}', "invalid UTF-8 at byte 7 of the line"),
        (b'{"q": ', "invalid JSON: Expecting value at column 6"),
        (b'{"q": 1} x', "invalid JSON: Extra data at column 10"),
        (b'["q"]', "a JSON list, not an object"),
        (b'"q"', "a JSON str, not an object"),
        (b"null", "a JSON NoneType, not an object"),
        (b"[" * 100_000, "unreadable JSON: maximum recursion depth"),
        (b'{"q": ' + b"1" * 5000 + b"}", "unreadable JSON: Exceeds the limit"),
    ],
)
def test_unreadable_line_is_a_row_with_its_problem_and_the_rest_goes_on(
    recipe: Recipe, line: bytes, problem: str
) -> None:
    """The line number is the one that an editor shows."""
    first, bad, last = rows_of(recipe, "rows.jsonl", b'{"q": 1}\n' + line + b'\n{"q": 3}\n')
    assert (first.fields, last.number, last.fields) == ({"q": 1}, 3, {"q": 3})
    assert (bad.number, bad.fields) == (2, {})
    assert bad.problem is not None
    assert bad.problem.startswith(problem)
    assert bad.excerpt == line[:80].decode(errors="replace").strip()


def test_json_list_may_hold_rows_that_are_no_objects(recipe: Recipe) -> None:
    """They are rows with a problem; the others are read."""
    rows = rows_of(recipe, "rows.json", b'[{"q": 1}, 7, {"q": 3}]')
    assert [row.fields for row in rows] == [{"q": 1}, {}, {"q": 3}]
    assert [row.problem for row in rows] == [None, "a JSON int, not an object", None]


def test_csv_row_that_does_not_fit_is_told_apart(recipe: Recipe) -> None:
    """A row with too many fields, or too few, is no row of the header's columns; its number counts all the same."""
    rows = rows_of(recipe, "rows.csv", b"q,a\n1,2\n1,2,3\n1\n3,4\n")
    assert [row.problem for row in rows] == [
        None,
        "more fields than the header has: 3 in place of 2",
        "fewer fields than the header has: 1 in place of 2",
        None,
    ]
    assert [row.number for row in rows] == [1, 2, 3, 4]
    assert rows[1].excerpt == "1,2,3"


def test_csv_value_may_be_long(recipe: Recipe) -> None:
    """The csv module stops at 131,072 characters unless told otherwise."""
    assert len(rows_of(recipe, "rows.csv", b"q\n" + b"x" * 200_000 + b"\n")[0].fields["q"]) == 200_000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.json", b"[1", "rows.json is not JSON in UTF-8"),
        ("rows.json", b'["\xff"]', "rows.json is not JSON in UTF-8"),
        (
            "rows.json",
            b'{"q": 1}',
            "rows.json holds a JSON dict; a list of objects is needed (one object a line is .jsonl)",
        ),
        ("rows.parquet", b"q,a\n", "rows.parquet is not a readable Parquet file"),
        ("rows.txt", b"q", "rows.txt has an unknown ending; use .jsonl, .ndjson, .json, .csv, .tsv, .parquet"),
    ],
)
def test_file_of_another_kind_is_refused(recipe: Recipe, name: str, content: bytes, words: str) -> None:
    """A file that is not what its name says has no rows to go on with."""
    message = refusal_of(recipe, name, content)
    assert str(recipe.path.parent) in message
    assert words in message


@pytest.mark.parametrize("name", ["../nowhere.jsonl", "no[wh]ere?.jsonl"])
def test_missing_file_is_named_with_the_recipe_and_where_paths_start(recipe: Recipe, name: str) -> None:
    """The path is shown as it was looked for and as it was written."""
    message = refusal_of(recipe, name)
    looked_for = (recipe.path.parent / name).resolve()
    assert message.startswith(f"{recipe.path}: there is no file {looked_for} (source {name!r}).")
    assert "Relative paths start at the recipe's folder" in message
    with pytest.raises(SourceError, match="there is no file"):
        fingerprint_of(Source(source=name), recipe, HashCache(recipe.path.parent / "hashes.json"))


def test_state_of_a_file_is_its_content_whatever_its_name(recipe: Recipe) -> None:
    """A renamed or touched file is the same input."""
    hashes, folder = HashCache(recipe.path.parent / "hashes.json"), recipe.path.parent
    states = []
    for name, content in [("a.jsonl", "{}"), ("b.jsonl", "{}"), ("c.jsonl", "{} ")]:
        (folder / name).write_text(content)
        states.append(fingerprint_of(Source(source=name), recipe, hashes))
    assert states[0] == states[1] == sha256(folder / "a.jsonl")[:16] != states[2]


HUB_FILES = {
    "README.md": b"""---
configs:
- {config_name: one, data_files: 1.jsonl}
- {config_name: two, data_files: 2.jsonl}
---
""",
    "1.jsonl": b'{"q": "1", "a": "2"}\n',
    "2.jsonl": b'{"q": "3", "a": "4"}\n{"q": "5", "a": "6"}\n',
}


ANSWERS: dict[str, list[tuple[int, Any, dict[str, str]]]] = {
    "renamed": [(307, {}, {"Location": "/api/datasets/org/name"})],
    "gated": [(401, {"error": "Access to dataset org/gated is restricted."}, {"X-Error-Code": "GatedRepo"})],
    "private": [(401, {"error": "Invalid username or password."}, {})],
    "busy": [(429, {}, {"Retry-After": "1"})],
    "closed_for_hours": [(429, {}, {"Retry-After": "9000"})],
    "out_of_order": [(500, {}, {}), (503, {}, {})],
    "down": [(500, {}, {})] * 9,
    "portal": [(200, b"<html>Log in to this network</html>", {})],
    "empty": [(200, {"id": "org/empty"}, {})],
}
"""What the hub says of a repository, one answer after the other; then it is as well as `org/name`."""


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as is asked for: the data set `org/name` of one commit, and some with troubles."""

    server: "_HubServer"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        name = path.rsplit("/", 1)[-1]
        self.server.asked[name] += 1
        info = {"id": "org/name", "sha": COMMIT, "siblings": [{"rfilename": file} for file in HUB_FILES]}
        if path == "/api/datasets/org/silent":
            self.server.closing.wait()
        elif path.startswith("/api/datasets/org/") and name in ANSWERS:
            answers = ANSWERS[name][self.server.asked[name] - 1 :]
            self._reply(*answers[0] if answers else (200, info))
        elif path in ("/api/datasets/org/name", f"/api/datasets/org/name/revision/{COMMIT}"):
            self._reply(200, info)
        elif path == f"/api/datasets/org/name/tree/{COMMIT}":
            tree = [{"type": "file", "path": file, "size": len(HUB_FILES[file]), "oid": "0"} for file in HUB_FILES]
            self._reply(200, tree)
        elif path.startswith(f"/datasets/org/name/resolve/{COMMIT}/") and name in HUB_FILES:
            tag = hashlib.sha256(HUB_FILES[name]).hexdigest()
            self._reply(200, HUB_FILES[name], {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
        else:
            self._reply(404, {}, {"X-Error-Code": "EntryNotFound" if "/org/name/" in path else "RepoNotFound"})

    do_HEAD = do_GET

    def _reply(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class _HubServer(LocalServer):
    """A local server that speaks for the hub; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hub)
        self.asked: Counter[str] = Counter()
        self.closing = threading.Event()


@pytest.fixture
def hub_server() -> Iterator[_HubServer]:
    """In a thread of its own."""
    with _HubServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture
def hub(hub_server: _HubServer) -> str:
    """The address of the server."""
    return f"http://127.0.0.1:{hub_server.server_port}"


@pytest.fixture
def no_hub() -> str:
    """An address where nothing answers."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


READ_IN_ANOTHER_PROCESS = """
import json, sys
from nait_assets.errors import SourceError
from nait_assets.recipe import Source, load_recipe
from nait_assets.resources.dataset_source import read_rows
recipe = load_recipe(sys.argv[1])
results = []
for source in json.loads(sys.argv[2]):
    try:
        results.append([[row.number, row.fields] for row in read_rows(Source(**source), recipe)])
    except SourceError as error:
        results.append(str(error))
print(json.dumps(results))
"""


def read_in_another_process(recipe: Recipe, sources: list[dict[str, Any]], **environment: str) -> list[Any]:
    """Rows of hub sources, or what is said of them: the hub's client reads its settings when it is imported."""
    process = subprocess.run(
        [sys.executable, "-c", READ_IN_ANOTHER_PROCESS, str(recipe.path), json.dumps(sources)],
        env={**os.environ, "HF_HOME": str(recipe.path.parent / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return list(json.loads(process.stdout.splitlines()[-1]))


def test_hub_data_set_is_read_config_by_config(recipe: Recipe, hub: str) -> None:
    """BBH has a configuration for each task; rows are counted through all of them. Wrong names say what is there."""
    source = {"source": "hub:org/name"}
    rows, no_config, no_split = read_in_another_process(
        recipe,
        [
            {**source, "config": ["two", "one"]},
            {**source, "config": "three"},
            {**source, "config": "one", "split": "test"},
        ],
        HF_ENDPOINT=hub,
    )
    assert rows == [[1, {"q": "3", "a": "4"}], [2, {"q": "5", "a": "6"}], [3, {"q": "1", "a": "2"}]]
    for message, words in [(no_config, ["'three'", "'one', 'two'"]), (no_split, ['"test"', "train"])]:
        assert message.startswith("the hub's dataset 'org/name' (revision default) cannot be read: ")
        assert all(word in message for word in words)


def test_hub_data_set_is_read_from_the_cache_without_a_connection(recipe: Recipe) -> None:
    """`hf download` put it there; the commit is the one that the cache last knew of the revision."""
    cache = recipe.path.parent / "hf" / "hub" / "datasets--org--name"
    for name, content in HUB_FILES.items():
        file = cache / "snapshots" / COMMIT / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    sources = [
        {"source": "hub:org/name", "config": "two"},
        {"source": "hub:org/name", "config": "one", "revision": COMMIT},
    ]
    two, one = read_in_another_process(recipe, sources, HF_HUB_OFFLINE="1")
    assert two == [[1, {"q": "3", "a": "4"}], [2, {"q": "5", "a": "6"}]]
    assert one == [[1, {"q": "1", "a": "2"}]]


def test_hub_data_set_that_is_not_at_hand_is_named_with_the_way_to_a_local_copy(recipe: Recipe) -> None:
    """On a machine without a connection, with the commit given or not."""
    sources = [{"source": "hub:org/name"}, {"source": "hub:org/name", "revision": COMMIT}]
    by_default, by_commit = read_in_another_process(recipe, sources, HF_HUB_OFFLINE="1")
    assert "the hub's dataset 'org/name' (revision default) cannot be read" in by_default
    assert f"the hub's dataset 'org/name' (revision {COMMIT}) cannot be read" in by_commit
    for message in (by_default, by_commit):
        assert "`hf download --repo-type dataset org/name --local-dir FOLDER`" in message
        assert "name a file of it as `source`" in message


def test_unreachable_hub_is_told_with_the_id_and_the_reason(no_hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection names the model or data set, what to check, and how to use a local copy."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", no_hub)
    with pytest.raises(ModelError, match=re.escape("the hub's model 'org/name' (revision v1) cannot")) as error:
        hub_commit("org/name", "v1", "model", use="name the folder in `model.source`")
    for words in [
        "refused",
        "HF_TOKEN",
        "`hf download org/name --local-dir FOLDER`",
        "then name the folder in `model.source`.",
    ]:
        assert words in str(error.value)


def test_hub_repository_that_does_not_exist_is_told(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt name is not a missing connection: the reason differs."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub)
    with pytest.raises(SourceError, match=r"the hub's dataset 'org/nam' .* RepositoryNotFoundError.* Check its name"):
        hub_commit("org/nam", None, "dataset")


def test_state_of_a_hub_data_set_is_the_commit_of_its_branch(
    recipe: Recipe, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch moves: the commit that was read is what can be repeated."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub)
    hashes = HashCache(recipe.path.parent / "hashes.json")
    assert fingerprint_of(Source(source="hub:org/name"), recipe, hashes) == COMMIT


def test_full_commit_needs_no_connection(no_hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pinned recipe can be planned offline."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", no_hub)
    assert hub_commit("org/name", "a" * 40, "dataset") == "a" * 40


@pytest.fixture
def asked(hub_server: _HubServer, hub: str, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the local hub, which is the hub of this process, was asked for a repository."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub)
    return hub_server.asked


def test_hub_repository_that_was_renamed_is_followed(asked: Counter[str]) -> None:
    """The hub answers the old name with a redirect; a recipe from before goes on working."""
    assert hub_commit("org/renamed", None, "dataset") == COMMIT
    assert asked == {"renamed": 1, "name": 1}


@pytest.mark.parametrize(("name", "n_asked"), [("busy", 2), ("out_of_order", 3)])
def test_hub_that_is_busy_or_out_of_order_is_asked_again(asked: Counter[str], name: str, n_asked: int) -> None:
    """A run of hours must not end because of one bad second; the wait is at least what the hub asks for."""
    begin = time.monotonic()
    assert hub_commit(f"org/{name}", None, "dataset") == COMMIT
    assert asked[name] == n_asked
    assert time.monotonic() - begin >= 1


@pytest.mark.parametrize(
    ("name", "n_asked", "words"),
    [
        ("gated", 1, ["GatedRepoError", "Access to dataset org/gated is restricted", "given access", "HF_TOKEN"]),
        ("private", 1, ["401 Unauthorized", "Invalid username or password", "Check HF_TOKEN"]),
        ("closed_for_hours", 1, ["429 Too Many Requests", "busy or out of order; try again in 9000 s"]),
        ("down", 3, ["500 Internal Server Error", "busy or out of order; try again later"]),
        ("portal", 1, ["JSONDecodeError", "Check its name, your connection"]),
        ("empty", 1, ["the answer names no commit"]),
    ],
)
def test_hub_that_does_not_give_a_commit_is_told_with_what_to_do(
    asked: Counter[str], name: str, n_asked: int, words: list[str]
) -> None:
    """What would not help is not tried: a gate does not open by knocking twice, hours are not waited for."""
    with pytest.raises(SourceError, match=re.escape(f"the hub's dataset 'org/{name}' (revision default)")) as error:
        hub_commit(f"org/{name}", None, "dataset")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert asked[name] == n_asked


def test_hub_that_never_answers_is_given_up(asked: Counter[str]) -> None:
    """A sensor's tick has a minute for all its sources; the same holds for what hangs behind a redirect or a proxy."""
    begin = time.monotonic()
    with pytest.raises(SourceError, match=r"'org/silent' .* ReadTimeout: timed out"):
        hub_commit("org/silent", None, "dataset", timeout_seconds=0.5)
    assert 0.5 <= time.monotonic() - begin < 5
    assert asked["silent"] == 1


def test_hub_is_never_waited_for_longer_than_a_tick_allows() -> None:
    """By default: the last attempt starts so early that it ends within the patience."""
    assert TIMEOUT_SECONDS + sum(PAUSES_SECONDS) <= PATIENCE_SECONDS < 60 - LOOKING_SECONDS
