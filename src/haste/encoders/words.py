"""A word-level tokenizer and embeddings made from the texts at hand, where there is no pretrained model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from haste.encoders.registry import FEATURE_EMBEDDING_SCALE
from haste.errors import DataError
from haste.files import write_json
from haste.kernels.rounding import generator
from haste.tensor_file import save_tensors

MOST_WORDS = 200_000
SPECIAL = ["[PAD]", "[UNK]"]
BLOCK = 4096


def write_word_model(texts: Sequence[str], folder: Path, size: int, seed: int = 0) -> None:
    """Write a model folder (config.json, tokenizer.json, model.safetensors) for the bag encoder.

    Words that occur twice get random embeddings [size] times their inverse document frequency, so an
    untrained bag is a random projection of TF-IDF. Raises DataError where there are no words.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIAL[1]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=MOST_WORDS, min_frequency=2, special_tokens=SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    words = tokenizer.get_vocab_size()
    if words == len(SPECIAL):
        raise DataError("the training texts have no word that occurs twice; give more of them.")
    counts: Counter[int] = Counter()
    for begin in range(0, len(texts), BLOCK):
        for encoded in tokenizer.encode_batch_fast(list(texts[begin : begin + BLOCK])):
            counts.update(set(encoded.ids))
    frequency = [math.log((1 + len(texts)) / (1 + counts[word])) + 1 for word in range(words)]
    random = generator(torch.device("cpu"), seed, 5)
    embeddings = FEATURE_EMBEDDING_SCALE * torch.randn(words, size, generator=random)
    embeddings *= torch.tensor(frequency)[:, None] / math.log(len(texts) + 1)
    tokenizer.enable_padding(pad_id=0, pad_token=SPECIAL[0])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_tensors(folder / "model.safetensors", {"embeddings.word_embeddings.weight": embeddings})
    write_json(folder / "config.json", {"hidden_size": size, "model_type": "words"})
