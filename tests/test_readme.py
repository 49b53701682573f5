"""What the README shows runs."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from haste.cli import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("haste ")
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_run(code):
    exec(code, {})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_options_exist(command):
    words = shlex.split(command)[1:]
    name = words[:1] if words[0] != "bench" else words[:2]
    shown = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for option in (word for word in words if word.startswith("--")):
        assert option in shown.output


def links(page: Path) -> list[Path]:
    """Files of the project that a page points to."""
    found = re.findall(r"\]\(((?!https?:)[^)#]+)\)", page.read_text(encoding="utf-8"))
    return [page.parent / path for path in found]


@pytest.mark.parametrize(
    "path",
    [path for page in ("README.md", "results/FINDINGS.md") for path in links(ROOT / page)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_pages_point_to_is_there(path):
    assert path.is_file()
