"""What the site has besides the pages of this folder: the results that lie in the repository, and links into it.

A page says `../results/wordnet-tuned/tables/main.md` or `../config.yaml`, as GitHub reads it. On the site the
first is a page of its own and the second an address of the repository. A link to nothing ends the build.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SHOWN = (
    "FINDINGS.md",
    "*/index.html",
    "*/tables/*",
    "*/figures/*",
    "benchmarks/*.md",
    "benchmarks/*/*",
)
"""of results/"""
COPIED = {"workflow/schemas/configuration.md": "configuration.md"}
"""files of the repository that `make docs` makes pages of this folder"""
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
ADDRESS = re.compile(r'(?:href|src)="([^"#?]+)')
ELSEWHERE = re.compile(r"[a-z]+:|//")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the results that are shown."""
    for pattern in SHOWN:
        for path in sorted((ROOT / "results").glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links into the repository as pages of the site or addresses of the repository."""
    source = Path(str(page.file.abs_src_path)).resolve()
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]

    def replaced(found: re.Match[str]) -> str:
        opening, target, anchor = found[1], found[2], found[3] or ""
        if ELSEWHERE.match(target):
            return found[0]
        path = Path(os.path.normpath(source.parent / target))
        if not path.exists():
            raise PluginError(f"{source.relative_to(ROOT)}: {target} is no file of the repository.")
        docs = Path(config.docs_dir)
        name = path.relative_to(docs if path.is_relative_to(docs) else ROOT).as_posix()
        name = COPIED.get(name, name)
        if name in files.src_uris:
            target = os.path.relpath(name, Path(page.file.src_uri).parent)
        else:
            target = f"{urls['Source']}/blob/main/{path.relative_to(ROOT).as_posix()}"
        return f"{opening}{target}{anchor}"

    return LINK.sub(replaced, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Look for what the pages of the site point to."""
    site = Path(config.site_dir)
    dead = []
    for page in sorted(site.rglob("*.html")):
        # whose addresses are those of wherever it is shown
        if page.name == "404.html":
            continue
        for target in set(ADDRESS.findall(page.read_text(encoding="utf-8"))):
            if not ELSEWHERE.match(target) and not (page.parent / unquote(target)).exists():
                dead.append(f"{page.relative_to(site)}: {target}")
    if dead:
        raise PluginError("\n".join(["pages of the site point to what is not there:", *dead]))
