"""`python -m launch.curate RECIPE [--dotted.field VALUE ...] [--dry-run] [--json]`: from raw problems to a training set.

Killed, the same command goes on where it was: finished stages, and finished chunks of a model's stage, are not done again.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rich.console import Console

from launch.cli.command import command
from launch.cli.failures import belongs_to
from launch.cli.options import Parser, help_asked
from openrs_ray.common.console import Document, json_output, say, show_markdown
from openrs_ray.curation import report
from openrs_ray.curation.inputs import Inputs, load_inputs
from openrs_ray.curation.pipeline import Curation, Question, Tell
from openrs_ray.curation.recipe import Judged, Recipe, Solved, load_recipe, recipe_help
from openrs_ray.curation.store import CurationStore
from openrs_ray.run.lock import run_lock


@command
def main(arguments: list[str]) -> None:
    console = Console(highlight=False)
    if (section := help_asked(arguments)) is not None:
        say(console, recipe_help(section))
        return
    parser = Parser("curate", None)
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_json()
    options, fields = parser.parse_with_fields(arguments)
    recipe = load_recipe(options.recipe, fields, parser.flags)
    belongs_to(recipe.place)
    inputs = load_inputs(recipe)
    with json_output(options.json) as document:
        if options.dry_run:
            say(console, "\n".join(plan(recipe, inputs)))
            document(plan_as_json(recipe, inputs))
            return
        with run_lock(recipe.place):
            _curate(recipe, inputs, console, document)


def plan(recipe: Recipe, inputs: Inputs) -> list[str]:
    store = CurationStore(recipe.place)
    sources = [candidate.source for candidate in inputs.candidates]
    lines = [f"{recipe.place}: {len(sources):,} rows, {sum(fate.kept for fate in inputs.fates):,} with text and answer"]
    lines += [f"  {name}: {sources.count(name):,} rows" for name in recipe.sources]
    for number, (name, stage) in enumerate(recipe.stages.items(), start=1):
        given = stage.model_dump(exclude_defaults=True, exclude={"kind", "paper", "prompt"})
        done = ""
        if store.has(number, name):
            done = " (done)"
        elif told := store.told(number, name):
            done = f" ({len(told):,} asked)"
        lines.append(f"{number:02d} {name}: {stage.kind}{done} {given or ''}".rstrip())
    return lines


def plan_as_json(recipe: Recipe, inputs: Inputs) -> dict[str, Any]:
    store = CurationStore(recipe.place)
    return {
        "name": recipe.name,
        "folder": recipe.place,
        "rows": len(inputs.candidates),
        "rows_with_text_and_answer": sum(fate.kept for fate in inputs.fates),
        "rows_by_source": {
            name: sum(candidate.source == name for candidate in inputs.candidates) for name in recipe.sources
        },
        "stages": [
            {
                "name": name,
                "kind": stage.kind,
                "done": store.has(number, name),
                "problems_asked": len(store.told(number, name)),
                "settings": stage.model_dump(mode="json", exclude_defaults=True, exclude={"kind"}),
            }
            for number, (name, stage) in enumerate(recipe.stages.items(), start=1)
        ],
    }


def _curate(recipe: Recipe, inputs: Inputs, console: Console, document: Document) -> None:
    store = CurationStore(recipe.place)
    tell = partial(say, console)
    counts = Curation(recipe, inputs, store, partial(_ask, recipe, tell), tell).run()
    content = report.write(recipe.place, recipe.name, counts)
    document(content | {"result": store.result})
    show_markdown(console, report.markdown(recipe.name, counts))
    say(
        console,
        f"{store.result}: {counts[-1].kept:,} problems, ready for --data.path; report.md and report.json beside it",
    )


def _ask(
    recipe: Recipe, say: Callable[[str], None], stage: Solved | Judged, questions: Sequence[Question], tell: Tell
) -> None:
    # Heavy imports come late: a mistake in the recipe is said at once, and other stages need no cluster.
    from actors.cluster.placement import check_build, connection, joins_cluster
    from actors.curator import ask

    if not joins_cluster():
        check_build(recipe.placement)
    with connection():
        asyncio.run(ask(recipe, stage, questions, tell, say))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
