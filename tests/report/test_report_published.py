from pathlib import Path

import pandas as pd
import pytest

from haste.errors import DataError
from haste.presets import methods
from haste.report.published import HASTE, PEAK_MEMORY, SECONDS_PER_EPOCH, load_published

FILE = Path(__file__).parents[2] / "src/haste/report/published.csv"
ELMO = "ELMO (arXiv 2510.11168, ICML 2025)"
HEADER = "paper,place,dataset,method,metric,value,unit,confidence,source\n"


@pytest.fixture(scope="module")
def published():
    return load_published(FILE)


def test_every_method_with_a_paper_is_in_the_file(published):
    named = {row.published_as for row in methods().values() if row.published_as}
    assert len(named) >= 8
    assert named <= published.methods()


def test_numbers_in_base_units(published):
    assert published.find(HASTE, "Amazon-670K", "HASTE", "P@1").value == 48.1
    assert published.find(HASTE, "Amazon-670K", "HASTE", PEAK_MEMORY).value == 2.1 * 2**30
    assert published.find(ELMO, "Amazon-670K", "LightXML", PEAK_MEMORY).value == 12.39 * 2**30
    assert published.find(HASTE, "Amazon-3M", "HASTE", SECONDS_PER_EPOCH).value == 21 * 60 + 39


def test_names_of_data_sets_ignore_case(published):
    assert published.find(HASTE, "amazontitles-670k", "Dense", "P@1").value == 43.7
    assert published.find(HASTE, "wordnet-mini", "Dense", "P@1") is None


def test_words_are_kept_as_text(published):
    number = published.find(ELMO, "Amazon-3M", "LightXML", PEAK_MEMORY)
    assert (number.value, number.text) == (None, "OOM")


def test_no_number_is_there_twice():
    frame = pd.read_csv(FILE)
    assert not frame.duplicated(["paper", "dataset", "method", "metric"]).any()


@pytest.mark.parametrize(
    ("text", "fact"),
    [("paper,dataset\nx,y\n", "method"), (HEADER + "p,t,d,m,P@3,4O.1,%,c,s\n", "4O.1")],
)
def test_a_damaged_table_is_named_with_what_is_wrong(tmp_path, text, fact):
    path = tmp_path / "published.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=f"published.csv: .*{fact}"):
        load_published(path)
