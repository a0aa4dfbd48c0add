"""Which versions of libraries are part of what was read: those of which a release may compute something else.

Belongs here: the rule. `transformers` renders texts and runs the model, `tokenizers` cuts texts into tokens, `torch`
multiplies.
"""

import importlib.metadata
import re

LIBRARIES = ("transformers", "tokenizers", "torch")
SENTENCES = "sentence-transformers"
"""Library of sentence encoders and reward models."""
_RELEASE = re.compile(r"(\d+\.\d+)(\.\d+)*(\+\S*)?")


def library_versions(*others: str) -> dict[str, str]:
    """The part of each library's version that what is read depends on, by the library's name.

    It is major and minor version, `2.13` of `2.13.1+cpu`. By these projects' own rules a patch release mends
    regressions, so that it reads the same but for rounding, as another device does; the build behind `+` is such a
    device. A development version or a release candidate may hold anything, and is named whole.

    Args:
        *others: Further libraries that compute what is read.
    """
    return {name: _named(importlib.metadata.version(name)) for name in (*LIBRARIES, *others)}


def _named(version: str) -> str:
    release = _RELEASE.fullmatch(version)
    return release[1] if release else version
