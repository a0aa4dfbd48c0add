"""The sensor over the sources: which corpora it requests, and what it says of those that it cannot look at."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from nait_assets.corpora.sensors import Findings, Watched, build_sensors, compare
from nait_assets.definitions import build_definitions
from nait_assets.errors import SourceError
from nait_assets.lineage import Record
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.resources import Warehouse
from nait_assets.resources.home import mark
from nait_assets_tests.conftest import in_domain_rows, pool_rows, write_jsonl
from nait_assets_tests.resources.test_warehouse import held_by_another_process

POOL, MATH, CODE = "corpora/candidate_pool", "corpora/in_domain_set[math]", "corpora/in_domain_set[code]"
FIELDS = {"methods": ["random"], "evaluation": {"held_out": {"exam": {"source": "exam.jsonl"}}}}
HELD_OUT = "corpora/evaluation_set[exam]"
WATCHED = [Watched("a", None, "pool"), Watched("b", "x", "x")]
RECORDS = {"a": Record("a", "", "1", "v", {"file": "1"}), "b[x]": Record("b", "x", "1", "v", {"file": "2"})}


@dataclass
class Home:
    """A recipe over small files, its home, and an instance."""

    folder: Path
    definitions: dg.Definitions
    instance: dg.DagsterInstance

    @property
    def warehouse(self) -> Warehouse:
        """Of the home folder."""
        return Warehouse(home=str(self.folder / "home"))

    def build(self) -> None:
        """Make every corpus, as a person's first load does."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        for name in (POOL, CODE, MATH, HELD_OUT):
            asset, _, partition = name.rstrip("]").partition("[")
            job.execute_in_process(
                instance=self.instance, asset_selection=[dg.AssetKey(asset.split("/"))], partition_key=partition or None
            )

    def tick(self, sensor: dg.SensorDefinition | None = None) -> tuple[dict[str, str], str]:
        """Run keys of what one tick requests, by output, and why nothing is requested."""
        sensor = sensor or self.definitions.resolve_sensor_def("sources_changed")
        resources = {"warehouse": self.warehouse}
        with dg.build_sensor_context(self.instance, definitions=self.definitions, resources=resources) as context:
            result = sensor.evaluate_tick(context)
        requested = {}
        for request in result.run_requests or []:
            assert request.run_key
            assert request.asset_selection
            (asset,) = request.asset_selection
            name = "/".join(asset.path)
            requested[f"{name}[{request.partition_key}]" if request.partition_key else name] = request.run_key
        return requested, result.skip_message or ""


@pytest.fixture
def home(make_recipe: Callable[..., Recipe], tmp_path: Path) -> Iterator[Home]:
    """Nothing is built there yet."""
    with dg.DagsterInstance.ephemeral() as instance:
        write_jsonl(tmp_path / "exam.jsonl", in_domain_rows("exam"))
        yield Home(tmp_path, build_definitions(make_recipe(**FIELDS), tmp_path / "home"), instance)


@pytest.fixture
def built(home: Home) -> Home:
    """Every corpus is built from what its source is."""
    home.build()
    return home


def test_only_what_differs_is_changed() -> None:
    """The change is named by what it was and what it is now, so that a change and its reverse differ."""
    states = {"pool": {"file": "1"}, "x": {"file": "3"}}
    found = compare(WATCHED, RECORDS, states.__getitem__)
    assert found == Findings({WATCHED[1]: fingerprint({"file": "2"}, {"file": "3"})})


def test_a_source_more_or_less_is_a_change() -> None:
    """Sources are inputs by name: a second one changes the corpus though the first is as it was."""
    assert list(compare(WATCHED[:1], RECORDS, lambda corpus: {"file": "1", "more": "1"}).changed) == WATCHED[:1]
    assert list(compare(WATCHED[:1], RECORDS, lambda corpus: {}).changed) == WATCHED[:1]


def test_what_cannot_be_read_is_neither_changed_nor_empty() -> None:
    """The reason is kept, and the others are looked at."""

    def state_of(corpus: str) -> dict[str, str]:
        if corpus == "pool":
            raise SourceError("the disk is away")
        return {"file": "3"}

    found = compare(WATCHED, RECORDS, state_of)
    assert list(found.changed) == WATCHED[1:]
    assert found.unread == {"a": "the disk is away"}


def test_what_was_never_built_is_not_looked_at() -> None:
    """Its source may be a hub that takes long to answer."""
    assert compare(WATCHED, {}, lambda corpus: pytest.fail("looked")) == Findings(unbuilt=["a", "b[x]"])


def test_looking_ends_in_time() -> None:
    """Dagster ends a tick that takes a minute, and would then request nothing of what was found."""
    found = compare(WATCHED, RECORDS, lambda corpus: {"file": "3"}, seconds=-1)
    assert set(found.unread) == {"a", "b[x]"}
    assert "not looked at" in found.unread["a"]


def test_nothing_changed_requests_nothing(built: Home) -> None:
    """A touched file is the same file."""
    os.utime(built.folder / "math.jsonl", (0, 0))
    assert built.tick() == ({}, "every corpus was built from what its sources are now")


@pytest.mark.parametrize(
    ("file", "rows", "requested"),
    [
        ("math.jsonl", in_domain_rows("math", 5), MATH),
        ("pool.jsonl", pool_rows(21), POOL),
        ("exam.jsonl", in_domain_rows("exam", 5), HELD_OUT),
    ],
)
def test_a_changed_file_requests_its_corpus_until_it_is_built(
    built: Home, file: str, rows: list[dict[str, object]], requested: str
) -> None:
    """No other; twice with one key, so that Dagster starts one run; and no more once the corpus is made of it."""
    write_jsonl(built.folder / file, rows)
    (first, _), (second, _) = built.tick(), built.tick()
    assert list(first) == [requested]
    assert first == second
    built.build()
    assert built.tick()[0] == {}


def test_a_change_whose_run_failed_is_requested_again_the_next_day(
    built: Home, make_recipe: Callable[..., Recipe]
) -> None:
    """Dagster never runs a key twice, also when its run failed: the source may be well tomorrow."""
    write_jsonl(built.folder / "math.jsonl", in_domain_rows("math", 5))
    recipe = make_recipe(**FIELDS)
    keys = [
        built.tick(build_sensors(recipe, Partitions.of(recipe), lambda day=day: date(2026, 1, day))[0])[0][MATH]
        for day in (1, 1, 2)
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_source_that_is_gone_is_told_and_not_requested(built: Home) -> None:
    """An unmounted disk is not an empty corpus."""
    (built.folder / "math.jsonl").unlink()
    requested, reason = built.tick()
    assert requested == {}
    assert reason.startswith(f"{MATH}: its sources could not be read: ")
    assert "there is no file" in reason


def test_a_source_that_is_gone_does_not_hide_another_that_changed(
    built: Home, capfd: pytest.CaptureFixture[str]
) -> None:
    """The reason is logged as a warning, as a tick that requests something has no reason to skip."""
    (built.folder / "math.jsonl").unlink()
    write_jsonl(built.folder / "code.jsonl", in_domain_rows("code", 5))
    requested, _ = built.tick()
    assert list(requested) == [CODE]
    assert f"{MATH}: its sources could not be read" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_source_that_may_not_be_read_is_told(built: Home) -> None:
    """Rights are lost as disks are; the file is changed as well, so that its remembered hash does not help."""
    file = write_jsonl(built.folder / "math.jsonl", in_domain_rows("math", 5))
    file.chmod(0)
    requested, reason = built.tick()
    assert requested == {}
    assert "Permission denied" in reason


def test_a_home_that_is_locked_is_a_skip_with_the_reason(built: Home) -> None:
    """A run that writes is no failure of the sensor; the tick ends soon, and says who holds the file."""
    write_jsonl(built.folder / "math.jsonl", in_domain_rows("math", 5))
    with held_by_another_process(built.warehouse.tables, "READ_WRITE"):
        requested, reason = built.tick()
    assert requested == {}
    assert "was locked by another process" in reason
    assert list(built.tick()[0]) == [MATH]


def test_a_home_that_cannot_be_read_is_a_skip_with_the_reason(home: Home) -> None:
    """A damaged file is no reason to build everything again."""
    home.warehouse.folder.mkdir()
    mark(home.warehouse.folder)
    home.warehouse.tables.path.write_bytes(b"no data base " * 1000)
    requested, reason = home.tick()
    assert requested == {}
    assert "cannot be opened" in reason


def test_the_first_load_is_left_to_a_person(home: Home) -> None:
    """The sensor keeps up what there is; it makes no home, and no file in it."""
    requested, reason = home.tick()
    assert requested == {}
    assert "the first load is a person's" in reason
    assert all(name in reason for name in (POOL, MATH, CODE, HELD_OUT))
    assert not home.warehouse.folder.exists()


def test_the_sensor_is_off_until_it_is_switched_on(home: Home) -> None:
    """It asks a hub every hour, which is a person's decision."""
    sensor = home.definitions.resolve_sensor_def("sources_changed")
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    assert "Stopped until you switch it on" in (sensor.description or "")
