"""ICMutualInformation on synthetic data: random tokens, and validation."""

import torch

from spinlock.callbacks import ICMutualInformation
from tests.callbacks import (
    quiet_trainer,
)


def random_tokens(data, codes=256):
    """Adds to every split a column ``random`` of tokens that depend on nothing."""
    generator = torch.Generator().manual_seed(3)
    for split in (data.train, data.val, data.test):
        split.columns["random"] = torch.randint(codes, (len(split),), generator=generator)
    return data


def ic_information(**settings):
    return ICMutualInformation(plots_every_n_epochs=0, detailed=True, **settings)


def validate(tmp_path, model, data, *callbacks, **settings):
    trainer = quiet_trainer(tmp_path, *(callbacks or [ic_information()]), **settings)
    (logged,) = trainer.validate(model, data, verbose=False)
    return logged
