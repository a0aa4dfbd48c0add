"""`scoring.scores`: the scores of all methods in one view, of those methods and targets that the recipe has.

`reason` says why a candidate has no score, `ineligible` why no subset takes it, whatever its score.
"""

from nait_assets.corpora.eligibility import ineligible_query
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.resources.warehouse import Snapshot, Transaction
from nait_assets.tables import scores_table

VIEW = "scoring.scores"


def create_view(transaction: Transaction, recipe: Recipe) -> None:
    """Make `scoring.scores` of the methods that have been run.

    Its columns are `method`, `target`, `sample_id`, `score`, `rank`, `reason` and `ineligible`.
    """
    methods = _methods(transaction, recipe)
    if not methods:
        transaction.connection.execute(f"DROP VIEW IF EXISTS {VIEW}")
        return
    transaction.connection.execute(f"CREATE OR REPLACE VIEW {VIEW} AS {_query(methods, transaction, recipe)}")
    transaction.connection.execute(f"COMMENT ON VIEW {VIEW} IS '{_version(methods, transaction, recipe)}'")


def _query(methods: list[str], snapshot: Snapshot, recipe: Recipe) -> str:
    targets = ", ".join(f"'{target}'" for target in recipe.targets)
    scores = " UNION ALL ".join(
        f"SELECT '{method}' AS method, target, sample_id, score, rank, reason FROM {scores_table(method).name} "
        f"WHERE target IN ({targets})"
        for method in methods
    )
    ineligible = f"(SELECT sample_id, reason AS ineligible FROM ({ineligible_query(recipe, snapshot)}))"
    return f"SELECT scores.*, ineligible FROM ({scores}) AS scores LEFT JOIN {ineligible} USING (sample_id)"


def view_is_current(snapshot: Snapshot, recipe: Recipe) -> bool:
    """Whether the view shows the recipe's methods that have been run, and its targets, and nothing else."""
    query = "SELECT comment FROM duckdb_views() WHERE database_name = 'store' AND schema_name || '.' || view_name = ?"
    stored = [comment for (comment,) in snapshot.connection.execute(query, [VIEW]).fetchall()]
    methods = _methods(snapshot, recipe)
    return stored == ([_version(methods, snapshot, recipe)] if methods else [])


def view_is_as_made(snapshot: Snapshot, recipe: Recipe) -> bool:
    """Whether the view shows the rows that `create_view` has it show, and is there if there are any."""
    if not view_is_current(snapshot, recipe) or not _methods(snapshot, recipe):
        return view_is_current(snapshot, recipe) and not snapshot.has_table(VIEW)
    wanted = _query(_methods(snapshot, recipe), snapshot, recipe)
    snapshot.connection.execute(f"CREATE OR REPLACE TEMP VIEW wanted_scores AS {wanted}")
    if _definition(snapshot, VIEW.partition(".")[2]) == _definition(snapshot, "wanted_scores"):
        return True
    # DuckDB writes a definition anew in words of its own, of which another version may have others: the rows decide
    made, shown = f"({wanted})", f"(FROM {VIEW})"
    query = f"SELECT count(*) FROM (({made} EXCEPT ALL {shown}) UNION ALL ({shown} EXCEPT ALL {made}))"
    ((n_other,),) = snapshot.connection.execute(query).fetchall()
    return int(n_other) == 0


def _definition(snapshot: Snapshot, name: str) -> str:
    """The query of a view, as DuckDB has it."""
    query = "SELECT sql FROM duckdb_views() WHERE view_name = ? AND database_name IN ('store', 'temp')"
    ((definition,),) = snapshot.connection.execute(query, [name]).fetchall()
    return str(definition).partition(" AS ")[2]


def _methods(snapshot: Snapshot, recipe: Recipe) -> list[str]:
    """Methods of the recipe whose table of scores is there."""
    return sorted(method for method in recipe.methods if snapshot.has_table(scores_table(method).name))


def _version(methods: list[str], snapshot: Snapshot, recipe: Recipe) -> str:
    return fingerprint(methods, recipe.targets, ineligible_query(recipe, snapshot))
