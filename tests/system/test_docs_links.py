"""Every link between pages leads somewhere on GitHub; on the site tests/system/test_site.py looks."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

PAGES = [ROOT / "README.md", *sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")} - {ROOT / "README.md"})]


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(path, anchor) of each link in a page that leads to no web address."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name} links {path}"
        assert not anchor or anchor in anchors(target), f"{page.name} links {path}#{anchor}"


def test_the_readme_is_for_the_first_ten_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_every_page_is_linked_from_another() -> None:
    linked = {(page.parent / path).resolve() for page in PAGES for path, _ in links(page) if path}
    assert {*PAGES[1:], ROOT / "docs" / "quickstart.ipynb"} <= linked


def test_the_changelog_has_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[:2] == ["Unreleased", version]


def test_the_glossary_has_no_word_twice() -> None:
    words = re.findall(r"^\| ([a-z][a-z -]+) \| [A-Z]", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    assert len(words) == len({*words}) > 25
