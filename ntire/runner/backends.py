"""Other programs that run a method's network on a CPU: OpenVINO, or ONNX Runtime.

Each size of input is exported for itself, as what a network does with its sizes becomes part of the graph.
"""

import io
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from ntire import UserError
from ntire.method import Method

Backend = Literal["torch", "openvino", "onnx"]
PACKAGES = {"openvino": ("openvino",), "onnx": ("onnx", "onnxruntime")}
KEPT = 8
"""Sizes of input whose graphs are kept; the one that was made first goes."""
TRIED = 64
"""About the side of the input by which a network shows that it can be exported."""


class Exported:
    """A network as a graph for each size of input, (B, C, H, W) float32 on the host."""

    def __init__(self, method: Method, backend: Backend) -> None:
        """Raises UserError if the backend is not installed or cannot have the network."""
        self._method = method
        self._graph_of = _importable(backend)
        self._graphs: dict[torch.Size, Callable[[Tensor], Tensor]] = {}
        side = TRIED + -TRIED % method.stride
        try:
            self(torch.rand(1, method.lq_channels(), side, side))
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"--backend {backend}: {method.team}'s network cannot be exported ({reason}). Run it without.",
                exit_code=3,
            ) from error

    def __call__(self, lq: Tensor) -> Tensor:
        graph = self._graphs.get(lq.shape)
        if graph is None:
            if len(self._graphs) == KEPT:
                del self._graphs[next(iter(self._graphs))]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of sizes that are fixed, which is meant
                graph = self._graphs[lq.shape] = self._graph_of(self._method, lq)
        return graph(lq.contiguous())


def export(method: Method, backend: Backend) -> Exported:
    """The network of a method that goes through the runner's tiles.

    Raises UserError for a method that restores its own way, another device or precision, or what `Exported` refuses.
    """
    if method.device.type != "cpu" or method.dtype != torch.float32:
        raise UserError(f"--backend {backend} is for the CPU in fp32: leave out --device and --precision.")
    own = [
        name for name in ("restore", "enhance", "in_tiles") if getattr(type(method), name) is not getattr(Method, name)
    ]
    if own or method.tiling == "method":
        raise UserError(
            f"--backend {backend} takes a method that is one network, {method.team} restores its own way. Run it without."
        )
    return Exported(method, backend)


def version_of(backend: Backend) -> str:
    """Name and version, for the journal."""
    from importlib.metadata import version

    return f"{backend} {version(PACKAGES[backend][-1])}"


def _importable(backend: Backend) -> Callable[[Method, Tensor], Callable[[Tensor], Tensor]]:
    try:
        for package in PACKAGES[backend]:
            __import__(package)
    except ImportError as error:
        raise UserError(
            f"--backend {backend}: {error.name or error} is not installed: pip install 'ntire[{backend}]'.", exit_code=3
        ) from None
    return {"openvino": _openvino, "onnx": _onnx}[backend]


def _openvino(method: Method, lq: Tensor) -> Callable[[Tensor], Tensor]:
    import openvino

    model = openvino.convert_model(method, example_input=lq)
    model.reshape(list(lq.shape))
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    request = _openvino_core().compile_model(model, "CPU", options).create_infer_request()
    return lambda pieces: torch.from_numpy(request.infer([pieces.numpy()], share_inputs=True)[0].copy())


@cache
def _openvino_core() -> Any:
    """One for the process, never let go: its CPU plugin gives the thread that made it another stack for signal handlers.

    A plugin that ends in another thread, or before one that was made after it, leaves the address of memory that is gone, and
    the next signal kills the process: Ctrl-C, or the end of a child.
    """
    import openvino

    return openvino.Core()


def _onnx(method: Method, lq: Tensor) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(method, (lq,), file, input_names=["lq"], dynamo=False)  # type: ignore[arg-type]  # a file will do
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session: Any = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda pieces: torch.from_numpy(session.run(None, {"lq": pieces.numpy()})[0])
