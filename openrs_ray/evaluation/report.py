"""Tables of an evaluation, as one JSON document that Markdown and HTML print."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from openrs_ray.common.files import replacing, write_json
from openrs_ray.evaluation.analysis import AVERAGE, Analysis, power_rows
from openrs_ray.evaluation.decision_table import Cells, decision_notes, decision_tables
from openrs_ray.evaluation.power import MORE, Rate


@cache
def published() -> dict[str, Any]:
    """Published tables in percent: {"paper" or "independent": {"source", "scores": {model: {benchmark: value}}}}.

    And "costs": {"source", "rows": [[name, samples, GPUs, hours, dollars]]}.
    """
    content: dict[str, Any] = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return content


def published_name(name: str, begins: bool = False) -> str | None:
    """The published model that a Hub id, a path or a run's name means. `begins`: or begins with.

    Example: published_name("knoveleng/Open-RS3") == published_name("open-rs3-again", begins=True) == "Open-RS3"
    """
    last = _plain(name.rstrip("/").rpartition("/")[2])
    for known in published()["independent"]["scores"]:
        if last == _plain(known) or (begins and last.startswith(_plain(known))):
            return str(known)
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removesuffix("preview")


def document(
    settings: dict[str, Any],
    titles: Mapping[str, str],
    analysis: Analysis,
    published_as: Mapping[str, str | None],
    seeds: Mapping[str, int],
    rate: Rate | None = None,
) -> dict[str, Any]:
    """Everything the tables print; callers' tables ({"heading": ..., "rows": [[...]]}, strings only) go into "more".

    `titles` gives the benchmarks' order; the start model comes last in `analysis`; `published_as` gives published names.
    """
    tables = published()
    return {
        "settings": settings,
        "seeds": dict(seeds),
        "benchmarks": dict(titles),
        "models": {model: {name: f.as_json() for name, f in by.items()} for model, by in analysis.figures.items()},
        "averages": {model: interval and asdict(interval) for model, interval in analysis.averages.items()},
        "runs": {name: asdict(runs) for name, runs in analysis.seeds.items()},
        "differences": [],
        "against_start_model": {
            model: {name: asdict(paired) for name, paired in by_name.items()}
            for model, by_name in analysis.against_start.items()
        },
        "power": {model: power_rows(by_name, len(titles), rate) for model, by_name in analysis.measured.items()},
        "published": {
            model: {
                "name": known,
                **{table: tables[table]["scores"].get(known, {}) for table in ("paper", "independent")},
            }
            for model, known in published_as.items()
            if known is not None
        },
        "more": [],
        "sources": {table: tables[table]["source"] for table in ("paper", "independent")},
    }


def write(folder: Path, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", content)
    for name, text in (("report.md", markdown(content)), ("report.html", as_html(content))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def shown(content: dict[str, Any]) -> dict[str, Any]:
    """Texts of a report's tables, for pages: {"title", "tables": [{"heading", "rows"}], "notes"}."""
    tables = [{"heading": heading, "rows": cells} for heading, cells in _tables(content)]
    return {"title": _title(content), "tables": tables, "notes": _notes(content)}


def markdown(content: dict[str, Any]) -> str:
    parts = [f"# {_title(content)}", ""]
    for heading, cells in _tables(content):
        parts += [f"## {heading}", "", *_markdown_table(cells), ""]
    return "\n".join([*parts, *[f"- {note}" for note in _notes(content)], ""])


def as_html(content: dict[str, Any]) -> str:
    """One page that needs nothing else."""
    style = (
        "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:right}td:first-child,th:first-child{text-align:left}"
    )
    title = html.escape(_title(content))
    body = [f"<h1>{title}</h1>"]
    for heading, (head, *rows) in _tables(content):
        body += [f"<h2>{html.escape(heading)}</h2>", "<table>", _html_row(head, "th")]
        body += [*(_html_row(row, "td") for row in rows), "</table>"]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in _notes(content))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"{''.join(body)}<ul>{notes}</ul></html>\n"
    )


def _title(content: dict[str, Any]) -> str:
    return f"Evaluation of {', '.join(content['models'])} ({content['settings']['protocol']})"


def _tables(content: dict[str, Any]) -> list[tuple[str, Cells]]:
    names = list(content["benchmarks"])
    average = ["average"] if content["averages"] else []
    several = [("All runs together, in percent", _runs_rows(content))] if content["runs"] else []
    compared = [
        (
            f"Against the start model, per problem{', until decided' * ('until_decided' in content)}",
            _paired_rows(content),
        ),
        *([("What these samples can show", _power_rows(content))] * bool(content["power"])),
        *decision_tables(content),
    ]
    return [
        ("Accuracy in percent", [["", *content["benchmarks"].values(), *average], *_accuracy_rows(content, names)]),
        *several,
        ("Completions", _completion_rows(content, names)),
        *(compared if content["against_start_model"] else []),
        *((table["heading"], table["rows"]) for table in content["more"]),
    ]


def _accuracy_rows(content: dict[str, Any], names: Sequence[str]) -> Cells:
    rows: Cells = []
    for model, figures in content["models"].items():
        row = [f"{model}: avg@k [95 %]", *(_accuracy(figures[name]) for name in names)]
        rows.append([*row, *([interval_text(content["averages"][model])] if content["averages"] else [])])
        if any(figures[name]["bounds"] for name in names):
            bounds = [figures[name]["bounds"] for name in names]
            rows.append(["- all unjudged wrong, right", *("-" if b is None else _range(b) for b in bounds)])
        if any(figures[name]["samples"] > 1 for name in names):
            rows.append(
                ["- same problems, other samples", *(interval_text(figures[name]["sampling"]) for name in names)]
            )
            rows.append(["- one run of one sample, ± std", *(_percent(figures[name]["one_run"]) for name in names)])
            passed = [figures[name]["pass_at"].get(str(figures[name]["samples"])) for name in names]
            rows.append(["- pass@k", *map(interval_text, passed)])
            rows.append(["- maj@k", *(interval_text(figures[name]["majority"]) for name in names)])
        known = content["published"].get(model)
        if known:
            paper = [known["paper"].get(name) for name in names]
            rows.append([f"- the paper: {known['name']}", *("-" if v is None else f"{v:.1f}" for v in paper)])
            again = [known["independent"].get(name) for name in names]
            rows.append(
                ["- re-evaluation, mean ± std", *("-" if v is None else f"{v[0]:.1f} ± {v[1]:.1f}" for v in again)]
            )
    width = 1 + len(names) + bool(content["averages"])
    return [row + ["-"] * (width - len(row)) for row in rows]


def _accuracy(figures: dict[str, Any]) -> str:
    if figures["average"] is None:
        share = figures["unjudged"] / (figures["problems"] * figures["samples"])
        return f"refused: {100 * share:.0f} % not judged"
    return interval_text(figures["average"])


def _runs_rows(content: dict[str, Any]) -> Cells:
    rows = [["", "mean over runs [95 %]", "std over runs", "least and most", "start model"]]
    for name, runs in content["runs"].items():
        start = content["models"].get("start model", {}).get(name)
        rows.append(
            [
                content["benchmarks"][name],
                interval_text(runs["mean"]),
                _percent(runs["deviation"]),
                _range((runs["least"], runs["most"])),
                _accuracy(start) if start else "-",
            ]
        )
    return rows


def _completion_rows(content: dict[str, Any], names: Sequence[str]) -> Cells:
    head = ["", "problems", "samples each", "mean tokens", "truncated", "in English", "not judged"]
    rows = [head]
    for model, figures in content["models"].items():
        for name in names:
            f = figures[name]
            counts = [str(f["problems"]), str(f["samples"]), f"{f['mean_tokens']:,.0f}"]
            shares = [f"{100 * f[share]:.1f} %" for share in ("truncated_share", "english_share")]
            rows.append([f"{model}: {content['benchmarks'][name]}", *counts, *shares, str(f["unjudged"])])
    return rows


def _title_of(content: dict[str, Any], name: str) -> str:
    return "average" if name == AVERAGE else str(content["benchmarks"][name])


def _paired_rows(content: dict[str, Any]) -> Cells:
    over, p = "", "p"
    if "until_decided" in content:
        over, p = " over all looks", "p of the last look"
    rows = [["", f"difference in points [95 %{over}]", "all unjudged against, for", p, f"p, corrected{over}"]]
    for model, by_name in content["against_start_model"].items():
        for name, paired in by_name.items():
            rows.append(
                [
                    f"{model}: {_title_of(content, name)}",
                    interval_text(paired["difference"], "+z.1f"),
                    "-" if paired["bounds"] is None else _range(paired["bounds"], "+z.1f"),
                    f"{paired['p']:.3g}",
                    "-" if name == AVERAGE else f"{paired['corrected']:.3g}",
                ]
            )
    return rows


def _power_rows(content: dict[str, Any]) -> Cells:
    head = ["", "smallest difference in points", f"with {MORE} x the samples", "completions more", "hours", "dollars"]
    rows = [head]
    for model, by_name in content["power"].items():
        for name, power in by_name.items():
            rows.append(
                [
                    f"{model}: {_title_of(content, name)}",
                    *(_percent(power[part]) for part in ("smallest", "with_more")),
                    f"{power['completions']:,}",
                    *(f"{power[part]:,.2f}" if power[part] else "-" for part in ("hours", "dollars")),
                ]
            )
    return rows


def _notes(content: dict[str, Any]) -> list[str]:
    settings, seeds = content["settings"], content["seeds"]
    scientific = "Minerva: 58 golds such as 4.5e33 are met by 4.5 x 10^33 here, and were not where others measured."
    differ = ", ".join(content["differences"])
    corrected = "corrected by Holm over the benchmarks"
    if "until_decided" in content:
        corrected = "corrected: times 5 % over the level of its look"
    smallest = (
        "Smallest difference: found by this test in 80 % of all cases, with the variances measured here. Hours and dollars "
        "are at the mean of all completions so far."
    )
    return [
        f"Protocol {settings['protocol']}: prompt {settings['prompt']}, temperature {settings['temperature']:g}, top-p "
        f"{settings['top_p']:g}, at most {settings['max_tokens']:,} tokens, answers by the rules {settings['rules']!r}; seed "
        f"{seeds['sampling']} for sampling, {seeds['resampling']} for the test.",
        "Intervals of avg@k, pass@k and maj@k are over problems (over exercises, where several problems are parts of one): "
        "Wilson's, with as many trials as the samples are worth; k is the number of samples of each problem.",
        f"p: sign-flip permutation test over problems, two-sided; {corrected}. The interval holds the differences that the test "
        "does not refuse. The average weighs each benchmark the same; signs are flipped within each.",
        *([smallest] * bool(content["power"])),
        *decision_notes(content),
        "A completion whose check timed out or failed is not judged: means are of the others, intervals hold whatever became of "
        f"it, and an accuracy with more than {100 * settings['max_unjudged_share']:g} % of them is refused "
        "(rewards.max_unjudged_share). The mean of pass@k leaves out problems with too few "
        "judged samples, that of maj@k those with none.",
        *(["The spread over runs is one of training seeds and of samples together."] * bool(content["runs"])),
        *([f"The runs differ in {differ}: their spread is not one of seeds alone."] * bool(differ)),
        *([scientific] * ("minerva" in content["benchmarks"] and settings["rules"] == "boxed")),
        *(f"{name}: {source}" for name, source in content["sources"].items()),
    ]


def interval_text(interval: dict[str, float] | None, form: str = ".1f") -> str:
    """Example: "53.1 [48.0, 58.2]", in percent."""
    if interval is None:
        return "-"
    mean, low, high = (format(100 * interval[part], form) for part in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _range(bounds: Sequence[float], form: str = ".1f") -> str:
    """Example: "41.0 to 43.1", in percent."""
    return " to ".join(format(100 * bound, form) for bound in bounds)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _markdown_table(cells: Cells) -> list[str]:
    head, *rows = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells]
    return [head, f"|{'|'.join(['---'] + ['---:'] * (len(cells[0]) - 1))}|", *rows]


def _html_row(cells: Sequence[str], kind: str) -> str:
    return f"<tr>{''.join(f'<{kind}>{html.escape(cell)}</{kind}>' for cell in cells)}</tr>"
