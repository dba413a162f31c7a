r"""Normalises the spelling of an answer, driven by tables of rules that keep every meaningful character.

Example: spelled(tidy(r"\mathrm{e} + 2*sqrt(3)")) == r"e + 2\cdot \sqrt{3}"
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from fractions import Fraction

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
_COMMANDS = (
    r"× \times · \cdot ⋅ \cdot ∙ \cdot π \pi ∞ \infty √ \sqrt ∛ \sqrt[3] ° ^\circ ± \pm ∓ \mp ≤ \leq ≥ \geq ≠ \neq ≈ \approx "
    r"∈ \in ∅ \emptyset ∪ \cup ∩ \cap ∖ \setminus ⟨ \langle ⟩ \rangle … \ldots ⋯ \ldots α \alpha β \beta γ \gamma δ \delta "
    r"ε \epsilon θ \theta λ \lambda μ \mu ρ \rho σ \sigma τ \tau φ \phi ω \omega"
)
_CHARACTERS = str.maketrans(
    {
        **{chr(0xFEE0 + code): chr(code) for code in range(0x21, 0x7F)},  # full-width forms
        **{one: " {}\\frac{{{}}}{{{}}}".format("", *unicodedata.normalize("NFKC", one).split("⁄")) for one in _VULGAR},
        **dict.fromkeys("−–—‐‑﹣", "-"),
        **dict.fromkeys("’‘′", "'"),
        **dict.fromkeys("\xa0\u2009\u202f\u2003\u2002\u200a\t\r\n~", " "),
        **dict.fromkeys("\u200b\u2061\u2062\ufeff", ""),
        **dict.fromkeys("÷∕⁄", "/"),
        **{one: rf"\mathbb{{{letter}}}" for one, letter in zip("ℝℤℕℚℂ", "RZNQC", strict=True)},
        **{one: f"{command} " for one, command in re.findall(r"(\S) (\S+)", _COMMANDS)},
    }
)

_RAISED = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")

_NO_LETTER = "(?![A-Za-z])"
_GAP = r"(?:\s|\\[,;:! ])*"
_POWER = r"(?:\s*\^\s*(?:\{\s*-?[0-9]\s*\}|-?[0-9]))?"
_UPRIGHT_LETTER = r"\\text\s*\{([mgsLhNJWVKACTF])\}"
_NUMBERS = (
    r"(?:[-+0-9.,()\[\]{}/^!\s]|\\(?:frac|sqrt|times|cdot|pi|pm|approx|sim)(?![A-Za-z])|\\[,;:! ])*(?:[0-9)}\]]|\\pi)"
)
"""Mathematics without variables."""
_UNIT = (
    rf"{_GAP}(?:{_UPRIGHT_LETTER}{_POWER}(?:{_GAP}(?:/|\\cdot){_GAP}\\text\s*\{{[A-Za-z]+\}}{_POWER})*"
    rf"|\\frac\s*\{{\s*\\text\s*\{{[A-Za-z ]+\}}{_POWER}\s*\}}\s*\{{\s*\\text\s*\{{[A-Za-z ]+\}}{_POWER}\s*\}})"
)
_TYPOGRAPHY: tuple[Rule, ...] = (
    (r"^\s*\*\*(.*)\*\*\s*$", r"\1"),  # Markdown's bold
    (r"\\(?:m?left|m?right|[bB]igg?[lrm]?)" + _NO_LETTER + r"\s*\.?", ""),
    (r"\\(?:display|text|script)style" + _NO_LETTER, ""),
    (
        r"\\(?:bf|rm|it|sf|tt|bfseries|large|Large|LARGE|huge|Huge|small|tiny|normalsize|limits|nolimits)" + _NO_LETTER,
        "",
    ),
    (r"\\(?:text)?color\s*(?:\[[^][]*\])?\s*\{[^{}]*\}", ""),
    (r"\\(?:mathbf|boldsymbol|bm|pmb)\s*(?=\{[^{}A-Za-z]*\\)", ""),
    (r"\\(?:mathbf|mathit|mathsf|mathtt|mathnormal|boldsymbol|bm|pmb)\s*(?=\{)", r"\\mathrm"),
    (r"\\(?:text(?:bf|it|rm|sf|tt|normal|up|md|sl)|mbox|hbox|emph|underline|mathop|mathrm)\s*(?=\{)", r"\\text"),
    (r"\\[dtc]frac" + _NO_LETTER, r"\\frac"),
    (rf"^({_NUMBERS}){_UNIT}\s*\.?\s*$", r"\1 \\text{ unit}"),  # no variable: nothing else before it is one
    (rf"(?<=[0-9]){_GAP}{_UPRIGHT_LETTER}", r" \\text{ \1}"),  # a unit, not a variable
    (r"\\text\s*\{([A-Za-z])\}", r" \1 "),
    (r"\\text\s*\{\s*\\%\s*\}", r"\\%"),
    (r"\\text\s*\{\s*\}", ""),
    (r"\\text\s*\{([^A-Za-z{}\\]*)\}", r"\1"),  # no words in it
    (r",\s*\\!\s*|\{\s*,\s*\}", ","),
    (r"\\!|(?<![A-Za-z}\]\\_^])\{\s*\}", ""),
    (r"(?<=(?<!\\)\{)(-?[0-9]{1,3}(?:,[0-9]{3})+)(?=\})", lambda found: found[1].replace(",", "")),
    (r"(?<!\\text)\{\s*(and|or)\s*\}", r" \1 "),
    (r"(?<!\\)\\[,;:> ]", " "),
    (r"\\(?:q?quad|enspace|thinspace|medspace|thickspace)" + _NO_LETTER, " "),
    (r"\\[hv]space\*?\s*\{[^{}]*\}", " "),
    (r"\\[dt]binom" + _NO_LETTER, r"\\binom"),
    (r"\\text\s*\{\s*\\?\$\s*\}|\\\$|[€£¥₹¢]|\\(?:euro|pounds|cent)" + _NO_LETTER, ""),  # currencies are units
    (r"\\(?:dots[bcimo]?|cdots|ldots)" + _NO_LETTER + r"|\.\.\.", r"\\ldots "),
    (r"\\lbrace" + _NO_LETTER, r"\\{"),
    (r"\\rbrace" + _NO_LETTER, r"\\}"),
    (r"\\(?:lvert|rvert|vert)" + _NO_LETTER, "|"),
    (r"\\(?:lbrack)" + _NO_LETTER, "["),
    (r"\\(?:rbrack)" + _NO_LETTER, "]"),
    (r"^(?:\s|\\approx|\\sim|\\simeq|=|:)+", ""),
    (r"[\s.,;:\\]+$", ""),
    (r"\s{2,}", " "),
)

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp"
_MATHEMATICS: tuple[Rule, ...] = (
    (r"\\(?:leqslant|leqq|le)" + _NO_LETTER + "|<=|=<", r"\\leq "),
    (r"\\(?:geqslant|geqq|ge)" + _NO_LETTER + "|>=", r"\\geq "),
    (r"\\(?:neq|ne)" + _NO_LETTER + "|!=", r"\\neq "),
    (r"\\lt" + _NO_LETTER, "<"),
    (r"\\gt" + _NO_LETTER, ">"),
    (r"\\(?:coloneqq|equiv)" + _NO_LETTER, "="),
    (r"\\(?:bmod|pmod)" + _NO_LETTER, r"\\mod "),
    (r"\\(?:colon|ratio)" + _NO_LETTER, ":"),
    (r"\\(?:varnothing|empty)" + _NO_LETTER + r"|\\\{\s*\\\}", r"\\emptyset "),
    (r"\\text\s*\{\s*infinity\s*\}|(?<![A-Za-z\\])(?:infinity|oo)" + _NO_LETTER, r"\\infty "),
    (r"\\(angle|triangle)\s*([A-Z]{2,})", r"\\text{\1\2}"),
    (r"\\langle\s*(.*?)\s*\\rangle", r"(\1)"),
    (r"\\(?:setminus|backslash)" + _NO_LETTER, r"\\setminus "),
    (r",?\s*(?:\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)" + _NO_LETTER + r"|\\(?:lor|vee|land|wedge)"
     + _NO_LETTER + r")\s*", ", "),
    (r"_\s*\{\s*\\(?:text\s*\{\s*([A-Za-z]+)\s*\}|(max|min|odot|oplus))\s*\}", lambda found: f"_{{{found[1] or found[2]}}}"),
    (r"\*\*", "^"),
    (r"(?<![A-Za-z])(?:np|math|sympy)\.(?=[a-z])", ""),
    (r"\*", r"\\cdot "),
    (r"(?<![A-Za-z\\])sqrt", r"\\sqrt"),
    (r"(?<![A-Za-z\\])pi" + _NO_LETTER, r"\\pi "),
    (rf"(?<![A-Za-z\\])({_FUNCTIONS})(?=\s*[(\\0-9]|\s+[a-z])", r"\\\1"),
    (r"(?<![A-Za-z\\])(gcd|lcm|min|max)(?=\s*\()", r"\\\1"),
    (r"(?<![A-Za-z\\])E(?=\s*_)", r"\\text{E}"),  # a variable; to the parser it is an exponent's E
    (r"\\gamma" + _NO_LETTER, r"\\text{smallgamma}"),  # a variable; to the parser it is Euler's constant or the function
    (r"\\operatorname\s*\{(" + _FUNCTIONS + r")\}", r"\\\1"),
    (r"\\text\s*\{(" + _FUNCTIONS + r"|min|max|gcd|lcm)\}", r"\\\1"),
    (r"\\(?:imath|jmath)" + _NO_LETTER, "i"),
    (r"(?<![0-9])\.(?=[0-9])", "0."),
    (r"(?<=[0-9])\.(?![0-9])", ""),
    (r"(?<![0-9,.])([0-9]{1,3})((?: [0-9]{3})+)(?![0-9])", lambda found: found[1] + found[2].replace(" ", "")),
    (r"(?<![0-9.])([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)(?![0-9])", r"\1\\frac{\2}{\3}"),  # mixed numbers
    (r"(?<![A-Za-z0-9}.])([0-9]+\.[0-9]+)[eE]([+-]?[0-9]+)(?![0-9.])", r"\1\\cdot 10^{\2}"),
    (r"(?<![A-Za-z0-9}.])([0-9]+)(?:e([+-]?[0-9]{2,}|\+?[0-9])|E([+-]?[0-9]+))(?![0-9.])",
     lambda found: rf"{found[1]}\cdot 10^{{{found[2] or found[3]}}}"),
)  # fmt: skip

_REPEATING = re.compile(
    r"(?<![0-9.])([0-9]+)\.([0-9]*)(?:\\(?:overline|bar)\s*\{([0-9]+)\}|\(([0-9]+)\)|\\dot\s*\{?([0-9])\}?)"
)
_REPEATED = re.compile(r"(?<![0-9.])([0-9]+)\.([0-9]*?)(?:([0-9])\3{2,}|([0-9]{2,})\4+)\s*\\ldots")
_DOUBLE_FACTORIAL = re.compile(r"(?<![0-9A-Za-z^)}])([0-9]{1,3})\s*!\s*!(?!\s*!)")
_OPENING, _CLOSING = "({[", ")}]"


def tidy(answer: str) -> str:
    """Answer without fonts, spaces, sizes, colours, currency signs and full stop."""
    raised = _RAISED.sub(lambda found: f"^{{{_plain(found[0])}}}", answer)
    lowered = _LOWERED.sub(lambda found: f"_{{{_plain(found[0])}}}", raised)
    return _rewritten(lowered.translate(_CHARACTERS), _TYPOGRAPHY).strip()


def spelled(tidied: str) -> str:
    """Tidy mathematics as LaTeX for the reader."""
    text = _rewritten(_with_fractions(tidied), _MATHEMATICS)
    text = text.replace(r"\ldots", r"\text{dots}")
    return _grouped_exponents(_with_braces(text)).strip(" ,;")


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("−", "-")


def _rewritten(text: str, rules: Iterable[Rule]) -> str:
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text


def _with_fractions(text: str) -> str:
    """Repeating decimals as fractions, small double factorials as numbers."""
    text = _REPEATING.sub(lambda m: _repeating(m[1], m[2], m[3] or m[4] or m[5]), text)
    text = _REPEATED.sub(lambda m: _repeating(m[1], m[2], m[3] or m[4]), text)
    return _DOUBLE_FACTORIAL.sub(lambda m: str(_double_factorial(int(m[1]))), text)


def _repeating(whole: str, fixed: str, period: str) -> str:
    value = Fraction(int(whole + fixed + period) - int(whole + fixed), 10 ** len(fixed) * (10 ** len(period) - 1))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _double_factorial(number: int) -> int:
    return number * _double_factorial(number - 2) if number > 1 else 1


def _with_braces(text: str) -> str:
    r"""\frac12, \sqrt2, \sqrt(2) with their arguments in braces."""
    for command, count in ((r"\frac", 2), (r"\binom", 2), (r"\sqrt", 1)):
        start = text.rfind(command)
        while start >= 0:
            at = start + len(command)
            if not text[at : at + 1].isalpha():
                text = text[:at] + _braced(text[at:].lstrip(), count)
            start = text.rfind(command, 0, start)
    return text


def _braced(text: str, count: int) -> str:
    if text.startswith("[") and "]" in text:  # the degree of a root
        degree, _, text = text.partition("]")
        return f"{degree}]{_braced(text.lstrip(), count)}"
    done = ""
    for _ in range(count):
        argument, text = _argument(text.lstrip())
        done += f"{{{argument}}}"
    return done + text


def _argument(text: str) -> tuple[str, str]:
    """First bracket's content or first token, and the rest."""
    if text[:1] in ("{", "("):
        end = closing(text, 0)
        return text[1:end], text[end + 1 :]
    token = re.match(r"\\[A-Za-z]+|.", text)
    return (token[0], text[token.end() :]) if token else ("", "")


def _grouped_exponents(text: str) -> str:
    """x^(1/3) as x^{1/3}."""
    start = text.find("^(")
    while start >= 0:
        end = closing(text, start + 1)
        text = f"{text[: start + 1]}{{{text[start + 2 : end]}}}{text[end + 1 :]}"
        start = text.find("^(", start + 1)
    return text


def closing(text: str, start: int) -> int:
    """Position that closes the bracket opened at `start`; the text's length where none does."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] in _OPENING) - (text[place] in _CLOSING)
        if not depth:
            return place
    return len(text)
