"""``spinlock codebook`` writes a page that shows what each token means."""

from pathlib import Path

from spinlock.commands.file_parser import CommandParser, add_trust, path_argument


def run(arguments: list[str]) -> None:
    """Write the page and print a summary."""
    parser = CommandParser(
        "codebook",
        "Write one self-contained HTML page about the tokens of a model: for each "
        "token, what its operators do to fields, their dynamics, and their parameters.",
    )
    parser.add_argument("tokens", type=path_argument, help="token file of `spinlock predict --out`")
    parser.add_argument(
        "--dataset", type=path_argument, required=True, help="dataset file that was tokenized"
    )
    parser.add_argument(
        "--out",
        type=path_argument,
        default=Path("codebook.html"),
        help="the page to write (default: codebook.html)",
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier page")
    parser.add_argument(
        "--prototypes", type=int, default=4, metavar="N", help="operators to run (default: 4)"
    )
    parser.add_argument(
        "--max-tokens", type=int, default=256, metavar="N", help="tokens to show (default: 256)"
    )
    parser.add_argument("--device", help="device that runs them (default: a GPU if available)")
    add_trust(parser)
    given = parser.parse_args(arguments)
    # Imported here because other commands do not need matplotlib.
    from spinlock.codebook import write_codebook

    codebook = write_codebook(
        given.tokens,
        given.dataset,
        given.out,
        num_prototypes=given.prototypes,
        max_tokens=given.max_tokens,
        device=given.device,
        trust=given.trust,
        force=given.force,
    )
    size = given.out.stat().st_size / 1e6
    print(f"{given.out} ({size:.1f} MB): {len(codebook.groups)} tokens in use")
