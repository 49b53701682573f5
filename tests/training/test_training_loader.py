"""Batches that another thread makes ahead of their steps."""

import threading
import time

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from haste.data.ragged import Ragged
from haste.training.loader import ahead, batches


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_items_come_in_their_order_and_the_thread_ends():
    assert list(ahead(iter(range(50)), depth=3)) == list(range(50))
    assert not workers()


def test_no_more_than_depth_items_are_made_ahead():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    stream = ahead(items(), depth=2)
    assert next(stream) == 0
    deadline = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 3  # the one taken, and two that wait
    stream.close()
    assert not workers()


def test_an_error_comes_where_the_item_would_have():
    def items():
        yield 1
        raise ValueError("no such document")

    stream = ahead(items())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="no such document"):
        next(stream)
    assert not workers()


def test_batches_for_a_gpu_are_those_for_a_cpu_and_leaving_ends_them(monkeypatch):
    tokens = Ragged.of([np.arange(i + 1, dtype=np.int32) for i in range(6)])
    labels = sp.eye(6, format="csr", dtype=np.float32)
    rows = [np.array([4, 1]), np.array([0, 5]), np.array([2])]
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    with (
        batches(tokens, labels, rows, None, torch.device("cpu")) as plain,
        batches(tokens, labels, rows, None, torch.device("cuda")) as made_ahead,
    ):
        for a, b in zip(plain, made_ahead, strict=True):
            assert torch.equal(a.ids, b.ids)
            assert torch.equal(a.positives.label_row, b.positives.label_row)
            assert a.longest == b.longest
    many = rows * 10  # more than are made ahead
    with batches(tokens, labels, many, None, torch.device("cuda")) as stream:
        assert next(stream).longest == 5
        assert workers()
    assert not workers()
