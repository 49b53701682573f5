import numpy as np
import pytest
import torch

from haste.errors import KernelError
from haste.kernels.checks import (
    check_count,
    check_index,
    check_labels,
    check_number,
    check_one_of,
    check_sgd,
    check_share,
    check_tensor,
)
from haste.kernels.state import Sgd


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(3, 5), r"weight: shape \[3, 5\] does not fit; expected \[any, 4\]"),
        (torch.zeros(4), r"weight: shape \[4\] does not fit"),
        (torch.zeros(3, 4, dtype=torch.int32), "weight: dtype int32 is not allowed; use float32"),
        (torch.zeros(4, 3).t(), r"weight: is not contiguous; call \.contiguous\(\) first"),
        ([1.0], "weight: expected a tensor, got list"),
    ],
)
def test_tensor_faults_are_named(value, text):
    with pytest.raises(KernelError, match=text):
        check_tensor("weight", value, (None, 4), (torch.float32,))


def test_device_is_named():
    with pytest.raises(KernelError, match="weight: is on meta, but the features are on cpu"):
        check_tensor(
            "weight",
            torch.zeros(3, 4, device="meta"),
            (3, 4),
            (torch.float32,),
            torch.device("cpu"),
        )


def test_index_range_is_named():
    with pytest.raises(KernelError, match="index: values from -1 to 9 leave the range 0 to 8"):
        check_index("index", torch.tensor([[-1, 9]]), 9)
    check_index("index", torch.tensor([[0, 8]]), 9)


def test_choices_are_named():
    with pytest.raises(KernelError, match="group_size: 17 is not allowed; use one of 16, 32"):
        check_one_of("group_size", 17, (16, 32))


def test_integers_of_numpy_are_sizes_and_become_python_s():
    sizes = check_count("labels", np.int64(2)), check_one_of("group_size", np.uint8(16), (16, 32))
    assert sizes == (2, 16)
    assert all(type(size) is int for size in sizes)
    check_labels(slice(np.int64(0), np.int32(3)), 3)


@pytest.mark.parametrize("value", [0, np.int64(0), True, np.bool_(True), 2.0, np.float64(2), "2"])
def test_what_is_no_count_is_refused_with_its_type(value):
    with pytest.raises(KernelError) as refused:
        check_count("labels", value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("check", [lambda *a: check_number(*a, 0, 1), check_share])
def test_numbers_that_are_not_python_s_are_refused_with_their_type(check):
    check("p", np.float64(0.5))
    with pytest.raises(KernelError, match=r"p: np.float32\(0.5\) is not allowed"):
        check("p", np.float32(0.5))


def test_adamw_divides_by_what_a_momentum_of_1_leaves_of_1():
    check_sgd(Sgd(momentum=1.0))
    with pytest.raises(KernelError, match=r"momentum: 1\.0 is not allowed"):
        check_sgd(Sgd(momentum=1.0, adamw=True))
