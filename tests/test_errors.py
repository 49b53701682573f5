import doctest

from haste import errors


def test_examples_of_docstrings():
    failed, tried = doctest.testmod(errors)
    assert (failed, tried > 0) == (0, True)
