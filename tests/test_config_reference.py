"""What is generated from the settings' models is what is committed."""

from pathlib import Path

from haste import config_reference

SCHEMAS = Path(__file__).parents[1] / "workflow/schemas"


def test_schema_and_reference_page_are_those_of_the_models(tmp_path):
    config_reference.write(tmp_path)
    for name in (config_reference.SCHEMA, config_reference.PAGE):
        assert (SCHEMAS / name).read_text() == (tmp_path / name).read_text(), "run `make reference`"
