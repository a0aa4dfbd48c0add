"""What the page says, section by section: each has the question that it answers, and what is shown there."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from nait_assets.models import cuts
from nait_assets.recipe import COMPREHENSIVE_TARGET
from nait_assets.report import activation_map, charts, overlap
from nait_assets.report.charts import Spec
from nait_assets.report.comparison import Comparison
from nait_assets.report.map_points import map_points
from nait_assets.report.page_data import N_EXTREMES, PageData
from nait_assets.report.rows import excerpts
from nait_assets.scoring.chance import PERCENT_BY_CHANCE, PERCENT_OF_EXAMPLES
from nait_assets.scoring.methods import method_of
from nait_assets.selection.duplicates import duplicates_in
from nait_assets.selection.held_against import standing
from nait_assets.selection.turns import rows_by_turn, takes_turns


@dataclass
class Section:
    """One section of the page.

    Attributes:
        id: Id of the element.
        short: Name in the navigation.
        title: Heading.
        question: Question that it answers.
        notes: How to read it.
        findings: What it says, in a sentence.
        groups: Charts, each with `title`, `figures`, and, where it is so, `wide` or `folded`.
        legend: Names and colours.
        counts: Rows of the table of what was read.
        extremes: Best and worst rows by target.
        tables: Each with `title`, `header`, `rows` of texts or `Figure`s, `notes`, and, where it is so, `folded`.
    """

    id: str
    short: str
    title: str
    question: str
    notes: list[str] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)
    counts: list[dict[str, Any]] = field(default_factory=list)
    extremes: list[dict[str, Any]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


@dataclass
class Charts:
    """The page's charts, in the order of their numbers."""

    specs: list[Spec] = field(default_factory=list)

    def figure(self, caption: str, spec: Spec, ratio: str | None = None) -> dict[str, Any]:
        """A chart under its caption; one of a ratio is shown while that ratio is picked."""
        self.specs.append(spec)
        return {"caption": caption, "chart": len(self.specs) - 1, "ratio": ratio}


def all_sections(page_data: PageData, drawn: Charts) -> list[Section]:
    """The page's sections, in order; those that a recipe has nothing for are left out."""
    return [
        _read(page_data, drawn),
        _scores(page_data, drawn),
        *_targets(page_data, drawn),
        *_core(page_data, drawn),
        *_methods(page_data, drawn),
        *_comparison(page_data),
        _duplicates(page_data),
        *_map(page_data, drawn),
        _extremes(page_data),
    ]


def _read(page_data: PageData, drawn: Charts) -> Section:
    section = Section(
        "read",
        "What was read",
        "What was read",
        "Which rows went in, which could not be used, and how long are the candidates?",
        counts=page_data.counts.to_dicts(),
    )
    if page_data.counts.is_empty():
        section.notes.append("No row was rejected.")
    if page_data.samples is None:
        section.notes.append("No method of this recipe reads the candidates with a model, so tokens were not counted.")
        return section
    section.notes.append(
        f"The model read {len(page_data.samples):,} candidates, "
        f"{int(page_data.samples['n_tokens'].sum()):,} tokens: "
        f"{cuts.sentence(page_data.samples, page_data.recipe.extraction)}."
    )
    if len(page_data.samples):
        spec = charts.length_histogram(page_data.samples, page_data.recipe.extraction.max_tokens)
        section.groups.append({"title": "", "wide": True, "figures": [drawn.figure("Length of the candidates", spec)]})
    return section


def _scores(page_data: PageData, drawn: Charts) -> Section:
    recipe = page_data.recipe
    section = Section(
        "scores",
        "Scores",
        "Scores and thresholds",
        "Are the chosen rows clearly better than the rest, or does the threshold cut through many equal ones?",
        [
            "Lines mark the lowest score that each ratio chooses; where a strategy other than the best ranks chooses, "
            "rows above it may be left out. Scores of different methods have no common scale."
        ],
        legend=list(charts.ratio_colours(recipe.ratios).items()),
    )
    for method in page_data.methods:
        figures = []
        for target in recipe.targets:
            scores = page_data.scores[method, target]
            lowest = {ratio: score for ratio, (_, score) in page_data.last_chosen(method, target).items()}
            if len(scores):
                figures.append(drawn.figure(target, charts.score_histogram(scores["score"], lowest)))
        section.groups.append({"title": method, "figures": figures, "folded": method != page_data.recommended})
    section.tables += _standings(page_data)
    return section


def _standings(page_data: PageData) -> list[dict[str, Any]]:
    """Where subsets stand against what chance and the examples reach, of methods for which that is defined."""
    recipe, rows, without = page_data.recipe, [], []
    for method in page_data.methods:
        if not method_of(recipe, method).stand_ins:
            without.append(f"`{method}`")
            continue
        for target in recipe.targets:
            scored = page_data.scores[method, target].select("sample_id", "score")
            found = [
                standing(
                    page_data.thresholds[method, target],
                    scored.filter(pl.col("sample_id").is_in(page_data.subsets[method, target, ratio]))["score"],
                )
                for ratio in recipe.ratios
            ]
            rows.append([method, target, *found[0].thresholds, *(one.counts for one in found)])
    notes = [
        f"By chance: the score that {PERCENT_BY_CHANCE} of candidates reach when as many random rows of the pool stand "
        f"in the place of the target's examples. Of the examples: the score that {PERCENT_OF_EXAMPLES} of them reach, "
        "each against the others. Of each ratio: how many chosen rows are below the one | reach the other, of how many."
    ]
    notes += [f"Not defined for {', '.join(without)}."] if without else []
    header = ["method", "target", "by chance", "of the examples", *recipe.ratios]
    title = "Against chance, and against the examples"
    return [{"title": title, "notes": notes, "header": header, "rows": rows}] if rows else []


def _targets(page_data: PageData, drawn: Charts) -> list[Section]:
    if len(page_data.recipe.targets) < 2:
        return []
    section = Section(
        "targets",
        "Overlap of targets",
        "Overlap of the targets",
        "Do different capabilities get different rows, or all much the same?",
        [
            "The share of rows that two subsets have in common, of the smaller one. By chance it would be the ratio. "
            "Rows that nearly all targets share are often chosen for their length or size rather than for a capability."
        ],
    )
    for method in page_data.methods:
        figures = []
        for ratio in page_data.recipe.ratios:
            chosen = {target: page_data.subsets[method, target, ratio] for target in page_data.recipe.targets}
            spec = charts.heat_map(overlap.overlap_matrix(chosen))
            figures.append(drawn.figure(f"ratio {ratio}", spec, ratio))
        section.groups.append({"title": method, "figures": figures, "folded": method != page_data.recommended})
    return [section]


def _core(page_data: PageData, drawn: Charts) -> list[Section]:
    recipe = page_data.recipe
    if COMPREHENSIVE_TARGET not in recipe.targets:
        return []
    section = Section(
        "core",
        "Shared core",
        "Shared core",
        "Is there a core of rows that is chosen for every capability? (arXiv 2603.13201, figure 7)",
        [
            "How much of each capability's subset the comprehensive target `all` chooses too; the dashed line is what "
            "chance would give. Beside it in how many capabilities' subsets a chosen row occurs, `all` left out."
        ],
    )
    for method in page_data.methods:
        figures = []
        for ratio in recipe.ratios:
            chosen = {name: page_data.subsets[method, name, ratio] for name in recipe.capability_names}
            core = overlap.shared_core(chosen, page_data.subsets[method, COMPREHENSIVE_TARGET, ratio])
            shared = charts.core_bars(core, float(ratio))
            figures.append(drawn.figure(f"Shared with {COMPREHENSIVE_TARGET}, ratio {ratio}", shared, ratio))
            repeated = charts.occurrence_bars(overlap.occurrences(chosen))
            figures.append(drawn.figure(f"Chosen how often, ratio {ratio}", repeated, ratio))
        section.groups.append({"title": method, "figures": figures, "folded": method != page_data.recommended})
    section.tables += _turns(page_data)
    return [section]


def _turns(page_data: PageData) -> list[dict[str, Any]]:
    """In whose turn the rows of the comprehensive target were taken, of the methods whose capabilities take turns."""
    recipe, rows = page_data.recipe, []
    for method in page_data.methods:
        for ratio in recipe.ratios if takes_turns(recipe, method, COMPREHENSIVE_TARGET) else ():
            scores = page_data.scores[method, COMPREHENSIVE_TARGET]
            chosen = page_data.subsets[method, COMPREHENSIVE_TARGET, ratio]
            found = rows_by_turn(scores, chosen, recipe.capability_names)
            cells = [f"{n:,} ({n / len(chosen):.0%})" for n in found.values()]
            rows += [[method, ratio, *cells]] if cells else []
    note = (
        f"For `{COMPREHENSIVE_TARGET}` the capabilities take turns, each its best row left: how many rows were "
        "taken in the turn of each. A row's rank and score stay those of all capabilities together."
    )
    header = ["method", "ratio", *recipe.capability_names]
    title = f"Share of each capability in {COMPREHENSIVE_TARGET}"
    return [{"title": title, "notes": [note], "header": header, "rows": rows}] if rows else []


def _methods(page_data: PageData, drawn: Charts) -> list[Section]:
    if len(page_data.methods) < 2:
        return []
    section = Section(
        "methods",
        "Overlap of methods",
        "Overlap of the methods",
        "Would another method have chosen the same rows?",
        ["As above, for two methods' subsets of the same target and ratio."],
    )
    for target in reversed(page_data.recipe.targets):  # that of all capabilities first
        figures = []
        for ratio in page_data.recipe.ratios:
            chosen = {method: page_data.subsets[method, target, ratio] for method in page_data.methods}
            spec = charts.heat_map(overlap.overlap_matrix(chosen))
            figures.append(drawn.figure(f"ratio {ratio}", spec, ratio))
        section.groups.append(
            {"title": target, "figures": figures, "folded": target != page_data.recipe.broadest_target}
        )
    return [section]


def _comparison(page_data: PageData) -> list[Section]:
    comparison = page_data.comparison
    if comparison is None:
        return []
    section = Section(
        "comparison",
        "Comparison",
        "Comparison of the methods",
        "Does each method find what it should, and how much of it is length?",
        tables=[_lengths(comparison, page_data.recipe.ratios[-1])],
    )
    if not comparison.retrievals.is_empty():
        section.tables.insert(0, _retrievals(comparison))
    section.tables += [
        _reproductions(comparison, name, page_data.recipe.broadest_target)
        for name in comparison.reproductions["published"].unique().sort()
    ]
    return [section]


def _duplicates(page_data: PageData) -> Section:
    recipe, texts = page_data.recipe, page_data.texts
    ratio = recipe.ratios[-1]
    rows = []
    for method in page_data.methods:
        cells = [method]
        for target in recipe.targets:
            chosen = page_data.subsets[method, target, ratio]
            found = duplicates_in(texts.filter(pl.col("sample_id").is_in(chosen)), page_data.near)
            cells.append(" / ".join(f"{count:,}" for count in found.counts.values()))
        rows.append(cells)
    near = "" if page_data.near is None else ", and rows that nearly repeat another, as the recipe's filters find them"
    note = (
        f"Rows of each subset of ratio {ratio} that ask what another of its rows asks, rows that answer what another "
        f"answers (equal but for case and white space){near}. Equal conversations are one candidate."
    )
    table = {"title": "", "notes": [note], "header": ["method", *recipe.targets], "rows": rows}
    question = "How many of the chosen rows say again what another says?"
    return Section("duplicates", "Duplicates", "Duplicates inside the subsets", question, tables=[table])


def _retrievals(comparison: Comparison) -> dict[str, Any]:
    capabilities = comparison.retrievals["capability"].unique().sort().to_list()
    rows = []
    for (method,), frame in comparison.retrievals.group_by("method", maintain_order=True):
        of = {row["capability"]: row for row in frame.iter_rows(named=True)}
        cells = [f"{of[name]['area']:.3f} / {of[name]['precision']:.2f}" for name in capabilities]
        mean = float(frame["area"].mean() or 0), float(frame["precision"].mean() or 0)  # type: ignore[arg-type]
        rows.append((mean[0], [method, *cells, f"{mean[0]:.3f} / {mean[1]:.2f}"]))
    note = (
        "Area under the ROC curve of putting the candidates of a capability's own topic first, and their share among "
        "as many best rows as there are of them. 0.5 is chance. Topics are labels that no method reads but "
        "`balanced_random`, whose figures here say nothing."
    )
    ordered = [cells for _, cells in sorted(rows, key=lambda row: -row[0])]
    return {"title": "Retrieval", "notes": [note], "header": ["method", *capabilities, "mean"], "rows": ordered}


def _lengths(comparison: Comparison, ratio: str) -> dict[str, Any]:
    of_ratio = comparison.lengths.filter(pl.col("ratio") == ratio)
    targets = of_ratio["target"].unique(maintain_order=True).to_list()
    of_pool = float(of_ratio["median_characters_of_pool"][0]) if len(of_ratio) else 0.0
    rows = []
    for (method,), frame in of_ratio.group_by("method", maintain_order=True):
        of = {row["target"]: row for row in frame.iter_rows(named=True)}
        cells = [f"{of[name]['length_correlation']:+.2f} / {of[name]['median_characters']:,.0f}" for name in targets]
        rows.append([str(method), *cells])
    note = (
        "Rank correlation of score and number of characters over all candidates, and the median number of characters "
        f"of the subset of ratio {ratio}; the pool's is {of_pool:,.0f}. A method far from 0 chooses by length."
    )
    return {"title": "Length", "notes": [note], "header": ["method", *targets], "rows": rows}


def _reproductions(comparison: Comparison, published: str, target: str) -> dict[str, Any]:
    frame = comparison.reproductions.filter(pl.col("published") == published).sort(
        "n_shared", "method", descending=True
    )
    rows = [
        [
            row["method"],
            f"{row['n_best']:,}",
            f"{row['n_shared']:,}",
            f"{row['n_by_chance']:,.1f}",
            f"{row['n_shared'] / row['n_by_chance']:.2f}" if row["n_by_chance"] else "–",
            f"{row['p_by_chance']:.2g}",
        ]
        for row in frame.iter_rows(named=True)
    ]
    note = (
        f"As many best rows of each method for the target `{target}` as `{published}` has in this pool: "
        "how many of them it has too, how many it would have by chance, and the probability of as many by chance."
    )
    header = ["method", "best rows", "shared", "by chance", "ratio", "probability"]
    return {"title": f"Against the published choice `{published}`", "notes": [note], "header": header, "rows": rows}


def _map(page_data: PageData, drawn: Charts) -> list[Section]:
    if page_data.candidates is None or not page_data.on_map:
        return []
    points = map_points(page_data)
    n_others = len(page_data.samples) - len(page_data.on_map) if page_data.samples is not None else 0
    ratio = page_data.recipe.ratios[-1]
    notes = [
        "Points that activate the same neurons lie near each other: t-SNE of the leading principal components of all "
        "activations, each neuron standardised against the candidates shown, each point scaled to the same length. "
        "Distances between distant clusters mean little.",
        f"Dots are candidates, coloured by the target that ranks them best among those whose {page_data.recommended} "
        f"subset of ratio {ratio} has them; grey ones are in no subset. Triangles are in-domain examples, "
        f"at most {activation_map.MOST_EXAMPLES} of a capability; crosses the capabilities' means.",
    ]
    if n_others:
        notes.append(f"{len(page_data.on_map):,} candidates, drawn by a fixed seed; {n_others:,} are left out.")
    figure = drawn.figure("", charts.candidate_map(points, page_data.recipe.capability_names))
    question = "Do the candidates chosen for a capability lie where its own examples lie? (arXiv 2603.13201, figure 6)"
    return [
        Section(
            "map", "Map", "Map of the activations", question, notes, [{"title": "", "wide": True, "figures": [figure]}]
        )
    ]


def _extremes(page_data: PageData) -> Section:
    examples = {row["sample_id"]: row for row in page_data.shown.iter_rows(named=True)}
    section = Section(
        "extremes",
        "Best and worst",
        "Best and worst rows",
        f"Which candidates of each target does {page_data.recommended} score highest and lowest?",
    )
    for target in page_data.recipe.targets:
        ordered = page_data.scores[page_data.recommended, target].sort("rank")
        rows = {
            name: [
                {
                    **row,
                    "topic": examples[row["sample_id"]]["topic"],
                    "text": excerpts(examples[row["sample_id"]]["messages"])[0],
                }
                for row in frame.iter_rows(named=True)
                if row["sample_id"] in examples
            ]
            for name, frame in (("top", ordered.head(N_EXTREMES)), ("bottom", ordered.tail(N_EXTREMES)))
        }
        section.extremes.append({"name": target, **rows})
    return section
