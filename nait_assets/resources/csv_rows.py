"""The rows of a file of separated values, read strictly: what does not follow RFC 4180 refuses the file, with its line.

A stray quotation mark swallows the rows behind it, so a file that holds one is not read by guessing.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from nait_assets.errors import SourceError
from nait_assets.recipe import CsvOptions
from nait_assets.resources.source_row import SourceRow

OTHERS = {";": "a semicolon", "\t": "a tab", "|": "a bar", ",": "a comma"}
ROWS_WITHIN = 2
"""Lines inside one field that look like whole rows, from which on a quotation mark is taken to be stray."""


def csv_rows(lines: Iterable[str], name: str, options: CsvOptions, kind: str) -> Iterator[SourceRow]:
    """The rows of a file.

    Args:
        lines: Its text, with line ends as they are.
        name: Name of the file, for messages.
        options: How the recipe says that the file is written.
        kind: `.csv` or `.tsv`.

    Raises:
        SourceError: The file does not follow the rules that the options set.
    """
    yield from _Reader(lines, name, options, kind).rows()


class _Reader:
    def __init__(self, lines: Iterable[str], name: str, options: CsvOptions, kind: str):
        self._name, self._quotes, self._escape = name, options.quotes, options.escape
        self._delimiter = options.delimiter or ("\t" if kind == ".tsv" else ",")
        self._raw: list[str] = []
        self._lines = self._noted(lines)
        quoting: Literal[0, 3] = csv.QUOTE_NONE if options.quotes == "none" else csv.QUOTE_MINIMAL
        csv.field_size_limit(2**31 - 1)
        self._reader = csv.reader(
            self._lines,
            delimiter=self._delimiter,
            quoting=quoting,
            strict=options.quotes == "strict",
            escapechar=options.escape,
            doublequote=options.escape is None or options.escape == '"',
        )
        mark, other = re.escape(self._delimiter), re.escape(options.escape or "")
        inner = rf'(?:[^"{other}]|""|{other}.)*+' if options.escape else '(?:[^"]|"")*+'
        bare = rf'[^"{mark}\r\n]*+'
        self._record = re.compile(rf'(?:"{inner}"|{bare})(?:{mark}(?:"{inner}"|{bare}))*+[\r\n]*', re.DOTALL)

    def _noted(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            self._raw.append(line)
            yield line

    def rows(self) -> Iterator[SourceRow]:
        """As `csv_rows`."""
        header = self._next()
        while header == []:
            header = self._next()
        if header is None:
            return
        self._require_header(header)
        number = 0
        while (fields := self._next()) is not None:
            if not fields:
                continue
            number += 1
            yield self._row(number, header, fields)

    def _next(self) -> list[str] | None:
        """The next record; none at the end."""
        self._raw.clear()
        begin = self._reader.line_num + 1
        try:
            fields = next(self._reader, None)
        except csv.Error as error:
            raise self._refused(begin, str(error)) from error
        if fields and self._quotes == "strict" and self._record.fullmatch("".join(self._raw)) is None:
            raise self._refused(begin, "a quotation mark inside a field that does not begin with one")
        return fields

    def _require_header(self, header: Sequence[str]) -> None:
        twice = sorted({name for name in header if header.count(name) > 1 and name.strip()})
        if twice:
            raise SourceError(
                f"{self._name}, line 1: the header has {', '.join(map(repr, twice))} twice, and a row can hold only "
                "one of them. Rename one of the columns."
            )
        for mark, what in OTHERS.items():
            found = sum(name.count(mark) for name in header)
            if mark != self._delimiter and found and found >= len(header) - 1:
                shown = "\\t" if mark == "\t" else mark
                raise SourceError(
                    f"{self._name}, line 1: {header[0][:60]!r} looks as if {what} stands between the columns. Write "
                    f'`csv: {{delimiter: "{shown}"}}` beside the source.'
                )

    def _row(self, number: int, header: Sequence[str], fields: Sequence[str]) -> SourceRow:
        begin = self._reader.line_num - len(self._raw) + 1
        n_lines = len(self._raw)
        if self._quotes == "strict" and n_lines > 1 and (len(fields) != len(header) or self._swallows(len(header))):
            raise self._refused(begin, f"a quotation mark is opened and closed only on line {begin + n_lines - 1}")
        if len(fields) != len(header):
            count = (
                "more fields than the header has" if len(fields) > len(header) else "fewer fields than the header has"
            )
            return SourceRow(number, {}, f"{count}: {len(fields)} in place of {len(header)}", self._excerpt())
        return SourceRow(number, dict(zip(header, fields, strict=True)))

    def _swallows(self, n_columns: int) -> bool:
        """Whether lines within a quoted field look like rows of their own, and begin and end as one does."""
        inside = [line for line in self._raw[1:-1] if line.strip()]
        if n_columns < 2:
            return False
        if len(inside) < ROWS_WITHIN:
            return self._is_few_rows(inside, n_columns)
        try:
            rows = list(csv.reader(inside, delimiter=self._delimiter, strict=True))
        except csv.Error:
            return False
        is_prose = all(field.startswith(" ") for row in rows for field in row[1:])  # commas of a text
        return {len(row) for row in rows} == {n_columns} and not is_prose

    def _is_few_rows(self, inside: Sequence[str], n_columns: int) -> bool:
        """Whether also the first and the last line look like rows: of few lines within, all have to."""
        lines = [self._raw[0], *inside, self._raw[-1]]
        rows = [line.split(self._delimiter) for line in lines]
        if len(lines) + n_columns < 5 or {len(row) for row in rows} != {n_columns}:
            return False
        is_indented = any(line[:1].isspace() for line in lines[1:])
        return not is_indented and not all(field.startswith(" ") for row in rows[1:] for field in row[1:])

    def _refused(self, begin: int, problem: str) -> SourceError:
        raw = "".join(self._raw)
        if "unexpected end of data" in problem:
            problem = "a quotation mark is opened and never closed"
        elif "expected after" in problem:
            problem = "a quotation mark is closed in the middle of a field"
        is_json = "inside a field" in problem and '"' in raw.replace('\\"', "")
        if '\\"' in raw and not is_json:
            advice = 'It looks escaped by backslashes: write `csv: {escape: "\\\\"}` beside the source'
        else:
            advice = (
                "Double it or leave it out; where quotation marks are plain text write `csv: {quotes: none}`, to read "
                "the file nevertheless `csv: {quotes: lenient}`"
            )
        return SourceError(f"{self._name}, line {begin}: {problem}: {self._excerpt()!r}. {advice}.")

    def _excerpt(self) -> str:
        return "".join(self._raw)[:80].strip()


def decoding_error(name: str, error: UnicodeDecodeError, line: int) -> SourceError:
    """What to say of a text file that is not in the encoding that it is read in."""
    import charset_normalizer

    sample = error.object[max(0, error.start - 2000) : error.start + 2000]
    known = ["cp1252", "utf_16", "cp1251", "cp1250", "shift_jis", "gb18030", "big5", "euc_kr", "cp949", "mac_roman"]
    best = charset_normalizer.from_bytes(sample, cp_isolation=known).best() if len(sample) > 64 else None
    guess = best.encoding if best else "cp1252"
    return SourceError(
        f"{name}, line {line}: byte 0x{error.object[error.start]:02x} is not {error.encoding.upper()}; the file looks "
        f"like {guess}. Write `encoding: {guess}` beside the source."
    )
