"""The run page in a real browser: nothing complains, charts are drawn, keys work, in light and dark, on a desk and a phone."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import DESK, PHONE, Tab, chromium, drawn
from made_run import figures, made_run, write_report, write_step
from places import SUPPORT

from launch.report import main
from openrs_ray.common.files import append_line
from openrs_ray.report.beside import page_beside
from openrs_ray.report.static import standalone, write_page

pytestmark = pytest.mark.slow
HOSTILE = '</script><img src=x onerror="window.broken=1;alert(1)"><!-- ${alert(2)} `x` \u2028 \U0001f600 <svg onload=alert(3)>'
_PAINTED = """node => {
  const canvas = node.querySelector("canvas");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.filter((value, place) => place % 4 === 3 && value).length;
}"""
TABS = ("overview", "curves", "completions", "time", "events", "settings")


def soon(page: Any, holds: Callable[[], bool]) -> bool:
    """True once it holds; False after 10 s. A page draws in the next frame, which may be late on a busy machine."""
    for _ in range(200):
        if holds():
            return True
        page.wait_for_timeout(50)
    return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run, two runs, and a hostile one."""
    folder = tmp_path_factory.mktemp("pages")
    one, two = made_run(folder / "one"), made_run(folder / "two", after=0.55, changes={"loss": {"kind": "gspo"}})
    name = "<img src=x onerror=alert(9)>"
    hostile = made_run(
        folder / name, problem=f"{HOSTILE} problem", completion=f"{HOSTILE} text", warning=f"{HOSTILE} warning"
    )
    written = {"one": [one], "two": [one, two], "hostile": [hostile]}
    for each, runs in written.items():
        write_page(folder / f"{each}.html", runs)
    return {each: folder / f"{each}.html" for each in written}


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    tab = Tab(browser)
    yield tab
    tab.close()


def painted(page: Any, figure: Any) -> int:
    """Pixels of a chart that are not transparent."""
    count: int = figure.evaluate(_PAINTED)
    return count


def wide(page: Any) -> int:
    """Pixels by which the page is wider than the window."""
    found: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return found


@pytest.mark.parametrize(
    ("which", "theme", "size"),
    [("one", "light", DESK), ("one", "dark", PHONE), ("two", "dark", DESK), ("two", "light", PHONE)],
    ids=["one-light-desk", "one-dark-phone", "two-dark-desk", "two-light-phone"],
)
def test_every_tab_is_drawn_without_a_complaint(
    browser: Any, pages: dict[str, Path], which: str, theme: Any, size: tuple[int, int]
) -> None:
    tab = Tab(browser, size, theme)
    page = tab.open(pages[which])
    for name in [*TABS, *(["compare"] if which == "two" else [])]:
        page.click(f"#tab-{name}")
        panel = page.locator(f"#panel-{name}")
        drawn(page)
        assert panel.is_visible() and panel.inner_text().strip() and not panel.locator(".fault").count()
        assert wide(page) <= 0, f"{name} scrolls sideways"
        for chart in panel.locator("figure.chart").all():
            assert painted(page, chart) > 300, chart.inner_text()
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (theme == "light")
    tab.close()


def test_the_headline_says_what_the_test_found(tab: Tab, pages: dict[str, Path]) -> None:
    text = tab.open(pages["one"]).locator("#panel-overview").inner_text()
    assert (
        "40.0 %" in text
        and "90.0 %" in text
        and "A significant gain" in text
        and "+50.0 points" in text
        and "p < 0.0001" in text
    )
    assert "$ 1.50" in text


def test_the_pointer_and_the_arrow_keys_read_the_same_value(tab: Tab, pages: dict[str, Path]) -> None:
    page = tab.open(pages["one"], "curves")
    chart = page.locator("#panel-curves figure.chart", has=page.get_by_text("Length", exact=True)).first
    values = [line["mean_length"] for line in figures(40)]
    plot = chart.locator(".plot")
    plot.focus()
    page.keyboard.press("Home")
    for _ in range(19):
        page.keyboard.press("ArrowRight")
    assert chart.locator(".where").inner_text() == "step 20"
    assert chart.locator("b").first.inner_text() == "63" == f"{values[19]:.0f}"
    assert "Length, step 20: mean 63" in page.locator("#said").inner_text()
    box = chart.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 19 / 39, box["y"] + box["height"] / 2)
    assert chart.locator(".where").inner_text() == "step 20"
    others = page.locator("#panel-curves figure.chart .where").all_inner_texts()
    assert others.count("step 20") > 5  # the pointer stands at the same step in all


def test_zoom_is_shared_and_undone(tab: Tab, pages: dict[str, Path]) -> None:
    page = tab.open(pages["one"], "curves")
    plots = page.locator("#panel-curves figure.chart .plot")
    spans = "() => [...document.querySelectorAll('#panel-curves .uplot')].length"
    assert page.evaluate(spans) > 5
    whole = plots.nth(3).screenshot()
    over = page.locator("#panel-curves .u-over").first
    box = over.bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20, steps=4)
    page.mouse.up()
    assert soon(page, lambda: plots.nth(3).screenshot() != whole)
    picture = plots.nth(3).screenshot()
    plots.first.focus()
    page.keyboard.press("0")
    assert soon(page, lambda: plots.nth(3).screenshot() != picture)
    assert tab.complaints == []


def test_tabs_and_tables_are_reached_by_keyboard(tab: Tab, pages: dict[str, Path]) -> None:
    page = tab.open(pages["one"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#tab-overview").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tab-curves").get_attribute("aria-selected") == "true"
    assert page.evaluate("document.activeElement.id") == "tab-curves" and page.url.endswith("#curves")
    page.keyboard.press("End")
    assert page.locator("#tab-settings").get_attribute("aria-selected") == "true"
    page.keyboard.press("Home")
    assert page.locator("#panel-overview").is_visible() and page.locator("#panel-settings").is_hidden()
    summary = page.locator("#panel-overview figure.chart summary").first
    summary.focus()
    page.keyboard.press("Enter")
    rows = page.locator("#panel-overview figure.chart").first.locator("tbody tr")
    assert soon(page, lambda: rows.count() == 40)
    first = figures(40)[0]
    assert rows.first.inner_text().split("\t")[:2] == ["1", f"{first['reward']:.4f}"]


def test_every_control_has_a_name_and_text_has_contrast(tab: Tab, pages: dict[str, Path]) -> None:
    page = tab.open(pages["two"])
    script = (SUPPORT / "contrast.js").read_text()
    for theme in ("light", "dark"):
        page.evaluate("name => { document.documentElement.dataset.theme = name; }", theme)
        for name in (*TABS, "compare"):
            page.click(f"#tab-{name}")
            assert page.evaluate(script) == [], (theme, name)


def test_the_button_turns_dark_and_is_remembered(tab: Tab, pages: dict[str, Path]) -> None:
    page = tab.open(pages["one"])
    page.get_by_role("button", name="Switch to dark colours").click()
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != "rgb(255, 255, 255)"
    page.get_by_role("button", name="Switch to light colours").click()
    page.get_by_role("button", name="Switch to dark colours").click()
    page.reload()
    page.wait_for_selector("[role=tab]")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_several_runs_are_overlaid_and_compared(tab: Tab, pages: dict[str, Path]) -> None:
    page = tab.open(pages["two"], "compare")
    text = page.locator("#panel-compare").inner_text()
    assert "Against one" in text and "worse" in text and "loss.kind" in text and "gspo" in text
    page.click("#tab-curves")
    chart = page.locator("#panel-curves figure.chart", has=page.get_by_text("Entropy", exact=True))
    names = [item.get_attribute("aria-label").split()[0] for item in chart.locator(".item").all()]
    assert names == ["one", "two"]


def test_the_timeline_zooms_by_keyboard_and_has_a_table(tab: Tab, pages: dict[str, Path]) -> None:
    page = tab.open(pages["one"], "time")
    text = page.locator("#panel-time").inner_text()
    assert "waiting for completions" in text and "engine-0" in text and "learner-0" in text
    timeline = page.locator(".timeline")
    timeline.focus()
    page.keyboard.press("+")
    assert page.locator("#said").inner_text() == "2.24 s to 6.71 s of 8.95 s"  # the middle half of five steps
    details = page.locator("details", has=page.get_by_text("Table of the longest spans in view"))
    details.locator("summary").click()
    assert details.locator("tbody th").first.inner_text() == "step"
    before = timeline.screenshot()
    page.keyboard.press("0")
    timeline.focus()
    page.keyboard.press("0")
    assert soon(page, lambda: timeline.screenshot() != before)


def test_hostile_text_stays_text(tab: Tab, pages: dict[str, Path]) -> None:
    page = tab.open(pages["hostile"])
    for name in page.locator("[role=tab]").evaluate_all("nodes => nodes.map((node) => node.id.slice(4))"):
        page.click(f"#tab-{name}")
        for button in page.locator(f"#panel-{name} button.c-item").all()[:2]:
            button.click()
        page.wait_for_timeout(20)
        assert page.locator("main img, main svg, header img").count() == 0
    assert page.evaluate("window.broken") is None and tab.complaints == []
    page.click("#tab-completions")
    shown = page.locator("#panel-completions").inner_text()
    assert f"{HOSTILE.replace(chr(0x2028), chr(10))} text" in shown.replace(chr(0x2028), chr(10))
    page.click("#tab-events")
    assert f"{HOSTILE} warning" in page.locator("#panel-events").inner_text()
    assert page.locator("h1").inner_text() == "<img src=x onerror=alert(9)>"
    source = pages["hostile"].read_text(encoding="utf-8")
    assert source.count("</script>") == source.count("<script") and "<img" not in source


def test_a_planted_script_does_not_run(tab: Tab, tmp_path: Path) -> None:
    """The policy within the page holds even where a string would become HTML."""
    content = standalone({"live": False, "runs": [], "comparison": None})
    (tmp_path / "planted.html").write_text(content.replace("</body>", "<script>window.broken=1</script></body>"))
    tab.page.goto((tmp_path / "planted.html").as_uri())
    assert tab.page.evaluate("window.broken") is None
    assert any("Content Security Policy" in complaint for complaint in tab.complaints)


def test_a_served_page_grows_with_its_run(tab: Tab, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    with page_beside(run) as address:
        page = tab.open(address, "curves")
        chart = page.locator("#panel-curves figure.chart", has=page.get_by_text("Entropy", exact=True))
        assert chart.locator(".where").inner_text() == "step 40"
        append_line(run / "metrics.jsonl", figures(41)[-1])
        write_step(run, 41, "1 + 1", "2")
        chart.locator(".where", has_text="step 41").wait_for(timeout=20_000)
        assert painted(page, chart) > 300
        write_report(run, HOSTILE)
        page.locator("#tab-evaluations").click(timeout=20_000)
        assert "Against the start model, per problem" in page.locator("#panel-evaluations").inner_text()
        assert page.locator("main img").count() == 0
        page.click("#tab-curves")
        assert chart.locator(".where").inner_text() == "step 41"
        assert all(url.startswith((address, "data:")) for url in tab.requests)
    page.locator("#live", has_text="does not answer").wait_for(timeout=20_000)
    assert [each for each in tab.complaints if "ERR_CONNECTION" not in each] == []


def test_ten_thousand_steps_are_drawn_quickly(tab: Tab, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", steps=10_000)
    size = write_page(tmp_path / "page.html", [run])
    assert size < 3_000_000
    page = tab.open(tmp_path / "page.html")
    page.click("#tab-curves")
    assert page.evaluate("performance.now()") < 30_000  # two seconds on an idle machine
    assert page.evaluate("RUNS[0].curves.step.length") <= 2048
    text = page.locator("#panel-curves").inner_text()
    assert "smallest and largest of each 16 steps" in text
    chart = page.locator("#panel-curves figure.chart", has=page.get_by_text("Length", exact=True)).first
    chart.locator("summary").click()
    assert chart.locator("tbody tr").count() <= 201
    began = page.evaluate("performance.now()")
    chart.locator(".plot").focus()
    for key in ("+", "+", "ArrowLeft", "0"):
        page.keyboard.press(key)
    assert page.evaluate("performance.now()") - began < 15_000
    assert tab.complaints == []


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path / "run")
    assert main([str(run)]) == 0
    said = capsys.readouterr().out
    assert (run / "report.html").exists() and said.startswith(f"{run / 'report.html'} (")
    block = re.search(r'id="data">(.*?)</script>', (run / "report.html").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None and json.loads(block[1])["runs"][0]["name"] == "run"
    assert main([str(run), "--output", str(tmp_path / "none" / "page.html")]) == 2
    assert "name another file with --output" in capsys.readouterr().err
    assert main(["no-such-run"]) == 2
