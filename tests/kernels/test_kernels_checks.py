import pytest
import torch

from haste.errors import KernelError
from haste.kernels.checks import check_index, check_one_of, check_tensor


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
