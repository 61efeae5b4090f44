"""Reads the Python wrapper that Inductor generates: the lines that make, rename, use and drop buffers, in order.

Knows the wrapper's syntax and nothing of models or lifetimes; needs no torch. What it does not understand it refuses, so that no
allocation is missed. Source of the syntax: torch/_inductor/codegen/wrapper.py (2.8 to 2.11).

Of dynamic shapes sizes are expressions of symbols that are assigned before: code, which `number` works out.
"""
import ast
import math
import re
from dataclasses import dataclass, field


@dataclass
class Step:
    """One line of the wrapper that touches memory.

    kind: alloc (name, dtype, shape, stride, device) · alias (name of source: a view or a rename) · free (names) · run (a kernel that
    writes into buffers that exist) · call (an op that allocates its own outputs) · item (output `index` of a call) ·
    size (name, source: its sizes or strides, by index) · number (name, code) · return (sources; None where nothing is returned, code where a number is).
    Code too: of a call or run of an operator of torch.ops its arguments (positional, named), of an alias that is a view the view.
    """
    kind: str
    name: str = ""
    source: str = ""
    names: list = field(default_factory=list)
    dtype: str = ""
    shape: tuple = ()
    stride: tuple = ()
    index: int = 0
    device: str = "cuda"
    code: object = None


class UnknownLine(Exception):
    """A statement this reader does not understand: better to stop than to miss an allocation."""


SYMBOL = re.compile(r"p?[suzf]\d+")
# ops that Inductor leaves to aten (those of complex numbers) and that make views
VIEWS = {"view_as_complex", "view_as_real", "reshape", "_conj"}
# calls that neither make nor drop device memory
QUIET = {"assert_size_stride", "assert_alignment", "clear", "set_device", "get_raw_stream", "_set_device"}


def _code(node):
    """An expression of symbols (s77, u0) and numbers."""
    for inner in ast.walk(node):
        known = isinstance(inner, (ast.BinOp, ast.UnaryOp, ast.Constant, ast.Attribute, ast.operator, ast.unaryop, ast.expr_context))
        known = known or (isinstance(inner, ast.Name) and (SYMBOL.fullmatch(inner.id) or inner.id in ("max", "min", "int", "math")))
        known = known or (isinstance(inner, ast.Call) and _dotted(inner.func) in ("max", "min", "int", "math.trunc", "math.floor", "math.ceil"))
        if not known:
            raise UnknownLine(ast.unparse(node))
    return compile(ast.Expression(node), ast.unparse(node), "eval")


def _sizes(node):
    """A shape or stride: numbers, and code for what is no number."""
    if not isinstance(node, ast.Tuple):
        raise UnknownLine(ast.unparse(node))
    return tuple(e.value if isinstance(e, ast.Constant) else _code(e) for e in node.elts)


def number(size, known):
    """A size worked out; known: what symbols stand for."""
    return size if isinstance(size, int) else int(eval(size, {"__builtins__": {}, "math": math, "max": max, "min": min, "int": int}, known))


def _arguments(name, call):
    if not name.startswith("torch.ops."):
        return None
    named = ast.Dict([ast.Constant(k.arg) for k in call.keywords], [k.value for k in call.keywords])
    both = ast.Tuple([ast.List(call.args, ast.Load()), named], ast.Load())
    return _evaluated(both)


def _evaluated(node):
    return compile(ast.fix_missing_locations(ast.Expression(node)), "<wrapper>", "eval")


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


def _returned(node):
    """A buffer, or a number that backward needs."""
    return _code(node) if isinstance(node, (ast.BinOp, ast.UnaryOp)) else _base(node)


def _dtype(node):
    return _dotted(node).removeprefix("torch.")


def read(text):
    """The steps of a wrapper's `call` function, and the names of its arguments."""
    tree = ast.parse(text)
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "call")
    steps, arguments = [], []
    for statement in call.body:
        _statement(statement, steps, arguments)
    _check_names(arguments, steps)
    return arguments, steps


def _check_names(arguments, steps):
    """What is renamed, taken from or returned must have been made before: constants of a module are not."""
    made = set(arguments)
    for step in steps:
        used = [step.source] if step.kind in ("alias", "item", "size") else [n for n in step.names if isinstance(n, str)] if step.kind == "return" else []
        for name in used:
            if name not in made:
                raise UnknownLine(f"{name} was not made by this wrapper")
        made.add(step.name)
    if not steps or steps[-1].kind != "return":
        raise UnknownLine("the wrapper does not return")


def _statement(s, steps, arguments):
    if isinstance(s, ast.With):
        for inner in s.body:
            _statement(inner, steps, arguments)
    elif isinstance(s, ast.Delete):
        steps.append(Step("free", names=[t.id for t in s.targets]))
    elif isinstance(s, ast.Return):
        steps.append(Step("return", names=[_returned(e) for e in s.value.elts]))
    elif isinstance(s, ast.Assign):
        _assignment(s, steps, arguments)
    elif isinstance(s, ast.Expr) and isinstance(s.value, ast.Call):
        name = _dotted(s.value.func)
        if name.split(".")[-1] in QUIET:
            return
        used = _names([*s.value.args, *(k.value for k in s.value.keywords)])
        steps.append(Step("run", source=name.removesuffix(".run"), names=[n for n in used if not n.startswith("stream")], code=_arguments(name, s.value)))
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
    elif isinstance(value, (ast.BinOp, ast.Constant)) and not (isinstance(value, ast.Constant) and not isinstance(value.value, int)):
        steps.append(Step("number", target.id, code=_code(value)))
    elif isinstance(value, ast.Subscript):
        steps.append(Step("item", target.id, value.value.id, index=value.slice.value))
    elif isinstance(value, ast.Call):
        _call(target.id, value, steps)
    else:
        raise UnknownLine(ast.unparse(s))


def _partial_sums(target, call, steps):
    """`ws[a:b].view(parts, columns).sum(dim=0).to(dtype)`: what a kernel that reduces in both orders left of the sums over rows, summed in fp32 and cast (codegen/simd.py,
    _codegen_mix_order_reduction, 2.10)."""
    cast = call.func.attr == "to"
    summed = call.func.value if cast else call
    columns = _sizes(ast.Tuple([summed.func.value.args[1]]))
    made = f"{target}_sums" if cast else target
    steps.append(Step("alloc", made, dtype="float32", shape=columns, stride=(1,)))
    if cast:
        steps.extend([Step("alloc", target, dtype=_dtype(call.args[0]), shape=columns, stride=(1,)), Step("free", names=[made])])


def _call(target, call, steps):
    if re.fullmatch(r"\w+\[.*\]\.view\(.*\)\.(sum|prod)\(dim=0\)(\.to\([\w.]+\))?", ast.unparse(call)):
        _partial_sums(target, call, steps)
        return
    name = _dotted(call.func)
    last = name.split(".")[-1]
    if last in QUIET:
        return
    if last in ("size", "stride") and isinstance(call.func.value, ast.Name) and not call.args:
        steps.append(Step("size", target, call.func.value.id, code=last))
        return
    if last.startswith("empty_strided"):
        if last not in ("empty_strided_cuda", "empty_strided_cpu"):
            raise UnknownLine(name)
        steps.append(Step("alloc", target, dtype=_dtype(call.args[2]), shape=_sizes(call.args[0]), stride=_sizes(call.args[1]), device=last.removeprefix("empty_strided_")))
    elif last in ("reinterpret_tensor", "as_strided"):
        steps.append(Step("alias", target, _base(call.args[0]), names=_names([call]), code=_evaluated(call) if last == "reinterpret_tensor" else None))
    elif name.startswith("torch.ops.aten.") and name.split(".")[3] in VIEWS:
        steps.append(Step("alias", target, _base(call.args[0])))
    else:
        steps.append(Step("call", target, name, names=_names([*call.args, *(k.value for k in call.keywords)]), code=_arguments(name, call)))
