"""What tests of training share."""

import pytest
import torch
from transformers import BertConfig, BertModel


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A transformer with dropout, as pretrained ones have it."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=64, hidden_size=32, **shape)).save_pretrained(folder)
    return folder
