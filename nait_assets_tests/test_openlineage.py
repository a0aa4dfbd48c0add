"""OpenLineage: the events of a run form one chain from a subset to its sources, and cost nothing and fail nothing."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from uuid import UUID

import dagster as dg
import pytest

from nait_assets import openlineage
from nait_assets.openlineage import HUB, Output, configured, run_event
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import CONTAMINATED_CANDIDATES
from nait_assets_tests.command import instance_of, metadata_of, nait, quick_home, run
from nait_assets_tests.local_server import LocalServer

MakeRecipe = Callable[..., Recipe]
Event = dict[str, Any]
CORPORA = ("--select", "group:corpora")
NAMESPACE = "nait_assets/tiny"
SPEC = os.environ.get("OPENLINEAGE_SPEC")  # read before the tests' own environment takes such variables away


@pytest.fixture(autouse=True)
def _no_earlier_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport of another test, that failed, is not this test's."""
    monkeypatch.setattr(openlineage, "_failures", {})


@pytest.fixture
def recipe(make_recipe: MakeRecipe) -> Recipe:
    """One method and one ratio."""
    return make_recipe(methods=["nait_standardized"], ratios=[0.3])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the home and the events of the first run of this module are kept."""
    return tmp_path_factory.mktemp("kept") / "all"


@pytest.fixture
def made(kept: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `home`, of everything that the recipe asks for, and `events.jsonl`, one a line."""
    if not kept.exists():
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(kept / "events.jsonl"))
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
        kept.mkdir()
        run(recipe, quick_home(kept / "home"))
    return kept


@pytest.fixture
def events(made: Path) -> list[Event]:
    """The COMPLETE events of a whole run, in the order in which they were sent."""
    return [event for event in all_events(made) if event["eventType"] == "COMPLETE"]


def all_events(made: Path) -> list[Event]:
    """Every event of a whole run."""
    return [json.loads(line) for line in (made / "events.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def server() -> Iterator[tuple[str, list[Event]]]:
    """The address of a catalogue, and what it has been sent."""
    received: list[Event] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with LocalServer(("127.0.0.1", 0), Handler) as catalogue:
        threading.Thread(target=catalogue.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{catalogue.server_port}", received
        catalogue.shutdown()


def output_of(event: Event) -> Event:
    """The one data set that an event is about."""
    (output,) = event["outputs"]
    return output


def warnings_of(home: Path) -> list[str]:
    """The warnings in the logs of a home's runs."""
    with instance_of(home) as instance:
        logs = [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
    return [entry.user_message for entry in logs if entry.level == 30 and "OpenLineage" in entry.user_message]


def event_of(recipe: Recipe, run_id: str = "1", **inputs: str) -> Event:
    """The event of an output with these inputs, as it is sent."""
    from openlineage.client.serde import Serde

    output = Output("features/f", "features/f[math]", "1:a", "b", inputs, run_id, None, [])
    return dict(json.loads(Serde.to_json(run_event(output, recipe))))


def test_every_output_has_one_event(made: Path, events: list[Event]) -> None:
    """What a catalogue does not hear of is missing from its graph without a sign."""
    records = Warehouse(home=str(made / "home")).records()
    assert sorted(output_of(event)["name"] for event in events) == sorted(records)
    starts, completes = all_events(made)[::2], all_events(made)[1::2]
    assert {event["eventType"] for event in starts} == {"START"}
    assert [event["run"]["runId"] for event in starts] == [event["run"]["runId"] for event in completes]
    assert len({event["run"]["runId"] for event in events}) == len(events)
    for event in events:
        record = records[output_of(event)["name"]]
        assert event["job"]["name"] == record.asset
        assert event["job"]["namespace"] == output_of(event)["namespace"] == NAMESPACE
        assert {"key": "code_version", "value": record.code_version, "source": "nait_assets"} in event["job"]["facets"][
            "tags"
        ]["tags"]


def test_events_lead_from_a_subset_cell_by_cell_to_the_files(recipe: Recipe, made: Path, events: list[Event]) -> None:
    """The question that a catalogue answers: which files, and which model, is this training set made from?

    The subset for code must not lead to the examples for math, but by the search for contamination, which reads all.
    """
    read = {output_of(event)["name"]: [(i["namespace"], i["name"]) for i in event["inputs"]] for event in events}
    pending, reached = ["selection/nait_standardized_subset[code|0.30]"], set()
    while pending:
        for place in read[pending.pop()]:
            if place not in reached and place != (NAMESPACE, CONTAMINATED_CANDIDATES.asset):
                reached.add(place)
                pending += [place[1]] if place[0] == NAMESPACE else []
    files = {name for namespace, name in reached if namespace == "file"}
    assert {Path(name).name for name in files} == {"pool.jsonl", "code.jsonl", Path(recipe.model.source).name}
    assert all(Path(name).is_absolute() for name in files)
    assert {name for namespace, name in reached if namespace == NAMESPACE} >= {
        "scoring/nait_standardized_scores[code]",
        "features/standardized_centroids[code]",
        "extraction/in_domain_activations[code]",
        "corpora/in_domain_set[code]",
        "corpora/candidate_pool",
    }
    assert not [name for _, name in reached if "math" in name]


def test_events_have_the_versions_that_were_read_and_written(made: Path, events: list[Event]) -> None:
    """Names alone cannot say whether a subset was made before or after its pool changed."""
    records = Warehouse(home=str(made / "home")).records()
    for event in events:
        output = output_of(event)
        record = records[output["name"]]
        assert output["facets"]["version"]["datasetVersion"] == record.data_version
        ours = {
            i["name"]: i["facets"]["version"]["datasetVersion"] for i in event["inputs"] if i["namespace"] == NAMESPACE
        }
        assert ours == {name: version for name, version in record.inputs.items() if name in records}
        versions = {i["facets"]["version"]["datasetVersion"] for i in event["inputs"]}
        tags = {tag["key"]: tag["value"] for tag in event["run"]["facets"]["tags"]["tags"]}
        assert versions | set(tags.values()) >= set(record.inputs.values())


def test_events_have_the_rows_and_columns_that_dagster_shows(made: Path, events: list[Event]) -> None:
    """One number in two places must be one number."""
    by_name = {output_of(event)["name"]: output_of(event) for event in events}
    for name, output in by_name.items():
        shown = metadata_of(made / "home", name)
        assert output["outputFacets"].get("outputStatistics", {}).get("rowCount") == shown.get("dagster/row_count")
        if "dagster/column_schema" in shown:
            columns: Any = shown["dagster/column_schema"]
            fields = [(field["name"], field["type"]) for field in output["facets"]["schema"]["fields"]]
            assert fields == [(column.name, column.type) for column in columns.columns]
    assert by_name["corpora/candidate_pool"]["outputFacets"]["outputStatistics"]["rowCount"] == 20
    assert "schema" in by_name["selection/nait_standardized_subset[all|0.30]"]["facets"]


def test_the_same_dagster_run_and_output_are_the_same_openlineage_run(recipe: Recipe) -> None:
    """An event that is sent twice must be one run in the catalogue, and a second run another."""
    assert event_of(recipe)["run"]["runId"] == event_of(recipe)["run"]["runId"]
    assert event_of(recipe)["run"]["runId"] != event_of(recipe, run_id="2")["run"]["runId"]


def test_inputs_from_outside_are_named_as_others_name_them(recipe: Recipe) -> None:
    """A catalogue joins graphs by namespace and name: the hub's data set is one, whoever reads it."""
    event = event_of(
        recipe,
        **{
            "source:0:hub:someone/chats": "1",
            "source:1:more.jsonl": "2",
            "source:2:more.jsonl": "3",
            "model:hub:someone/model": "4",
            "model:package:a_model": "5",
            "feature_file:features/math": "6",
            "corpora/in_domain_set[math]": "7",
            "dtype": "float32",
        },
    )
    folder = recipe.path.parent
    assert {(i["namespace"], i["name"]): i["facets"]["version"]["datasetVersion"] for i in event["inputs"]} == {
        (HUB, "datasets/someone/chats"): "1",
        ("file", str(folder / "more.jsonl")): "2+3",
        (HUB, "someone/model"): "4",
        ("package", "a_model"): "5",
        ("file", str(folder / "features" / "math")): "6",
        (NAMESPACE, "corpora/in_domain_set[math]"): "7",
    }
    assert {"key": "dtype", "value": "float32", "source": "nait_assets"} in event["run"]["facets"]["tags"]["tags"]


def test_a_server_receives_the_events(
    recipe: Recipe, tmp_path: Path, server: tuple[str, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transport that catalogues offer, set by nothing but the client's own variable."""
    address, received = server
    monkeypatch.setenv("OPENLINEAGE_URL", address)
    outputs = run(recipe, quick_home(tmp_path / "home"), *CORPORA)
    assert {output_of(event)["name"] for event in received} == outputs
    assert warnings_of(tmp_path / "home") == []


def test_a_run_succeeds_with_one_warning_when_the_server_is_down(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of extraction must not be lost to a catalogue; nor may a gap in its graph go unsaid."""
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 0}')
    home = quick_home(tmp_path / "home")
    assert "corpora/candidate_pool" in run(recipe, home, *CORPORA)
    with instance_of(home) as instance:
        runs = instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    warnings = warnings_of(home)
    assert len(warnings) == len(runs)
    assert all("No OpenLineage event for corpora/" in text and "Connection" in text for text in warnings)


def test_without_the_package_a_run_says_what_to_install(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable may be set for a whole machine, and the extra missing from one environment."""
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    for name in [name for name in sys.modules if name.split(".")[0] == "openlineage"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openlineage", None)
    run(recipe, quick_home(tmp_path / "home"), *CORPORA)
    warnings = warnings_of(tmp_path / "home")
    assert warnings
    assert all('pip install "nait_assets[openlineage]"' in text for text in warnings)


def test_after_a_failure_the_next_runs_do_not_wait_for_the_server(
    recipe: Recipe, server: tuple[str, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command is a run for each partition, and each would wait for the retries; later on it is tried again."""
    said: list[str] = []

    def announce(run_id: str) -> None:
        output = Output("features/f", f"features/f[{run_id}]", "1:a", "b", {}, run_id, None, [])
        openlineage.announce(output, recipe.path, said.append)

    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "pigeon")
    announce("first")
    announce("first")
    address, received = server
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", address)
    announce("second")
    assert [text.partition(",")[0] for text in said] == [
        "No OpenLineage event for features/f[first]",
        "No OpenLineage event for features/f[second]",
    ]
    monkeypatch.setattr(openlineage, "PAUSE_SECONDS", 0.0)
    announce("third")
    assert [output_of(event)["name"] for event in received] == ["features/f[third]", "features/f[third]"]
    assert len(said) == 2


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OPENLINEAGE_URL": ""}, False),
        ({"OPENLINEAGE_NAMESPACE": "a"}, False),
        ({"OPENLINEAGE_URL": "http://a"}, True),
        ({"OPENLINEAGE_CONFIG": "openlineage.yml"}, True),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "console"}, True),
        ({"OPENLINEAGE_URL": "http://a", "OPENLINEAGE_DISABLED": "True"}, False),
    ],
)
def test_it_is_on_only_where_the_environment_names_a_transport(
    variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a transport the client would print every event to the console."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert configured() is expected


def test_off_by_default_it_imports_and_writes_nothing(recipe: Recipe, tmp_path: Path) -> None:
    """Nobody who does not ask for it pays for it; in a process of its own, as this one has imported the client."""
    program = """
import sys
from nait_assets import cli

sys.argv = ["nait", "run", *sys.argv[1:]]
code = cli.execute()
print([name for name in sys.modules if name.split(".")[0] == "openlineage"], code)
"""
    home = quick_home(tmp_path / "home")
    arguments = ["--recipe", str(recipe.path), "--home", str(home), *CORPORA]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1:] == ["[] 0"], done.stderr
    assert "OpenLineage" not in done.stdout + done.stderr
    assert warnings_of(home) == []


def test_a_client_that_fails_to_start_is_a_warning(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing error in the variables is found after the output is written: too late to fail it."""
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "pigeon")
    home = quick_home(tmp_path / "home")
    answer = nait("run", "--recipe", recipe.path, "--home", home, *CORPORA)
    assert answer.code == 0, answer.err
    assert "pigeon" in warnings_of(home)[0]


def test_events_have_what_the_specification_requires(events: list[Event]) -> None:
    """Required fields, identifiers and times of the run event and of each facet, whether its schema is here or not."""
    for event in events:
        assert {"eventTime", "producer", "schemaURL", "run", "job"} <= set(event)
        UUID(event["run"]["runId"])
        assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
        assert event["schemaURL"].startswith("https://openlineage.io/spec/2-0-2/OpenLineage.json#")
        assert urlparse(event["producer"]).scheme == "pkg"
        for part in [event["job"], *event["inputs"], *event["outputs"]]:
            assert part["namespace"]
            assert part["name"]
        for name, facet in facets_of(event):
            assert urlparse(facet["_producer"]).scheme, name
            assert facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/"), name


def test_events_are_valid_by_the_published_schemas(events: list[Event], recipe: Recipe) -> None:
    """By JSON Schema itself; `OPENLINEAGE_SPEC` names a folder with `OpenLineage.json` and `facets/` of the project."""
    if not SPEC:
        pytest.skip("OPENLINEAGE_SPEC names no copy of https://github.com/OpenLineage/OpenLineage/tree/main/spec")
    import jsonschema
    from referencing import Registry, Resource

    files = [Path(SPEC) / "OpenLineage.json", *Path(SPEC).glob("facets/*.json")]
    schemas = {file.name: Resource.from_contents(json.loads(file.read_text(encoding="utf-8"))) for file in files}
    registry: Any = Registry(retrieve=lambda address: schemas[address.rpartition("/")[2]])  # whichever version is there

    def check(part: Any, schema: str) -> None:
        formats = jsonschema.FormatChecker()
        jsonschema.Draft202012Validator({"$ref": schema}, registry=registry, format_checker=formats).validate(part)

    for event in [*events, event_of(recipe, dtype="float32")]:
        check(event, event["schemaURL"])
        for _, facet in facets_of(event):
            check(facet, facet["_schemaURL"])


def facets_of(event: Event) -> list[tuple[str, dict[str, Any]]]:
    """Every facet of an event, with its name."""
    parts = [event["run"], event["job"], *event["inputs"], *event["outputs"]]
    groups = [part.get(kind) or {} for part in parts for kind in ("facets", "inputFacets", "outputFacets")]
    return [item for group in groups for item in group.items()]
