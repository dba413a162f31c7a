"""`python -m launch.shapes [HUB_ID ...]`: writes the shapes that a dry run plans with where there is no network."""

import sys

from rich.console import Console

from launch.cli.command import command
from launch.cli.options import Parser
from openrs_ray.cluster.shapes import FILE, shape_values, shipped
from openrs_ray.common.console import say
from openrs_ray.common.files import write_json
from openrs_ray.common.foreign import reading
from openrs_ray.models.pretrained import read_config


@command
def main(arguments: list[str]) -> None:
    parser = Parser("shapes", __doc__)
    parser.add_argument("models", metavar="HUB_ID", nargs="*", help="default: those it has")
    shapes = shipped()
    for name in parser.parse_args(arguments).models or list(shapes):
        config = read_config(name)
        with reading(f"the configuration of {name} cannot be used"):
            shapes[name] = shape_values(config)
    write_json(FILE, dict(sorted(shapes.items())))
    say(Console(highlight=False), f"{len(shapes)} models in {FILE}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
