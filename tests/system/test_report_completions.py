"""The page's tab "Completions" in a real browser: filters, orders, tokens, steps side by side, keyboard, phone and dark."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import DESK, PHONE, Tab, chromium
from places import SUPPORT
from varied_run import PROBLEMS, SAMPLES, STEPS, TOKENIZER, varied_run, write_varied

from openrs_ray.report.completions import Query, find, one
from openrs_ray.report.server import PageData, PageServer, listen
from openrs_ray.report.static import write_page

ALL = STEPS * PROBLEMS * SAMPLES
ITEMS = "#panel-completions button.c-item"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_run(tmp_path_factory.mktemp("pages") / "run")


@pytest.fixture(scope="module")
def served(run: Path) -> Iterator[str]:
    with PageServer(PageData([run]), listen(), "secret") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.address
        server.shutdown()


@pytest.fixture(scope="module")
def written(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "page.html"
    write_page(path, [run])
    return path


@pytest.fixture(params=["served", "written"])
def page(request: pytest.FixtureRequest, browser: Any) -> Iterator[Any]:
    """The tab of a page from either source, which nothing has complained about in the end."""
    tab = Tab(browser)
    page = tab.open(request.getfixturevalue(request.param), "completions")
    page.wait_for_selector(ITEMS)
    yield page
    assert tab.complaints == []
    tab.close()


def total(page: Any) -> int:
    """Completions that were found, when the list is there."""
    page.locator(".c-found:not([aria-busy])").wait_for(state="attached")
    text = page.locator(".c-count").inner_text()
    return 0 if text.startswith("No completion") else int(text.split(" of ")[1].split()[0].replace(",", ""))


def filled(page: Any, **values: str) -> int:
    """Clear the form, fill these fields in, and wait for what is found."""
    page.get_by_role("button", name="Clear").click()
    total(page)
    for name, value in values.items():
        field = page.locator(f"[name={name}]")
        if field.evaluate("node => node.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
            # The page waits 300 ms for the end of the typing: its own timers fire in their order, however slow it is.
            page.evaluate("() => new Promise(done => setTimeout(done, 350))")
    return total(page)


def test_filters_find_what_the_reader_finds(page: Any, run: Path) -> None:
    every = total(page)
    assert every == (ALL if page.url.startswith("http") else every) and every >= 40
    for fields, query in (
        ({"status": "timeout"}, Query(status=("timeout",))),
        ({"problem": "0", "steps_from": "8"}, Query(problem=0, steps=(8, 8))),
        ({"text": "BOXED{42}", "steps_from": "1", "steps_to": "1"}, Query(text="boxed{42}", steps=(1, 1))),
        ({"reward_from": "2.9"}, Query(reward=(2.9, 9))),
        ({"phase": "evaluation", "order": "worst"}, Query(phase="evaluation")),
        ({"text": "no such text"}, Query(text="no such text")),
    ):
        expected, found = find(run, query, 0, 1).total, filled(page, **fields)
        assert found == expected or (found < expected and page.url.startswith("file")), fields
        assert (found == 0) == (expected == 0)


def test_choices_order_the_list(page: Any) -> None:
    page.get_by_role("button", name="Timeouts").click()
    assert total(page) == 1
    assert "timeout" in page.locator(ITEMS).inner_text() and "step 5" in page.locator(ITEMS).inner_text()
    assert page.get_by_role("button", name="Timeouts").get_attribute("aria-pressed") == "true"
    for name, reward in (("Best", "reward 3"), ("Worst", "reward 0.25")):
        page.get_by_role("button", name=name, exact=True).click()
        total(page)
        assert reward in page.locator(ITEMS).first.inner_text()
    page.get_by_role("button", name="Most changed").click()
    total(page)
    headings = page.locator(".c-changed").all_inner_texts()
    assert headings[0] == "Problem 0", "which is learned"


def test_a_completion_is_read_with_gold_rewards_and_prompt(page: Any, run: Path) -> None:
    filled(page, problem="2", steps_from="8", steps_to="8")
    first = page.locator(ITEMS).first
    first.click()
    assert first.get_attribute("aria-expanded") == "true"
    text = page.locator(".c-one").inner_text()
    (row,) = find(run, Query(problem=2, steps=(8, 8)), 0, 1).rows
    for part in ("42+0", "Gold", "42", "Answer taken", "accuracy", "weighted sum", row["text"]):
        assert part in text
    page.get_by_text("Prompt as the model saw it").click()
    assert "<|user|>42+0" in page.locator(".c-one details").first.inner_text()
    page.get_by_text("Other columns").click()
    assert "level" in page.locator(".c-columns").inner_text()


def test_tokens_are_coloured_and_described(page: Any, run: Path) -> None:
    filled(page, problem="2", steps_from="8", steps_to="8")
    page.locator(ITEMS).first.click()
    page.get_by_role("button", name="Look at the tokens").click()
    page.wait_for_selector(".token")
    (row,) = find(run, Query(problem=2, steps=(8, 8)), 0, 1).rows
    known = one(run, *(row[name] for name in ("phase", "step", "attempt", "position", "sample")), TOKENIZER)["tokens"]
    assert page.locator(".token").all_inner_texts() == known["text"], "pieces of the text"
    choose = page.get_by_label("Colour the tokens by")
    colours = {}
    for mode in ("none", "logprob", "advantage", "version"):
        choose.select_option(mode)
        colours[mode] = page.locator(".token").evaluate_all(
            "all => all.map((n) => getComputedStyle(n).backgroundColor)"
        )
        legend = page.locator(".c-legend li")
        counts = [int(text.rsplit(": ", 1)[1]) for text in legend.all_inner_texts()]
        assert sum(counts) == (0 if mode == "none" else len(known["id"]))
    assert len({*colours["none"]}) == 1 and len({*colours["logprob"]}) > 2
    assert len({*colours["advantage"]}) == 1 and colours["advantage"] != colours["none"]
    assert [each == colours["version"][0] for each in colours["version"]] == [n < 3 for n in range(len(known["id"]))]
    assert "3 by version 6" in page.locator(".c-alternative").inner_text()
    choose.select_option("logprob")
    least = min(range(len(known["id"])), key=lambda place: known["logprob"][place])
    assert f"(token {least + 1}, " in page.locator(".c-alternative").inner_text()
    page.locator(".c-tokens").focus()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    about = page.locator(".c-about").inner_text()
    assert about.startswith(f"Token 3 of {len(known['id'])}: ") and "policy version 6" in about


def test_the_same_problem_is_shown_across_steps(page: Any) -> None:
    filled(page, problem="0", steps_from="1", steps_to="1")
    page.locator(ITEMS).first.click()
    opener = page.get_by_role("button", name="Same problem across steps")
    opener.click()
    page.wait_for_selector(".c-step")
    shown = page.locator(".c-step select").evaluate_all("all => all.map((node) => node.value)")
    assert shown[0] == "1" and len(shown) in (4, 6) and page.locator(".c-step").last.inner_text().count("step")
    last = page.locator(".c-step").last
    last.get_by_label("Step").select_option(str(STEPS))
    assert "correct" in last.inner_text() and f"{STEPS}+0=" in last.inner_text()
    assert (
        "wrong" in page.locator(".c-step").first.inner_text() or "correct" in page.locator(".c-step").first.inner_text()
    )
    page.get_by_role("button", name="Back to the list").click()
    assert page.evaluate("document.activeElement.textContent") == "Same problem across steps"


def test_the_last_steps_are_among_them_where_the_server_gives_only_a_part(
    browser: Any, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openrs_ray.report.server._MOST_ROWS", 2 * SAMPLES)
    tab = Tab(browser)
    page = tab.open(served, "completions")
    page.wait_for_selector(ITEMS)
    page.locator(ITEMS).first.click()
    page.get_by_role("button", name="Same problem across steps").click()
    page.wait_for_selector(".c-step")
    steps = (
        page.get_by_label("Step").last.locator("option").evaluate_all("all => all.map((node) => Number(node.value))")
    )
    assert steps == [1, 2, STEPS - 1, STEPS]
    assert page.get_by_text(
        f"{4 * SAMPLES} of its {STEPS * SAMPLES} completions, of the first and the last steps"
    ).count()
    tab.close()


def test_the_list_is_read_by_keyboard_alone(page: Any) -> None:
    page.locator(ITEMS).first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator(ITEMS).nth(1).get_attribute("aria-expanded") == "true"
    page.keyboard.press("Tab")
    while "Look at the tokens" not in page.evaluate("document.activeElement.textContent"):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.wait_for_selector(".token")
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement.tagName") != "SELECT":
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.locator(".c-legend li").count()
    page.get_by_role("button", name="Next").focus()
    page.keyboard.press("Enter")
    page.locator(".c-count", has_text="21 to 40").wait_for()
    assert page.evaluate("document.activeElement.className") == "c-item"


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_readable_on_a_phone_and_in_the_dark(
    browser: Any, served: str, theme: Any, size: tuple[int, int]
) -> None:
    tab = Tab(browser, size, theme)
    page = tab.open(served, "completions")
    page.wait_for_selector(ITEMS)
    page.locator(ITEMS).first.click()
    page.get_by_role("button", name="Look at the tokens").click()
    page.wait_for_selector(".token")
    contrast = (SUPPORT / "contrast.js").read_text()
    for mode in ("logprob", "advantage", "version"):
        page.get_by_label("Colour the tokens by").select_option(mode)
        assert page.evaluate(contrast) == [], mode
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    grounds = [f"p{n}" for n in range(4)] + [f"a{n}" for n in (0, 1, 3, 4)] + [f"v{n}" for n in range(1, 6)] + ["given"]
    page.evaluate(
        "names => document.querySelectorAll('.token').forEach((node, n) => {"
        " node.className = `token token-${names[n % names.length]}`; if (!node.textContent.trim()) node.textContent = 'x'; })",
        grounds,
    )
    assert page.locator(".token").count() >= len(grounds) and page.evaluate(contrast) == [], "every ground there is"
    page.get_by_role("button", name="Same problem across steps").click()
    page.wait_for_selector(".c-step")
    assert page.evaluate(contrast) == [] and page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert tab.complaints == []
    tab.close()


def test_a_live_page_reads_anew_or_offers_to(browser: Any, tmp_path: Path) -> None:
    run = varied_run(tmp_path / "run")
    with PageServer(PageData([run]), listen(), "secret") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = Tab(browser)
        page = tab.open(server.address, "completions")
        page.wait_for_selector(ITEMS)
        assert total(page) == ALL
        write_varied(run, STEPS + 1)
        (run / "metrics.jsonl").open("a").write((run / "metrics.jsonl").read_text().splitlines()[-1] + "\n")
        page.get_by_text(f" of {ALL + PROBLEMS * SAMPLES} completions").wait_for(timeout=20_000)
        server.shutdown()
        tab.close()
