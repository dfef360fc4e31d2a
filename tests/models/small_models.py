"""Small models of synthetic data, and a record of their training."""

from lightning import seed_everything
from lightning.pytorch import Callback

from spinlock.models import FeatureVQVAE, IndependenceConfig, LossConfig
from tests.callbacks import VARIANTS, SyntheticData, SyntheticDataModule, quiet_trainer

SMALL = {
    "hidden_dims": (32,),
    "latent_dim": 4,
    "codebook_size": 16,
    "num_features": 46,
    "num_dynamics": 0,
    "num_initial_features": 46,
    "num_variants": len(VARIANTS),
}
# Weights for data with one probe of each operator.
ONE_PROBE = LossConfig(other_probe=0.0, alignment=0.0)
# The settings for features of output fields, which depend on the initial condition.
BOTH = ("initial_features", "variant")
CONDITIONED = {
    "encoder_conditions": BOTH,
    "decoder_conditions": BOTH,
    "normalization": "variant",
    "independence": IndependenceConfig(),
}


def small_model(kind=FeatureVQVAE, **settings):
    seed_everything(0)
    return kind(**(SMALL | {"loss": ONE_PROBE} | settings))


def model_and_batch(**settings):
    return small_model(**settings), SyntheticData(32)[:]


def trained(tmp_path, *callbacks, epochs=2, size=96, **settings):
    model, data = small_model(**settings), SyntheticDataModule(size)
    trainer = quiet_trainer(tmp_path, *callbacks, max_epochs=epochs)
    trainer.fit(model, data)
    return trainer, model, data


class Steps(Callback):
    """Records losses, learning rates and logged values, and whether the codebook exists."""

    def __init__(self):
        self.losses, self.codebook, self.rates, self.epochs = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())
        self.codebook.append(pl_module.quantizer.is_initialized)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.epochs.append({k: v.item() for k, v in trainer.callback_metrics.items()})
