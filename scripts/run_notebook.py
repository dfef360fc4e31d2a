"""Run the quickstart notebook and store its outputs in it.

    python -m scripts.run_notebook [examples/quickstart.ipynb]

The notebook runs in a temporary folder. Pictures, tables and printed text are stored, so that a
reader sees them without running anything; pictures get a palette, so that the file stays small.
Messages on the standard error stream and the times of progress bars are not stored: they are about
the machine that ran it.
"""

import re
import sys
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from scripts.gallery import small_png

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"
# The tag of the cell with parameters.
PARAMETERS = "parameters"


def executed(path: Path, folder: Path, parameters: str | None = None) -> NotebookNode:
    """Run a notebook from its first to its last cell.

    Args:
        path: The notebook. It is not changed.
        folder: Working folder.
        parameters: Code that replaces the cell with the tag ``parameters``; default: that cell.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    if parameters is not None:
        (cell,) = [c for c in notebook.cells if PARAMETERS in c.metadata.get("tags", [])]
        cell.source = parameters
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        # A progress bar is stored as it looks at its end.
        coalesce_streams=True,
        record_timing=False,
    )
    client.execute()
    return notebook


def without_rates(text: str) -> str:
    """Return printed text without the times and rates of progress bars, whose scores stay.

    Example:
        >>> without_rates("Epoch 1: 100%|##| 15/15 [00:29<00:00,  0.51it/s, loss=0.4]")
        'Epoch 1: 100%|##| 15/15 [loss=0.4]'
    """
    rates = r" \[[\d:]+<[\d:?]+, *[\d.?]+(?:it/s|s/it)(?:, ([^\]]*))?\]"
    return re.sub(rates, lambda found: f" [{found[1]}]" if found[1] else "", text)


def for_storage(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of an executed notebook without messages and rates, with small pictures."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in (output for output in cell.outputs if "text" in output):
                output.text = without_rates(output.text)
            for data in (output.data for output in cell.outputs if "data" in output):
                if "image/png" in data:
                    content = small_png(b64decode(data["image/png"]))
                    data["image/png"] = b64encode(content).decode()
    # Which version of Python ran it is of no interest.
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main(arguments: Sequence[str]) -> None:
    """Run the notebook and replace the file.

    Args:
        arguments: Path of the notebook, default: ``examples/quickstart.ipynb``.
    """
    path = Path(arguments[0]) if arguments else NOTEBOOK
    with tempfile.TemporaryDirectory() as folder:
        notebook = for_storage(executed(path, Path(folder)))
    nbformat.write(notebook, path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
