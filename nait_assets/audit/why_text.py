"""The text that `nait explain` prints: what `why` found, in lines of at most a hundred characters.

Belongs here: sentences and columns. Does not belong here: where anything in them comes from.
"""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

from nait_assets.audit.why import Scored, Why
from nait_assets.scoring.method import Explanation, Face, Parts
from nait_assets.scoring.texts import Shown
from nait_assets.selection.placing import Placing
from nait_assets.shown import figure, one_line

WIDTH = 100
ID = 12
"""Characters of an id that are shown where a text stands beside it; a unique beginning will do everywhere."""
MOST_PARTS = 8
LONGEST_BAR, LONGEST_NAME = 24, 44
BLOCKS = "▁▂▃▄▅▆▇█"
ROUNDING = 1e-4
"""By which a stored score, added up in float32, may differ from the sum of its parts, as a share of their sizes."""


def as_json(found: Why) -> str:
    """The same as data, in JSON: fields of `why.Why`, neurons named by layer and index as in `12:345`."""
    fields = asdict(found)
    fields["faces"] = {f"{layer}:{neuron}": rows for (layer, neuron), rows in fields["faces"].items()}
    return json.dumps(fields, indent=2)


def text_of(found: Why) -> str:
    """The text of what was found."""
    sample, method = found.sample, found.method
    lines = [
        f"sample {sample['sample_id']}, row {sample['source_row']} of {one_line(sample['source'])}, topic "
        f"{one_line(sample['topic'])}",
        *([] if found.ineligible is None else [f"may not be chosen: {one_line(found.ineligible)}"]),
        "",
        f"target {found.target}",
    ]
    width = max([20, *(len(one.method) for one in found.scores)])
    lines += [f"  {one.method:<{width}} {_score(one)}" for one in found.scores]
    lines += ["", f"{method}: is it chosen?", *_wrapped(found.held_against, "  ")]
    for placing in found.placings:
        lines += _placing(placing, found.texts)
    if not found.placings:
        lines.append("  no subset has been made")
    if found.explanation is None:
        lines += ["", f"{method}: nothing was read of it"]
    else:
        lines += _near(found.explanation, found.texts)
        lines += ["", f"{method}: what is its score made of?", *_wrapped(found.description, "  ")]
        lines += _made_of(found, found.explanation)
    return "\n".join([*lines, "", *(_quoted(message) for message in sample["messages"])])


def _score(one: Scored) -> str:
    if one.score is None:
        return f"no score: {one_line(one.reason)}"
    score = figure(one.score, one.score, signed=False)
    return f"score {score:>12}   rank {one.rank:>6,} of {one.n_candidates:,}"


def _quoted(message: Mapping[str, str]) -> str:
    """A message whose lines cannot be taken for lines of the explanation."""
    return f"[{message['role']}] {message['content']}".replace("\n", "\n  | ")


def _placing(placing: Placing, texts: Mapping[str, Shown]) -> Iterator[str]:
    margin = " " * (len(placing.ratio) + 4)
    yield from _wrapped(f"  {placing.ratio}  {placing.sentence}", margin, first="")
    if placing.last is not None:
        what = "the last row taken" + ("" if placing.chosen else " instead")
        yield _headed(f"{margin}{what}: {placing.last[:ID]}", texts.get(placing.last, ("", ""))[0])


def _made_of(found: Why, explanation: Explanation) -> Iterator[str]:
    """The score by its parts, and the reasons with the share that they are of it."""
    if not explanation.reasons:
        yield from _wrapped(explanation.heading, "  ")
    if explanation.parts:
        yield from _total(explanation.parts[0], found.score)
    for parts in explanation.parts:
        yield from _parts(found, parts, explanation.faces)
    if not explanation.reasons:
        return
    yield from _wrapped(explanation.heading, "  ")
    width = max(len(reason.label) for reason in explanation.reasons)
    for reason in explanation.reasons:
        yield from _wrapped(f"  {reason.label:<{width}}  {reason.detail}", " " * (width + 4), first="")
        if reason.neuron is not None and reason.neuron in found.faces:
            active = "least active on" if reason.inverted else "most active on"
            yield from _faces(found, active, found.faces[reason.neuron])
    yield from _shown(explanation)
    yield from _wrapped(explanation.spread, "  ")


def _total(parts: Parts, stored: float | None) -> Iterator[str]:
    speaking_for = sum(value for value in parts.values.values() if value > 0)
    against = parts.total - speaking_for
    scale = parts.size
    cancelled = f": {figure(speaking_for, scale)} for it, {figure(against, scale)} against it" if against < 0 else ""
    yield f"  {figure(parts.total, scale)}, the sum of {len(parts.values):,} {parts.by}s{cancelled}"
    if stored is not None and abs(parts.total - stored) > ROUNDING * max(parts.size, abs(stored)):
        was = figure(stored, scale)
        yield f"  the stored score is {was}: it is older than what is stored now; `nait run` makes it anew"


def _parts(found: Why, parts: Parts, faces: Mapping[str, Sequence[Face]]) -> Iterator[str]:
    """The largest parts with their percentages and faces, and what all others add."""
    rows = parts.largest(MOST_PARTS)
    largest = max(map(abs, parts.values.values()), default=0) or 1
    width = max((len(one_line(name, LONGEST_NAME)) for name, _ in rows), default=0)
    yield f"  by {parts.by}" + (f", in their order {_profile(parts)}" if parts.by == "layer" else "")
    for name, value in rows:
        bar = ("#" if value > 0 else "-") * round(min(abs(value) / largest, 1) * LONGEST_BAR)
        bar = bar if name in parts.values else ""
        begin = f"    {one_line(name, LONGEST_NAME):<{width}}  {figure(value, parts.size):>10}"
        yield f"{begin}  {parts.percent(value):>7}  {bar}".rstrip()
        yield from _faces(found, "strongest in", faces.get(name, ()))


def _profile(parts: Parts) -> str:
    """The sizes of all parts as one line of blocks, from none to the largest; a dot for one that speaks against."""
    values = list(parts.values.values())
    largest = max([*values, 0]) or 1
    return "".join("." if value < 0 else BLOCKS[round(value / largest * (len(BLOCKS) - 1))] for value in values)


def _shown(explanation: Explanation) -> Iterator[str]:
    """How much of the score the reasons are."""
    shares = [reason.share for reason in explanation.reasons if reason.share is not None]
    if shares and explanation.parts:
        total = explanation.parts[0].total
        percent = f", {sum(shares) / total:.1%}" if sum(shares) * total > 0 else ""
        yield f"  these {len(shares)} add {figure(sum(shares), total)}{percent} of the score {figure(total, total)}"


def _faces(found: Why, begin: str, faces: Sequence[Face]) -> Iterator[str]:
    for face in faces:
        where = "this row" if face.sample_id == found.sample["sample_id"] else face.sample_id[:ID]
        text = found.texts.get(face.sample_id, ("", ""))[0]
        yield _headed(f"      {begin:<15}  {face.deviations:+6.1f} sd  {where:<{ID}}", text)
        begin = ""


def _near(explanation: Explanation, texts: Mapping[str, Shown]) -> Iterator[str]:
    if not explanation.near:
        return
    yield ""
    yield from _wrapped(f"nearest in-domain examples, by {explanation.nearness}", "  ", first="")
    yield from _wrapped(f"for scale: {explanation.usual}", "  ")
    width = max(len(one.capability) for one in explanation.near)
    for one in explanation.near:
        question, answer = texts.get(one.sample_id, ("", ""))
        begin = f"  {one.value:+.3f}  {one.capability:<{width}}  {one.sample_id[:ID]}"
        yield _headed(begin, question)
        yield _headed(" " * (len(begin) - 3) + " ->", answer)


def _headed(begin: str, text: str) -> str:
    """The beginning of a text behind something, on one line."""
    return f"{begin}  {one_line(text, max(20, WIDTH - len(begin) - 2))}".rstrip()


def _wrapped(text: str, margin: str, first: str | None = None) -> Iterable[str]:
    """Lines of at most the width, the further ones behind a margin."""
    return textwrap.wrap(text, WIDTH, initial_indent=margin if first is None else first, subsequent_indent=margin)
