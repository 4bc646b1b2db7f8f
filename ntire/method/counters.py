"""Multiply-adds counted three ways, which look at a network from three heights and should see the same.

| counter  | looks at                                                    | is blind to                                        |
|----------|-------------------------------------------------------------|----------------------------------------------------|
| dispatch | what PyTorch's dispatcher is asked, after decomposition     | operators compiled by others                       |
| modules  | layers that are called, and products called between layers  | products inside operators that it does not know    |
| trace    | the graph of the run, before decomposition                  | products inside operators that it does not know    |

Each has formulas of its own: for what the dispatcher is asked (mm, bmm, convolution), for the attributes of layers, and for
shapes in the graph. A product is a convolution, deformable ones among them, a product of matrices, also inside of recurrent and
bilinear layers, or attention; everything else counts as nothing, FFTs and lookups, too. One published figure was 5.7 times too
low because a counter of the third kind was the only one.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OF_PYTORCH = ("aten", "prim", "prims", "profiler")
"""Namespaces of operators that are known; what any other does inside cannot be seen."""
OF_OTHERS = ("torchvision::deform_conv2d",)
"""Operators of other namespaces that are known, too."""
UNCOUNTED_WORK = re.compile(r"fft|stft|linalg_(?!vector_norm|check)|cdist|_euclidean_dist")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


T = TypeVar("T")
End = Callable[[int], None]
"""Called after the first round of a loop with the number of all its rounds."""
_loop: ContextVar[Callable[[], End] | None] = ContextVar("_loop", default=None)


def alike(rounds: Sequence[T], device: torch.device) -> Iterator[T]:
    """The rounds of a loop that cost the same each, such as the steps of a sampler.

    On the meta device only the first is run, and counted as often as there are rounds.
    """
    if device.type != "meta":
        yield from rounds
        return
    begin = _loop.get()
    end = begin() if begin else None
    yield from rounds[:1]
    if end:
        end(len(rounds))


@contextmanager
def _loops(begin: Callable[[], End]) -> Iterator[None]:
    outer = _loop.set(begin)
    try:
        yield
    finally:
        _loop.reset(outer)


@dataclass
class Seen:
    """What was seen in one run of a network; modules by their name, "" for the network itself."""

    dispatch: Counter[str] = field(default_factory=Counter)
    """Multiply-adds by the module that asked for them, submodules not included."""
    modules: Counter[str] = field(default_factory=Counter)
    trace: Counter[str] = field(default_factory=Counter)
    least: Counter[str] = field(default_factory=Counter)
    """Parameters x positions of each layer: it cannot do with fewer multiply-adds."""
    opaque: dict[str, dict[str, set[int]]] = field(default_factory=dict)
    """Operators that nobody can look into, by module, and the storages that they read."""
    nothing: set[str] = field(default_factory=set)
    """Operators that are work but count as nothing by convention."""
    used: set[int] = field(default_factory=set)
    """Storages that some operator read."""
    operators: int = 0
    convolved: int = 0
    """Values that convolutions write."""
    written: int = 0
    """Values that all operators write."""

    def repeat(self) -> End:
        """From here to the end of a round is counted once for each round."""
        counters = (self.dispatch, self.modules, self.least)
        before = [counter.copy() for counter in counters]
        sums = self.operators, self.convolved, self.written

        def end(rounds: int) -> None:
            for counter, old in zip(counters, before, strict=True):
                counter.update({name: (rounds - 1) * (macs - old[name]) for name, macs in counter.items()})
            self.operators += (rounds - 1) * (self.operators - sums[0])
            self.convolved += (rounds - 1) * (self.convolved - sums[1])
            self.written += (rounds - 1) * (self.written - sums[2])

        return end


def look(network: nn.Module, lq: Tensor, *, call: Callable[[Tensor], Any] | None = None) -> Seen:
    """Run `network` (or `call`, some part of it) once under the counters by dispatch and by modules."""
    seen = Seen()
    with (
        torch.no_grad(),
        _loops(seen.repeat),
        _scopes(network) as scopes,
        _Layers(network, scopes, seen),
        _Dispatched(scopes, seen),
    ):
        (call or network)(lq)
    return seen


def look_at_trace(network: nn.Module, lq: Tensor, seen: Seen) -> None:
    """Trace `network` once and add what the graph shows to `seen`."""
    from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx

    begun: list[tuple[int, str]] = []

    def note(scope: str) -> None:
        mode = get_proxy_mode()
        if mode is not None:
            begun.append((len(mode.tracer.graph.nodes), scope))

    repeated: list[tuple[range, int]] = []

    def repeat() -> End:
        mode = get_proxy_mode()
        start = len(mode.tracer.graph.nodes) if mode else 0

        def end(rounds: int) -> None:
            if mode:
                repeated.append((range(start, len(mode.tracer.graph.nodes)), rounds))

        return end

    with torch.no_grad(), _loops(repeat), _scopes(network, note):
        # Before dispatch: a product stands there as its author wrote it, `matmul` and not `expand, view, bmm`.
        nodes = list(make_fx(network, pre_dispatch=True)(lq).graph.nodes)
    at = 0
    scope = ""
    for position, node in enumerate(nodes):
        while at < len(begun) and begun[at][0] <= position:
            scope = begun[at][1]
            at += 1
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = node.target._schema.name.partition("::")[2]
        if _known(node.target.namespace, name) and name in _IN_GRAPH:
            times = math.prod(rounds for inside, rounds in repeated if position in inside)
            seen.trace[scope] += times * _IN_GRAPH[name]([_value(arg) for arg in node.args], _value(node))


def _known(namespace: str, name: str) -> bool:
    return namespace in OF_PYTORCH or f"{namespace}::{name}" in OF_OTHERS


class _Scopes:
    """The name of the module that runs now."""

    def __init__(self, changed: Callable[[str], None] = lambda scope: None) -> None:
        self.path = [""]
        self.changed = changed

    @property
    def now(self) -> str:
        return self.path[-1]

    def enter(self, name: str) -> None:
        self.path.append(name)
        self.changed(name)

    def leave(self) -> None:
        self.path.pop()
        self.changed(self.now)


@contextmanager
def _scopes(network: nn.Module, changed: Callable[[str], None] = lambda scope: None) -> Iterator[_Scopes]:
    scopes = _Scopes(changed)
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # takes no hooks: what it does is the module's around it
            continue
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: scopes.enter(name)))
        handles.append(module.register_forward_hook(lambda *_: scopes.leave(), always_call=True))
    try:
        yield scopes
    finally:
        for handle in handles:
            handle.remove()


class _Dispatched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what the dispatcher is asked."""

    def __init__(self, scopes: _Scopes, seen: Seen) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.scopes = scopes
        self.seen = seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        read = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        self.seen.used |= read
        self.seen.operators += 1
        written = sum(
            leaf.numel()
            for leaf in tree_leaves(result)
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in read
        )
        self.seen.written += written
        if not _known(func.namespace, name):
            operators = self.seen.opaque.setdefault(self.scopes.now, {})
            operators.setdefault(f"{func.namespace}::{name}", set()).update(read)
        elif name in _DISPATCHED:
            self.seen.dispatch[self.scopes.now] += _DISPATCHED[name](args, result)
            self.seen.convolved += written if "conv" in name else 0
        elif UNCOUNTED_WORK.search(name):
            self.seen.nothing.add(name)
        return result


class _Layers(TorchFunctionMode):
    """Counts layers by their attributes when they have run, and products that are called outside of any layer."""

    def __init__(self, network: nn.Module, scopes: _Scopes, seen: Seen) -> None:
        super().__init__()
        self.scopes = scopes
        self.seen = seen
        self.layers = {name: module for name, module in network.named_modules() if _is_layer(module)}
        self.handles: list[Any] = []

    def __enter__(self) -> "_Layers":
        for name, layer in self.layers.items():
            self.handles.append(layer.register_forward_hook(partial(self._end, name), with_kwargs=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self.handles:
            handle.remove()

    def _end(
        self, name: str, layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor
    ) -> None:
        positions = _positions(layer, args[0] if args else kwargs["input"], output)
        self.seen.modules[name] += _per_position(layer) * positions
        # A weight that is held as direction and length, or as a part learned later, is still one weight.
        self.seen.least[name] += max((one.numel() for one in layer.parameters() if one.ndim > 1), default=0) * positions

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        product = _CALLED.get(getattr(func, "__name__", ""))
        if product is not None and self.scopes.now not in self.layers:
            self.seen.modules[self.scopes.now] += product(_in_order(args, kwargs or {}), result)
        return result


_ORDER = (
    "query", "input", "input1", "a", "self", "key", "mat", "mat1", "batch1", "input2", "b", "value", "weight", "other",
    "mat2", "batch2", "vec", "vec2", "tensor",
)  # fmt: skip
"""How arguments of products follow one another, whatever order a caller names them in."""


def _in_order(args: Sequence[Any], named: dict[str, Any]) -> list[Any]:
    places = {name: number for number, name in enumerate(_ORDER)}
    return [*args, *(named[name] for name in sorted(named, key=lambda name: places.get(name, len(places))))]


def _is_layer(module: nn.Module) -> bool:
    """A layer does what its attributes say; a subclass with a forward of its own may do anything."""
    return any(
        isinstance(module, kind) and type(module).forward is kind.forward
        for kind in (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
    )


def _positions(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    """How often a layer applies all its weights: once for each position of its output, or of its input if transposed."""
    if isinstance(layer, nn.Linear):
        return output.numel() // layer.out_features
    if isinstance(layer, TRANSPOSED):
        return given.numel() // layer.in_channels
    assert isinstance(layer, CONVOLUTIONS)
    return output.numel() // layer.out_channels


def _per_position(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.in_features * layer.out_features
    assert isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED))
    return layer.in_channels * layer.out_channels * math.prod(layer.kernel_size) // layer.groups


# By dispatch: operators as they are after decomposition, from the shapes that go in.


def _convolution(args: Sequence[Any], out: Tensor) -> int:
    lq, weight, transposed = args[0], args[1], args[6]
    per_channel: Tensor = lq if transposed else out
    return per_channel.shape[0] * math.prod(per_channel.shape[2:]) * weight.numel()


def _product(first: int) -> Callable[[Sequence[Any], Any], int]:
    """Of the matrices or batches of matrices at `first` and after it: (..., n, k) and (..., k, m)."""

    def macs(args: Sequence[Any], out: Any) -> int:
        a, b = args[first], args[first + 1]
        return a.numel() * (b.shape[-1] if b.ndim > 1 else 1)

    return macs


def _attention(args: Sequence[Any], out: Any) -> int:
    """Of queries (..., n, d) with keys (..., s, d) and values (..., s, e): n s (d + e)."""
    query, key, value = args[:3]
    return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _trilinear(args: Sequence[Any], out: Tensor) -> int:
    """Of a bilinear layer's first input (n, i) and weight (o, i, j)."""
    return int(args[0].shape[0] * args[1].numel())


_ADDED = ("addmm", "baddbmm", "addmv", "addbmm", "addmm_", "baddbmm_", "addmv_", "addbmm_", "_addmm_activation")
_DISPATCHED: dict[str, Callable[[Sequence[Any], Any], int]] = {
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_scaled_mm", "_grouped_mm"), _product(0)),
    **dict.fromkeys(_ADDED, _product(1)),
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
    "_trilinear": _trilinear,
    "conv_tbc": lambda args, out: _conv_tbc(args, out),
    "deform_conv2d": lambda args, out: _conv(args, out),
}

# Before decomposition: functions as they are called, or operators as they stand in the graph, from the shape that comes out.


def _conv(args: Sequence[Any], out: Tensor) -> int:
    return out.numel() * math.prod(args[1].shape[1:])


def _conv_transposed(args: Sequence[Any], out: Tensor) -> int:
    return args[0].numel() * math.prod(args[1].shape[1:])


def _conv_tbc(args: Sequence[Any], out: Tensor) -> int:
    return out.numel() * math.prod(args[1].shape[:2])


def _bilinear(args: Sequence[Any], out: Tensor) -> int:
    return out.numel() * math.prod(args[2].shape[1:])


def _recurrent(args: Sequence[Any], out: Any) -> int:
    """All matrices at every step of every sequence (..., features); of packed sequences their sizes stand before the state."""
    weights = args[2] if isinstance(args[3], bool) else args[3]
    return args[0].numel() // args[0].shape[-1] * sum(one.numel() for one in weights if one.ndim > 1)


def _recurrent_cell(args: Sequence[Any], out: Any) -> int:
    return int(args[0].numel() // args[0].shape[-1] * (args[2].numel() + args[3].numel()))


def _matmul(args: Sequence[Any], out: Tensor) -> int:
    return out.numel() * args[0].shape[-1]


def _rmatmul(args: Sequence[Any], out: Tensor) -> int:
    return out.numel() * args[1].shape[-1]


def _added(args: Sequence[Any], out: Tensor) -> int:
    return out.numel() * args[1].shape[-1] * (1 if args[1].ndim < 3 or out.ndim > 2 else args[1].shape[0])


def _tensordot(args: Sequence[Any], out: Tensor) -> int:
    return math.isqrt(args[0].numel() * args[1].numel() * out.numel())


def _einsum(args: Sequence[Any], out: Tensor) -> int:
    """Contracted from left to right, as PyTorch does it: each step visits every combination of its indices once."""
    equation: str = args[0].replace(" ", "")
    operands: list[Any] = [one for arg in args[1:] for one in (arg if isinstance(arg, list | tuple) else [arg])]
    terms, _, kept = equation.partition("->")
    indices = terms.split(",")
    sizes: dict[str, int] = {}
    for letters, operand in zip(indices, operands, strict=True):
        spread = operand.ndim - len(letters.replace("...", ""))
        named = letters.replace("...", "".join(chr(0x3B1 + number) for number in range(spread)))
        sizes |= {letter: max(size, sizes.get(letter, 1)) for letter, size in zip(named, operand.shape, strict=True)}
    dots = "".join(letter for letter in sizes if letter >= chr(0x3B1))
    indices = [letters.replace("...", dots) for letters in indices]
    if "->" not in equation:
        named_at_all = "".join(indices)
        kept = dots + "".join(
            letter for letter in sorted(set(named_at_all) - set(dots)) if named_at_all.count(letter) == 1
        )
    macs, so_far = 0, set(indices[0])
    for number, letters in enumerate(indices[1:], 1):
        later = set("".join([kept.replace("...", dots), *indices[number + 1 :]]))
        shared, together = so_far & set(letters), so_far | set(letters)
        # What one operand alone has and nobody asks for later is summed before; without a sum it is no product of matrices.
        if any(sizes[letter] > 1 for letter in shared - later):
            macs += math.prod(sizes[letter] for letter in together & (shared | later))
        so_far = together & later
    return macs


def _attend(args: Sequence[Any], out: Tensor) -> int:
    query, key = args[:2]
    return math.prod(query.shape) * key.shape[-2] + out.numel() * key.shape[-2]


def _heads(args: Sequence[Any], out: Any) -> int:
    """F.multi_head_attention_forward: query (n, b, e), key (s, b, .), value (s, b, .), e; a learned key and an empty one are
    attended to beside the s.
    """
    query, key, value, width = args[:4]
    batch = query.shape[1] if query.ndim == 3 else 1
    n, s = query.shape[0], key.shape[0]
    attended = s + (args[7] is not None) + bool(args[9])
    return batch * width * (2 * n * width + s * (key.shape[-1] + value.shape[-1]) + 2 * n * attended)


_IN_GRAPH: dict[str, Callable[[Sequence[Any], Any], int]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transposed),
    **dict.fromkeys(("linear", "matmul", "linalg_matmul", "mm", "bmm", "mv", "dot", "vdot", "inner"), _matmul),
    **dict.fromkeys(("_int_mm", "_scaled_mm", "_grouped_mm"), _matmul),
    **dict.fromkeys(_ADDED, _added),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _recurrent_cell),
    "bilinear": _bilinear,
    "conv_tbc": _conv_tbc,
    "convolution": _convolution,
    "deform_conv2d": _conv,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attend,
    "tensordot": _tensordot,
}
_CALLED = {
    **{name: macs for name, macs in _IN_GRAPH.items() if name != "convolution"},
    "__matmul__": _matmul,
    "__rmatmul__": _rmatmul,
    "multi_head_attention_forward": _heads,
}


def _value(argument: Any) -> Any:
    """What stood at a place of the graph: a tensor's shape is all that is asked of it."""
    if isinstance(argument, torch.fx.Node):
        return argument.meta.get("val", argument.meta.get("tensor_meta"))
    if isinstance(argument, list | tuple):
        return [_value(one) for one in argument]
    return argument
