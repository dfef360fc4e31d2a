"""Makes mutants of a module by the operators of mutmut.

Three kinds of changes are not made. The first are changes that no test can see: of annotations,
imports, decorators and documentation, and of the arguments of exceptions, warnings and log
messages. The second are changes that nearly always raise an exception, and would only increase the
share of killed mutants: a value is replaced by None, or a positional argument is removed. The third
is the removal of arguments that choose a device, because many machines have only one.
"""

import ast
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

from benchmarks.mutation.areas import ROOT, Area
from benchmarks.mutation.trials import Mutant

Operator = Callable[[cst.CSTNode], Iterable[cst.CSTNode]]

# Calls whose arguments are texts for people, or types.
_UNSEEN = {"warn", "debug", "info", "warning", "error", "exception", "cast", "TypeVar", "NewType"}
# Keyword arguments whose default does the same on a CPU.
_DEVICE = {"device", "non_blocking", "pin_memory"}
# Replacements by None.
_OMITTED = {"operator_assignment", "operator_lambda"}
# These change a node in several ways that differ; others have variants of one change.
_SEVERAL = {"operator_arg_removal", "operator_match", "operator_if_exp"}


def _operator_condition(node: cst.If | cst.While) -> Iterator[cst.CSTNode]:
    """Negate a condition that is no comparison."""
    if not isinstance(node.test, cst.Comparison | cst.BooleanOperation | cst.UnaryOperation):
        yield node.with_changes(test=cst.UnaryOperation(cst.Not(), node.test))


def _operators() -> list[tuple[type | tuple[type, ...], Operator]]:
    kept = [pair for pair in mutators.mutation_operators if pair[1].__name__ not in _OMITTED]
    return [*kept, ((cst.If, cst.While), _operator_condition)]


def _is_unseen(node: cst.CSTNode) -> bool:
    """Tell whether changes of a node and of what it contains are left out."""
    match node:
        case cst.Annotation() | cst.Decorator() | cst.Import() | cst.ImportFrom():
            return True
        case cst.SimpleStatementLine(body=[cst.Expr(value=cst.BaseString())]):
            return True
        case cst.If(test=cst.Name(value="TYPE_CHECKING")):
            return True
        case cst.Subscript(value=cst.Name(value="Literal" | "Callable" | "Annotated")):
            return True
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value="__all__"))]):
            return True
        case cst.Call(func=cst.Name(value=name) | cst.Attribute(attr=cst.Name(value=name))):
            return name in _UNSEEN or name.endswith(("Error", "Warning"))
        case cst.Assign(value=cst.BinaryOperation(operator=cst.BitOr()) as value):
            # An alias of a type.
            return all(isinstance(side, cst.Name | cst.Subscript) for side in _alternatives(value))
    return False


def _alternatives(node: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    if isinstance(node, cst.BinaryOperation):
        yield from _alternatives(node.left)
        yield node.right
    else:
        yield node


class _Collector(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, str, cst.CSTNode, cst.CSTNode]] = []
        self._operators = _operators()

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_unseen(node):
            return False
        for kind, operator in self._operators:
            if isinstance(node, kind):
                several = operator.__name__ in _SEVERAL
                for new in islice(operator(node), None if several else 1):
                    if not _breaks_call(node, new):
                        line = self.get_metadata(PositionProvider, node).start.line
                        name = operator.__name__.removeprefix("_").removeprefix("operator_")
                        self.found.append((line, name, node, new))
        return True


def _breaks_call(old: cst.CSTNode, new: cst.CSTNode) -> bool:
    """Tell whether an argument of a call was replaced by None, or one removed that is left out."""
    if not (isinstance(old, cst.Call) and isinstance(new, cst.Call)):
        return False
    if len(old.args) == len(new.args):
        return old.func is new.func
    (gone,) = [argument for argument in old.args if argument not in new.args]
    return gone.keyword is None or gone.keyword.value in _DEVICE


def statement_ranges(source: str) -> dict[int, tuple[int, int]]:
    """Return the first and last line of the innermost statement around each line.

    A compound statement ends where its body begins.
    """
    ranges: dict[int, tuple[int, int]] = {}
    # Outer statements come before inner ones.
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt | ast.match_case | ast.ExceptHandler):
            first = node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno
            body = getattr(node, "body", None)
            last = max(first, body[0].lineno - 1) if body else node.end_lineno or first
            ranges |= dict.fromkeys(range(first, last + 1), (first, last))
    return ranges


def mutants_of(path: str, source: str) -> list[Callable[[], Mutant]]:
    """Return functions that make the mutants of a module.

    Args:
        path: Path of the module, relative to the root of the repository.
        source: Text of the module.
    """
    collector = _Collector()
    wrapper = MetadataWrapper(cst.parse_module(source))
    wrapper.visit(collector)
    module, ranges = wrapper.module, statement_ranges(source)

    def make(line: int, operator: str, old: cst.CSTNode, new: cst.CSTNode) -> Mutant:
        changed = module.deep_replace(old, new)
        assert isinstance(changed, cst.Module)
        texts = [_short(module.code_for_node(node)) for node in (old, new)]
        return Mutant(path, line, ranges.get(line, (line, line)), operator, *texts, changed.code)

    return [partial(make, *found) for found in collector.found]


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 120 else f"{words[:117]}..."


def sample(name: str, area: Area, number: int, seed: int) -> list[Mutant]:
    """Draw mutants of an area, each with the same probability.

    A larger number adds to the mutants of a smaller one.

    Args:
        name: Name of the area.
        area: The area.
        number: Number of mutants to draw at most.
        seed: Seed of the choice.
    """
    found = []
    for path in area.module_files():
        found += mutants_of(str(path.relative_to(ROOT)), path.read_text("utf-8"))
    random.Random(f"{seed} {name}").shuffle(found)
    return [make() for make in found[:number]]
