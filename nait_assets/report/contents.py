"""The page of a recipe: its sections, its table, and what its head says of the recipe."""

from dataclasses import dataclass

from nait_assets.recipe import ALL
from nait_assets.report.page import render
from nait_assets.report.page_data import MOST_EXPLAINED, PageData
from nait_assets.report.results import result_sections
from nait_assets.report.rows import MOST_CHARACTERS, ReportTable, table_rows
from nait_assets.report.sections import Charts, all_sections
from nait_assets.report.training_sections import training_sections


@dataclass(frozen=True)
class Page:
    """The page, and how much of everything is on it."""

    html: str
    n_charts: int
    n_chosen: int
    n_rows_shown: int
    n_on_map: int


def build_page(page_data: PageData) -> Page:
    """The page of a recipe."""
    drawn = Charts()
    sections = [
        *result_sections(page_data.results, drawn),
        *training_sections(page_data, drawn),
        *all_sections(page_data, drawn),
    ]
    rows = table_rows(page_data)
    context = {
        "recipe": page_data.recipe,
        "n_pool": page_data.n_pool,
        "facts": _facts(page_data),
        "inputs": sorted(page_data.inputs.items()),
        "sections": sections,
        "ratio_shown": "0.10" if "0.10" in page_data.recipe.ratios else page_data.recipe.ratios[0],
        "table": {
            "method": page_data.recommended,
            "reasons": next((one.heading for one in page_data.explanations.values()), ""),
            "notes": _table_notes(page_data, rows),
        },
    }
    html = render(context, {"charts": drawn.specs, "table": rows.data})
    return Page(html, len(drawn.specs), rows.n_chosen, rows.n_kept, len(page_data.on_map))


def _facts(page_data: PageData) -> list[tuple[str, str]]:
    recipe = page_data.recipe
    facts = [
        ("capabilities", ", ".join(recipe.capability_names)),
        ("methods", ", ".join(page_data.methods)),
        ("ratios", ", ".join(recipe.ratios)),
    ]
    if not recipe.reads_activations:
        return facts
    extraction = recipe.extraction
    layers = extraction.layers if extraction.layers == "all" else ", ".join(map(str, extraction.layers))
    kept = f"; {extraction.projection.dimensions:,} numbers of each example" if extraction.projection else ""
    kept += f"; pools {', '.join(extraction.pool)}" if extraction.pool != (ALL,) else ""
    revision = f" at {recipe.model.revision}" if recipe.model.revision else ""
    return [
        ("model", f"{recipe.model.source}{revision}"),
        ("activations", f"{extraction.site}, layers {layers}, at most {extraction.max_tokens} tokens{kept}"),
        *facts,
    ]


def _table_notes(page_data: PageData, rows: ReportTable) -> list[str]:
    notes = [
        "One row is one candidate that was chosen for one target; click on it for more. "
        f"Texts are cut to {MOST_CHARACTERS} characters of the first question and of the last answer, and only these "
        "are searched; whole texts are in the subset's own files."
    ]
    if rows.n_kept < rows.n_chosen:
        notes.append(
            f"{rows.n_chosen - rows.n_kept:,} of the {rows.n_chosen:,} chosen candidates, those of the worst ranks, "
            "are left out to keep the page small; the subsets contain them."
        )
    if page_data.explanations:
        nearness = next((one.nearness for one in page_data.explanations.values() if one.near), "")
        notes.append(
            f"What a score is made of{f', and the nearest in-domain examples (by {nearness}),' if nearness else ''} is "
            f"said for the {MOST_EXPLAINED} best rows of each target; `nait explain` says it for any row, with more."
        )
    else:
        notes.append(f"`{page_data.recommended}` does not say what contributes to a row's score.")
    return notes
