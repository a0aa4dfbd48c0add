"""The rows in one file, by its kind, one after the other: memory does not grow with the file.

A row that cannot be read is yielded with its reason in place of its fields, so that nothing is dropped in silence.
"""

import io
import json
import lzma
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any, Literal

from nait_assets.errors import SourceError
from nait_assets.recipe import Source
from nait_assets.resources.csv_rows import csv_rows, decoding_error
from nait_assets.resources.source_files import SourceFile
from nait_assets.resources.source_row import SourceRow, excerpt_of

BATCH_ROWS = 1024
CHUNK_CHARACTERS = 2**20
HEAD_BYTES = 2**20
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
OTHER_ENCODING = "; where the file is in another encoding, write it beside the source, such as `encoding: cp1252`"
Layout = Literal["lines", "list", "values"]


class JsonDecoder(json.JSONDecoder):
    """JSON's decoder that notes a key which stands twice in one object, of which it keeps the last.

    Attributes:
        twice: the key, of what was decoded last; None where there is none.
    """

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._fields)
        self.twice: str | None = None

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        """As the library's."""
        self.twice = None
        return super().raw_decode(s, idx)

    def row(self, number: int, value: Any, excerpt: str) -> SourceRow:
        """The row that a value is, which was decoded last."""
        if self.twice is not None:
            return SourceRow(number, {}, f"the key {self.twice!r} stands twice in one object", excerpt)
        if isinstance(value, dict):
            return SourceRow(number, value)
        return SourceRow(number, {}, f"a JSON {type(value).__name__}, not an object", excerpt)

    def _fields(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            ((self.twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        return fields


def rows_in(file: SourceFile, source: Source) -> Iterator[SourceRow]:
    """The rows of a file, in its order.

    Raises:
        SourceError: The file is not what its name says, or holds no data.
    """
    try:
        yield from _rows_of_kind(file, source)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if file.compression is None:
            raise
        raise SourceError(
            f"{file.path} cannot be unpacked by {file.compression}: {error}. It is damaged, or was not copied to its "
            "end: download or write it again."
        ) from error


def _rows_of_kind(file: SourceFile, source: Source) -> Iterator[SourceRow]:
    file.require_data()
    if file.kind == ".parquet":
        yield from _parquet_rows(file)
    elif file.kind in (".arrow", ".feather"):
        yield from _arrow_rows(file)
    elif file.kind in (".csv", ".tsv"):
        _require_bytes_of_characters(file, source)
        lines = _decoded_lines(file, source)
        yield from csv_rows(lines, file.path, source.csv, file.kind)
    else:
        _require_bytes_of_characters(file, source)
        yield from _json_rows(file, source)


def rows_of_table(batch: Any, begin: int) -> Iterator[SourceRow]:
    """The rows of an Arrow table or batch, counted from `begin`; equal ones behind each other share their fields."""
    import numpy as np

    changes = _changes(batch)
    if changes is None or changes.all():
        changes, distinct = np.ones(len(batch), bool), batch
    else:
        distinct = batch.take(np.flatnonzero(changes))
    different = iter(distinct.to_pylist())
    fields: dict[str, Any] = {}
    for number, is_new in enumerate(changes.tolist(), start=begin):
        if is_new:
            fields = {name: _without_absent_keys(value) for name, value in next(different).items()}
        yield SourceRow(number, fields)


def _changes(batch: Any) -> Any:
    """Whether each row differs from the one before, `(n_rows,)`; None where that cannot be told without Python."""
    import polars as pl

    if not len(batch) or not all(map(_compares_exactly, batch.schema.types)):
        return None
    frame = pl.DataFrame(batch)
    differs = [~column.eq_missing(column.shift(1)) for column in frame.get_columns()]
    changes = pl.DataFrame(differs).select(pl.any_horizontal(pl.all()))[:, 0].to_numpy().copy()
    changes[0] = True
    return changes


def _compares_exactly(kind: Any) -> bool:
    """Whether equal values of an Arrow type are written the same way: 0.0 and -0.0 are not."""
    import pyarrow.types as of

    if of.is_list(kind) or of.is_large_list(kind):
        return _compares_exactly(kind.value_type)
    if of.is_struct(kind):
        return all(_compares_exactly(field.type) for field in kind)
    if of.is_dictionary(kind):
        return _compares_exactly(kind.value_type)
    return bool(of.is_string(kind) or of.is_large_string(kind) or of.is_integer(kind) or of.is_boolean(kind))


def _without_absent_keys(value: Any) -> Any:
    """A value in whose lists no mapping has null keys: Arrow writes one for each key that another row has."""
    return _without_nulls(value) if isinstance(value, list) else value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        return [_without_nulls(part) for part in value]
    return value


def _require_bytes_of_characters(file: SourceFile, source: Source) -> None:
    """Whether a text file is in an encoding of bytes, unless the recipe names another."""
    with file.open() as content:
        head = content.read(512)
    if source.encoding is None and (head.startswith(UTF16_MARKS) or head.count(b"\0") > len(head) // 4):
        raise SourceError(
            f"{file.path}, line 1: the file looks like UTF-16, as Windows programs write it. Write `encoding: utf-16` "
            f"beside the source, or `iconv -f UTF-16 -t UTF-8`."
        )


def _decoded_lines(file: SourceFile, source: Source) -> Iterator[str]:
    """Lines of text, with their ends; a byte that is not of the encoding is told with its line."""
    n_lines = 0
    with io.TextIOWrapper(file.open(), encoding=source.encoding or "utf-8-sig", newline="") as text:
        try:
            for line in text:
                n_lines += 1
                yield line
        except UnicodeDecodeError as error:
            line_number = n_lines + error.object[: error.start].count(b"\n") + 1
            raise decoding_error(file.path, error, line_number) from error


def _json_rows(file: SourceFile, source: Source) -> Iterator[SourceRow]:
    layout = _layout(file, source)
    if layout == "lines":
        yield from _json_lines(file, source)
        return
    with io.TextIOWrapper(file.open(), encoding=source.encoding or "utf-8-sig") as text:
        try:
            n_rows, values = 0, _JsonValues(text, layout == "list")
            for n_rows, fields in enumerate(values, start=1):
                row = values.decoder.row(n_rows, fields, excerpt_of(fields))
                if layout == "values" and n_rows == 1:
                    first, first_row = fields, row
                    continue
                if layout == "values" and n_rows == 2:
                    yield first_row
                yield row
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{file.path} is not JSON in UTF-8: {error}") from error
    if layout == "values" and n_rows == 1:
        lists = [name for name, value in first.items() if isinstance(value, list)] if isinstance(first, dict) else []
        inner = f" Its {lists[0]!r} is a list: save that, `jq -c '.{lists[0]}[]' IN > OUT.jsonl`." if lists else ""
        raise SourceError(
            f"{file.path} holds a JSON {type(first).__name__}; a list of objects is needed (one object a line is "
            f".jsonl).{inner}"
        )


def _layout(file: SourceFile, source: Source) -> Layout:
    """How JSON values stand in a file: one a line, in one list, or one behind the other over several lines."""
    with file.open() as content:
        head = content.read(HEAD_BYTES).decode(source.encoding or "utf-8-sig", errors="replace").lstrip()
    first, _, rest = head.partition("\n")
    is_whole = _is_json(first)
    if head.startswith("["):
        return "lines" if is_whole and rest.strip() else "list"
    if file.kind == ".json":
        return "lines" if is_whole and rest.strip() else "values"
    if head.startswith("{") and not is_whole and rest:
        try:
            _, end = json.JSONDecoder().raw_decode(head)
        except (ValueError, RecursionError):
            return "lines"
        return "values" if end > len(first) else "lines"
    return "lines"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json_lines(file: SourceFile, source: Source) -> Iterator[SourceRow]:
    decoder = JsonDecoder()
    with file.open() as lines:
        encoded = lines if source.encoding is None else (line.encode() for line in _decoded_lines(file, source))
        for number, line in enumerate(encoded, start=1):
            if not line.strip():
                continue
            excerpt = line[:80].decode("utf-8", errors="replace").strip()
            try:
                fields = decoder.decode(line.rstrip().decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                problem = f"invalid UTF-8 at byte {error.start} of the line{OTHER_ENCODING}"
                yield SourceRow(number, {}, problem, excerpt)
            except json.JSONDecodeError as error:
                problem = f"invalid JSON: {error.msg} at column {error.colno}{_cure(error)}"
                yield SourceRow(number, {}, problem, excerpt)
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
                yield SourceRow(number, {}, f"unreadable JSON: {error}", excerpt)
            else:
                yield decoder.row(number, fields, excerpt)


def _cure(error: json.JSONDecodeError) -> str:
    """What would make a line readable, where that is plain; else ""."""
    rest = error.doc[error.pos :].strip() if error.msg == "Extra data" else ""
    if rest == ",":
        return "; a comma stands behind the object: `sed 's/,[[:space:]]*$//' IN > OUT`"
    if rest.startswith("{"):
        return "; another object stands on the same line: `jq -c . IN > OUT`"
    if error.doc.startswith("{'"):
        return "; it looks like a Python dict: write it by `json.dumps`"
    return ""


class _JsonValues:
    """Values of a list, or one behind the other, decoded as they come; of the text, a part is in memory.

    Args:
        text: To decode.
        in_list: Whether the values stand in a list.
    """

    def __init__(self, text: IO[str], in_list: bool):
        self._text, self._in_list = text, in_list
        self._between = " \t\r\n," if in_list else " \t\r\n"
        self._buffer, self._place = "", 0
        self.decoder = JsonDecoder()

    def __iter__(self) -> Iterator[Any]:
        """The values; raises ValueError where the text is not JSON."""
        self._more()
        if self._in_list:
            self._place = self._buffer.index("[") + 1
        while True:
            self._skip()
            if self._place < len(self._buffer) and self._in_list and self._buffer[self._place] == "]":
                self._require_end()
                return
            found, value = self._next()
            if found:
                yield value
            elif not self._more():
                if not self._in_list and self._place >= len(self._buffer):
                    return
                if rest := self._buffer[self._place :]:
                    json.loads(rest)  # says what is wrong, where it is not the missing bracket
                raise ValueError("the list is not closed: the file ends before it")

    def _skip(self) -> None:
        while self._place < len(self._buffer) and self._buffer[self._place] in self._between:
            self._place += 1

    def _next(self) -> tuple[bool, Any]:
        """Whether a whole value stands at the place, and the value."""
        if self._place >= len(self._buffer):
            return False, None
        try:
            value, end = self.decoder.raw_decode(self._buffer, self._place)
        except json.JSONDecodeError as error:
            if "Unterminated" in error.msg or error.pos > len(self._buffer) - 16:
                return False, None
            raise
        if end == len(self._buffer) and not isinstance(value, dict | list | str):
            return False, None  # a number may go on
        self._place = end
        return True, value

    def _more(self) -> bool:
        more = self._text.read(max(CHUNK_CHARACTERS, len(self._buffer) - self._place))
        self._buffer, self._place = self._buffer[self._place :] + more, 0
        return bool(more)

    def _require_end(self) -> None:
        if (self._buffer[self._place + 1 :] + self._text.read(CHUNK_CHARACTERS)).strip():
            raise ValueError("there is something behind the end of the list")


def _parquet_rows(file: SourceFile) -> Iterator[SourceRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _seekable(file) as content, pq.ParquetFile(content) as table:
            file.states_rows(table.metadata.num_rows)
            number = 1
            for batch in table.iter_batches(BATCH_ROWS):
                yield from rows_of_table(batch, number)
                number += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{file.path} is not a readable Parquet file: {error}") from error


def _arrow_rows(file: SourceFile) -> Iterator[SourceRow]:
    """Rows of an Arrow file, in the format of a stream, which `datasets` writes, or of a file."""
    import pyarrow as pa

    try:
        with _seekable(file) as content:
            is_file = content.read(6) == b"ARROW1"
            content.seek(0)
            if is_file:
                reader = pa.ipc.open_file(content)
                batches = (reader.get_batch(place) for place in range(reader.num_record_batches))
            else:
                batches = iter(pa.ipc.open_stream(content))
            number = 1
            for whole in batches:
                for begin in range(0, len(whole), BATCH_ROWS):
                    batch = whole.slice(begin, BATCH_ROWS)
                    yield from rows_of_table(batch, number)
                    number += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{file.path} is not a readable Arrow file: {error}") from error


def _seekable(file: SourceFile) -> IO[bytes]:
    """A file's content to be read here and there: one that is compressed as a whole is unpacked beside."""
    if file.compression is None:
        return file.open()
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    with file.open() as content:
        while block := content.read(2**20):
            unpacked.write(block)
    unpacked.seek(0)
    return unpacked
