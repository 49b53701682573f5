"""What the README and the documentation show runs."""

import re
import shlex
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser
from typer.testing import CliRunner

from haste.cli import app
from haste.config import GROUPINGS, SECTIONS, build_section
from haste.data.registry import load_registry
from haste.strict_yaml import parse_yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "results/FINDINGS.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = {"cli.md", "configuration.md"}
"""pages of the site that `make docs` writes"""
TEXTS = [page.read_text(encoding="utf-8") for page in PAGES if page.name not in GENERATED]


def blocks(language: str) -> list[str]:
    """The code of all pages in a language, each once."""
    found = [
        code for text in TEXTS for code in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    ]
    return list(dict.fromkeys(found))


EXAMPLES = blocks("python")
COMMANDS = [
    line.split("#")[0].strip()
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith("haste ")
]
SNAKEMAKE = sorted(
    {
        match.strip()
        for text in TEXTS
        for match in re.findall(r"(?:^|`)(snakemake [^`\n#|(]*)", text, re.MULTILINE)
        if "..." not in match and not match.endswith("--configfile")
    }
)
KEYS = sorted(
    {key for text in TEXTS for key in re.findall(rf"`((?:{'|'.join(SECTIONS)})\.\w+)", text)}
)


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_the_configuration_exist(key):
    section, name = key.split(".")
    assert name in SECTIONS[section].__dataclass_fields__


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_groupings_are_explained(grouping):
    assert f"\n| `{grouping}` | " in (ROOT / "docs/method.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(code, {})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_options_exist(command):
    words = shlex.split(command)[1:]
    name = words[:1] if words[0] != "bench" else words[:2]
    shown = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for option in (word for word in words if word.startswith("--")):
        assert option in shown.output


@pytest.mark.parametrize("command", SNAKEMAKE)
def test_snakemake_takes_what_it_is_given_as_what_it_is(command):
    # the parser ends the process at an option that it does not take
    arguments = get_argument_parser().parse_args(shlex.split(command)[1:])
    # each word behind --configfile is read as the name of a file, targets too
    for path in arguments.configfile or []:
        assert Path(path).suffix == ".yaml"


def test_entries_of_the_registry_and_of_presets_are_read(tmp_path):
    text = (ROOT / "docs/adding.md").read_text(encoding="utf-8")
    source, preset = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "datasets.yaml"
    path.write_text(source, encoding="utf-8")
    assert load_registry(path).dataset("recipes").source == "recipes"
    (sections,) = parse_yaml(preset, "methods.yaml").values()
    for section, values in sections.items():
        assert section == "title" or build_section(section, values)


def links(page: Path) -> list[Path]:
    """Files of the project that a page points to."""
    found = re.findall(r"\]\(((?!https?:)[^)#]+)\)", page.read_text(encoding="utf-8"))
    return [page.parent / path for path in found]


@pytest.mark.parametrize(
    "path",
    [path for page in PAGES if page.name not in GENERATED for path in links(page)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_pages_point_to_is_there(path):
    assert path.is_file()
