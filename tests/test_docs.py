"""The code blocks of the documentation run, and its settings are valid."""

import os
import re
import shlex
import sys
from importlib.util import find_spec

import pytest
import yaml

from benchmarks.synthetic import write_synthetic
from spinlock.commands.command_line import main
from spinlock.commands.trainer_parser import TrainerParser
from spinlock.datamodules import SpinlockDataModule
from spinlock.storage import read_tokens
from tests.helpers import small_config
from tests.pages import BLOCKS, NOT_RUN, PAGES, ROOT, blocks_of, command_lines

pytestmark = pytest.mark.slow

# Pages whose python blocks other tests run, because they assert more about the results, with the
# number of blocks that these tests run.
ELSEWHERE = {
    "README.md": ("tests/test_readme.py", 2),
    "docs/data_format.md": ("tests/storage/test_documentation.py", 6),
    "docs/datamodules.md": ("tests/datamodules/test_pytorch_idioms.py", 5),
    "docs/extending.md": ("tests/test_examples.py", 4),
    "docs/features.md": ("tests/features/test_documentation.py", 3),
}
# The last block of docs/data_format.md is run by tests/codebook/test_codebook_page.py.
ONE_MORE = {"docs/data_format.md"}
HERE = sorted({block.page for block in BLOCKS if block.language == "python"} - set(ELSEWHERE))


def named(block):
    return f"{block.page}: {block.code.strip().splitlines()[0][:40]}"


def test_languages_are_known():
    directives = {"{eval-rst}", "{include} ../README.md", "{include} ../CHANGELOG.md"}
    directives |= {"{include} ../CONTRIBUTING.md", "{toctree}"}
    known = {"", "matlab", "python", "sh", "text", "yaml"} | directives
    assert {block.language for block in BLOCKS} <= known


def test_no_block_is_overlooked():
    """`blocks` finds those that begin at the start of a line, with three backticks."""
    for page in PAGES:
        text = page.read_text("utf-8")
        assert re.findall(r"^(?: +|\t+|> *)(?:```|~~~).*|^~~~.*|^````.*", text, re.MULTILINE) == []


def test_blocks_that_do_not_run_say_what_they_need():
    skipped = [block for block in BLOCKS if "Not run by the tests" in block.code]
    assert skipped
    for block in skipped:
        assert re.match(NOT_RUN + r"needs (SLURM|MPI)\.", block.code), named(block)
    assert [block for block in skipped if block.language == "python"] == []


@pytest.mark.parametrize("page", ELSEWHERE)
def test_every_python_block_runs_in_some_test(page):
    test, count = ELSEWHERE[page]
    assert page.rpartition("/")[2] in (ROOT / test).read_text("utf-8")
    found = [block for block in BLOCKS if (block.page, block.language) == (page, "python")]
    assert len(found) == count + (page in ONE_MORE), "run the new block, and change the number here"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of its own, whose python files can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # Worker processes find this package and the files of the folder, too.
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}", prepend=os.pathsep)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
            del sys.modules[name]


def run_page(page, folder):
    """Run the blocks of a page in order; those that name a file are saved as that file."""
    names = {"__name__": "__main__"}
    for block in (block for block in BLOCKS if block.page == page and block.runs):
        if block.file:
            (folder / block.file).write_text(block.code, "utf-8")
        elif block.language == "python":
            exec(compile(block.code, named(block), "exec"), names)
        elif block.language == "sh" and page in ("docs/own_model.md", "docs/pde_data.md"):
            for line in command_lines(block):
                main(shlex.split(line.removeprefix("python -m spinlock ")))
    return names


def test_pages_that_are_run_here():
    assert HERE == [
        "docs/cluster.md",
        "docs/dynamics.md",
        "docs/own_model.md",
        "docs/pde_data.md",
    ]


def test_own_pde_data(folder):
    names = run_page("docs/pde_data.md", folder)
    # The measured diffusion is that of the solver.
    assert names["correlation"] > 0.95
    true = names["diffusivity"].ravel()
    found = names["found"].mean(1).numpy()
    assert abs(found - true).max() < 0.05
    row = dict(zip(names["DYNAMICS_NAMES"], names["row"].tolist(), strict=True))
    assert row["diffusion"] == pytest.approx(true[7], abs=0.02)
    assert row["shift_x"] == pytest.approx(names["velocity"].ravel()[7], abs=0.02)
    # Of operators that the model was not trained on.
    test = names["operator"] >= 48
    arguments = (names["tokens"][test], names["family"][test], names["operator"][test])
    rates = names["same_token_rate"](*arguments)
    assert rates.rate > rates.chance + 0.3


def test_own_model(folder):
    """Its run ends with tokens of all samples, and its callbacks find what they need."""
    (folder / "data").mkdir()
    write_synthetic(folder / "data" / "quickstart.h5", small_config(120, num_realizations=2))
    run_page("docs/own_model.md", folder)
    (checkpoint,) = folder.rglob("*.ckpt")
    files = ["--config", "own_model.yaml", "--ckpt_path", str(checkpoint), "--out", "tokens.h5"]
    before = sorted(folder.rglob("lightning_logs/*"))
    main(["predict", *files])
    assert len(read_tokens("tokens.h5").tokens) == 120
    assert sorted(folder.rglob("lightning_logs/*")) == before, "predict has no folder of logs"
    assert not (folder / "config.yaml").exists()


def test_dynamics_of_a_map(folder):
    names = run_page("docs/dynamics.md", folder)
    assert names["row"].shape == (len(names["DYNAMICS_NAMES"]),)


@pytest.mark.repeated
def test_processes_generate_a_file(folder):
    run_page("docs/cluster.md", folder)
    assert (folder / "data" / "small.h5").exists()


def parser():
    found = TrainerParser(allow_abbrev=False)
    found.add_lightning_class_args(SpinlockDataModule, "data")
    return found


@pytest.mark.parametrize("block", blocks_of("yaml"), ids=named)
def test_settings_are_valid(block, folder):
    given = yaml.safe_load(block.code)
    if set(given) == {"data"}:
        parse_data(block, folder)
        return
    (folder / "whole.yaml").write_text(block.code, "utf-8")
    save_modules(block.page, folder)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "whole.yaml", "--print_config"])
    assert ended.value.code == 0


def save_modules(page, folder):
    """Save the python blocks of a page that its yaml blocks name."""
    for module in (other for other in BLOCKS if other.page == page):
        if module.language == "python" and (module.file or "extending" in page):
            name = module.file or "my_extensions.py"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("a", encoding="utf-8") as file:
                file.write(module.code)


def parse_data(block, folder):
    """Parse a block that has a part of the settings of the data module, completed."""
    given = yaml.safe_load(block.code)["data"]
    given = {"path": "a.h5", **given}
    given["generation"] = {"num_samples": 100, **given.get("generation", {})}
    executor = given.get("executor", {}).get("class_path", "")
    if executor.startswith("mpi4py") and find_spec("mpi4py") is None:
        # mpi4py is no test dependency; the rest of the block is parsed without it.
        del given["executor"]
    save_modules(block.page, folder)
    parser().parse_object({"data": given})
