"""Makes of the repository's files what MkDocs needs, so that a link works on GitHub and on the site.

Pages beside the README become pages of the site, other linked files are copied into it, and notebooks become pages.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")
_COPIES = "files"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root, docs = Path(str(config.config_file_path)).parent, Path(config.docs_dir)
    for page in sorted(root.glob("*.md")):
        if page.name != "README.md":
            files.append(File.generated(config, page.name, content=page.read_text(encoding="utf-8")))
    for notebook in sorted(docs.glob("*.ipynb")):
        text, images = _as_markdown(json.loads(notebook.read_text(encoding="utf-8")), notebook.stem)
        files.append(File.generated(config, f"{notebook.stem}.md", content=text))
        files.append(File.generated(config, f"{_COPIES}/{notebook.name}", abs_src_path=str(notebook)))
        for name, content in images.items():
            files.append(File.generated(config, name, content=content))
    for page in sorted(docs.glob("*.md")):
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            path = (docs / target).resolve()
            if target.startswith("../") and path.suffix != ".md" and path.is_file():
                copy = f"{_COPIES}/{path.relative_to(root)}"
                if files.get_file_from_path(copy) is None:
                    files.append(File.generated(config, copy, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    beside_readme = (Path(str(config.config_file_path)).parent / page.file.src_uri).is_file()
    return _LINK.sub(lambda found: _on_site(found[1], beside_readme), markdown)


def _on_site(target: str, beside_readme: bool) -> str:
    """Where a link of a page in docs/, or of one beside the README, leads to on the site."""
    if "://" in target:
        return target
    path = target.removeprefix("docs/") if beside_readme else target
    if not beside_readme and target.startswith("../"):
        path = target.removeprefix("../")
        path = path if path.endswith(".md") else f"{_COPIES}/{path}"
    if path.endswith(".ipynb") and not path.startswith(_COPIES):
        return f"{path.removesuffix('.ipynb')}.md"
    return "index.md" if path == "README.md" else path


def _as_markdown(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its images by path."""
    parts, images = [], dict[str, bytes]()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                path = f"{_COPIES}/{name}-{len(images)}.png"
                images[path] = base64.b64decode(data["image/png"])
                parts.append(f"![{cell['metadata'].get('alt', 'A figure')}]({path})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    download = f"This page is a notebook: [{name}.ipynb]({_COPIES}/{name}.ipynb)."
    return "\n\n".join([*parts, download]), images
