"""`uv pip install ARGS` into the running interpreter's environment, with the settings that pip was given.

uv does not read pip's files and variables, so a machine whose pip is told of a mirror, a wheel folder or a certificate
would see its uv fail. Runs before anything else is installed: standard library and uv only.
"""

import ast
import os
import subprocess
import sys

# pip's setting -> uv's option. Each may hold several values, separated by white space.
OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--extra-index-url",
    "find-links": "--find-links",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
}
# pip's setting -> the variable that uv reads.
VARIABLES = {
    "cert": "SSL_CERT_FILE",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
    "proxy": "ALL_PROXY",
}


def pip_settings(listing: str) -> dict[str, str]:
    """Settings by name from the output of `pip config list`; a variable beats [install], which beats [global]."""
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in listing.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                settings[key.removeprefix(f"{section}.")] = ast.literal_eval(value)
    return settings


def uv_options(settings: dict[str, str]) -> list[str]:
    """pip's settings as options of uv, and pip's way: the best version of all indexes wins, not the first index."""
    options = ["--index-strategy", "unsafe-best-match"]
    for name, option in OPTIONS.items():
        for value in settings.get(name, "").split():
            options += [option, value]
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    return options


def main() -> None:
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = pip_settings(listing)
    for name, variable in VARIABLES.items():
        if name in settings:
            os.environ.setdefault(variable, settings[name])
    command = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
    os.execv(sys.executable, [*command, *uv_options(settings), *sys.argv[1:]])


if __name__ == "__main__":
    main()
