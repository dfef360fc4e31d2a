"""``spinlock info`` describes a dataset file or an unfinished run on one screen."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from spinlock.commands.file_parser import file_parser
from spinlock.configuration import CustomFeatureConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_axes import describe_axis
from spinlock.errors import DatasetError
from spinlock.generation.run_summary import describe_design, describe_origin
from spinlock.runtime.progress import printable
from spinlock.storage import read_columns, read_info, schema
from spinlock.storage.assemble import held_files
from spinlock.storage.assembly_plan import plan_assembly
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.reader import DatasetInfo
from spinlock.storage.shard_files import FOLDER_SUFFIX, Shard, list_shards


def run(arguments: list[str]) -> None:
    """Print the description."""
    parser = file_parser(
        "info", "Describe a dataset file, or the finished and missing samples of a run."
    )
    print(describe(parser.parse_args(arguments).file))


def describe(path: Path) -> str:
    """Describe a dataset file and the unfinished runs beside it.

    Raises:
        DatasetError: If there is neither a dataset nor an unfinished run.
    """
    unfinished = [_unfinished(path, folder) for folder in _run_folders(path)]
    if unfinished and not path.exists():
        return "\n\n".join([f"{path}: not finished", *unfinished])
    return "\n\n".join([describe_file(read_info(path)), *unfinished])


def describe_file(info: DatasetInfo) -> str:
    """Describe a dataset file.

    Raises:
        DatasetError: If an attribute of the file does not have the form that this package writes.
    """
    try:
        return _table(_rows(info))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{info.path}: its attributes cannot be described: {error!r}") from error


def _rows(info: DatasetInfo) -> dict[str, str]:
    return {
        "file": f"{info.path} ({info.path.stat().st_size / 1e6:.1f} MB{_shards_of(info)})",
        "fingerprint": info.fingerprint,
        "digest": info.digest,
        **_configuration(info.config),
        **_distribution(info),
        "design": describe_design(info.design_quality),
        **describe_origin(info),
    }


def _shards_of(info: DatasetInfo) -> str:
    """Describe the shards that a virtual dataset refers to; empty for another one."""
    if info.config.storage.layout == "single":
        return ""
    with DatasetFile.open(info.path) as dataset:
        sizes = [held.source.path.stat().st_size for held in dataset.held_segments()]
    return f", and {sum(sizes) / 1e6:.1f} MB in {_number(len(sizes), 'shard')}"


def _table(rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    # Labels and names of a file may hold control characters.
    return "\n".join(f"{name:<{width}}  {printable(value)}" for name, value in rows.items())


def _configuration(config: GenerationConfig) -> dict[str, str]:
    usual = GenerationConfig(config.num_samples).parameter_space.base_axes
    axes = [
        f"{name} {describe_axis(value)}"
        for name, value in config.axes.items()
        if value != usual.get(name)
    ]
    family = config.operator
    operators = -(-config.num_samples // config.probes_per_operator)
    computed = ["Summary Descriptor Features"]
    if isinstance(config.features, CustomFeatureConfig):
        computed += [*config.features.per_field, *config.features.per_trajectory]
    computed += [name for name in ("responses", "dynamics") if getattr(config, name)]
    return {
        "samples": f"{config.num_samples} ({_number(operators, 'operator')}, "
        f"{_number(config.probes_per_operator, 'probe')} each)",
        "trajectories": f"{config.num_realizations} realizations x {config.num_timesteps} "
        f"timesteps of {config.channels} x {config.grid_size} x {config.grid_size}; stored "
        f"timesteps: {len(config.stored_steps)}",
        "seed, precision": f"{config.seed}, {config.precision}; blocks of {config.block_size}",
        "operators": family if isinstance(family, str) else str(family["class_path"]),
        "axes": "; ".join([*axes, "others as in the baseline"]),
        "features": ", ".join(computed),
    }


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)


def _distribution(info: DatasetInfo) -> dict[str, str]:
    names = (schema.IC_FAMILIES, schema.IC_TYPES, schema.POLICIES, schema.NOISE_REGIMES)
    columns = read_columns(info.path, names, info.config.num_samples)
    titles = ("families", "variants", "update policies", "noise")
    return {title: _shares(columns[name]) for title, name in zip(titles, names, strict=True)}


def _shares(labels: Iterable[str]) -> str:
    counts = Counter(map(str, labels))
    total = counts.total()
    return ", ".join(f"{name} {count / total:.2%}" for name, count in sorted(counts.items()))


def _run_folders(path: Path) -> list[Path]:
    """Return the folders of shards beside a file, one for each unfinished configuration."""
    path = path.resolve()
    parents = (path.with_name(f"{path.name}{suffix}") for suffix in FOLDER_SUFFIX.values())
    folders = [folder for parent in parents for folder in parent.glob("*") if folder.is_dir()]
    # Shards that the dataset refers to are no unfinished run.
    used = held_files(path) if path.exists() else set()
    complete = {file.parent for file in used}
    return sorted(
        folder
        for folder in folders
        if folder not in complete or {shard.path for shard in list_shards(folder)} - used
    )


def _unfinished(path: Path, folder: Path) -> str:
    """Describe an unfinished run from its shards."""
    shards = list_shards(folder)
    rows = {"run": str(folder)}
    half_written = len(list(folder.glob("*.tmp")))
    # The last shard belongs to the longest dataset.
    found = map(_shard_configuration, reversed(shards))
    config = next((each for each in found if each is not None), None)
    if config is None:
        rows["done"] = "no shard is finished yet"
    else:
        rows |= {"fingerprint": config.fingerprint} | _configuration(config)
        rows |= _progress(config, shards, _held(path, config))
    rows["being written"] = f"{half_written} shard(s)"
    return _table(rows)


def _shard_configuration(shard: Shard) -> GenerationConfig | None:
    try:
        with DatasetFile.open(shard.path, samples=shard.samples) as file:
            return file.config
    except DatasetError:
        return None


def _held(path: Path, config: GenerationConfig) -> list[Shard]:
    """Return the dataset file as a source of samples, if the run extends it."""
    if not path.exists():
        return []
    info = read_info(path)
    same = info.fingerprint == config.fingerprint
    return [Shard(path, 0, info.config.num_samples)] if same else []


def _progress(config: GenerationConfig, shards: list[Shard], held: list[Shard]) -> dict[str, str]:
    gaps = plan_assembly(config.num_samples, [*held, *shards]).gaps
    missing = sum(map(len, gaps))
    done = config.num_samples - missing
    ranges = [f"{gap.start}..{gap.stop - 1}" for gap in gaps]
    shown = ", ".join(ranges[:8]) + (f", and {len(ranges) - 8} more ranges" if ranges[8:] else "")
    size = sum(shard.path.stat().st_size for shard in shards)
    return {
        "done": f"{done} of {config.num_samples} samples ({done / config.num_samples:.1%}) in "
        f"{len(shards)} shards ({size / 1e6:.1f} MB)" + (" and the file" if held else ""),
        "missing": f"{missing} samples: {shown}" if gaps else "nothing but the assembly",
    }
