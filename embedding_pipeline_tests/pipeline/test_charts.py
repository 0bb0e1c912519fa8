"""Charts are well-formed, true to scale, and safe to put anywhere."""

import base64
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.pipeline.charts import Series, as_image, bars, columns, nice, shorten

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own


def boxes(svg: str) -> list[ET.Element]:
    return parsed(svg).findall(f"{SVG}rect")


def words(value: float) -> str:
    return f"{value:g}"


def test_columns_are_stacked_to_scale() -> None:
    svg = columns("Spending", ["a", "b"], [Series("x", [1, 2]), Series("y", [3, 0])], words)
    legend, drawn = boxes(svg)[:2], boxes(svg)[2:]
    assert len(legend) == 2
    heights = [float(box.get("height", "")) for box in drawn]
    assert [round(height / heights[0]) for height in heights] == [1, 3, 2]
    lower, upper = drawn[0], drawn[1]
    top = float(upper.get("y", "")) + float(upper.get("height", ""))
    assert abs(top - float(lower.get("y", ""))) < 0.2, "one stands on the other"
    assert [box.findtext(f"{SVG}title") for box in drawn] == ["a: x 1", "a: y 3", "b: x 2"]


def test_bars_are_to_scale_and_nothing_is_nothing() -> None:
    widths = [
        float(box.get("width", "")) for box in boxes(bars("t", {"a": 4, "b": 1, "c": 0}, words))
    ]
    assert round(widths[0] / widths[1]) == 4
    assert widths[2] == 0


names = st.text(st.characters(codec="utf-8"), max_size=40)


@given(st.dictionaries(names, st.floats(0, 1e15), max_size=8))
def test_any_name_is_text_and_nothing_else(values: dict[str, float]) -> None:
    root = parsed(bars("<b>", values, words))
    assert root.findtext(f"{SVG}title") == "<b>"
    tags = {f"{SVG}{tag}" for tag in ("title", "style", "rect", "text")}
    assert {child.tag for child in root} <= tags


@given(st.floats(1e-6, 1e18))
def test_the_scale_ends_at_a_round_number_just_above(most: float) -> None:
    top = nice(most)
    assert most <= top * (1 + 1e-9)
    assert top <= 2.5 * most * (1 + 1e-9)


def test_an_image_holds_the_chart_without_its_hints() -> None:
    svg = columns("Spending", ["a"] * 60, [Series(f"s{n}", [1.0] * 60) for n in range(7)], words)
    image = as_image("Spending", svg)
    assert len(image) < 60_000, "it stays in Dagster's event log"
    inside = base64.b64decode(image.partition("base64,")[2].rstrip(")")).decode()
    assert len(boxes(inside)) == len(boxes(svg))
    assert all(box.find(f"{SVG}title") is None for box in boxes(inside))


def test_long_names_keep_their_ends() -> None:
    assert shorten("short", 10) == "short"
    assert shorten("openai/text-embedding-3-small", 11) == "opena…small"
