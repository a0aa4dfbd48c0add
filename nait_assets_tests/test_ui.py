"""Dagster's pages in a browser, on the server that `nait ui` starts: what people see and click."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from nait_assets_tests.chromium import headless_chromium
from nait_assets_tests.command import instance_of
from nait_assets_tests.conftest import CAPABILITIES, conversation, in_domain_rows, pool_rows, write_jsonl
from nait_assets_tests.local_server import LocalServer

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 180
ROOMS = ("corpora", "extraction", "features", "scoring", "selection", "report", "audit")
SUBSET = "selection/nait_standardized_subset"
STRANGER = "stranger.example"
"""A host that the browser finds on this machine, as it does a page that has its own name point here."""
TARGETS = (*CAPABILITIES, "all")
STALE = """
query Stale($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode { partitionKeys staleStatusByPartition } }
}
"""

REPOSITORY = 'repositoryName: "__repository__", repositoryLocationName: "nait_assets.definitions"'
START_SCHEDULE = f"""
mutation {{ startSchedule(scheduleSelector: {{{REPOSITORY}, scheduleName: "weekly_audit"}}) {{ __typename }} }}
"""
START_SENSOR = f"""
mutation {{ startSensor(sensorSelector: {{{REPOSITORY}, sensorName: "sources_changed"}}) {{ __typename }} }}
"""
ATTACK = """
async ([server, schedule, sensor]) => {
    const graphql = mutation => `${server}/graphql?query=${encodeURIComponent(mutation)}`;
    const check = `${server}/report_asset_check/audit/lineage_audit?check_name=every_chain_holds&passed=true`;
    const get = new Promise(done => {
        const image = new Image();
        image.onload = image.onerror = done;
        image.src = graphql(schedule);
    });
    const post = address => fetch(address, {method: "POST", mode: "no-cors"}).catch(() => null);
    const socket = new Promise(done => {
        const one = new WebSocket(server.replace("http", "ws") + "/graphql", "graphql-ws");
        one.onopen = () => one.send(JSON.stringify({type: "connection_init"}));
        one.onmessage = message => done(JSON.parse(message.data).type);
        one.onerror = () => done("refused");
    });
    const [,,, answer] = await Promise.all([get, post(graphql(sensor)), post(check), socket]);
    return answer;
}
"""
"""What another page can make a browser send unasked: a picture, two posts, and a WebSocket, whose answer it returns."""


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
    with headless_chromium(f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1") as browser:
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
def serving(folder: Path, port: int, *options: str) -> Iterator[None]:
    """`nait ui` and the processes that it starts; at the end none of them is left."""
    log = folder / "server.log"
    command = [Path(sys.executable).with_name("nait"), "ui", "--port", str(port), *options]
    place = ["--recipe", folder / "recipe.yaml", "--home", folder / "home"]
    with log.open("w") as output:
        server = subprocess.Popen(
            [str(word) for word in [*command, *place]],
            env=environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            wait_until(lambda: server.poll() is not None or answers(port), f"the server answers; see {log}")
            assert server.poll() is None, log.read_text()
            yield
            server.terminate()
            assert server.wait(60) == 0, log.read_text()
        finally:
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


class StrangersPage(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        """Send it."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Strange</title>")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def page_of(host: str, browser: Any) -> Iterator[Any]:
    """An empty page of a host that lies on this machine."""
    server = LocalServer(("127.0.0.1", 0), StrangersPage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://{host}:{server.server_address[1]}/")
    yield page
    page.close()
    server.shutdown()
    server.server_close()


@pytest.fixture(params=[STRANGER, "localhost", "127.0.0.1"])
def strangers_page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page of another origin in the same browser: of another host, and of another port of this machine."""
    with page_of(request.param, browser) as page:
        yield page


def switched_on(home: Path) -> set[str]:
    """What someone has switched on or turned green on a home's instance."""
    key = dg.AssetCheckKey(dg.AssetKey(["audit", "lineage_audit"]), "every_chain_holds")
    with instance_of(home) as instance:
        running = {state.instigator_name for state in instance.all_instigator_state() if state.is_running}
        checked = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        return running | ({key.name} if checked else set())


def attacked(page: Any, address: str) -> str:
    """Attack a server from a page; what its WebSocket heard."""
    answer = page.evaluate(ATTACK, [address, START_SCHEDULE, START_SENSOR])
    page.wait_for_timeout(1000)  # of a picture nobody learns when the server has done what its address says
    return str(answer)


def test_another_page_in_the_browser_does_nothing_here(strangers_page: Any, site: Site) -> None:
    """127.0.0.1 keeps other machines out, but whatever page is open in the same browser is on this machine."""
    assert attacked(strangers_page, site.address) == "refused"
    assert switched_on(site.folder / "home") == set()
    strangers_page.evaluate(
        "address => new Promise(done => { const f = document.createElement('iframe');"
        "f.onload = done; f.src = address; document.body.append(f) })",
        site.address,
    )
    assert "Dagster" not in strangers_page.frames[-1].content()


def test_a_page_whose_name_was_made_to_mean_this_machine_reads_nothing(browser: Any, site: Site) -> None:
    """To the browser it is of one origin with the server: only the host in the request tells them apart."""
    page = browser.new_page()
    address = site.address.replace("127.0.0.1", STRANGER)
    answer = page.goto(address)
    assert (answer.status, "--allow-host" in answer.text()) == (403, True)
    asked = "() => fetch('/graphql', {method: 'POST', headers: {'content-type': 'application/json'}, body: '{}'})"
    assert page.evaluate(f"{asked}.then(answer => answer.status)") == 403
    page.close()


def test_read_only_shows_everything_and_starts_nothing(browser: Any, site: Site) -> None:
    """For those who only look: the page is whole, and a mutation of the page itself is refused."""
    port = free_port()
    with serving(site.folder, port, "--read-only"):
        page = browser.new_page(base_url=f"http://127.0.0.1:{port}")
        page.goto("/asset-groups")
        page.locator("foreignObject").get_by_text("scoring", exact=True).first.wait_for(timeout=PATIENCE_SECONDS * 1000)
        answer = page.request.post("/graphql", data={"query": START_SCHEDULE}).json()
        page.close()
    assert answer["data"]["startSchedule"]["__typename"] == "UnauthorizedError"
    assert switched_on(site.folder / "home") == set()


def test_the_attacks_work_on_an_unguarded_server(browser: Any, site: Site) -> None:
    """Else the tests above would show nothing: all of it is what Dagster's own server does."""
    home, port = site.folder / "home", free_port()
    variables = environment(
        NAIT_RECIPE=str(site.folder / "recipe.yaml"), NAIT_HOME=str(home), DAGSTER_HOME=str(home / "dagster")
    )
    program = Path(sys.executable).with_name("dagster-webserver")
    command = [str(program), "-m", "nait_assets.definitions", "--port", str(port)]
    server = subprocess.Popen(command, env=variables, start_new_session=True)
    try:
        wait_until(lambda: answers(port), "the unguarded server answers")
        with page_of(STRANGER, browser) as page:
            assert attacked(page, f"http://127.0.0.1:{port}") == "connection_ack"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert switched_on(home) == {"weekly_audit", "sources_changed", "every_chain_holds"}
