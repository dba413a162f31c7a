"""`python -m launch.fields FILE`: writes the page docs/fields.md, made from the configs in the code."""

import sys
from pathlib import Path

from launch.cli.command import command
from launch.cli.fields_page import fields_page
from launch.cli.options import Parser


@command
def main(arguments: list[str]) -> None:
    parser = Parser("fields", __doc__)
    parser.add_argument("file", metavar="FILE", type=Path, help="docs/fields.md")
    parser.parse_args(arguments).file.write_text(fields_page(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
