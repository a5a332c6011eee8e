"""ESD (rohitgandikota/erasing): their whole training script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from unlearnkit.methods.esd import ESD
from unlearnkit.model.model import Model
from unlearnkit.seeds import stream
from unlearnkit.training.job import Run
from unlearnkit.training.net import Net, Step

from . import script
from .work import Peer, Work, difference, erased, gradient, opened, request, watched

SAMPLING = 50
# the newer code's defaults; its negative guidance of 2 is our eta of 1
SETTINGS = {
    "trains": "xattn",
    "lr": 5e-5,
    "eta": 1.0,
    "batch": 1,
    "start_steps": SAMPLING,
    "start": "student",
}


def stops(work: Work) -> list[int]:
    """Where each of our steps stops the partial denoising: theirs is made to stop there too."""
    found = []
    for number in range(work.steps):
        draws = stream(0, "esd", number)
        torch.randint(1, (1,), generator=draws)
        torch.randn((1, 4, work.latent, work.latent), generator=draws)
        found.append(int(torch.randint(SAMPLING, (), generator=draws)))
    return found


def theirs(work: Work) -> Mapping[str, Tensor]:
    left, call = stops(work), StableDiffusionPipeline.__call__
    arguments = ["--erase_concept", "cat", "--train_method", "esd-x", "--iterations", str(work.steps)]
    arguments += ["--device", "cpu", "--save_path", str(work.out)]
    with script.inside(work.checkout), script.patched((StableDiffusionPipeline, "__call__", call)):
        script.run(
            work.checkout / "esd_sd.py",
            arguments,
            constants={"CompVis/stable-diffusion-v1-4": str(work.pipeline), 1024: work.size},
            names={"torch_dtype": lambda: torch.float32, "run_till_timestep": lambda: left.pop(0)},
        )
    (file,) = Path(work.out).glob("*.safetensors")
    return {f"unet.{name}": weight for name, weight in load_file(file).items()}


def ours(work: Work) -> Mapping[str, Tensor]:
    return erased(work, "esd", SETTINGS | {"steps": work.steps}, request())


class _Fed(Net):
    """Partial denoising gives what it gave to theirs."""

    def __init__(self, model: Model, x: Tensor, t: Tensor) -> None:
        super().__init__(model)
        self.given = x, t

    def partial_denoise(self, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return self.given


def agrees(work: Work) -> tuple[str, float]:
    with watched(passes=True) as seen:
        theirs(work)
    model = opened(work)
    x, t, cond, _ = next(one for one in seen.passes if one[3])
    method = ESD(**SETTINGS)  # type: ignore[arg-type]
    net = _Fed(model, x, t)
    if not torch.equal(cond, model.encode(["cat"])):
        raise LookupError("theirs encodes the prompt otherwise")
    sets = method.data(Run(model, request(), net))
    ours_ = gradient(net, method.part, lambda: method.loss(net, sets, Step(0, 0)))
    return "gradient", difference(seen.gradients, ours_)


PEER = Peer(
    "esd",
    "rohitgandikota/erasing",
    "the whole script esd_sd.py; float32 for bfloat16, the model's own picture size for 1,024, and our stops",
    f"xattn, one picture, {SAMPLING} DDIM steps of which both do the same number",
    theirs,
    ours,
    agrees,
)
