"""Generates a small dataset, trains a VQ-VAE on it, and shows what its tokens mean.

The notebook quickstart.ipynb does the same, with pictures and explanations.
"""

from pathlib import Path

from lightning import Trainer, seed_everything

from spinlock import GenerationConfig, SpinlockDataModule
from spinlock.callbacks import CodebookUsage, ICMutualInformation, OperatorConsistency, TokenWriter
from spinlock.codebook import write_codebook
from spinlock.commands.closing_table import closing_table
from spinlock.models import FeatureVQVAE

seed_everything(42)
# 150 random operators, each applied to four initial conditions, one of each family.
space = {"grid_size": [32], "base_channels": {"low": 8, "high": 16}}
settings = {"num_samples": 600, "probes_per_operator": 4, "parameter_space": space}
config = GenerationConfig.from_dict(settings)

# What the operators do to fields, and not what the fields look like.
view = {"name": "pairs", "columns": ["responses", "noise"], "selection": "invariant"}
data = SpinlockDataModule(
    "data/small.h5", config, view=view, batch_size=32, val_fraction=0.2, test_fraction=0
)

model = FeatureVQVAE(codebook_size=32)
scores = [ICMutualInformation(), OperatorConsistency(), CodebookUsage()]
trainer = Trainer(max_epochs=30, callbacks=scores, log_every_n_steps=5)
trainer.fit(model, datamodule=data)
print(closing_table(trainer))

# The tokens of all samples, and a page with a row for each token.
tokens, page = Path("data/small-tokens.h5"), Path("data/small-codebook.html")
tokens.unlink(missing_ok=True)
Trainer(callbacks=[TokenWriter(tokens)], logger=False).predict(model, datamodule=data)
write_codebook(tokens, data.path, page, force=True)
print(f"open {page} in a browser")
