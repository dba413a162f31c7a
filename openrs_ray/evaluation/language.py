"""Does a completion stay in the Latin script? The paper's models drifted into others late in training."""

import re
import unicodedata

# No alternative looks past the next opening of its own kind, or unclosed ones would cost time squared.
_LATEX = re.compile(
    r"""\$\$[^$]*\$\$ | \$[^$]*\$ | \\\[(?:(?!\\\[).)*?\\\] | \\\((?:(?!\\\().)*?\\\)
    | \\begin\{(\w+\*?)\}(?:(?!\\begin\{).)*?\\end\{\1\} | \\[A-Za-z]+ | </?(?:think|answer)>""",
    re.VERBOSE | re.DOTALL,
)
_LETTER = re.compile(r"[^\W\d_]")


def latin_share(text: str) -> float | None:
    """Share of the letters outside LaTeX that are Latin (accents included); None where there are no letters."""
    letters = _LETTER.findall(_LATEX.sub(" ", text))
    if not letters:
        return None
    foreign = sum(not letter.isascii() and not unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    return 1 - foreign / len(letters)
