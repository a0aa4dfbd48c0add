"""Materializations as OpenLineage events, for the catalogue of a company (https://openlineage.io).

Off unless the environment of the OpenLineage client names a transport (`OPENLINEAGE_URL`, `OPENLINEAGE_CONFIG`,
`OPENLINEAGE__TRANSPORT__...`): until then nothing is imported and nothing is sent. An event that cannot be sent is a
warning in the run's log, never a failure of the output that it tells of.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from nait_assets import __version__
from nait_assets.recipe import Recipe, load_recipe
from nait_assets.recipe.paths import expand

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

HUB = "https://huggingface.co"
PRODUCER = f"pkg:generic/nait_assets@{__version__}"
TRANSPORT_VARIABLES = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")
TRANSPORT_PREFIX = "OPENLINEAGE__TRANSPORT__"
OUTSIDE = {"source", "model", "feature_file"}
"""Inputs that are no outputs of ours, by what stands in front of the first colon of their name."""

PAUSE_SECONDS = 60.0
"""After a failure: an attempt waits for the client's retries (9 s by default), and a command may be many runs."""

_failures: dict[str, tuple[float, str]] = {}
"""Runs that send no more events: when the transport was tried, and why it failed."""


@dataclass(frozen=True)
class Output:
    """One materialization.

    Attributes:
        asset: Key as a path, `features/nait_directions`.
        name: Key with its partition, `features/nait_directions[math]`, as inputs are named.
        code_version: Code version of the asset.
        data_version: Hash of the content.
        inputs: Version of each input that was read, by name.
        run_id: Id of the Dagster run.
        n_rows: Number of rows of the output, if known.
        columns: Names and types, where they are known.
    """

    asset: str
    name: str
    code_version: str
    data_version: str
    inputs: Mapping[str, str]
    run_id: str
    n_rows: int | None
    columns: Sequence[tuple[str, str]]


def configured() -> bool:
    """Whether the client's environment names a transport, and does not switch it off."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    return any(
        value and (name in TRANSPORT_VARIABLES or name.startswith(TRANSPORT_PREFIX))
        for name, value in os.environ.items()
    )


def announce(output: Output, recipe_file: Path, warn: Callable[[str], object]) -> None:
    """Send the event of an output; what goes wrong is said once in a run.

    Args:
        output: Output that has been written.
        recipe_file: Recipe that it was made by.
        warn: Takes the warning.
    """
    if output.run_id in _failures:
        return
    tried, reason = max(_failures.values(), default=(float("-inf"), ""))
    if time.monotonic() - tried > PAUSE_SECONDS:
        tried, reason = time.monotonic(), _send(output, recipe_file)
    if reason:
        _failures[output.run_id] = tried, reason
        warn(f"No OpenLineage event for {output.name}, nor for what this run makes after it: {reason}")


def _send(output: Output, recipe_file: Path) -> str:
    """Send an event; why it could not be sent, or ""."""
    try:
        from openlineage.client import OpenLineageClient

        client = OpenLineageClient()
        for event in run_events(output, load_recipe(recipe_file)):
            client.emit(event)
        client.close()
    except Exception as error:  # noqa: BLE001  the output is written; a catalogue that is away must not fail it
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("openlineage"):
            return 'openlineage-python is not installed; pip install "nait_assets[openlineage]"'
        return f"{type(error).__name__}: {error}"
    return ""


def run_events(output: Output, recipe: Recipe) -> "tuple[RunEvent, RunEvent]":
    """An output's START and COMPLETE, of which the specification wants one each; both at the moment it was written."""
    import attrs
    from openlineage.client.event_v2 import RunState

    complete = run_event(output, recipe)
    return attrs.evolve(complete, eventType=RunState.START), complete


def run_event(output: Output, recipe: Recipe) -> "RunEvent":
    """The COMPLETE event of an output. The same Dagster run and output have the same OpenLineage run.

    A partition is a data set of its own, so that lineage connects cell by cell; the job is the asset.
    """
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import (
        dataset_version_dataset,
        job_type_job,
        output_statistics_output_dataset,
        schema_dataset,
        tags_job,
        tags_run,
    )

    def version(value: str) -> dataset_version_dataset.DatasetVersionDatasetFacet:
        return dataset_version_dataset.DatasetVersionDatasetFacet(value, producer=PRODUCER)

    namespace = f"nait_assets/{recipe.name}"
    settings = [
        tags_run.TagsRunFacetFields(key, value, "nait_assets")
        for key, value in [*_settings(output.inputs), ("dagster_run_id", output.run_id)]
    ]
    code = [tags_job.TagsJobFacetFields("code_version", output.code_version, "nait_assets")]
    columns = [schema_dataset.SchemaDatasetFacetFields(name, kind) for name, kind in output.columns]
    schema = {"schema": schema_dataset.SchemaDatasetFacet(columns, producer=PRODUCER)} if columns else {}
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(output.n_rows, producer=PRODUCER)
    return RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=datetime.now(UTC).isoformat(),
        producer=PRODUCER,
        run=Run(
            str(uuid5(NAMESPACE_URL, f"nait_assets/{output.run_id}/{output.name}")),
            {"tags": tags_run.TagsRunFacet(settings, producer=PRODUCER)},
        ),
        job=Job(
            namespace,
            output.asset,
            {
                "jobType": job_type_job.JobTypeJobFacet("BATCH", "DAGSTER", "ASSET", producer=PRODUCER),
                "tags": tags_job.TagsJobFacet(code, producer=PRODUCER),
            },
        ),
        inputs=[
            InputDataset(*place, facets={"version": version("+".join(versions))})
            for place, versions in _data_sets(output.inputs, namespace, recipe).items()
        ],
        outputs=[
            OutputDataset(
                namespace,
                output.name,
                facets={"version": version(output.data_version), **schema},
                outputFacets={"outputStatistics": statistics} if output.n_rows is not None else {},
            )
        ],
    )


def _data_sets(inputs: Mapping[str, str], namespace: str, recipe: Recipe) -> dict[tuple[str, str], list[str]]:
    """Namespace and name of each data set that was read, with its versions: a recipe may name a file twice."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, version in inputs.items():
        kind, _, rest = name.partition(":")
        if kind in OUTSIDE:
            place = _outside(kind, rest.partition(":")[2] if kind == "source" else rest, recipe)
        elif "/" in kind:
            place = namespace, name
        else:
            continue
        found.setdefault(place, []).append(version)
    return found


def _outside(kind: str, source: str, recipe: Recipe) -> tuple[str, str]:
    """Namespace and name of a source, a model or a feature file, as the recipe names it."""
    if source.startswith("hub:"):
        return HUB, f"{'datasets/' if kind == 'source' else ''}{source.removeprefix('hub:')}"
    if source.startswith("package:"):
        return "package", source.removeprefix("package:")
    scheme, mark, rest = expand(source, recipe.path).partition("://")
    if mark:
        host, _, path = rest.partition("/")
        return f"{scheme}://{host}", path
    return "file", str(recipe.resolve(source))


def _settings(inputs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Inputs that are no data, such as `dtype`."""
    for name, value in inputs.items():
        if "/" not in name and name.partition(":")[0] not in OUTSIDE:
            yield name, value
