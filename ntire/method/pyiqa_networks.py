"""Networks that judge pictures, through pyiqa: built only when every file is there.

Left alone, pyiqa downloads what is missing and opens pickles of any content while it builds a metric. Here downloads are
refused and checkpoints are read as nothing but tensors.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ntire import UserError
from ntire.method.weights_files import Weights

if TYPE_CHECKING:
    from torch import nn

PYIQA_FILES = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
_RN50 = "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"
CLIP_FILE = Weights(
    "RN50.pt",
    _RN50,
    "MIT",
    "official",
    urls=(f"https://openaipublic.azureedge.net/clip/models/{_RN50}/RN50.pt",),
    size=255_000_000,
    home="clip",
)
MUSIQ_FILE = Weights(
    "musiq_koniq_ckpt-e95806b9.pth",
    "e95806b9",
    "Apache-2.0",
    "official",
    urls=(f"{PYIQA_FILES}musiq_koniq_ckpt-e95806b9.pth",),
    size=109_000_000,
    home="pyiqa",
)
NIQE_FILE = Weights(
    "niqe_modelparameters.mat",
    None,
    "research use (LIVE, University of Texas)",
    "official",
    urls=(f"{PYIQA_FILES}niqe_modelparameters.mat",),
    size=8_000,
    home="pyiqa",
)


def build(name: str, **options: str | int) -> Any:
    """Pyiqa's network of a metric with its weights, on the CPU, ready to be called on RGB [0, 1].

    Raises UserError if pyiqa is not installed, and if it would download something.
    """
    try:
        import pyiqa
        import torch
    except ImportError as error:
        raise UserError(
            f"metric {name} needs pyiqa: {error}. Install it with `pip install 'ntire[iqa]'` (non-commercial licence).",
            exit_code=3,
        ) from None
    with guarded(name):
        metric = pyiqa.create_metric(name, device=torch.device("cpu"), **options).net
    return metric.eval().requires_grad_(False)


@contextlib.contextmanager
def guarded(name: str) -> Iterator[None]:
    """While pyiqa builds a metric: no download, no pickle but of tensors, no weights that are overwritten, no prints."""
    import timm
    import torch.hub
    from pyiqa.utils import download_util

    def refuse(url: str, *_: Any, **__: Any) -> None:
        raise UserError(f"metric {name}: {url} is not here. Get it with `ntire weights fetch`.", exit_code=3)

    with contextlib.ExitStack() as guard:
        guard.enter_context(replaced(torch.hub, "download_url_to_file", refuse))
        guard.enter_context(replaced(download_util, "download_url_to_file", refuse))
        guard.enter_context(replaced(torch, "load", partial(torch.load, weights_only=True)))
        # MANIQA asks for pretrained ImageNet weights and then overwrites every one of them.
        guard.enter_context(replaced(timm, "create_model", _without_pretraining(timm.create_model)))
        guard.enter_context(contextlib.redirect_stdout(io.StringIO()))
        guard.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Another value for an attribute of somebody else's module, as long as the context lasts."""
    own = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)


def _without_pretraining(create: Any) -> Any:
    def created(name: str, pretrained: bool = False, **options: Any) -> "nn.Module":
        model: nn.Module = create(name, pretrained=False, **options)
        return model

    return created
