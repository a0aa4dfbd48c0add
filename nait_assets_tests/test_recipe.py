"""The recipe: what it accepts, what it refuses and with which words, and what its fingerprints depend on."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nait_assets.errors import RecipeError
from nait_assets.recipe import DEFAULT_RECIPE, Recipe, fingerprint, load_recipe, ratio_key, rounded_up
from nait_assets.recipe.measurements import declared_sections
from nait_assets.recipe.moved import MOVED

TEMPLATES = {"user": "{{ question }}", "assistant": "{{ answer }}"}


def recipe_fields(**fields: Any) -> dict[str, Any]:
    """The smallest recipe, with some fields replaced."""
    return {
        "name": "tiny",
        "model": {"source": "model"},
        "candidates": {"source": "pool.jsonl"},
        "capabilities": {"math": {"source": "math.jsonl"}},
        "ratios": [0.1],
        **fields,
    }


def recipe_in(folder: Path, **fields: Any) -> Recipe:
    """The smallest recipe, with some fields replaced, as a file in a folder."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_fields(**fields)), encoding="utf-8")
    return load_recipe(path)


def refusal_of(folder: Path, **fields: Any) -> str:
    """What is said of a recipe that cannot be used."""
    with pytest.raises(RecipeError) as error:
        recipe_in(folder, **fields)
    return str(error.value)


@pytest.mark.parametrize("name", sorted(path.name for path in DEFAULT_RECIPE.parent.glob("*.yaml")))
def test_every_recipe_that_we_ship_loads(name: str) -> None:
    """They are the examples that users start from."""
    assert load_recipe(DEFAULT_RECIPE.parent / name).targets[-1] == "all"


def test_key_written_twice_is_refused(tmp_path: Path) -> None:
    """YAML keeps the last one: a capability would vanish in silence."""
    path = tmp_path / "recipe.yaml"
    twice = "capabilities:\n  math: {source: a.jsonl}\n  code: {source: b.jsonl}\n  math: {source: c.jsonl}\n"
    path.write_text(yaml.safe_dump({k: v for k, v in recipe_fields().items() if k != "capabilities"}) + twice)
    with pytest.raises(RecipeError, match=r"recipe\.yaml is not readable as YAML: .*math written twice"):
        load_recipe(path)


def test_anchors_may_be_merged_and_overridden(tmp_path: Path) -> None:
    """A merged key is no key written twice: recipes share a source between the pool and a capability."""
    path = tmp_path / "recipe.yaml"
    fields = {k: v for k, v in recipe_fields().items() if k not in ("candidates", "capabilities")}
    shared = "definitions: {m: &m {source: m.jsonl, limit: 2}}\n"
    shared += "candidates: {<<: *m, skip: 2, limit: 1}\ncapabilities: {math: *m}\n"
    path.write_text(yaml.safe_dump(fields) + shared)
    recipe = load_recipe(path)
    assert (recipe.candidates[0].skip, recipe.candidates[0].limit) == (2, 1)
    assert recipe.capabilities["math"].examples[0].limit == 2
    path.write_text(
        yaml.safe_dump(fields) + "definitions: {a: &a {source: m.jsonl}, b: &b {<<: *a, source: n.jsonl}}\n"
        "candidates: {<<: *b}\ncapabilities: {math: *b}\n"
    )
    assert load_recipe(path).candidates[0].source == "n.jsonl"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"capabilites": {}}, "capabilites: unknown field; did you mean 'capabilities'?"),
        ({"path": "x"}, "path: unknown field; see recipes/README.md"),
    ],
)
def test_unknown_field_is_answered_with_the_nearest_known_one(tmp_path: Path, fields: Any, said: str) -> None:
    """A misspelt field that was ignored would be a setting that lies."""
    assert said in refusal_of(tmp_path, **fields)


def test_recipe_comes_from_the_argument_then_the_environment_then_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line overrides the shell's setting; with neither, a fresh clone runs the demo."""
    assert load_recipe().path == DEFAULT_RECIPE
    recipe_in(tmp_path, name="from_environment")
    monkeypatch.setenv("NAIT_RECIPE", str(tmp_path / "recipe.yaml"))
    assert load_recipe().name == "from_environment"
    assert load_recipe(DEFAULT_RECIPE).name == "demo"


def test_missing_recipe_is_named_with_where_the_name_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten NAIT_RECIPE in the shell is otherwise hard to find."""
    missing = tmp_path / "nowhere.yaml"
    with pytest.raises(RecipeError, match=rf"no recipe at {missing} \(from --recipe\).*recipes/"):
        load_recipe(missing)
    monkeypatch.setenv("NAIT_RECIPE", str(missing))
    with pytest.raises(RecipeError, match=rf"no recipe at {missing} \(from NAIT_RECIPE\)"):
        load_recipe()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1", "is not readable as YAML"),
        (b"name: \xff", "is not readable as YAML"),
        (b"", "holds NoneType, not the fields of a recipe"),
        (b"- name", "holds list, not the fields of a recipe"),
        (b"1: one", "problem(s) in the recipe"),
    ],
)
def test_file_that_is_no_recipe_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    """The wrong file given as a recipe ends in one sentence, not in a traceback."""
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert str(path) in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ratio": [0.1]}, ["ratio: unknown field", "recipes/README.md"]),
        ({"extraction": {"sites": "mlp"}}, ["extraction.sites: unknown field"]),
        ({"candidates": {"source": "a", "lmit": 3}}, ["candidates.0.lmit: unknown field"]),
        (
            {"candidates": {"source": "a", "format": {**TEMPLATES, "answer": "x"}}},
            ["candidates.0.format.answer: unknown field"],
        ),
        (
            {"candidates": {"source": "a", "format": "alpacca"}},
            ["candidates.0.format", "'alpacca'", "messages, alpaca"],
        ),
        ({"candidates": {"source": "a", "format": {"user": "x"}}}, ["candidates.0.format.assistant", "required"]),
        (
            {"candidates": {"source": "a", "format": {**TEMPLATES, "user": "{{ q"}}},
            ["candidates.0.format.user", "Jinja"],
        ),
        (
            {"candidates": {"source": "a", "format": {**TEMPLATES, "user": "{{ q | shout }}"}}},
            ["candidates.0.format.user", "'shout'"],
        ),
        ({"candidates": {"source": "a", "limit": 0}}, ["candidates.0.limit", "1", "got 0"]),
        ({"candidates": {"source": "a", "topic": "x", "topic_field": "y"}}, ["candidates.0", "not both"]),
        ({"candidates": []}, ["candidates", "at least 1 item"]),
        ({"methods": 5}, ["methods: Input should be a valid list (got 5)"]),
        ({"ratios": []}, ["ratios: List should have at least 1 item"]),
        ({"filters": {"quality": {"answer_pattern": "valid tuple, Tuple("}}}, ["'valid tuple, Tuple(' is no regular"]),
        ({"methods": ["nait", "naitt"]}, ["methods", "'naitt'", "did you mean 'nait'", "balanced_random"]),
        ({"methods": ["nait", "nait"]}, ["methods", "distinct"]),
        ({"methods": []}, ["methods", "at least 1 item"]),
        ({"evaluation": {"held_out": {"Exam": {"source": "a"}}}}, ["evaluation.held_out", "'Exam'", "[a-z0-9_]+"]),
        ({"evaluation": {"exam": {"source": "a"}}}, ["evaluation.exam", "is now `evaluation.held_out.exam`"]),
        ({"evaluation": {"task": {}}}, ["evaluation.task", "did you mean 'tasks'?"]),
        ({"evaluation": {"tasks": {"exam": {"source": "a", "targets": ["x"]}}}}, ["'x' is not among the recipe's"]),
        ({"evaluation": {"held_out": {"exam": []}}}, ["evaluation.held_out.exam", "at least 1 item"]),
        ({"decontamination": {"action": "delete"}}, ["decontamination.action", "'delete'", "'report' or 'drop'"]),
        ({"decontamination": {"ngram": 1}}, ["decontamination.ngram", "got 1"]),
        ({"filters": {}}, ["filters", "`near_duplicates: {}`"]),
        ({"filters": {"quality": {}}}, ["filters.quality", "min_answer_words", "answer_pattern"]),
        ({"filters": {"quality": {"answer_pattern": "(a"}}}, ["filters.quality.answer_pattern", "'(a'"]),
        (
            {"filters": {"quality": {"min_answer_words": 9, "max_answer_words": 3}}},
            ["filters.quality", "min_answer_words 9 is above max_answer_words 3"],
        ),
        ({"filters": {"near_duplicates": {"jaccard_threshold": 0.1}}}, ["jaccard_threshold", "got 0.1"]),
        ({"filters": {"near_duplicates": {}, "action": "delete"}}, ["filters.action", "'delete'"]),
        ({"extraction": {"site": "attention"}}, ["extraction.site", "'attention'", "'mlp' or 'residual'"]),
        ({"extraction": {"layers": "last"}}, ["extraction.layers", "'last'", "'all'"]),
        ({"extraction": {"layers": [-1]}}, ["extraction.layers", "got -1", "greater than or equal to 0"]),
        ({"extraction": {"layers": [2, 2]}}, ["extraction.layers", "[2, 2]", "distinct"]),
        ({"extraction": {"layers": []}}, ["extraction.layers", "[]", "distinct"]),
        ({"extraction": {"projection": 3}}, ["extraction.projection.dimensions", "got 3", "equal to 16"]),
        ({"extraction": {"projection": 100_001}}, ["extraction.projection.dimensions", "got 100001", "100000"]),
        ({"extraction": {"projection": True}}, ["extraction.projection", "True", "number such as 1024"]),
        ({"extraction": {"projection": "x"}}, ["extraction.projection", "'x'", "number such as 1024"]),
        ({"extraction": {"projection": [32]}}, ["extraction.projection", "[32]", "number such as 1024"]),
        ({"extraction": {"projection": {}}}, ["extraction.projection.dimensions", "required"]),
        (
            {"extraction": {"projection": {"dimension": 32}}},
            ["extraction.projection.dimension: unknown field; did you mean 'dimensions'?"],
        ),
        (
            {"extraction": {"projection": {"dimensions": 32, "calibration_samples": 1}}},
            ["extraction.projection.calibration_samples", "got 1", "equal to 2"],
        ),
        (
            {"extraction": {"projection": 32}, "methods": ["random", "nait"]},
            ["'nait' needs every neuron", "`extraction.projection`", "out of `methods`"],
        ),
        ({"model": {"source": "m", "dtype": "int8"}}, ["model.dtype", "'int8'", "'bfloat16'"]),
        ({"model": {"source": "hub:org/name"}}, ["model", "'hub:org/name'", "`revision`"]),
        ({"capabilities": {}}, ["capabilities", "at least 1 item"]),
        ({"capabilities": {"math": {}}}, ["capabilities.math", "source of examples", "`features`"]),
        ({"capabilities": {"math": {"examples": [{"source": "a"}], "features": "b"}}}, ["capabilities.math", "either"]),
        ({"features": {"change": "last"}}, ["features.change", "'last'", "'mean_minus_first'"]),
        ({"name": "My Recipe"}, ["name", "'My Recipe'", "[a-z0-9_]+"]),
    ],
)
def test_wrong_field_is_named_with_its_value_and_what_would_work(
    tmp_path: Path, fields: dict[str, Any], words: list[str]
) -> None:
    """A typing error must not be ignored, nor cost a run of hours before it shows."""
    message = refusal_of(tmp_path, **fields)
    assert str(tmp_path / "recipe.yaml") in message
    for word in words:
        assert word in message


def test_every_wrong_field_has_a_line_of_its_own(tmp_path: Path) -> None:
    """A user corrects a recipe once, not once per mistake."""
    lines = refusal_of(tmp_path, seeed=1, methods=["nait", "x"], extraction={"site": "y"}).splitlines()
    assert "3 problem(s)" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["extraction.site", "methods", "seeed"]


@pytest.mark.parametrize("name", ["Math", "two words", "ma-th", "", "math\n"])
def test_capability_name_that_is_no_identifier_is_refused(tmp_path: Path, name: str) -> None:
    """Names become partition keys, folders and file names."""
    message = refusal_of(tmp_path, capabilities={name: {"source": "a.jsonl"}})
    assert f"capabilities: capability name {name!r} must match [a-z0-9_]+" in message


def test_capability_named_all_is_refused(tmp_path: Path) -> None:
    """`all` is the target that combines the capabilities; the two would overwrite each other."""
    assert "capability name 'all' is taken" in refusal_of(tmp_path, capabilities={"all": {"source": "a.jsonl"}})


def test_capability_named_candidates_is_refused(tmp_path: Path) -> None:
    """The pool is the corpus `candidates`: the capability would be read from its sources, into its files."""
    message = refusal_of(tmp_path, capabilities={"candidates": {"source": "a.jsonl"}})
    assert "capability name 'candidates' is taken" in message


@pytest.mark.parametrize("ratio", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_ratio_outside_its_interval_is_refused(tmp_path: Path, ratio: float) -> None:
    """A ratio of 30, meant as per cent, would otherwise select everything."""
    assert f"ratios: ratio {ratio!r} must lie in (0, 1]" in refusal_of(tmp_path, ratios=[0.5, ratio])


@pytest.mark.parametrize("ratio", ["a tenth", None, True, [0.1]])
def test_ratio_that_is_no_number_is_refused(tmp_path: Path, ratio: Any) -> None:
    """`true` is 1 to Python and would select everything."""
    assert f"ratios: ratio {ratio!r} is not a number" in refusal_of(tmp_path, ratios=[ratio])


def test_ratio_is_not_rounded_to_a_key(tmp_path: Path) -> None:
    """0.00001 written with four decimals is 0."""
    assert "ratios: ratio 1e-05 has more than four decimals" in refusal_of(tmp_path, ratios=[0.00001])


def test_ratios_equal_once_written_are_refused(tmp_path: Path) -> None:
    """Two ratios of one key would be one partition, and one folder."""
    message = refusal_of(tmp_path, ratios=[0.1, "0.100"])
    assert "ratios [0.1, '0.100'] must differ" in message
    assert "['0.10', '0.10']" in message


def test_a_single_ratio_must_stand_in_a_list(tmp_path: Path) -> None:
    """The message shows the value that was given."""
    assert "ratios must be a list of numbers, not 0.1" in refusal_of(tmp_path, ratios=0.1)


@pytest.mark.parametrize(
    ("ratio", "key"),
    [
        (0.1, "0.10"),
        ("0.1", "0.10"),
        (0.105, "0.105"),
        (1, "1.00"),
        (1.0, "1.00"),
        (0.0625, "0.0625"),
        (1e-4, "0.0001"),
    ],
)
def test_ratio_key_is_a_plain_decimal_of_at_least_two_places(ratio: Any, key: str) -> None:
    """The key names a partition and a folder: one spelling per number, never `1e-4`."""
    assert ratio_key(ratio) == key


def test_ratios_are_keys_in_rising_order(tmp_path: Path) -> None:
    """The order in the recipe must not change the partitions."""
    assert recipe_in(tmp_path, ratios=[0.3, 1, 0.05, 0.105]).ratios == ("0.05", "0.105", "0.30", "1.00")


@pytest.mark.parametrize(
    ("ratio", "n_candidates", "size"),
    [("0.07", 100, 7), ("0.10", 20, 2), ("0.10", 21, 3), ("0.01", 3, 1), ("1.00", 5, 5), ("0.0001", 10**8, 10**4)],
)
def test_rounded_up_is_the_exact_ceiling(ratio: str, n_candidates: int, size: int) -> None:
    """In floats ceil(0.07 x 100) is 8: 0.07 is a little more than seven hundredths."""
    assert rounded_up(ratio, n_candidates) == size


def test_order_of_layers_does_not_matter(tmp_path: Path) -> None:
    """Layers 1 and 3 are the same extraction however they are listed: nothing is read twice."""
    one, other = (recipe_in(tmp_path, extraction={"layers": layers}).extraction for layers in ([3, 1], [1, 3]))
    assert fingerprint(one) == fingerprint(other)


def test_relative_path_starts_at_the_folder_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe means the same from every working folder."""
    (tmp_path / "recipes").mkdir()
    recipe = recipe_in(tmp_path / "recipes")
    monkeypatch.chdir("/")
    assert recipe.resolve("../data/a.jsonl") == tmp_path / "data" / "a.jsonl"
    assert recipe.resolve("/data/a.jsonl") == Path("/data/a.jsonl")


def test_variable_in_a_path_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative value is relative to the working folder, as `NAIT_DATA=../data nait run` means it."""
    (tmp_path / "recipes").mkdir()
    recipe = recipe_in(tmp_path / "recipes")
    monkeypatch.setenv("NAIT_DATA", "/somewhere")
    monkeypatch.setenv("PART", "two")
    assert recipe.resolve("${NAIT_DATA}/pool_${PART}.jsonl") == Path("/somewhere/pool_two.jsonl")
    monkeypatch.setenv("NAIT_DATA", "data")
    monkeypatch.chdir(tmp_path)
    assert recipe.resolve("${NAIT_DATA}/a.jsonl") == tmp_path / "data" / "a.jsonl"


def test_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    """An unset variable must not become an empty string and another file."""
    recipe = recipe_in(tmp_path)
    with pytest.raises(RecipeError) as error:
        recipe.resolve("${NAIT_DATA}/a.jsonl")
    assert str(recipe.path) in str(error.value)
    assert "'${NAIT_DATA}/a.jsonl' needs the environment variable NAIT_DATA" in str(error.value)
    assert "NAIT_DATA=..." in str(error.value)


def test_one_source_may_stand_without_a_list(tmp_path: Path) -> None:
    """`{source: ...}`, `[{source: ...}]` and `{examples: [{source: ...}]}` are the same capability."""
    source = {"source": "a.jsonl"}
    short, listed, full = (
        recipe_in(tmp_path, capabilities={"math": value}, candidates=candidates)
        for value, candidates in [(source, source), ([source], [source]), ({"examples": [source]}, [source])]
    )
    assert short == listed == full
    assert fingerprint(short.candidates) == fingerprint(listed.candidates)


def test_definitions_hold_anchors_and_are_no_field(tmp_path: Path) -> None:
    """A source that is both a capability and planted in the pool is written once."""
    path = tmp_path / "recipe.yaml"
    anchors = "definitions:\n  a: &a {source: a.jsonl, seed: 3}\n"
    rest = yaml.safe_dump(recipe_fields(candidates="X")).replace("candidates: X", "candidates: {<<: *a, limit: 2}")
    path.write_text(anchors + rest, encoding="utf-8")
    source = load_recipe(path).candidates[0]
    assert (source.source, source.seed, source.limit) == ("a.jsonl", 3, 2)


def test_targets_are_the_capabilities_and_all_of_them(tmp_path: Path) -> None:
    """The comprehensive target combines every capability, in an order that the recipe's order does not change."""
    recipe = recipe_in(tmp_path, capabilities={"math": {"source": "a"}, "code": {"features": "b"}})
    assert recipe.targets == ["code", "math", "all"]
    assert recipe.capabilities_of("all") == ["code", "math"]
    assert recipe.capabilities_of("math") == ["math"]
    assert recipe.capabilities_with_examples == ["math"]


def test_only_features_that_a_method_reads_are_needed(tmp_path: Path) -> None:
    """A recipe without `nait` must not demand what its principal component demands."""
    assert recipe_in(tmp_path, methods=["random"]).features_needed == []
    assert recipe_in(tmp_path, methods=["random", "nait_standardized"]).features_needed == ["standardized_centroids"]
    assert recipe_in(tmp_path).features_needed == ["nait_directions", "standardized_centroids"]


def test_recipe_cannot_be_changed_after_it_is_read(tmp_path: Path) -> None:
    """Fingerprints are taken at definition time: a later change would be a result that no version tells of."""
    with pytest.raises(ValueError, match="frozen"):
        recipe_in(tmp_path).extraction.max_tokens = 3  # type: ignore[misc]


def test_fingerprint_follows_values_and_not_their_order(tmp_path: Path) -> None:
    """It is the code version: stale when a field changes, and only then."""
    recipe = recipe_in(tmp_path, candidates={"source": "a.jsonl", "seed": 1})
    same = recipe_in(tmp_path, candidates={"seed": 1, "source": "a.jsonl"})
    other = recipe_in(tmp_path, candidates={"source": "a.jsonl", "seed": 2})
    assert fingerprint(recipe.candidates) == fingerprint(same.candidates) != fingerprint(other.candidates)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(["a", "b"]) != fingerprint(["b", "a"])
    assert fingerprint("a", "b") != fingerprint("ab")


def test_fingerprint_of_a_recipe_is_the_same_in_another_folder(tmp_path: Path) -> None:
    """Moving a clone must not recompute anything."""
    (tmp_path / "elsewhere").mkdir()
    assert fingerprint(recipe_in(tmp_path)) == fingerprint(recipe_in(tmp_path / "elsewhere"))


def test_a_number_is_a_projection_of_so_many_dimensions(tmp_path: Path) -> None:
    """The short form is the usual one, and the same extraction as the long one: nothing is read twice."""
    methods = ["nait_standardized"]
    none, short, long = (
        recipe_in(tmp_path, extraction={"projection": value}, methods=methods).extraction
        for value in (None, 32, {"dimensions": 32, "calibration_samples": 512, "seed": 0})
    )
    assert none.projection is None
    assert short == long
    assert fingerprint(short) == fingerprint(long) != fingerprint(none)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mona": {"layer": 3}}, "options.mona: this is now `measurements.sparse_autoencoder`, where"),
        (
            {"alpagasus": {"max_calls": 3}},
            "options.alpagasus.max_calls: this is now `measurements.judgements.max_calls`",
        ),
        ({"less": {"rank": 8}}, "options.less.rank: this is now `measurements.less_checkpoints.rank`"),
        (
            {"less": {"projection": "sketch"}},
            "options.less.projection: this is now `measurements.gradients.projection`",
        ),
        ({"instruction_mining": {"max_tokens": 9}}, "options.instruction_mining: this is now `measurements.rewards`"),
        ({"sentence_embedding": {"model": "a"}}, "this is now `measurements.embeddings.source`"),
        ({"selectit": {"models": []}}, "options.selectit.models: this is now `measurements.ratings.models`"),
        ({"ifd_pre_experienced": {"clusters": 9}}, "this is now `measurements.pre_experienced_model.clusters`"),
    ],
)
def test_field_that_moved_is_refused_with_its_new_place(
    make_recipe: Callable[..., Recipe], options: dict[str, Any], message: str
) -> None:
    """A recipe of an earlier version: one sentence a field, and no guess."""
    with pytest.raises(RecipeError) as refusal:
        make_recipe(options=options)
    assert message in str(refusal.value)
    assert "1 problem(s)" in str(refusal.value)


def test_new_place_of_every_field_that_moved_is_a_field(make_recipe: Callable[..., Recipe]) -> None:
    """Advice that is itself refused helps nobody."""
    for place in MOVED.values():
        for path in re.findall(r"measurements[\w.]*", place):
            name, *field = path.removeprefix("measurements.").split(".")
            assert set(field) <= set(declared_sections()[name].model_fields), path


def test_folding_system_messages_leaves_what_was_read_without_it_valid(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """At its default the option is in no fingerprint, so that activations and measurements of before stay current."""
    from nait_assets.definitions import build_definitions

    methods = ["nait_standardized", "ifd", "less", "mona", "gate_overlap", "ifd_pre_experienced", "selectit"]

    def versions(**extraction: Any) -> dict[str, str | None]:
        recipe = make_recipe(methods=methods, extraction={"max_tokens": 64, **extraction})
        specs = build_definitions(recipe, tmp_path).resolve_all_asset_specs()
        return {"/".join(spec.key.path): spec.code_version for spec in specs}

    before, kept, folded = versions(), versions(system="keep"), versions(system="fold")
    assert before == kept
    assert "system" not in make_recipe().extraction.model_dump(mode="json")
    changed = {key for key in before if before[key] != folded[key]}
    room = {key for key in before if key.startswith(("extraction/", "measurements/"))}
    ratings = {"measurements/candidate_ratings", "measurements/in_domain_ratings"}  # which ask by a prompt of their own
    assert changed >= room - ratings
    assert not any(key.startswith(("corpora/", "scoring/", "selection/")) or key in ratings for key in changed)
    with pytest.raises(RecipeError, match=r"`system: fold` is for chat templates"):
        make_recipe(extraction={"system": "fold", "template": "plain"})


def test_a_method_has_further_names_with_options_of_their_own(tmp_path: Path) -> None:
    """Two settings of one method are compared in one home; the declared name keeps its own."""
    further = {"near": {"method": "nait_neighbours", "best": 1}, "plain": {"method": "nait_standardized"}}
    recipe = recipe_in(tmp_path, methods=["nait_neighbours", "near", "plain"], options=further)
    assert [recipe.base_of(name) for name in recipe.methods] == [
        "nait_neighbours",
        "nait_neighbours",
        "nait_standardized",
    ]
    assert (recipe.options_of("near").best, recipe.options_of("nait_neighbours").best) == (1, 2)
    assert recipe.reads_of("near") == recipe.reads_of("nait_neighbours")
    assert fingerprint(recipe.settings_of("near")) != fingerprint(recipe.settings_of("nait_neighbours"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"near": {"best": 1}}, "options.near: unknown field"),
        ({"near": 3}, "options.near: unknown field"),
        (
            {"near": {"method": "nait_neighbors"}},
            "options.near: method 'nait_neighbors' is unknown; a further name is of",
        ),
        ({"near": {"method": ["bm25"]}}, "options.near: method ['bm25'] is unknown"),
        ({"near": {"method": "bm25", "besst": 1}}, "options.near.besst: unknown field"),
        ({"near": {"method": "bm25", "over": "min"}}, "options.near.over: Input should be 'mean' or 'max'"),
        ({"random": {"method": "bm25"}}, "options: name 'random' is taken"),
        ({"cherry": {"method": "bm25"}}, "options: name 'cherry' is taken"),
        ({"copy": {"method": "bm25"}}, "options: name 'copy' is taken"),
        ({"Near!": {"method": "bm25"}}, "options: name 'Near!' of a method"),
    ],
    ids=str,
)
def test_a_further_name_is_checked_like_a_method(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """A misspelt method or option would otherwise be scored with other settings than were written."""
    published = {"cherry": {"source": "list.jsonl"}}
    assert message in refusal_of(tmp_path, options=options, published=published)


def test_a_further_name_needs_the_section_of_its_options_to_be_a_method(tmp_path: Path) -> None:
    """As for every name that nobody declares."""
    assert "methods: unknown method 'near'" in refusal_of(tmp_path, methods=["near"])


def test_a_recipe_that_names_no_pool_has_the_fingerprints_of_one_of_all(tmp_path: Path) -> None:
    """Homes that were made before there was a choice must not be read again, nor scored."""
    plain, named = recipe_in(tmp_path), recipe_in(tmp_path, extraction={"pool": ["all"]})
    assert fingerprint(plain.extraction) == fingerprint(named.extraction)
    assert "pool" not in plain.extraction.model_dump(mode="json")
    assert fingerprint(plain.extraction) != fingerprint(recipe_in(tmp_path, extraction={"pool": "answer"}).extraction)
    assert plain.settings_of("nait") == plain.settings_of("nait_standardized") == []
    either = [
        recipe_in(tmp_path, extraction={"pool": pool}).extraction for pool in (["answer", "all"], ["all", "answer"])
    ]
    assert fingerprint(either[0]) == fingerprint(either[1])


def test_a_method_reads_the_pooling_that_it_names_or_the_first_that_there_is(tmp_path: Path) -> None:
    """`all` where it is stored; features are outputs of their own for each."""
    options = {"answers": {"method": "nait_standardized", "pool": "answer"}}
    fields: dict[str, Any] = {"methods": ["nait_standardized", "answers"], "options": options}
    both = recipe_in(tmp_path, extraction={"pool": ["answer", "all"]}, **fields)
    assert [both.pooling_of(name) for name in both.methods] == ["all", "answer"]
    assert both.reads_of("answers") == (
        "extraction/candidate_activations",
        "features/answer_neuron_statistics",
        "features/answer_standardized_centroids",
        "extraction/in_domain_activations",
    )
    alone = recipe_in(tmp_path, extraction={"pool": "answer"}, **fields)
    assert alone.reads_of("nait_standardized") == both.reads_of("answers")
    assert alone.features_needed == ["standardized_centroids"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"methods": ["nait"], "options": {"nait": {"pool": "answer"}}},
            "method 'nait' reads the pool 'answer', and `extraction.pool` stores all; "
            "write `extraction: {pool: [all, answer]}`",
        ),
        ({"extraction": {"pool": ["all", "all"]}}, "extraction.pool: pool ['all', 'all'] must be distinct"),
        ({"extraction": {"pool": []}}, "extraction.pool: "),
        ({"extraction": {"pool": "last"}}, "extraction.pool.0: Input should be 'all', 'answer' or 'prompt'"),
    ],
    ids=str,
)
def test_a_pool_that_is_not_there_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    """Before the model is loaded for an hour of other activations."""
    assert message in refusal_of(tmp_path, **fields)
