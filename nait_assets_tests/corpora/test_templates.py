"""Templates over a row: every column by its name, nothing printed that has no text, and bounded work."""

import time
from typing import Any

import pytest

from nait_assets.corpora.templates import MOST_RUNAWAYS, RowTemplate, Unprintable
from nait_assets.errors import SourceError
from nait_assets.sandbox import FAILURES, TooMuch
from nait_assets_tests.models.test_chat_template import ENDLESS


def refusal(template: str, fields: dict[str, Any]) -> str:
    with pytest.raises(Unprintable) as error:
        RowTemplate(template).render(fields)
    return str(error.value)


def test_any_column_has_a_name() -> None:
    """`Best Answer` is no identifier; it is one of the columns that the source must have."""
    template = RowTemplate('{{ row["Best Answer"] }} {{ q }}')
    assert template.render({"Best Answer": "a", "q": 1}) == "a 1"
    assert template.columns == {"Best Answer", "q"}


def test_a_column_that_a_row_lacks_is_null() -> None:
    """So that a template can ask for it."""
    assert RowTemplate("{{ q }}{% if c %} {{ c }}{% endif %}{% if row.d %}!{% endif %}").render({"q": "a"}) == "a"


@pytest.mark.parametrize("value", [[1], {"a": 1}, [{"content": "a"}], None, float("nan"), b"a", {1}, (1,), object()])
@pytest.mark.parametrize("template", ["{{ q }}", "{{ 'a' ~ q }}", "{{ [q] | first }}"])
def test_what_has_no_text_is_not_printed(template: str, value: Any) -> None:
    """Python's way of writing it would be what the model learns."""
    assert "prints" in (message := refusal(template, {"q": value})) or "holds" in message


def test_the_message_says_what_to_write() -> None:
    """The usual case: turns in a column that a template takes for text."""
    message = refusal("{{ prompt }}", {"prompt": [{"role": "user", "content": "a"}]})
    assert "{{ prompt[0].content }}" in message
    assert "`format: {turns: prompt}`" in message
    assert "write {% if context %}{{ context }}{% endif %}" in refusal("{{ context }}", {"context": float("nan")})


@pytest.mark.parametrize("name", ENDLESS)
def test_work_is_bounded(name: str) -> None:
    """A recipe from elsewhere must not take the machine, neither when it is read nor at a row."""
    begin = time.monotonic()
    with pytest.raises((Unprintable, TooMuch, *FAILURES)):
        RowTemplate(ENDLESS[name]).render({"messages": [{"role": "user", "content": "a"}]})
    assert time.monotonic() - begin < 20


def test_a_template_that_does_too_much_for_every_row_ends_the_step() -> None:
    """A second for each of a million rows would be a hang."""
    template = RowTemplate(ENDLESS["loops"])
    with pytest.raises(SourceError, match="for 20 rows; write it simpler"):  # noqa: PT012  which row it is, is the point
        for _ in range(MOST_RUNAWAYS + 1):
            with pytest.raises(Unprintable):
                template.render({})


def test_formats_of_numbers_are_as_usual() -> None:
    """Bounds are far from what templates do."""
    template = RowTemplate("{{ '%.2f' % q }} {{ '%s-%s' | format(1, 2) }} {{ '{:.1f}'.format(q) }} {{ 'ab' * 2 }}")
    assert template.render({"q": 1.234}) == "1.23 1-2 1.2 abab"


@pytest.mark.parametrize(
    "template",
    [
        *("{{ q | trim }}", "{{ q | upper }}", "{{ q | replace('a', 'b') }}", "{{ q | string }}", "{{ q | e }}"),
        *("{{ 'Q: %s' | format(q) }}", "{{ 'Q: %s' % q }}", "{{ 'Q: {}'.format(q) }}", "{{ 'Q: {x}'.format(x=q) }}"),
        *("{{ ['x', q] | join(' ') }}", "{{ [q] | map('upper') | join }}", "{% set x = q %}{{ x | lower }}"),
    ],
)
def test_null_is_not_printed_as_a_word_by_a_filter_or_a_format(template: str) -> None:
    """Jinja's filters write None, which a model would read; with a text they do as ever."""
    for fields in ({"q": None}, {}, {"q": float("nan")}):
        assert "a column that the template prints is null (q)" in refusal(template, fields)
        assert "None" not in RowTemplate(template, empty_if_null=True).render(fields)
    assert "text" in RowTemplate(template).render({"q": "text"}).lower()
