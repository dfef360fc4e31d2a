"""Counts operations on a device, and shows that nothing waits for it."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")

# Operations that change only how memory is viewed.
VIEWS = frozenset(
    {
        *("_conj", "_reshape_alias", "_unsafe_view", "alias", "as_strided", "chunk", "detach"),
        *("diagonal", "expand", "imag", "lift_fresh", "movedim", "permute", "real", "select"),
        *("slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold"),
        *("unsqueeze", "view", "view_as_complex", "view_as_real"),
    }
)


class CountOperations(TorchDispatchMode):
    """Counts the operations on tensors of the meta device that are not views.

    The meta device has no values, so whatever needs one on the host fails there: a condition,
    `Tensor.item`, a boolean index, a copy to the host. A copy from the host fails here.
    """

    def __init__(self):
        super().__init__()
        self.names = Counter()

    @property
    def number(self):
        return self.names.total()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        given = [x for x in args if isinstance(x, torch.Tensor)]
        # A number is an argument of a kernel, not a copy.
        if any(x.device != META and x.ndim for x in given):
            raise AssertionError(f"{name} uses a tensor of the host")
        if name not in VIEWS and not (name == "to" and result is args[0]):
            self.names[name] += 1
        return result


def on_meta(tables):
    """Tables of the host as tensors of the meta device."""
    return {name: torch.from_numpy(table).to(META) for name, table in tables.items()}


def on_cpu(tables):
    """Tables of the host as tensors."""
    return {name: torch.from_numpy(table) for name, table in tables.items()}
