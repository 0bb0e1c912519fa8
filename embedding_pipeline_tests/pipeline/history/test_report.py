"""The page: whole in itself, safe with any name, and with the figures it is about."""

from html.parser import HTMLParser

from embedding_pipeline.pipeline.history.advice import Advice
from embedding_pipeline.pipeline.history.figures import Stored
from embedding_pipeline.pipeline.history.report import charts_of, render, spending_table
from embedding_pipeline_tests.pipeline.history.making import history, saving, spent

NASTY = '<script>alert("x")</script>&'


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action")]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_needs_nothing_else_and_runs_nothing() -> None:
    rows = [spent(n, 10**9, project=f"p{n}", user=NASTY) for n in range(20)]
    stored = [Stored("openai/m@8", 8, 4, 10, 2048)]
    found = history(
        *rows, spent(1, 5, project=NASTY), savings=[saving("cache", 3, 7)], stored=stored
    )
    advice = [Advice("a", "Do this", f"because of {NASTY}")]
    page = Page(render(found, advice, "As of today"))
    assert "script" not in page.tags
    assert all(link.startswith("#") for link in page.links)
    assert NASTY in page.words
    assert {"nav", "main", "h1", "table", "svg", "details"} <= set(page.tags)
    assert "$20.00" in page.words, "spent in all"
    assert "2.0 KiB" in page.words
    assert "Do this" in page.words


def test_an_empty_history_is_a_page_too() -> None:
    page = Page(render(history(), [], "As of today"))
    assert "Nothing in the figures asks for a change." in page.words
    assert "Nothing was saved yet." in page.words
    assert "unknown" in page.words, "no pace, no projection"


def test_what_has_no_price_is_said_not_to_be_in_the_sum() -> None:
    page = Page(render(history(spent(1, 0, tokens=1234, unpriced_tokens=1234)), [], ""))
    assert "1,234 tokens without a known price are not in it" in page.words
    assert "without a known price" not in Page(render(history(spent(1, 40)), [], "")).words


def test_few_colours_and_no_project_forgotten() -> None:
    rows = [spent(1, 10**9, project=f"p{n}") for n in range(30)]
    by_day, by_project, *_ = charts_of(history(*rows))
    assert ">others<" in by_day.svg
    assert "18 others" in by_project.svg
    assert "$18.00" in by_project.svg


def test_the_table_is_what_was_booked() -> None:
    table = spending_table([spent(1, 40, user="u"), spent(2, 60)])
    assert table.column("cost_nano_usd").to_pylist() == [40, 60]
    assert table.column("user").to_pylist() == ["u", ""]
    assert spending_table([]).num_rows == 0
