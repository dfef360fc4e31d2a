"""`setup` verifies everything that a view reads, so training never sees damaged data."""

import dataclasses
import os
import re
import shutil

import h5py
import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer

from spinlock import SpinlockDataModule
from spinlock.errors import DatasetError
from spinlock.generation import generate
from spinlock.storage import schema
from tests.datamodules import collect
from tests.helpers import reseal, small_config
from tests.storage.sabotage import flip

CONFIG = small_config(
    24, base_channels=(2, 3), num_realizations=2, num_timesteps=2, probes_per_operator=2
)
RAW = dataclasses.replace(CONFIG, storage=dataclasses.replace(CONFIG.storage, compression="none"))
VIEWS = ("features", "sequence", "pairs", "fields", "both")
FEATURE_VIEWS = tuple(view for view in VIEWS if view != "fields")
LABELS = (
    schema.IC_TYPES,
    schema.IC_FAMILIES,
    schema.PARAMS,
    schema.VALUES,
    schema.OPERATOR_INDEX,
)
FEATURES = (schema.PER_TIMESTEP, schema.INITIAL_FEATURES)
FIELDS = (schema.INPUTS, schema.OUTPUTS)


def columns_of(view):
    """Return the datasets that `setup` reads."""
    return LABELS if view == "fields" else LABELS + FEATURES


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """Map each compression to an undamaged file."""
    folder = tmp_path_factory.mktemp("intact")
    for config in (CONFIG, RAW):
        generate(config, folder / f"{config.storage.compression}.h5", progress=False)
    return {name: folder / f"{name}.h5" for name in ("deflate", "none")}


@pytest.fixture(scope="module")
def batches(intact):
    """Map each view to all samples of the undamaged file."""
    return {view: served(intact["deflate"], view) for view in VIEWS}


@pytest.fixture
def path(intact, tmp_path):
    return shutil.copy(intact["deflate"], tmp_path / "a.h5")


def module(path, view, config=CONFIG, **options):
    options = {"batch_size": 4, "progress": False, "scaling": "none"} | options
    if view in ("fields", "both"):
        options.setdefault("realizations", "all")
    return SpinlockDataModule(path, config, view=view, **options)


def served(path, view, config=CONFIG):
    datamodule = module(path, view, config)
    datamodule.prepare_data()
    datamodule.setup("fit")
    next(iter(datamodule.train_dataloader()))
    return collect(datamodule.predict_dataloader())


def require_equal(found, expected, count=None):
    assert set(found) == set(expected)
    for key, values in expected.items():
        assert torch.equal(found[key], values[:count]), key


def refused(path, view, pattern):
    """Check that every call of `setup` names the damage, and that no batch is returned."""
    before = path.read_bytes()
    datamodule = module(path, view)
    for stage in ("fit", "predict"):
        with pytest.raises(DatasetError, match=pattern):
            datamodule.setup(stage)
    loaders = (
        datamodule.train_dataloader,
        datamodule.val_dataloader,
        datamodule.test_dataloader,
        datamodule.predict_dataloader,
    )
    for loader in loaders:
        with pytest.raises(RuntimeError, match="setup"):
            loader()
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------------------- damage


def swap(file, names):
    """Exchange two samples of different variants and operators in some datasets."""
    for name in names:
        rows = file[name][...]
        other = next(row for row in range(9, 24) if rows[row].tobytes() != rows[4].tobytes())
        rows[[4, other]] = rows[[other, 4]]
        file[name][...] = rows


def swap_labels(file):
    labels = file[schema.IC_TYPES][...]
    other = next(row for row in range(9, 24) if labels[row] != labels[4])
    for name in (schema.IC_TYPES, schema.IC_FAMILIES):
        rows = file[name][...]
        rows[[4, other]] = rows[[other, 4]]
        file[name][...] = rows


def put(name, row, value, where=()):
    """Change a value of a column."""

    def edit(file):
        column = file[name][...]
        before = column.tobytes()
        column[(row, *where) if where else row] = value
        assert column.tobytes() != before
        file[name][...] = column

    return edit


def put_value(axis, row, value):
    """Change a typed value of an operator."""

    def edit(file):
        values = file[schema.VALUES][...]
        assert values[axis][row] != value
        values[axis][row] = value
        file[schema.VALUES][...] = values

    return edit


def roll(*names):
    def edit(file):
        for name in names:
            file[name][...] = np.roll(file[name][...], 2, axis=0)

    return edit


def zero(name):
    """Set all values to zero, as HDF5 reads missing data."""

    def edit(file):
        file[name][...] = np.zeros((), file[name].dtype)

    return edit


# Name of the damage -> (function that does it, pattern of the datasets that are changed).
IN_FEATURES = {
    "NaN": (put(schema.PER_TIMESTEP, 3, np.nan, (1, 7)), schema.PER_TIMESTEP),
    "NaN at the first timestep": (put(schema.PER_TIMESTEP, 3, np.nan, (0, 7)), schema.PER_TIMESTEP),
    "infinity": (put(schema.PER_TIMESTEP, 23, -np.inf, (1, 45)), schema.PER_TIMESTEP),
    "NaN in initial features": (
        put(schema.INITIAL_FEATURES, 0, np.nan, (0,)),
        schema.INITIAL_FEATURES,
    ),
    "swapped rows": (lambda file: swap(file, [schema.PER_TIMESTEP]), schema.PER_TIMESTEP),
    "swapped initial rows": (
        lambda file: swap(file, [schema.INITIAL_FEATURES]),
        schema.INITIAL_FEATURES,
    ),
    "rolled": (roll(schema.PER_TIMESTEP), schema.PER_TIMESTEP),
    "zeros": (zero(schema.PER_TIMESTEP), schema.PER_TIMESTEP),
}
IN_LABELS = {
    "swapped labels": (swap_labels, f"{schema.IC_TYPES}|{schema.IC_FAMILIES}"),
    "swapped params": (lambda file: swap(file, [schema.PARAMS]), schema.PARAMS),
    "swapped values": (lambda file: swap(file, [schema.VALUES]), schema.VALUES),
    "swapped operators": (lambda file: swap(file, [schema.OPERATOR_INDEX]), schema.OPERATOR_INDEX),
    "rolled labels": (
        roll(schema.IC_TYPES, schema.IC_FAMILIES),
        f"{schema.IC_TYPES}|{schema.IC_FAMILIES}",
    ),
    "NaN in params": (put(schema.PARAMS, 5, np.nan, (2,)), schema.PARAMS),
    "operators of zeros": (zero(schema.OPERATOR_INDEX), schema.OPERATOR_INDEX),
    "no variants": (zero(schema.IC_TYPES), schema.IC_TYPES),
}


@pytest.mark.parametrize("damage", IN_FEATURES)
@pytest.mark.parametrize("view", FEATURE_VIEWS)
def test_damaged_features_are_not_served(path, view, damage):
    edit, name = IN_FEATURES[damage]
    with h5py.File(path, "r+") as file:
        edit(file)
    refused(path, view, name)


@pytest.mark.parametrize("damage", IN_LABELS)
@pytest.mark.parametrize("view", VIEWS)
def test_damaged_labels_are_not_served(path, view, damage):
    edit, name = IN_LABELS[damage]
    with h5py.File(path, "r+") as file:
        edit(file)
    refused(path, view, name)


@pytest.mark.parametrize(
    ("view", "name"), [(view, name) for view in VIEWS for name in columns_of(view)]
)
@pytest.mark.parametrize("row", [0, 23])
def test_a_flipped_bit_of_a_column_is_found(path, view, name, row):
    flip(path, name, row, 0x01)
    refused(path, view, name)


@pytest.mark.parametrize("view", VIEWS)
def test_damage_beyond_the_first_samples_is_found_too(path, view):
    """A digest covers a whole column, so damage to samples that are not used is found too."""
    flip(path, schema.OPERATOR_INDEX, 22)
    datamodule = module(path, view, dataclasses.replace(CONFIG, num_samples=16))
    with pytest.raises(DatasetError, match=schema.OPERATOR_INDEX):
        datamodule.setup()


@pytest.mark.parametrize(("view", "realizations"), [("fields", "all"), ("both", "mean")])
@pytest.mark.parametrize("name", FIELDS)
def test_a_flipped_bit_of_a_compressed_field_is_not_served(path, view, realizations, name):
    """Fields are verified when a batch is read, by the checksums of the compression."""
    flip(path, name, 6)
    datamodule = module(path, view, realizations=realizations)
    datamodule.setup()
    with pytest.raises(DatasetError, match=rf"{name} of sample 6"):
        collect(datamodule.predict_dataloader())


# --------------------------------------------------------------- wrong values with matching digests


def resealed(edit):
    """Make a change and update the digests, as another program or an attacker might."""

    def spoil(file):
        edit(file)
        reseal(file, CONFIG)

    return spoil


SEALED_FEATURES = {
    "NaN": (put(schema.PER_TIMESTEP, 3, np.nan, (1, 7)), schema.PER_TIMESTEP),
    "infinity": (put(schema.PER_TIMESTEP, 0, np.inf, (1, 0)), schema.PER_TIMESTEP),
    "NaN in initial features": (
        put(schema.INITIAL_FEATURES, 23, np.nan, (45,)),
        schema.INITIAL_FEATURES,
    ),
    "no features at all": (
        put(schema.PER_TIMESTEP, slice(None), np.nan),
        schema.PER_TIMESTEP,
    ),
}
VALUES, PARAMS = schema.VALUES, schema.PARAMS
SEALED_LABELS = {
    "an unknown variant": (put(schema.IC_TYPES, 2, b"plane_wave"), schema.IC_TYPES),
    "no variant": (put(schema.IC_TYPES, 2, b""), schema.IC_TYPES),
    "no text": (put(schema.IC_TYPES, 2, b"\xff\xfe"), schema.IC_TYPES),
    "an unknown family": (
        put(schema.IC_FAMILIES, 2, b"plane_waves"),
        f"{schema.IC_FAMILIES}|{schema.IC_TYPES}",
    ),
    "a foreign family": (
        lambda file: put(
            schema.IC_FAMILIES,
            2,
            b"sinusoids" if file[schema.IC_FAMILIES][2] != b"sinusoids" else b"gaussian_noise",
        )(file),
        f"{schema.IC_FAMILIES}|{schema.IC_TYPES}",
    ),
    "an unknown policy": (put_value("update_policy", 3, b"leapfrog"), VALUES),
    "an unknown normalization": (put_value("normalization", 3, b"layer"), VALUES),
    "a text that is none": (put_value("activation", 3, b"\xff\xfe\xfd"), VALUES),
    "2^40 layers": (put_value("num_layers", 7, 2**40), VALUES),
    "2^63 - 1 layers": (put_value("num_layers", 7, 2**63 - 1), VALUES),
    "no layers": (put_value("num_layers", 7, 0), VALUES),
    "fewer layers than none": (put_value("num_layers", 7, -(2**40)), VALUES),
    "2^40 channels": (put_value("base_channels", 7, 2**40), VALUES),
    "a huge kernel": (put_value("kernel_size", 7, 2**31 + 1), VALUES),
    "a huge grid": (put_value("grid_size", 7, 2**62), VALUES),
    "NaN as noise": (put_value("noise_scale", 7, np.nan), VALUES),
    "infinite noise": (put_value("noise_scale", 7, np.inf), VALUES),
    "params above the cube": (put(PARAMS, 1, 1.5, (0,)), f"{PARAMS}|{VALUES}"),
    "params below the cube": (put(PARAMS, 1, -1e30, (14,)), f"{PARAMS}|{VALUES}"),
    "NaN as params": (put(PARAMS, 1, np.nan, (3,)), f"{PARAMS}|{VALUES}"),
    "infinity as params": (put(PARAMS, 1, np.inf, (3,)), f"{PARAMS}|{VALUES}"),
    "another operator's number": (put(schema.OPERATOR_INDEX, 4, 3), schema.OPERATOR_INDEX),
    "an operator that is not there": (put(schema.OPERATOR_INDEX, 23, 12), schema.OPERATOR_INDEX),
    "a negative operator": (put(schema.OPERATOR_INDEX, 4, -1), schema.OPERATOR_INDEX),
    "a huge operator": (put(schema.OPERATOR_INDEX, 4, 2**62), schema.OPERATOR_INDEX),
    "one operator for all": (zero(schema.OPERATOR_INDEX), schema.OPERATOR_INDEX),
}


@pytest.mark.parametrize("damage", SEALED_FEATURES)
@pytest.mark.parametrize("view", FEATURE_VIEWS)
def test_features_that_are_not_finite_are_not_served(path, view, damage):
    edit, name = SEALED_FEATURES[damage]
    with h5py.File(path, "r+") as file:
        resealed(edit)(file)
    refused(path, view, name)


# A huge value that is used as a length would keep a reader busy for days.
@pytest.mark.timeout(60)
@pytest.mark.parametrize("damage", SEALED_LABELS)
@pytest.mark.parametrize("view", ["pairs", "fields"])
def test_labels_out_of_range_are_not_served(path, view, damage):
    edit, name = SEALED_LABELS[damage]
    with h5py.File(path, "r+") as file:
        resealed(edit)(file)
    refused(path, view, name)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("damage", ["2^40 layers", "a huge operator", "an unknown variant"])
@pytest.mark.parametrize("view", ["features", "sequence", "both"])
def test_labels_out_of_range_are_not_served_in_other_views(path, view, damage):
    edit, name = SEALED_LABELS[damage]
    with h5py.File(path, "r+") as file:
        resealed(edit)(file)
    refused(path, view, name)


@pytest.mark.parametrize("view", FEATURE_VIEWS)
def test_what_is_not_asked_for_may_be_missing(path, view, batches):
    """The digests are right, and the damaged sample is not among the requested ones."""
    with h5py.File(path, "r+") as file:
        resealed(put(schema.PER_TIMESTEP, 20, np.nan, (1, 7)))(file)
    shorter = dataclasses.replace(CONFIG, num_samples=16)
    require_equal(served(path, view, shorter), batches[view], 16)


# ------------------------------------------------------------------------------------ local storage


def replaced(make):
    """Replace a dataset with another object of the same name that yields the same values."""

    def edit(file, name):
        attributes, values = dict(file[name].attrs), file[name][...]
        del file[name]
        make(file, name, values)
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            file[name].attrs.update(attributes)

    return edit


def elsewhere(file, values):
    with h5py.File(os.path.join(os.path.dirname(file.filename), "other.h5"), "w") as other:
        other["values"] = values


@replaced
def external_link(file, name, values):
    elsewhere(file, values)
    file[name] = h5py.ExternalLink("other.h5", "/values")


@replaced
def dangling_external_link(file, name, values):
    file[name] = h5py.ExternalLink("missing.h5", "/values")


@replaced
def soft_link(file, name, values):
    file["hidden"] = values
    file[name] = h5py.SoftLink("/hidden")


@replaced
def virtual_dataset(file, name, values):
    elsewhere(file, values)
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource("other.h5", "values", values.shape)
    file.create_virtual_dataset(name, layout)


@replaced
def virtual_dataset_without_source(file, name, values):
    """HDF5 reads it as zeros."""
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource("missing.h5", "values", values.shape)
    file.create_virtual_dataset(name, layout)


@replaced
def virtual_dataset_within(file, name, values):
    file["hidden"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource(file["hidden"])
    file.create_virtual_dataset(name, layout)


@replaced
def external_storage(file, name, values):
    raw = os.path.join(os.path.dirname(file.filename), "raw.bin")
    with open(raw, "wb") as written:
        written.write(np.ascontiguousarray(values).tobytes())
    external = [("raw.bin", 0, values.nbytes)]
    file.create_dataset(name, values.shape, values.dtype, external=external)


@replaced
def external_storage_without_file(file, name, values):
    external = [("missing.bin", 0, values.nbytes)]
    file.create_dataset(name, values.shape, values.dtype, external=external)


def group_in_another_file(file, name):
    """The group of the dataset is a link."""
    group = name.rpartition("/")[0]
    with h5py.File(os.path.join(os.path.dirname(file.filename), "other.h5"), "w") as other:
        file.copy(group, other, "group")
    del file[group]
    file[group] = h5py.ExternalLink("other.h5", "/group")


def group_under_another_name(file, name):
    group = name.rpartition("/")[0]
    file.move(group, "hidden")
    file[group] = h5py.SoftLink("/hidden")


@replaced
def group_in_its_place(file, name, values):
    file.create_group(name)


@replaced
def nothing(file, name, values):
    pass


ELSEWHERE = {
    "external link": external_link,
    "dangling external link": dangling_external_link,
    "soft link": soft_link,
    "virtual dataset": virtual_dataset,
    "virtual dataset without source": virtual_dataset_without_source,
    "virtual dataset within": virtual_dataset_within,
    "external storage": external_storage,
    "external storage without file": external_storage_without_file,
    "group in another file": group_in_another_file,
    "group under another name": group_under_another_name,
    "group in its place": group_in_its_place,
    "nothing": nothing,
}
READ_BY = {
    "features": schema.PER_TIMESTEP,
    "sequence": schema.INITIAL_FEATURES,
    "pairs": schema.OPERATOR_INDEX,
    "fields": schema.OUTPUTS,
    "both": schema.INPUTS,
}


@pytest.mark.parametrize("how", ELSEWHERE)
@pytest.mark.parametrize("view", VIEWS)
def test_what_the_file_does_not_store_itself_is_not_served(path, view, how):
    name = READ_BY[view]
    with h5py.File(path, "r+") as file:
        ELSEWHERE[how](file, name)
    group = name.rpartition("/")[0]
    refused(path, view, rf"{re.escape(name)}|{re.escape(group)}")


@pytest.mark.parametrize(
    ("view", "name"),
    [(view, name) for view in VIEWS for name in (*columns_of(view), *FIELDS)],
)
def test_links_and_sources_that_lead_nowhere_are_named(path, view, name):
    with h5py.File(path, "r+") as file:
        virtual_dataset_without_source(file, name)
    refused(path, view, re.escape(name))


# ----------------------------------------------------------------------------------- with a trainer


class Counting(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches = 0

    def training_step(self, batch, index):
        self.batches += 1
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(path, view):
    model = Counting()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=module(path, view))
    return model.batches


@pytest.mark.parametrize("view", VIEWS)
def test_a_trainer_sees_no_batch_of_a_damaged_file(path, view, monkeypatch):
    seen = []
    monkeypatch.setattr(Counting, "training_step", lambda *args: seen.append(args))
    flip(path, schema.PARAMS, 12)
    with pytest.raises(DatasetError, match=schema.PARAMS):
        fit(path, view)
    assert not seen


def test_a_trainer_sees_the_batches_of_an_undamaged_file(path):
    assert fit(path, "features") > 2


# ----------------------------------------------------------------------------------- no false alarm


@pytest.mark.parametrize("compression", ["deflate", "none"])
@pytest.mark.parametrize("view", VIEWS)
def test_undamaged_files_are_served(intact, batches, view, compression):
    config = CONFIG if compression == "deflate" else RAW
    require_equal(served(intact[compression], view, config), batches[view])


@pytest.mark.parametrize("view", VIEWS)
def test_the_first_samples_of_a_longer_file_are_served(intact, batches, view):
    """With 13 samples the last operator has only one probe, which leaves 12 pairs."""
    for count in (16, 13):
        shorter = dataclasses.replace(CONFIG, num_samples=count)
        rows = 12 if view == "pairs" and count == 13 else count
        require_equal(served(intact["deflate"], view, shorter), batches[view], rows)


def replace_dataset(file, name, **options):
    old = file[name]
    attributes, values = dict(old.attrs), old[...]
    del file[name]
    file.create_dataset(name, data=values, **options).attrs.update(attributes)


def columns_in_chunks(file):
    for name in (*LABELS, *FEATURES, schema.DIGESTS):
        replace_dataset(file, name, chunks=True)


def columns_compressed(file):
    for name in (*LABELS, *FEATURES, schema.DIGESTS):
        options = {"shuffle": True, "compression": "gzip", "fletcher32": True}
        replace_dataset(file, name, chunks=True, **options)


def columns_that_grow(file):
    for name in (*LABELS, *FEATURES):
        replace_dataset(file, name, maxshape=(None, *file[name].shape[1:]))


def fields_through_lzf(file):
    for name in FIELDS:
        replace_dataset(file, name, chunks=file[name].chunks, compression="lzf")


def fields_contiguous(file):
    for name in FIELDS:
        replace_dataset(file, name)


REPACKED = (
    columns_in_chunks,
    columns_compressed,
    columns_that_grow,
    fields_through_lzf,
    fields_contiguous,
)


@pytest.mark.parametrize("repack", REPACKED)
@pytest.mark.parametrize("view", VIEWS)
def test_repacked_files_pass(path, batches, view, repack):
    """If the same values are stored in another way, `setup` passes and no value differs.

    Fields that are packed in another way may be refused when a loader is made, but never misread.
    """
    with h5py.File(path, "r+") as file:
        repack(file)
    require_same_or_refused(path, view, batches, repack in (fields_through_lzf, fields_contiguous))


def require_same_or_refused(path, view, batches, fields_repacked):
    datamodule = module(path, view)
    datamodule.setup()
    message = ""
    try:
        require_equal(collect(datamodule.predict_dataloader()), batches[view])
    except DatasetError as error:
        message = str(error)
    if message:
        assert fields_repacked, message
        assert view in ("fields", "both"), message
        assert re.search("inputs/fields|outputs/fields", message)
        assert "repacked" in message


@pytest.mark.parametrize("options", [{"userblock_size": 512}, {"libver": "latest"}])
@pytest.mark.parametrize("view", ["features", "fields"])
def test_files_of_other_kinds_are_served(intact, tmp_path, batches, view, options):
    """Files may have a user block before the data, or a newer format."""
    path = tmp_path / "a.h5"
    with h5py.File(intact["deflate"]) as old, h5py.File(path, "w", **options) as file:
        for name in old:
            old.copy(name, file)
        for name in old.attrs:
            file.attrs.create(name, old.attrs[name], dtype=old.attrs.get_id(name).dtype)
    require_equal(served(path, view), batches[view])


@pytest.mark.parametrize("view", VIEWS)
def test_what_a_user_added_is_no_damage(path, batches, view):
    with h5py.File(path, "r+") as file:
        file.attrs["my note"] = "measured on a Tuesday"
        file.attrs["my empty"] = h5py.Empty("f4")
        for name in (*LABELS, *FEATURES, *FIELDS, "features", "metadata"):
            file[name].attrs["my number"] = 42
        file["predictions"] = np.full((24, 3), np.nan)
        file["mine/deep/er"] = np.arange(5)
        file["features/mine/features"] = np.full((24, 2, 3), np.inf)
        file["shortcut"] = h5py.SoftLink("/outputs/fields")
        file["nowhere"] = h5py.SoftLink("/there/is/nothing")
        file["metadata/elsewhere"] = h5py.ExternalLink("missing.h5", "/values")
        layout = h5py.VirtualLayout((24,), np.int64)
        layout[:] = h5py.VirtualSource("missing.h5", "values", (24,))
        file.create_virtual_dataset("mine/virtual", layout)
    require_equal(served(path, view), batches[view])


@pytest.mark.parametrize("mode", [0o400, 0o444])
def test_files_that_cannot_be_written_are_served(path, batches, mode):
    path.chmod(mode)
    require_equal(served(path, "both"), batches["both"])
