import pytest
import torch
from safetensors.torch import load_file, save_file

from haste.errors import DataError
from haste.tensor_file import load_tensors, save_tensors

TENSORS = {
    "a": torch.arange(5, dtype=torch.uint8),
    "b": torch.randn(3, 4).to(torch.bfloat16),
    "c": torch.randn(2, 3, 1).mT,
    "d": torch.tensor(7),
    "e": torch.randn(16).to(torch.float8_e4m3fn),
    "f": torch.zeros(0, 4, dtype=torch.int32),
    "g": torch.tensor([True, False]),
}


def same(one, other):
    return set(one) == set(other) and all(
        one[name].dtype == other[name].dtype
        and torch.equal(one[name].float(), other[name].float())
        and one[name].shape == other[name].shape
        for name in one
    )


def test_round_trip_here_and_by_the_library(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, {"step": '{"a": 1}'})
    tensors, metadata = load_tensors(path)
    assert same(tensors, TENSORS)
    assert metadata == {"step": '{"a": 1}'}
    assert same(load_file(path), TENSORS)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_files_without_a_digest_are_read_where_none_is_needed(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3)}, path)
    assert same(load_tensors(path)[0], {"a": torch.ones(3)})
    with pytest.raises(DataError, match="digest"):
        load_tensors(path, need_digest=True)


def test_any_flipped_bit_is_found(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, {"step": "3"})
    written = path.read_bytes()
    for at in range(len(written)):
        path.write_bytes(written[:at] + bytes([written[at] ^ 1 << at % 8]) + written[at + 1 :])
        with pytest.raises(DataError, match=path.name):
            load_tensors(path, need_digest=True)


def test_a_file_that_is_mapped_is_held_to_its_sizes_alone(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS)
    assert same(load_tensors(path, verify=False)[0], TENSORS)
    written = path.read_bytes()
    path.write_bytes(written[:-1] + bytes([written[-1] ^ 1]))
    assert not same(load_tensors(path, verify=False)[0], TENSORS)
    with pytest.raises(DataError, match=path.name):
        load_tensors(path)
    for wrong in (written[:-1], written + b"0", written[:9]):
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=path.name):
            load_tensors(path, verify=False)


def test_tensors_are_read_by_their_former_names(tmp_path):
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"layer.tail.slots": torch.ones(2), "layer.weight": torch.ones(3)})
    assert set(load_tensors(path)[0]) == {"layer.tail.indices", "layer.weight"}
