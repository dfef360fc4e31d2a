"""``spinlock extract-features`` computes the features of a dataset file again."""

from spinlock.commands.data_sections import data_section
from spinlock.commands.file_parser import file_parser, path_argument
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.generation.feature_extraction import extract_features


def run(arguments: list[str]) -> None:
    """Compute the features and update the file."""
    parser = file_parser(
        "extract-features",
        "Compute the features of a dataset file again from its stored fields, and update the file "
        "if they differ. The fields of all timesteps must be stored. A damaged file is refused.",
        trust=True,
    )
    parser.add_argument("--max-samples", type=int, metavar="K", help="only the first K samples")
    parser.add_argument("--device", help="device that computes (default: a GPU if available)")
    parser.add_argument(
        "--config",
        type=path_argument,
        help="yaml file; its settings data.generation.features (default: sdf) and, if given, "
        "data.generation.responses replace those of the file",
    )
    parser.add_argument(
        "--responses",
        action="store_true",
        help="compute response features, too, and add them if the file has none",
    )
    given = parser.parse_args(arguments)
    features, responses = None, given.responses or None
    if given.config is not None:
        _, section = data_section(given.config)
        generation = section.get("generation", {}) if isinstance(section, dict) else {}
        config = GenerationConfig.from_dict(generation)
        features = config.features
        if "responses" in generation:
            responses = responses or config.responses
    done = extract_features(
        given.file,
        features=features,
        responses=responses,
        max_samples=given.max_samples,
        trust=given.trust,
        device=given.device,
    )
    print(
        f"{given.file}: features of {done.samples} samples computed, those of {done.changed} "
        f"differed or were missing; the file was {'updated' if done.rewritten else 'left as it is'}"
    )
