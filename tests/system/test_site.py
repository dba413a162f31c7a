"""The pages of docs/ as a site: each is in the menu, every link and anchor leads somewhere, nothing comes from elsewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from places import ROOT

PAGES = sorted({*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")} - {ROOT / "README.md"})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet: warnings that are not shown are not counted either.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Loaded(HTMLParser):
    """Addresses that a browser asks for by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
        values = dict(given)
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.addresses.append(values.get("src") or "")
        elif tag == "link" and values.get("rel") not in ("canonical", "next", "prev", "alternate"):
            self.addresses.append(values.get("href") or "")


def test_every_page_is_built_and_in_the_menu(site: Path) -> None:
    menu = (site / "index.html").read_text(encoding="utf-8")
    for page in [*(path.stem for path in PAGES if path.stem != "index"), "quickstart"]:
        assert (site / page / "index.html").exists(), page
        assert f'href="{page}/"' in menu, page


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        outside = [address for address in loaded.addresses if "//" in address]
        assert not outside, f"{page.relative_to(site)}: {outside}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_files_of_the_repository_are_linked_from_the_site(site: Path) -> None:
    assert (site / "files/launch/recipes/quickstart.yaml").read_bytes() == (
        ROOT / "launch/recipes/quickstart.yaml"
    ).read_bytes()
    assert 'href="../files/launch/recipes/quickstart.yaml"' in (site / "tasks/index.html").read_text(encoding="utf-8")
    assert 'href="../files/quickstart.ipynb"' in (site / "quickstart/index.html").read_text(encoding="utf-8")


def without_code(page: Path) -> Iterator[tuple[int, str]]:
    """(number, line) outside of blocks of code."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_github_and_the_site_read_a_page_alike(page: Path) -> None:
    """GitHub begins lists and tables within a paragraph and nests by two columns; the site wants a blank line, and four."""
    before = ""
    for number, line in without_code(page):
        where, starts = f"{page.name}, line {number}", re.match(r"\s*(?:[-*] |\d+\. |\|)", line)
        if starts and before.strip() and not re.match(r"\s*(?:[-*] |\d+\. |\|)|\s{2,}|#", before):
            pytest.fail(f"{where}: put a blank line before it")
        indent = len(line) - len(line.lstrip())
        assert not starts or indent % 4 == 0, f"{where}: indent it by four"
        before = line
