"""How often a run opens the files that it reads."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

import forked
from haste.errors import ConfigError
from haste.files import read_json
from haste.inputs import RunInputs
from haste.training.run import train_and_evaluate

MAPPED = ("ids.npy", "offsets.npy", "vocabulary.npy")


def train_and_count(config, run, inputs, out):
    """Train, and write to `out` how often each file of the folder `inputs` was opened."""
    opened = Counter()

    def count(event, arguments):
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            path = Path(arguments[0])
            if path.is_relative_to(inputs) and not path.is_relative_to(run.root):
                opened[path.relative_to(inputs).as_posix()] += 1

    sys.addaudithook(count)
    train_and_evaluate(config, run)
    out.write_text(json.dumps(opened))


def test_a_run_reads_each_of_its_inputs_once(tiny_session, tmp_path):
    config = tiny_session.config(
        head=8,
        layer={"fan_in": 16, "bias_init": "log_prior", "head_ratio": 0.2},
        auxiliary={"scale": 0.5, "cluster_size": 16},
        training={"tune_tail_bias": True, "evaluate": "validation", "epochs": 1},
    )
    run, out = tiny_session.run_dir("counted", config), tmp_path / "opened.json"
    # in a process of its own: an audit hook stays for good
    process = forked.CONTEXT.Process(
        target=train_and_count, args=(config, run, tiny_session.root, out)
    )
    process.start()
    process.join(120)
    opened = read_json(out)
    assert {"corpus/train.labels.npz", "corpus/validation.labels.npz", "order-h8-g16.npz"} <= set(
        opened
    )
    assert "corpus/test.labels.npz" not in opened
    for name, times in opened.items():
        # once for the digest, once for the content; numpy opens an array thrice to map it. A description
        # is read for what it describes, and for what the results are to say that they were trained from.
        assert times <= (4 if name.endswith(MAPPED) else 2), name


def test_tokens_of_another_length_than_the_encoder_reads_are_refused(tiny):
    config = tiny.config(encoder={"max_len": 16})
    with pytest.raises(ConfigError, match=r"encoder\.max_len: 16, .* cut to 12"):
        RunInputs.load(config)
