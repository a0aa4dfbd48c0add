"""Files: whole or not at all, and hashed once for each state."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from nait_assets.resources.files import HashCache, replacing, sha256


def test_file_is_replaced_when_the_block_ends_well(tmp_path: Path) -> None:
    """The folder is made, the new content is there, and nothing beside it."""
    path = tmp_path / "new" / "a.txt"
    for content in ("one", "two"):
        with replacing(path) as temporary:
            temporary.write_text(content)
        assert path.read_text() == content
        assert list(path.parent.iterdir()) == [path]


def test_failed_block_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    """A run that is stopped half-way must not leave half a file under the name that the next one trusts."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_old_file_is_readable_until_the_block_ends(tmp_path: Path) -> None:
    """A reader in another process never meets an empty or half-written file, nor a change half-way through its own."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with path.open() as reader:
        with replacing(path) as temporary:
            temporary.write_text("new")
            assert temporary.parent == path.parent, "a rename is atomic within one file system only"
            assert path.read_text() == "old"
        assert reader.read() == "old"


def test_two_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    """Two runs write the same file: one of them wins, whole."""
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    """What `mkstemp` makes only its owner may read; a home folder is shared with colleagues."""
    (tmp_path / "usual.txt").touch()
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("a")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "usual.txt").stat().st_mode


def test_hash_is_the_sha_256_of_the_content(tmp_path: Path) -> None:
    """Anyone can check a manifest with `sha256sum`."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc" * 100_000)
    assert sha256(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert HashCache(tmp_path / "hashes.json").sha256(path) == sha256(path)


def test_hash_is_remembered_for_a_file_that_looks_the_same(tmp_path: Path) -> None:
    """Model weights of many gigabytes are read once, in any process: the memory is a file."""
    path = tmp_path / "weights"
    path.write_text("one")
    state = path.stat()
    before = HashCache(tmp_path / "hashes.json").sha256(path)
    path.write_text("two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert HashCache(tmp_path / "hashes.json").sha256(path) == before
    assert before != sha256(path)


@pytest.mark.parametrize(("content", "nanoseconds"), [("other size", 0), ("two", 1)])
def test_file_of_another_size_or_time_is_hashed_again(tmp_path: Path, content: str, nanoseconds: int) -> None:
    """A changed source must not keep its old version."""
    path, hashes = tmp_path / "a.txt", HashCache(tmp_path / "hashes.json")
    path.write_text("one")
    state = path.stat()
    hashes.sha256(path)
    path.write_text(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + nanoseconds * 1000))
    assert hashes.sha256(path) == sha256(path)


def test_two_names_of_one_file_are_hashed_once(tmp_path: Path) -> None:
    """Hub caches hold links; the content is what counts."""
    path, link, hashes = tmp_path / "a.txt", tmp_path / "link.txt", HashCache(tmp_path / "hashes.json")
    path.write_text("a")
    link.symlink_to(path)
    assert hashes.sha256(path) == hashes.sha256(link)
    assert len(json.loads(hashes.path.read_text())) == 1


def test_hash_is_given_where_nothing_can_be_remembered(tmp_path: Path) -> None:
    """`nait status` on a home that one may only read."""
    path = tmp_path / "a.txt"
    path.write_text("a")
    assert HashCache(path / "below a file" / "hashes.json").sha256(path) == sha256(path)
