"""DoCo (yongliang-wu/DoCo): their training script, and for the comparison their gradient surgery alone."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
import transformers
from diffusers.models.attention_processor import Attention
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from unlearnkit.methods.doco import unscaled
from unlearnkit.seeds import stream

from . import script
from .ca import arguments
from .pictures import Rows, shown
from .work import Peer, Work, difference, erased, opened, request

PICTURES, BATCH, LR = 4, 2, 1.2e-5
SETTINGS = {"trains": "xattn-kv", "lr": LR, "batch": BATCH, "teacher": "frozen", "pictures": PICTURES}
SETTINGS |= {"released": True, "discriminator_lr": 1e-4, "discriminator_warmup": 1}
SCHEDULER = "diffusers.schedulers.doco"
ABSENT = ("clip", "cv2", "torchvision", "torchvision.transforms", "torchvision.utils")


def theirs(work: Work) -> Mapping[str, Tensor]:
    folder = work.checkout / "DoCo"
    (collate,) = script.function(folder / "utils.py", "collate_fn", given={"torch": torch})
    utils = dict.fromkeys(("PromptDataset", "filter", "getanchorprompts", "retrieve"))
    given = Rows(work, PICTURES, (work.steps + 1) * BATCH, tokenizer=opened_tokenizer(work))
    utils |= {"collate_fn": collate, "CustomDiffusionDataset": lambda **_: given}
    words = arguments(work, train_batch_size=BATCH, learning_rate=LR, warm_up=0, dlr=1e-4, max_grad_norm=1)
    words[words.index("--max_train_steps") + 1] = str(work.steps + 1)  # the first is the critic's alone
    words += ["--with_prior_preservation", "--gradient_clip", "--class_data_dir", "given"]
    words += ["--class_prompt", "given"]
    old = {"diffusers__models__cross_attention": {"CrossAttention": Attention}, "DoCo__utils": utils}
    with (
        script.patched(
            (transformers, "CLIPFeatureExtractor", transformers.CLIPImageProcessor),
            (diffusers.utils, "randn_tensor", randn_tensor),
            (Attention, "cross_attention_norm", None),
        ),
        script.inside(work.checkout, *ABSENT, **old),
        script.patched((diffusers, "DDPMScheduler", scheduler(work))),
    ):
        script.run(work.checkout / "train.py", words, names={"checkpointing_steps": lambda: 10**9})
    weights = torch.load(work.out / "delta.bin")["unet"]
    return {f"unet.{name}": weight for name, weight in weights.items()}


def opened_tokenizer(work: Work) -> Any:
    return transformers.CLIPTokenizer.from_pretrained(work.pipeline / "tokenizer")


def scheduler(work: Work) -> Any:
    """Theirs, which their README copies into diffusers."""
    path = work.checkout / "DoCo" / "scheduling_ddpm.py"
    spec = importlib.util.spec_from_file_location(SCHEDULER, path)
    sys.modules[SCHEDULER] = module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module.DDPMScheduler


def ours(work: Work) -> Mapping[str, Tensor]:
    return erased(work, "doco", SETTINGS | {"steps": work.steps}, request("bear"))


def agrees(work: Work) -> tuple[str, float]:
    """Of a gradient that opposes another one, and of one that does not."""
    shown(work, PICTURES)
    (surgery,) = script.function(
        work.checkout / "DoCo" / "gradient_clip.py", "adjust_gradient", given={"torch": torch}
    )
    model, draws = opened(work), stream(0, "peers")
    weights = {n: w.detach().clone().requires_grad_() for n, w in model.weights("xattn-kv").items()}
    wanted = [{n: torch.randn(w.shape, generator=draws) for n, w in weights.items()} for _ in range(2)]

    def losses() -> list[Tensor]:
        return [torch.stack([(g[n] * w).sum() for n, w in weights.items()]).sum() for g in wanted]

    found: dict[str, Tensor] = {}

    def keep() -> None:
        found.update({n: w.grad.clone() for n, w in weights.items()})  # type: ignore[union-attr]

    def clear() -> None:
        for weight in weights.values():
            weight.grad = None

    surgery(
        SimpleNamespace(named_parameters=weights.items),
        SimpleNamespace(zero_grad=clear, step=keep),
        SimpleNamespace(backward=lambda loss, **how: loss.backward(**how)),
        lambda: torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0),
        *losses(),
    )
    erase, retain = losses()
    return "surgery", difference(found, unscaled(0, {"erase": erase, "retain": retain}, weights))


PEER = Peer(
    "doco",
    "yongliang-wu/DoCo",
    "train.py with their attention, scheduler, discriminator and surgery; its data set gives our pictures and "
    "sentences, modules that it imports and does not use are empty ones, what diffusers and transformers renamed "
    "has its old name, and nothing is saved before the end",
    "xattn-kv, two pictures a side and step, one step of the critic before, `released=true`; agreement: "
    "their function adjust_gradient on random gradients",
    theirs,
    ours,
    agrees,
    latent=64,
)
