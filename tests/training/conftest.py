"""What tests of training share."""

import pytest
import torch
from transformers import BertConfig, BertModel

from haste.training.loop import Trainer
from haste.training.run import train_and_evaluate


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A transformer with dropout, as pretrained ones have it."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=64, hidden_size=32, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture
def stop(monkeypatch):
    """stop(config, run, step): train until the checkpoint after that step, and no further."""

    def stopped(config, run, step):
        saved = Trainer.save

        def save_and_stop(self):
            saved(self)
            if self.progress.step == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "save", save_and_stop)
            with pytest.raises(KeyboardInterrupt):
                train_and_evaluate(config, run)

    return stopped
