"""The shape of the source: what it imports is declared, files and functions are short, no imports go in a circle."""

import ast
import graphlib
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

import nait_assets
from nait_assets import errors

SOURCE = Path(nait_assets.__file__).parent
PROJECT = SOURCE.parent
FILES = sorted(SOURCE.rglob("*.py"))
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 400, 60
LONGER_FUNCTIONS: dict[str, str] = {
    "extraction/extractor.py:extract": "one pass from a corpus to its table, in order; a third of it is its docstring",
}
"""Functions that may be longer, by file and name, and why."""
NOT_IMPORTED = {
    "accelerate": "transformers asks for it to read GGUF files",
}
"""Declared dependencies that no module imports, and why they are declared."""
LOADERS = ("from_pretrained", "from_config", "SentenceTransformer", "CrossEncoder")
"""By which transformers and sentence-transformers read a model."""
FRAGMENT = re.compile(r"^\s+[\w*]+: (Of|That|Whose) ")


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _declared(requirements: list[str]) -> set[str]:
    return {_normalised(match.group()) for one in requirements if (match := re.match(r"[\w.-]+", one))}


PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = _declared(PYPROJECT["dependencies"])
EXTRAS = {name: _declared(requirements) for name, requirements in PYPROJECT["optional-dependencies"].items()}
DISTRIBUTIONS = packages_distributions()


def _imported(folder: Path) -> dict[str, set[str]]:
    """Top-level modules that the files of a folder import, wherever in the file, and in which files."""
    found: dict[str, set[str]] = {}
    for file in folder.rglob("*.py"):
        own = {path.stem for path in file.parent.glob("*.py")} | {"nait_assets", "nait_assets_tests"}
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - own - sys.stdlib_module_names:
                found.setdefault(name, set()).add(file.relative_to(folder).as_posix())
    return found


def _undeclared(folder: Path, declared: set[str]) -> dict[str, set[str]]:
    return {
        module: files
        for module, files in _imported(folder).items()
        if not {_normalised(name) for name in DISTRIBUTIONS.get(module, [])} & declared
    }


def test_what_is_imported_is_declared() -> None:
    """What comes along with another package goes away with its next version."""
    optional = EXTRAS["ray"] | EXTRAS["openlineage"] | EXTRAS["training"] | EXTRAS["evaluation"]
    assert _undeclared(SOURCE, DEPENDENCIES | optional) == {}
    assert _undeclared(PROJECT / "nait_assets_tests", DEPENDENCIES | optional | EXTRAS["dev"]) == {}
    assert _undeclared(PROJECT / "benchmarks", DEPENDENCIES | optional | EXTRAS["dev"]) == {}


def test_what_is_optional_is_imported_where_it_is_asked_for_alone() -> None:
    """An installation without the extras must import every module but those."""
    files = {
        extra: {file for module, files in _imported(SOURCE).items() for file in files if _is_of(module, extra)}
        for extra in ("ray", "openlineage", "training", "evaluation")
    }
    assert files == {
        "ray": {"extraction/ray_engine.py"},
        "openlineage": {"openlineage.py"},
        "training": {"training/trainer.py"},
        "evaluation": {"evaluation/harness.py", "evaluation/scorers.py"},
    }


def _is_of(module: str, extra: str) -> bool:
    return bool({_normalised(name) for name in DISTRIBUTIONS.get(module, [])} & (EXTRAS[extra] - DEPENDENCIES))


def test_what_is_declared_is_imported_or_has_a_reason() -> None:
    """A dependency that nobody uses any more costs every installation its room."""
    used = {_normalised(name) for module in _imported(SOURCE) for name in DISTRIBUTIONS.get(module, [])}
    assert DEPENDENCIES - used == set(NOT_IMPORTED)


def test_every_dependency_is_pinned_for_the_tests() -> None:
    """A run of the tests says nothing of versions that it did not have."""
    pins = {_normalised(line.split("==")[0]) for line in (PROJECT / "constraints.txt").read_text().splitlines()}
    assert DEPENDENCIES | set().union(*EXTRAS.values()) <= pins | {"nait-assets"}


def test_files_are_short() -> None:
    """A file that does not fit into a reader's head has two businesses."""
    lengths = {file.relative_to(SOURCE).as_posix(): len(file.read_text().splitlines()) for file in FILES}
    assert {name: n for name, n in lengths.items() if n > MOST_LINES_OF_A_FILE} == {}


def _functions() -> Iterator[tuple[str, int]]:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                yield f"{file.relative_to(SOURCE).as_posix()}:{node.name}", node.end_lineno - node.lineno + 1


def test_functions_are_short_but_for_stated_reasons() -> None:
    """Each exception is listed with its reason, and leaves the list when it has become short."""
    assert {name for name, n in _functions() if n > MOST_LINES_OF_A_FUNCTION} == set(LONGER_FUNCTIONS)


def test_no_imports_go_in_a_circle() -> None:
    """Imports within functions count: two files that need each other are one business.

    One is left out: the package hands out `Home`, which it imports when somebody asks for it.
    """
    graph = grimp.build_graph("nait_assets")
    graph.remove_import(importer="nait_assets", imported="nait_assets.home")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_arguments_are_described_by_nouns() -> None:
    """`revision: Of the hub.` needs its class' name to be a sentence, and says nothing that the name does not."""
    fragments = [
        f"{file.relative_to(SOURCE).as_posix()}:{number}: {line.strip()}"
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if FRAGMENT.match(line)
    ]
    assert fragments == []


@pytest.mark.parametrize("name", sorted(name for name in vars(errors) if name.endswith("Error")))
def test_every_class_of_errors_is_raised(name: str) -> None:
    """A class that nothing raises promises a distinction that is not made."""
    if name == "UserError":
        return
    assert any(re.search(rf"\b{name}\b", file.read_text()) for file in FILES if file.name != "errors.py"), name


def test_no_model_brings_code_of_its_own() -> None:
    """Where `trust_remote_code` is left out, transformers asks on standard input, where a "y" may stand."""
    loose = [
        f"{file}:{node.lineno}"
        for file in [*FILES, *(PROJECT / "benchmarks").glob("*.py")]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and (name := ast.unparse(node.func)).split(".")[-1] in LOADERS
        and not name.startswith("Peft")  # which reads an adapter into a network that is there
        and "trust_remote_code=False" not in [ast.unparse(keyword) for keyword in node.keywords]
    ]
    assert loose == []


def test_all_that_is_printed_goes_through_one_function() -> None:
    """It writes control characters out: what is printed may be a stranger's."""
    loose = [
        str(file)
        for file in FILES
        if re.search(r"click\.s?echo\(|\bprint\(", file.read_text())
        and file.name not in ("messages.py", "methods_page.py")
    ]
    assert loose == []
