"""Random weights for every learned metric, under the names and keys that pyiqa and the challenge expect.

Values have no meaning: they are for asking whether two programs agree on a network, and how fast they run it. Files go
into the caches that the environment names (TORCH_HOME, NTIRE_WEIGHTS), which must not be a user's own.
"""

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntire.method.pyiqa_networks import replaced
from ntire.method.weights_files import Home, cache_folder
from ntire.scoring.fid import DIMENSIONS, fid_inception
from ntire.scoring.identity import AdaFaceIR50


def write(name: str) -> None:
    """Write the files of a metric unless they are there."""
    _WRITERS[name]()


def _path(home: Home, file: str) -> Path | None:
    """Where a file belongs, or None if it is there."""
    path = cache_folder(home) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    return None if path.exists() else path


def _save(home: Home, file: str, make: Callable[[], Any]) -> None:
    path = _path(home, file)
    if path is not None:
        torch.manual_seed(sum(map(ord, file)))
        torch.save(make(), path)


def _built(name: str) -> Any:
    """Pyiqa's network of a metric, initialised at random."""
    import pyiqa
    import timm

    create = timm.create_model

    def created(model: str, pretrained: bool = False, **options: Any) -> Any:
        return create(model, pretrained=False, **options)

    quiet = contextlib.redirect_stdout(io.StringIO())
    with quiet, warnings.catch_warnings(), replaced(timm, "create_model", created):
        warnings.simplefilter("ignore")
        return pyiqa.create_metric(name, device=torch.device("cpu"), pretrained=False).net


def _niqe() -> None:
    import scipy.io

    path = _path("pyiqa", "niqe_modelparameters.mat")
    if path is not None:
        rng = np.random.default_rng(0)
        root = rng.normal(size=(36, 36))
        model = {"mu_prisparam": rng.normal(size=(1, 36)) + 1, "cov_prisparam": root @ root.T / 36 + np.eye(36)}
        scipy.io.savemat(path, model)


class _Tree(nn.Module):
    """A module whose only content is buffers of given names: what a released TorchScript archive is read for."""


def _clipiqa() -> None:
    path = _path("clip", "RN50.pt")
    if path is None:
        return
    from pyiqa.archs.clip_model import CLIP

    torch.manual_seed(1)
    network = CLIP(1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bn3.weight"):
                parameter.fill_(0.7)
    tree = _Tree()
    for name, value in network.state_dict().items():
        *modules, leaf = name.split(".")
        node: nn.Module = tree
        for module in modules:
            if not hasattr(node, module):
                node.add_module(module, _Tree())
            node = node.get_submodule(module)
        node.register_buffer(leaf, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(tree).save(str(path))  # type: ignore[no-untyped-call]


def _maniqa() -> None:
    _save("pyiqa", "ckpt_koniq10k.pt", lambda: _built("maniqa").state_dict())


def _musiq() -> None:
    _save("pyiqa", "musiq_koniq_ckpt-e95806b9.pth", lambda: _built("musiq").state_dict())


def _backbone(file: str, network: Callable[..., nn.Module]) -> None:
    def make() -> dict[str, Tensor]:
        # The classifier is most of the file and is never used: one stored number is expanded to its shape.
        return {
            name: torch.zeros(1).expand(value.shape) if name.startswith("classifier") else value
            for name, value in network(weights=None).state_dict().items()
        }

    _save("torchvision", file, make)


def _lpips() -> None:
    from torchvision.models import alexnet

    _backbone("alexnet-owt-7be5be79.pth", alexnet)
    widths = (64, 192, 384, 256, 256)
    _save(
        "pyiqa",
        "LPIPS_v0.1_alex-df73285e.pth",
        lambda: {f"lin{level}.model.1.weight": torch.rand(1, width, 1, 1) for level, width in enumerate(widths)},
    )


def _dists() -> None:
    from torchvision.models import vgg16

    _backbone("vgg16-397923af.pth", vgg16)
    heads = 3 + 64 + 128 + 256 + 512 + 512
    _save(
        "pyiqa",
        "DISTS_weights-f5e65c96.pth",
        lambda: {name: torch.rand(1, heads, 1, 1) * 0.1 + 0.05 for name in ("alpha", "beta")},
    )


def _fid() -> None:
    def inception() -> dict[str, Tensor]:
        network = fid_inception()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
                module.running_var.fill_(0.2)
        return network.state_dict()

    def statistics() -> dict[str, Any]:
        scales = 0.3 / np.sqrt(np.arange(1, DIMENSIONS + 1))
        return {"mean": np.random.default_rng(0).random(DIMENSIONS) * 0.4, "cov": np.diag(scales**2)}

    _save("pyiqa", "pt_inception-2015-12-05-6726825d.pth", inception)
    _save("ntire", "inception_FFHQ_512.pth", statistics)


def _adaface() -> None:
    def checkpoint() -> dict[str, Any]:
        state = {f"model.{name}": value for name, value in AdaFaceIR50().state_dict().items()}
        return {"state_dict": state | {"head.kernel": torch.zeros(512, 10)}, "epoch": 25}

    _save("ntire", "adaface_ir50_ms1mv2.ckpt", checkpoint)


_WRITERS: dict[str, Callable[[], None]] = {
    "niqe": _niqe,
    "clipiqa": _clipiqa,
    "maniqa": _maniqa,
    "musiq": _musiq,
    "lpips": _lpips,
    "dists": _dists,
    "fid": _fid,
    "adaface": _adaface,
}
NAMES = tuple(_WRITERS)
"""Metrics that there are random weights for."""
