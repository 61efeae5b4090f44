"""Reads the Python wrapper that Inductor generates: the lines that make, rename, use and drop buffers, in order.

Knows the wrapper's syntax and nothing of models or lifetimes; needs no torch. What it does not understand it refuses, so that no
allocation is missed. Source of the syntax: torch/_inductor/codegen/wrapper.py (2.8, 2.9).
"""
import ast
from dataclasses import dataclass, field

@dataclass
class Step:
    """One line of the wrapper that touches memory.

    kind: alloc (name, dtype, shape, stride) · alias (name of source: a view or a rename) · free (names) · run (a kernel that
    writes into buffers that exist) · call (an op that allocates its own outputs) · item (output `index` of a call) ·
    scratch (a workspace) · return (sources; None where nothing is returned).
    """
    kind: str
    name: str = ""
    source: str = ""
    names: list = field(default_factory=list)
    dtype: str = ""
    shape: tuple = ()
    stride: tuple = ()
    index: int = 0


class UnknownLine(Exception):
    """A statement this reader does not understand: better to stop than to miss an allocation."""


# calls that neither make nor drop device memory
# ops that Inductor leaves to aten (those of complex numbers) and that make views
VIEWS = {"view_as_complex", "view_as_real", "reshape", "_conj"}
QUIET = {"assert_size_stride", "assert_alignment", "clear", "set_device", "get_raw_stream", "_set_device"}


def _dotted(node):
    if isinstance(node, ast.Attribute):
        return _dotted(node.value) + "." + node.attr
    return node.id if isinstance(node, ast.Name) else "?"


def _names(nodes):
    """Buffers named anywhere in the arguments of a call, in order, once each."""
    found = []
    for node in nodes:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and inner.id not in found and inner.id not in ("torch", "reinterpret_tensor"):
                found.append(inner.id)
    return found


def _base(node):
    """The buffer behind a returned expression: itself, or what it is a view of."""
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call) and _dotted(node.func).endswith("reinterpret_tensor"):
        return _base(node.args[0])
    raise UnknownLine(ast.unparse(node))


def _dtype(node):
    return _dotted(node).removeprefix("torch.")


def read(text):
    """The steps of a wrapper's `call` function, and the names of its arguments."""
    tree = ast.parse(text)
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "call")
    steps, arguments = [], []
    for statement in call.body:
        _statement(statement, steps, arguments)
    return arguments, steps


def _statement(s, steps, arguments):
    if isinstance(s, ast.With):
        for inner in s.body:
            _statement(inner, steps, arguments)
    elif isinstance(s, ast.Delete):
        steps.append(Step("free", names=[t.id for t in s.targets]))
    elif isinstance(s, ast.Return):
        steps.append(Step("return", names=[_base(e) for e in s.value.elts]))
    elif isinstance(s, ast.Assign):
        _assignment(s, steps, arguments)
    elif isinstance(s, ast.Expr) and isinstance(s.value, ast.Call):
        name = _dotted(s.value.func)
        if name.split(".")[-1] in QUIET:
            return
        used = _names([*s.value.args, *(k.value for k in s.value.keywords)])
        steps.append(Step("run", source=name.removesuffix(".run"), names=[n for n in used if not n.startswith("stream")]))
    elif not isinstance(s, (ast.Pass, ast.Assert)):
        raise UnknownLine(ast.unparse(s))


def _assignment(s, steps, arguments):
    target, value = s.targets[0], s.value
    if isinstance(target, ast.Tuple):  # a, b, c = args
        if not (isinstance(value, ast.Name) and value.id == "args"):
            raise UnknownLine(ast.unparse(s))
        arguments.extend(t.id for t in target.elts)
        return
    if isinstance(value, ast.Name):
        steps.append(Step("alias", target.id, value.id))
    elif isinstance(value, ast.Subscript):
        steps.append(Step("item", target.id, value.value.id, index=value.slice.value))
    elif isinstance(value, ast.Call):
        _call(target.id, value, steps)
    else:
        raise UnknownLine(ast.unparse(s))


def _call(target, call, steps):
    name = _dotted(call.func)
    last = name.split(".")[-1]
    if last in QUIET:
        return
    if last.startswith("empty_strided"):
        shape, stride = ast.literal_eval(call.args[0]), ast.literal_eval(call.args[1])
        if last == "empty_strided_cuda":
            steps.append(Step("alloc", target, dtype=_dtype(call.args[2]), shape=shape, stride=stride))
        elif last != "empty_strided_cpu":
            raise UnknownLine(name)
    elif last in ("reinterpret_tensor", "as_strided"):
        steps.append(Step("alias", target, _base(call.args[0])))
    elif name.startswith("torch.ops.aten.") and name.split(".")[3] in VIEWS:
        steps.append(Step("alias", target, _base(call.args[0])))
    else:
        steps.append(Step("call", target, name, names=_names([*call.args, *(k.value for k in call.keywords)])))
