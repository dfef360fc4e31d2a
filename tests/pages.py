"""The pages of the documentation: their code blocks, and the command lines in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
#: First line of a block that needs what the tests do not have.
NOT_RUN = "# Not run by the tests: "
#: Placeholders in command lines, which stand for files that the reader has.
PLACEHOLDERS = {
    "CKPT": "model.ckpt",
    "DATASET": "data/quickstart.h5",
    "OUT": "out",
    "TOKENS.h5": "tokens.h5",
}


class Block(NamedTuple):
    """A code block of a page.

    Args:
        page: Name of the page, relative to the repository.
        language: Language, "" if none is given.
        code: Text.
    """

    page: str
    language: str
    code: str

    @property
    def file(self) -> str | None:
        """Name of the file that the block says it is, in a comment on its first line."""
        name = re.match(r"# ([\w/]+\.(?:py|yaml))\n", self.code)
        return name[1] if name else None

    @property
    def runs(self) -> bool:
        """Whether the tests have what the block needs."""
        return not self.code.startswith(NOT_RUN)


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page in order."""
    found = re.findall(
        r"^```([^\n]*)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return [Block(str(page.relative_to(ROOT)), language, code) for language, code in found]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def blocks_of(language: str) -> list[Block]:
    """Return the code blocks of all pages in a language."""
    return [block for block in BLOCKS if block.language == language]


def inline_commands(page: Path) -> list[str]:
    """Return the commands of python in the text of a page, between its code blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    found = [re.match(r"(?:[A-Z_]+=\S+ )?(python .+)", span) for span in spans]
    return [command[1] for command in found if command]


def command_lines(block: Block) -> list[str]:
    """Return the commands of a block, without comments; one for each alternative ``a | b``."""
    lines = []
    for line in block.code.splitlines():
        command = re.sub(r"(^|\s)#.*", "", line).strip()
        for part in filter(None, command.split(" && ")):
            names = re.match(r"spinlock (\w+(?: \| \w+)+) ", part)
            alternatives = names[1].split(" | ") if names else [""]
            lines += [part.replace(names[1], name) if names else part for name in alternatives]
    return lines


def filled(words: list[str], dataset: str = "data/quickstart.h5") -> list[str]:
    """Replace placeholders in the words of a command line."""
    given = []
    for before, word in zip(["", *words], words, strict=False):
        file = str(ROOT / "configs/quickstart.yaml") if before in ("--config", "-c") else dataset
        given.append({**PLACEHOLDERS, "FILE": file}.get(word, word))
    return given
