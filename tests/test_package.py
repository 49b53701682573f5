"""What a user gets by pip, without the repository."""

import subprocess
import sys
import tomllib
from pathlib import Path

import haste
from haste import paths

ROOT = Path(__file__).parents[1]


def test_the_registry_and_the_papers_numbers_are_in_the_package():
    package = Path(haste.__file__).parent
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = described["tool"]["setuptools"]["package-data"]["haste"]
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    assert {paths.REGISTRY, paths.PUBLISHED, package / "py.typed"} <= packed
    assert described["project"]["name"] == "haste-xmc"


def test_arrays_are_classified_by_the_core_packages_alone():
    code = (
        "import sys\n"
        "for name in ('transformers', 'faiss', 'sklearn', 'threadpoolctl', 'requests',\n"
        "             'snakemake', 'seaborn'):\n"
        "    sys.modules[name] = None\n"
        "from haste import HasteClassifier\n"
        "texts = [f'w{i % 80} x{i % 3}' for i in range(320)]\n"
        "model = HasteClassifier(training={'epochs': 1}, features=128, device='cpu')\n"
        "model.fit(texts, [[i % 80] for i in range(320)])\n"
        "assert model.predict(texts[:2])[0].shape == (2, 5)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
