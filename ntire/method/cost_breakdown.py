"""What a method costs, in full: whose parameters, multiply-adds by three counters, activations, memory."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ntire import UserError
from ntire.method import Method
from ntire.method.count import lq_on_meta, on_meta, peak_bytes
from ntire.method.counters import Seen, look, look_at_trace

SHOWN = 5
"""Modules that a message names before it only says how many more there are."""


@dataclass(frozen=True)
class Disagreement:
    """Multiply-adds that a module asked for itself, as the three counters see them."""

    module: str
    """Its name; "" for the method's own forward."""
    dispatch: int
    modules: int
    trace: int | None


@dataclass(frozen=True)
class Short:
    """A layer that was called and does less than its parameters at every position ask for, or hides what it does."""

    module: str
    counted: int
    least: int
    """Parameters x positions; parameters alone where an operator hides at how many positions they work."""
    operators: tuple[str, ...] = ()
    """That nobody can look into."""


@dataclass(frozen=True)
class Parameters:
    """Whole numbers of values."""

    all: int
    """As the method runs."""
    trainable: int
    """Of these, what a new method would train."""
    unused: int
    """Of these, what its forward never reads."""
    buffers: int
    """Beside them: constants and statistics."""
    training_only: int
    """Beside them: what is folded or dropped before it runs."""


@dataclass(frozen=True)
class Breakdown:
    """All of it for one image, at one size."""

    parameters: Parameters
    dispatch: int
    modules: int
    trace: int | None
    """None for a method that cannot be traced; then `untraced` says why, and the other two are compared."""
    untraced: str
    training_only: int
    """Multiply-adds that the method does beside these before it is folded."""
    disagreements: tuple[Disagreement, ...]
    short: tuple[Short, ...]
    count_as_nothing: tuple[str, ...]
    """Operators that ran, are work, and count as nothing by convention, such as FFTs."""
    convolved: int
    """Values that convolutions write: the activations of the efficiency challenges."""
    written: int
    """Values that all operators write."""
    peak_bytes: int
    """float32: activations alive at once, input and output included, and parameters and buffers."""

    @property
    def problems(self) -> list[str]:
        """Why these counts cannot be believed, a sentence each; empty if they can."""
        found = []
        if self.disagreements:
            named = [
                f"{one.module or 'its own forward'} (dispatch {one.dispatch:,}, modules {one.modules:,}"
                + (")" if one.trace is None else f", trace {one.trace:,})")
                for one in self.disagreements[:SHOWN]
            ]
            found.append(
                f"the counters disagree on {len(self.disagreements)} module(s): {_listed(named, len(self.disagreements))}. "
                "The least of them is blind to an operator: write it in PyTorch's own, or count it by hand."
            )
        if self.short:
            named = [
                f"{one.module or 'its own forward'} (counted {one.counted:,}, at least {one.least:,}"
                + (f"; hidden in {', '.join(one.operators)})" if one.operators else ")")
                for one in self.short[:SHOWN]
            ]
            found.append(
                "fewer multiply-adds than parameters x positions in "
                f"{len(self.short)} module(s): {_listed(named, len(self.short))}. Something they do is not counted."
            )
        return found


def break_down(method: type[Method], at: tuple[int, int]) -> tuple[Breakdown, Method]:
    """Count a method at a size (height, width), and hand over what was built on the meta device for it.

    Raises UserError (exit code 3) for a method that asks what values its input has.
    """
    built = on_meta(method, deployed=False)
    lq = lq_on_meta(method, at)
    trained_params = sum(parameter.numel() for parameter in built.parameters())
    trained_macs = None
    try:
        if type(built).deploy is not Method.deploy:
            trained_macs = look(built, lq).dispatch.total()
        built.deploy()
        return break_down_built(built, lq, trained_params, trained_macs), built
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{method.team}: cannot be counted, as its forward asks for values where there are only shapes ({reason}). "
            "Let it do the same work whatever the picture shows.",
            exit_code=3,
        ) from None


def break_down_built(
    built: Method, lq: Tensor, trained_params: int | None = None, trained_macs: int | None = None
) -> Breakdown:
    """Count a method that is on the meta device as it runs; what it had and did in training is compared where it is known."""
    seen = look(built, lq)
    untraced = ""
    try:
        look_at_trace(built, lq, seen)
    except Exception as error:  # noqa: BLE001 - whatever stops a trace, two counters are left, and it is told
        untraced = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    params = sum(parameter.numel() for parameter in built.parameters())
    macs = seen.dispatch.total()
    return Breakdown(
        parameters=Parameters(
            all=params,
            trainable=sum(one.numel() for one in built.parameters() if one.requires_grad),
            unused=sum(one.numel() for one in built.parameters() if one.untyped_storage()._cdata not in seen.used),
            buffers=sum(one.numel() for one in built.buffers()),
            training_only=0 if trained_params is None else trained_params - params,
        ),
        dispatch=macs,
        modules=seen.modules.total(),
        trace=None if untraced else seen.trace.total(),
        untraced=untraced,
        training_only=0 if trained_macs is None else trained_macs - macs,
        disagreements=tuple(_disagreements(seen, traced=not untraced)),
        short=tuple(_short(built, seen)),
        count_as_nothing=tuple(sorted(seen.nothing)),
        convolved=seen.convolved,
        written=seen.written,
        peak_bytes=planned_bytes(built, lq),
    )


def planned_bytes(built: Method, lq: Tensor) -> int:
    """Peak of activations, input and output included, and parameters and buffers beside them."""
    with torch.no_grad():  # gradients would keep all activations
        activations = peak_bytes(built, lq)
    return activations + sum(one.numel() * one.element_size() for one in (*built.parameters(), *built.buffers()))


def _disagreements(seen: Seen, *, traced: bool) -> list[Disagreement]:
    found = (
        Disagreement(name, seen.dispatch[name], seen.modules[name], seen.trace[name] if traced else None)
        for name in sorted({*seen.dispatch, *seen.modules, *(seen.trace if traced else ())})
    )
    return [one for one in found if len({one.dispatch, one.modules, one.trace} - {None}) > 1]


def _short(built: Method, seen: Seen) -> list[Short]:
    """By rule: a layer does all its weights at each position; what goes into an operator that nobody can look into is done
    at one position at least. Weights that other operators read (scales, tables, prompts) are not multiplied and added.
    """
    layers = [
        Short(name, seen.dispatch[name], least) for name, least in seen.least.items() if seen.dispatch[name] < least
    ]
    hidden = []
    for name, operators in sorted(seen.opaque.items()):
        read = set().union(*operators.values())
        weights = {one for one in built.parameters() if one.ndim > 1 and one.untyped_storage()._cdata in read}
        least = sum(weight.numel() for weight in weights)
        if seen.dispatch[name] < least:
            hidden.append(Short(name, seen.dispatch[name], least, tuple(sorted(operators))))
    return layers + hidden


def _listed(named: list[str], count: int) -> str:
    return ", ".join(named) + (f" and {count - len(named)} more" if count > len(named) else "")
