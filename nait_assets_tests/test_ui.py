"""Dagster's pages in a browser, on the server that `nait ui` starts: what people see and click."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from nait_assets_tests.chromium import headless_chromium
from nait_assets_tests.conftest import CAPABILITIES, conversation, in_domain_rows, pool_rows, write_jsonl

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 180
ROOMS = ("corpora", "extraction", "features", "scoring", "selection", "report", "audit")
SUBSET = "selection/nait_standardized_subset"
TARGETS = (*CAPABILITIES, "all")
STALE = """
query Stale($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode { partitionKeys staleStatusByPartition } }
}
"""


@dataclass(frozen=True)
class Site:
    """A running server, and where its recipe and home lie."""

    address: str
    folder: Path

    def nait(self, *arguments: str) -> str:
        """What `nait` says, in a process of its own, on the home of the server."""
        recipe, home = self.folder / "recipe.yaml", self.folder / "home"
        program = Path(sys.executable).with_name("nait")
        command = [program, *arguments, "--recipe", recipe, "--home", home]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=2 * PATIENCE_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    with headless_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(browser: Any, tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Site]:
    """The server on a home where one method's subsets of ratio 0.10 were made; then 0.30 was added to the recipe."""
    folder = tmp_path_factory.mktemp("ui")
    write_jsonl(folder / "pool.jsonl", pool_rows())
    for capability in CAPABILITIES:
        write_jsonl(folder / f"{capability}.jsonl", in_domain_rows(capability))
    port = free_port()
    site = Site(f"http://127.0.0.1:{port}", folder)
    write_recipe(folder, model_folder, [0.1])
    site.nait("run", "--select", f"+key:{SUBSET}")
    write_recipe(folder, model_folder, [0.1, 0.3])
    with serving(folder, port):
        yield site


@pytest.fixture
def page(browser: Any, site: Site, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A page whose addresses start at the server; if the test fails, its screenshot is kept."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000}, base_url=site.address)
    page.set_default_timeout(PATIENCE_SECONDS * 1000)
    failed_before = request.session.testsfailed
    yield page
    if request.session.testsfailed > failed_before:
        page.screenshot(path=tmp_path / "failed.png")
        print(f"What the browser showed: {tmp_path / 'failed.png'}")  # noqa: T201
    page.close()


def write_recipe(folder: Path, model_folder: Path, ratios: list[float]) -> None:
    """A recipe of one method over the small files."""
    recipe = {
        "name": "tiny",
        "model": {"source": str(model_folder), "dtype": "float32"},
        "extraction": {"max_tokens": 64},
        "candidates": {"source": "pool.jsonl", "topic_field": "topic"},
        "capabilities": {capability: {"source": f"{capability}.jsonl"} for capability in CAPABILITIES},
        "methods": ["nait_standardized"],
        "ratios": ratios,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


def environment(**variables: str) -> dict[str, str]:
    """This process's, without what names a recipe or a home of the person who runs the tests."""
    ours = ("NAIT_", "DAGSTER_", "OPENLINEAGE_")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(ours)}, **variables}


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def serving(folder: Path, port: int) -> Iterator[None]:
    """The processes that `nait ui` becomes; at the end none of them is left."""
    log = folder / "server.log"
    program = [str(Path(sys.executable).with_name("dagster")), "dev", "-m", "nait_assets.definitions"]
    home = folder / "home"
    variables = environment(
        NAIT_RECIPE=str(folder / "recipe.yaml"), NAIT_HOME=str(home), DAGSTER_HOME=str(home / "dagster")
    )
    with log.open("w") as output:
        server = subprocess.Popen(
            [*program, "--host", "127.0.0.1", "--port", str(port)],
            env=variables,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            wait_until(lambda: server.poll() is not None or answers(port), f"the server answers; see {log}")
            assert server.poll() is None, log.read_text()
            yield
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def answers(port: int) -> bool:
    """Whether the web server is up."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5):
            return True
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Ask again and again, for as long as a slow machine may take."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.2)


def stale_partitions(page: Any, asset: str) -> set[str]:
    """Partitions that the page's own server calls stale."""
    data = {"query": STALE, "variables": {"key": {"path": asset.split("/")}}}
    node = page.request.post("/graphql", data=data).json()["data"]["assetNodeOrError"]
    statuses = zip(node["partitionKeys"], node["staleStatusByPartition"], strict=True)
    return {partition for partition, status in statuses if status == "STALE"}


def open_partition(page: Any, asset: str, *names: str) -> None:
    """Open an asset's partitions and click one name in each dimension."""
    page.goto(f"/assets/{asset}?view=partitions")
    for name in names:
        page.get_by_text(name, exact=True).locator("visible=true").first.click()
    page.get_by_text("|".join(names), exact=True).locator("visible=true").last.wait_for()


def dots(page: Any, name: str) -> list[str]:
    """Colors of the status dots beside a partition's name."""
    row = page.get_by_text(name, exact=True).locator("visible=true").first.locator("xpath=ancestor::*[4]")
    return row.locator("*").evaluate_all(
        "all => all.filter(one => !one.children.length && !one.textContent)"
        ".map(one => getComputedStyle(one).backgroundColor).filter(color => color !== 'rgba(0, 0, 0, 0)')"
    )


def test_the_graph_shows_every_room_by_its_name(page: Any) -> None:
    """The graph is how a newcomer learns what there is; a room without its name would be a room nobody enters."""
    page.goto("/asset-groups")
    for room in ROOMS:
        page.locator("foreignObject").get_by_text(room, exact=True).first.wait_for()


def test_a_subset_shows_a_grid_of_targets_and_ratios(page: Any) -> None:
    """Both dimensions by their names, every target and every ratio: two clicks lead to any cell."""
    page.goto(f"/assets/{SUBSET}?view=partitions")
    for dimension in ("capability", "ratio"):
        page.get_by_placeholder(f"Filter by {dimension}").wait_for()
    for name in (*TARGETS, "0.10", "0.30"):
        page.get_by_text(name, exact=True).locator("visible=true").first.wait_for()
    page.get_by_text("Materialized (3)").wait_for()
    page.get_by_text("Missing (3)").wait_for()


def test_a_cell_that_is_clicked_is_made_and_turns_green(page: Any, site: Site) -> None:
    """From the dialog over the queue, the daemon and a process of its own to the file: all that a click sets going."""
    open_partition(page, SUBSET, "math", "0.30")
    page.get_by_text("Missing (3)").wait_for()
    before = dots(page, "0.30")
    page.goto(f"/assets/{SUBSET}")
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog").filter(has_text="Launch runs to materialize").first
    for choice in ("math", "0.30"):
        dialog.get_by_text("Select a partition").first.click()
        dialog.get_by_role("menuitem", name=choice).click()
        dialog.get_by_text("Launch runs to materialize").click()  # the menu closes
    dialog.get_by_role("button", name="Launch 1 run").click()
    page.get_by_text("View", exact=True).click()
    page.get_by_text("Success", exact=True).first.wait_for()
    open_partition(page, SUBSET, "math", "0.30")
    page.get_by_text("Materialized", exact=True).wait_for()
    page.get_by_text("Materialized (4)").wait_for()
    assert dots(page, "0.30") == dots(page, "0.10") != before
    assert (site.folder / "home" / "subsets" / "nait_standardized" / "math" / "0.30" / "train.jsonl").exists()


def test_a_capability_whose_examples_changed_is_unsynced_and_no_other_is(page: Any, site: Site) -> None:
    """What a person sees must be what is out of date: `math`, and `all`, which rests on it; never `code`."""
    write_jsonl(site.folder / "math.jsonl", [*in_domain_rows("math", 3), conversation("math, and more?", "three dogs")])
    site.nait("run", "--select", "key:corpora/in_domain_set")
    assert stale_partitions(page, "extraction/in_domain_activations") == {"math"}
    open_partition(page, "extraction/in_domain_activations", "math")
    page.get_by_text("Unsynced (1)").wait_for()
    site.nait("run", "--select", "+key:scoring/nait_standardized_scores")
    assert stale_partitions(page, "extraction/in_domain_activations") == set()
    stale = stale_partitions(page, SUBSET)
    assert {cell.split("|")[0] for cell in stale} == {"math", "all"}
    open_partition(page, SUBSET, "math", "0.10")
    page.get_by_text("Unsynced (1)").wait_for()
    open_partition(page, SUBSET, "code", "0.10")
    page.get_by_text("Materialized", exact=True).wait_for()
    page.wait_for_load_state("networkidle")
    assert page.get_by_text("Unsynced").count() == 0
