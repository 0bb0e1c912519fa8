"""The first hour in Dagster's UI, by a mouse: a day, its progress, its books, the rest, a sensor.

The steps build on each other, as they do for a person, so they are one test.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Error, Locator, Page, expect

from embedding_pipeline_tests.browser.conftest import DAYS, PATIENCE, Site

LINEAGE = "/locations/embedding_pipeline/asset-groups/embedding_pipeline/lineage"
LATEST = f"({DAYS[-2]}|{DAYS[-1]})"
"""Yesterday, and today if midnight has passed."""

SOON = PATIENCE * 1000
CLICKS = 20
A_CLICK = SOON / CLICKS
"""Milliseconds until a step whose effect does not show is taken again."""

CONTRAST = """() => {
  const light = (c) => {
    const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (c && c !== "transparent" && !c.endsWith(", 0)")) return c;
    }
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    return dark ? "rgb(18,18,18)" : "rgb(255,255,255)";
  };
  const ratios = [...document.querySelectorAll("h1,h2,h3,p,td,th,a,li")]
    .filter((e) => e.innerText && e.innerText.trim())
    .map((e) => [light(getComputedStyle(e).color), light(behind(e))])
    .map(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  return Math.min(...ratios);
}"""
"""The lowest contrast of any text with what is behind it; WCAG 2.2 asks for 4.5."""

CHECKS = (
    "every_chunk_accounted_for",
    "single_space",
    "vector_dimension",
    "vectors_are_finite_unit_norm",
)


def picture(page: Page, name: str) -> None:
    """For the documentation, where it is asked for."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(1500)  # animations
        page.screenshot(path=Path(folder) / f"ui-{name}.png")


def bring(step: Callable[[], object], effect: Callable[[float], None]) -> None:
    """Take a step, and again if its effect does not come: the UI drops what precedes its data."""
    for _ in range(CLICKS):
        with suppress(Error, AssertionError):
            step()
        with suppress(Error, AssertionError):
            return effect(A_CLICK)
    return effect(A_CLICK)


def show(step: Callable[[], object], what: Locator) -> None:
    """Take a step that may be repeated, until it shows what it is for."""
    bring(step, lambda wait: expect(what).to_be_visible(timeout=wait))


def materialize(page: Page, site: Site, which: str, first: str) -> None:
    """*Materialize all*, choose ``which`` partitions, of which ``first`` is one, launch."""
    page.goto(site.url + LINEAGE)
    every = page.get_by_role("button", name=re.compile("Materialize all"))
    dialog = page.get_by_role("dialog")
    choice = dialog.get_by_role("button", name=which, exact=True)
    launch = dialog.get_by_role("button", name=re.compile("^Launch"))

    def chosen(wait: float) -> None:
        expect(dialog.locator("input").first).to_have_value(re.compile(first), timeout=wait)
        expect(launch).to_be_enabled(timeout=wait)

    show(lambda: every.click(timeout=A_CLICK), choice)
    bring(lambda: choice.click(timeout=A_CLICK), chosen)
    picture(page, f"launch-{which.lower()}")
    bring(
        lambda: launch.click(timeout=A_CLICK),  # once taken, it is disabled or gone
        lambda wait: expect(dialog).to_be_hidden(timeout=wait),
    )


@pytest.mark.slow
def test_the_first_hour(page: Page, site: Site) -> None:
    materialize(page, site, "Latest", LATEST)
    _see_its_progress(page, site)
    _see_its_checks(page, site)
    materialize(page, site, "Missing", DAYS[0])
    page.goto(f"{site.url}/runs?view=backfills")
    done = page.get_by_text(re.compile("^(Completed|Success)")).first
    expect(done).to_be_visible(timeout=SOON)
    picture(page, "backfill")
    _see_its_plots(page, site)
    _switch_a_sensor_on(page, site)
    _read_the_report(page, site)


def _see_its_progress(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/runs")
    latest = re.compile(f"partition: {LATEST}")
    expect(page.get_by_text(latest).first).to_be_visible(timeout=SOON)
    view = page.get_by_role("link", name="View", exact=True).first
    log = page.get_by_placeholder("Filter…")
    show(lambda: view.click(timeout=A_CLICK), log)
    told = page.get_by_text(re.compile("10 of 10 chunks")).first
    show(lambda: log.fill("tokens/s", timeout=A_CLICK), told)
    picture(page, "progress")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=SOON)


def _see_its_checks(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/assets/embeddings?view=checks&checkDetail={CHECKS[0]}")
    for check in CHECKS:
        expect(page.get_by_text(check).first).to_be_visible(timeout=SOON)
    expect(page.get_by_text("All 12 chunks are accounted for").first).to_be_visible(timeout=SOON)
    expect(page.get_by_text("Passed", exact=True).first).to_be_visible(timeout=SOON)
    picture(page, "checks")


def _see_its_plots(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/assets/embeddings?view=overview")
    plots = page.get_by_role("button", name="Plots")
    show(lambda: plots.click(timeout=A_CLICK), page.locator("canvas").first)
    page.locator("canvas").first.scroll_into_view_if_needed()
    picture(page, "plots")


def _switch_a_sensor_on(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/automation")
    names = page.get_by_text(re.compile("_(sensor|schedule)$"))
    switches = page.locator("label[class*=formatSwitch]")

    def loaded() -> int:
        wanted = page.get_by_text("recovery_sensor", exact=True).first
        expect(wanted).to_be_visible(timeout=SOON)
        expect(switches).to_have_count(names.count(), timeout=SOON)
        return names.all_inner_texts().index("recovery_sensor")

    which = loaded()
    switch = switches.nth(which)
    state = switch.locator("input")
    clicks = list[bool]()

    def click() -> None:
        if clicks:  # it may be on already, and not be shown so
            page.reload()
            loaded()
            with suppress(AssertionError):
                return expect(state).to_be_checked(timeout=A_CLICK)
        clicks.append(True)
        return switch.click(timeout=A_CLICK)

    bring(click, lambda wait: expect(state).to_be_checked(timeout=wait))
    page.reload()
    assert loaded() == which
    expect(state).to_be_checked(timeout=SOON)
    for other in set(range(names.count())) - {which}:
        assert not switches.nth(other).locator("input").is_checked()
    picture(page, "automation")


def _read_the_report(page: Page, site: Site) -> None:
    """Whole in a narrow window, in the dark, and by keyboard; nothing comes from elsewhere."""
    (report,) = site.root.rglob("report.html")
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate(CONTRAST) >= 4.5
    page.emulate_media(color_scheme="light")
    assert page.evaluate(CONTRAST) >= 4.5
    page.set_viewport_size({"width": 1200, "height": 900})
    picture(page, "report")
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.locator("img:not([alt]), svg:not([role=img])").count() == 0
    reached = {_tab(page) for _ in range(30)} - {"BODY"}
    assert reached, "tables that scroll and links are reached by keyboard"
    assert all(url.startswith(("file:", "data:")) for url in asked)


def _tab(page: Page) -> str:
    page.keyboard.press("Tab")
    return str(page.evaluate("document.activeElement.tagName"))
