"""DatasetReport on an intact file and on a damaged one."""

import dataclasses
import json

import h5py
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spinlock.callbacks import ContractError, DatasetReport, dataset_report
from spinlock.checks import check_dataset
from spinlock.commands.command_line import main
from spinlock.datamodules import SpinlockDataModule
from spinlock.errors import DatasetError
from tests.callbacks import SyntheticDataModule, TokenModel, quiet_trainer
from tests.helpers import small_config


@pytest.fixture(scope="module")
def config():
    return small_config(32, probes_per_operator=2)


@pytest.fixture(scope="module")
def built(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("built") / "data.h5"
    SpinlockDataModule(path, config, progress=False).prepare_data()
    return path


@pytest.fixture
def datamodule(built, config):
    return SpinlockDataModule(built, config, batch_size=8, val_fraction=0.4, progress=False)


@pytest.fixture
def spoilt(tmp_path, built, config):
    path = tmp_path / "spoilt.h5"
    path.write_bytes(built.read_bytes())
    with h5py.File(path, "r+") as file:
        # Fields, which `setup` does not read for this view; it would refuse the file itself.
        file["outputs/fields"][3, 0, 0, 4, 7] = float("nan")
    return SpinlockDataModule(path, config, batch_size=8, val_fraction=0.4, progress=False)


def run(tmp_path, data, callback, **settings):
    trainer = quiet_trainer(tmp_path, callback, **settings)
    trainer.validate(TokenModel(), data, verbose=False)
    return trainer


def report_only(path, **settings):
    """What is not measurable or fails in so small a file is not refused."""
    return DatasetReport(refuse=False, replay=1, **settings)


def test_table_and_values_go_to_the_logger(tmp_path, datamodule, built):
    logger = TensorBoardLogger(tmp_path, name="run")
    run(tmp_path, datamodule, report_only(built), logger=logger)
    expected = check_dataset(built, replay=1, progress=False)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    values = {f"dataset/{r.group}/{dataset_report._key(r.name)}": r.value for r in expected.rows}
    values = {key: value for key, value in values.items() if value is not None}
    assert len(values) > 10
    for key, value in values.items():
        assert events.Scalars(key)[0].value == pytest.approx(value, rel=1e-5), key
    assert events.Scalars("dataset/passed")[0].value == expected.passed
    (text,) = events.Tensors("dataset/report/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    for row in expected.rows:
        assert row.claim in shown
    report = (tmp_path / "run" / "version_0" / "dataset_report.txt").read_text()
    assert report == expected.table() + "\n"


def test_without_a_logger_the_table_is_a_file(tmp_path, datamodule, built):
    run(tmp_path, datamodule, report_only(built))
    assert "integrity" in (tmp_path / "dataset_report.txt").read_text()


def test_a_spoilt_file_is_refused_before_training(tmp_path, spoilt):
    trainer = quiet_trainer(tmp_path, DatasetReport(replay=0))
    with pytest.raises(DatasetError) as error:
        trainer.fit(TokenModel(), spoilt)
    failures = check_dataset(spoilt.path, replay=0, progress=False).failures
    assert failures
    assert str(error.value).startswith(f"{spoilt.path} fails {len(failures)} check(s): ")
    for row in failures:
        assert f"{row.group}/{row.name}: {row.measured}" in str(error.value)
    assert trainer.global_step == 0
    # What failed can be read where the logs are.
    assert "FAILED" in (tmp_path / "dataset_report.txt").read_text()


def test_a_file_is_checked_once(tmp_path, datamodule, monkeypatch, built):
    calls = []

    def counting(path, **settings):
        calls.append((path, settings))
        return check_dataset(path, **settings)

    monkeypatch.setattr(dataset_report, "check_dataset", counting)
    callback = report_only(built, full=True)
    trainer = quiet_trainer(tmp_path, callback)
    trainer.fit(TokenModel(), datamodule)
    trainer.validate(TokenModel(), datamodule, verbose=False)
    settings = {"full": True, "replay": 1, "trust": (), "device": "cpu", "progress": False}
    assert calls == [(built, settings)]


def test_a_check_that_cannot_be_made_is_an_error_for_all(tmp_path, built, config):
    data = SpinlockDataModule(built, config, batch_size=8, val_fraction=0.4, progress=False)
    callback = DatasetReport(device="cuda:99", replay=1)
    with pytest.raises(DatasetError, match=r"DatasetReport could not check .*: "):
        run(tmp_path, data, callback)


def test_data_without_a_file_are_refused(tmp_path):
    with pytest.raises(ContractError, match="needs a data module with the `path`"):
        run(tmp_path, SyntheticDataModule(), DatasetReport())


def test_bad_arguments():
    with pytest.raises(ValueError, match="replay: must be at least 0, got -1"):
        DatasetReport(replay=-1)


RUN = """
data:
  path: {path}
  generation: {generation}
  batch_size: 4
  val_fraction: 0.5
  train_variants: {{exclude: [sinusoids, gaussian_blobs]}}
  eval_variants: all
  progress: false
model:
  class_path: spinlock.models.FeatureVQVAE
  init_args:
    codebook_size: 8
    hidden_dims: [16]
    latent_dim: 4
    loss: {{other_probe: 0.0, alignment: 0.0}}
trainer:
  accelerator: cpu
  max_epochs: 2
  default_root_dir: {folder}
  logger:
    class_path: lightning.pytorch.loggers.TensorBoardLogger
    init_args: {{save_dir: {folder}, name: run}}
  callbacks:
    - class_path: spinlock.callbacks.DatasetReport
      init_args: {{refuse: false, replay: 1}}
    - class_path: spinlock.callbacks.FiniteCheck
      init_args: {{gradients: true}}
    - class_path: spinlock.callbacks.ICMutualInformation
      init_args: {{threshold: 0.99, plots_every_n_epochs: 2, detailed: true}}
    - class_path: spinlock.callbacks.CodebookUsage
    - class_path: spinlock.callbacks.ReconstructionByGroup
      init_args: {{detailed: true}}
    - class_path: spinlock.callbacks.OperatorConsistency
    - class_path: spinlock.callbacks.TokenTransfer
"""


def test_all_callbacks_from_yaml_on_a_real_dataset(tmp_path, built, config):
    generation = json.dumps(dataclasses.asdict(config))
    text = RUN.format(path=built, folder=tmp_path, generation=generation)
    (tmp_path / "run.yaml").write_text(text)
    main(["fit", "--config", str(tmp_path / "run.yaml")])
    (folder,) = (tmp_path / "run").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    scalars = set(events.Tags()["scalars"])
    for key in (
        "dataset/passed",
        "ic/variant_ami",
        "ic/family_within_policy_p_value",
        "ic/axis_ami/kernel_size",
        "ic/operator_to_ic",
        "codebook/perplexity",
        "reconstruction/complexity_rank_correlation",
        "consistency/cross_probe_r2",
        "consistency/ic_only_r2",
        "consistency/shuffled_tokens_r2",
        "transfer/js_divergence",
        "transfer/held_out_r2",
    ):
        assert key in scalars
    assert events.Tags()["images"] == ["ic/code_by_variant"]
