"""How well the prototypes of a model's tokens predict the features of test samples."""

import torch
from lightning import LightningModule, Trainer

from spinlock.datamodules import SpinlockDataModule
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.prototypes import OperatorLatents, prototype_scores
from spinlock.storage import read_columns, schema


def prototype_r2(
    trainer: Trainer, model: LightningModule, data: SpinlockDataModule, samples: int
) -> dict[str, float]:
    """Return the R2 of the 46 features of each family, predicted by 8 prototypes of the token.

    Prototypes are training operators. The scaling of the features is fitted on training samples.

    Args:
        trainer: Trainer of the model.
        model: Trained model.
        data: Data module that the model was trained on.
        samples: Number of test samples of each family.
    """
    predicted = trainer.predict(model, datamodule=data, return_predictions=True)
    assert isinstance(predicted, list)
    index, operator, tokens, latent = (
        torch.cat([batch[key] for batch in predicted])
        for key in ("index", "operator", "tokens", "latent")
    )
    training = torch.isin(index, data.training_samples)
    assert data.prepared is not None
    subsets = data.prepared.subsets
    rows = torch.cat([part.flatten() for name, part in subsets.items() if name.startswith("test")])
    test = torch.isin(index, rows)
    operators = OperatorLatents.of(operator[training], latent[training])
    prototypes = operators.nearest(model.codes(tokens[test])).operators
    features = read_columns(data.path, (schema.PER_TIMESTEP,), data.generation.num_samples)
    values = torch.from_numpy(features[schema.PER_TIMESTEP][:, data.view.timestep - 1])
    scaler = FeatureScaler.fit(values[index[training]], "standard")
    scores = prototype_scores(
        data.path,
        index[test],
        prototypes,
        scaler.transform,
        samples_per_family=samples,
        timestep=data.view.timestep,
    )
    return {f"prototypes/r2/{family}": score for family, score in scores.r2.items()}
