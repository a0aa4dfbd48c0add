"""SelectIT: the mark that language models give the example, as far as they are sure of it (arXiv 2402.16705).

Formula:
With P_q(1) to P_q(5) the probabilities of the marks in wording q of the question (`measurements/ratings.py`), and three
levels of the score (section 3):

- token: S_q = m * sum_k |P_q(m) - P_q(k)| / (K - 1), with m the most probable of K = 5 marks: a mark that the model is
  sure of counts in full, one of five equally probable ones counts nothing. `level: token` is S_1, of the first wording.
- sentence: mean_q(S_q) / (1 + alpha * std_q(S_q)), with the population's standard deviation and alpha = 0.2: what
  depends on the wording counts less.
- model: the mean of the models' sentence scores, weighted by their parameters.

The same for every target. Of two marks that are equally probable the lower one counts. With one model, `model` is
`sentence`.

Departures:
Three defects of the published code are not here: it takes a second softmax of the probabilities, its weights of the
models do not sum to 1 (7/20, 13/20, 70/90), and a prompt that fails moves all later scores up.

Limits:
The score is no better than the models that judge.

Cost:
None beyond the ratings.
"""

from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from nait_assets.recipe import Section
from nait_assets.scoring.method import Explanation, Method, Reason, ScoringInputs
from nait_assets.scoring.rows import values_of, vectors

RATINGS = "measurements/candidate_ratings"
N_MARKS, N_QUESTIONS = 5, 5
HEADINGS = {
    "token": "marks of 1 to 5 in five wordings of the question, of which the first counts",
    "sentence": "marks of 1 to 5 in five wordings of the question; the mean counts, less where they differ",
    "model": "marks of 1 to 5 in five wordings of the question; each model's mean counts, less where they differ",
}


class SelectitOptions(Section):
    """Of `selectit`; which models rate is in `measurements.ratings`."""

    level: Literal["token", "sentence", "model"] = Field(
        "model", description="Which of the three scores: of one prompt, of all prompts, of all models."
    )
    alpha: float = Field(0.2, ge=0, description="Weight of the spread over prompts.")

    def require_fit(self, recipe: Any) -> None:
        """Below the level of models, the ratings of a second model would be made and not read."""
        n_models = len(recipe.measurements.ratings.models)
        if self.level != "model" and n_models > 1:
            raise ValueError(
                f"options.selectit.level {self.level!r} reads one model, and `measurements.ratings.models` has "
                f"{n_models}; use `model`"
            )


def token_scores(ratings: np.ndarray) -> np.ndarray:
    """`(...)` scores in [0, 5] of `(..., 5)` probabilities of the marks."""
    sureness = (ratings.max(axis=-1, keepdims=True) - ratings).sum(axis=-1) / (N_MARKS - 1)
    return (ratings.argmax(axis=-1) + 1) * sureness


def sentence_scores(tokens: np.ndarray, alpha: float) -> np.ndarray:
    """`(...)` scores of `(..., n_questions)` token scores: their mean, less where they differ."""
    return tokens.mean(axis=-1) / (1 + alpha * tokens.std(axis=-1))


def model_scores(sentences: np.ndarray, n_parameters: np.ndarray) -> np.ndarray:
    """`(n_samples,)` means of `(n_samples, n_models)` sentence scores, weighted by `(n_models,)` parameters."""
    return sentences @ (n_parameters / n_parameters.sum())


def _ratings(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """`(n_candidates, n_models, n_questions, n_marks)` probabilities, and `(n_models,)` parameters."""
    n_parameters = vectors(frame["n_parameters"].head(1))[0].astype(np.float64)
    ratings = vectors(frame["ratings"]).astype(np.float64)
    return ratings.reshape(len(frame), len(n_parameters), N_QUESTIONS, N_MARKS), n_parameters


def score(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` scores in [0, 5]."""
    options = inputs.options

    def of_rows(rows: pl.DataFrame) -> np.ndarray:
        ratings, n_parameters = _ratings(rows)
        tokens = token_scores(ratings)
        if options.level == "token":
            return np.asarray(tokens[:, 0, 0])
        sentences = sentence_scores(tokens, options.alpha)
        return model_scores(sentences, n_parameters) if options.level == "model" else np.asarray(sentences[:, 0])

    rows = inputs.rows(RATINGS, "ratings", "n_parameters")
    return inputs.same_for_all_targets(values_of(len(inputs.sample_ids), rows, of_rows))


def explain(inputs: ScoringInputs, sample_id: str, _target: str, _n: int) -> Explanation:
    """The mark that each model gives in each wording of the question, and how sure it is."""
    ratings, n_parameters = _ratings(inputs.only(sample_id).of(RATINGS))
    tokens = token_scores(ratings)[0]
    reasons = []
    for model, parameters in enumerate(n_parameters):
        whose = (
            f"model {model + 1} ({parameters / 1e6:,.0f} million parameters)" if len(n_parameters) > 1 else "the model"
        )
        marks = [
            f"{marks.argmax() + 1} ({marks.max():.0%} sure, counts {token:.2f})"
            for marks, token in zip(ratings[0, model], tokens[model], strict=True)
        ]
        reasons.append(Reason(whose, f"gives {'; '.join(marks)}"))
    return Explanation(HEADINGS[inputs.options.level], reasons)


METHOD = Method(
    name="selectit",
    description="SelectIT: the mark that language models give the answer, weighted by how sure they are.",
    reads=(RATINGS,),
    score=score,
    options=SelectitOptions,
    explain=explain,
)
