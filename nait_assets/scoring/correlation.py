"""How far scores follow the length of candidates."""

import polars as pl


def rank_correlation(frame: pl.DataFrame) -> float:
    """Spearman's correlation of the columns `score` and `length`; 0 where one of them does not vary."""
    from scipy.stats import spearmanr

    if min(frame["score"].n_unique(), frame["length"].n_unique()) < 2:
        return 0.0
    return float(spearmanr(frame["score"].to_numpy(), frame["length"].to_numpy()).statistic)
