"""The recipe's stages ``text`` and ``clip``: the pipeline's text tower, and the evaluators' own CLIP."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

import networks
from eyes import mixed_batch, share_right, with_round_trips
from loop import train_stage
from studio import CAPTIONS, Studio, numbered, sown
from unlearnkit.canvas import world
from unlearnkit.seeds import derive, stream

__all__ = ["train_clip", "train_text"]


class _Pair(nn.Module):
    """Two towers that learn to agree. Checkpoints hold their weights under these names."""

    def __init__(self, text: nn.Module, image: nn.Module) -> None:
        super().__init__()
        self.text, self.image = text, image
        self.temperature = nn.Parameter(torch.tensor(2.66))


def _contrast(images: Tensor, texts: Tensor, same: Tensor, temperature: Tensor) -> Tensor:
    """Symmetric contrastive loss in which pictures with the same caption share the target."""
    logits = temperature.exp().clamp(max=100) * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
    target = same / same.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def train_text(studio: Studio) -> None:
    """Contrastive, with an image tower that is dropped afterwards; says how well the pair names test pictures."""
    tokenizer = studio.tokenizer()
    with sown(derive(studio.seed, "text")):
        text, image = networks.make_text_tower(tokenizer), networks.make_image_tower()
        pair = _Pair(text, image).to(studio.device)
    data = studio.data("seen")
    captions, which = numbered(studio.captions("seen", held_out=True))
    ids = networks.token_ids(tokenizer, captions)

    def loss_of(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        draw = stream(studio.seed, "text", step)
        index = torch.randint(len(data), (192,), generator=draw)
        caption = which[index, torch.randint(CAPTIONS, (192,), generator=draw)]
        same = (caption[:, None] == caption[None]).float().to(studio.device)
        with studio.autocast():
            texts = text(ids[caption].to(studio.device)).pooler_output
            images = image(studio.images(data, index))
        loss = _contrast(images.float(), texts.float(), same, pair.temperature)
        return loss, {"temperature": pair.temperature.exp()}

    train_stage(
        "text-run",
        pair,
        loss_of,
        steps=studio.steps["text"],
        learning_rate=1e-3,
        folder=studio.folder,
        weight_decay=0.05,
    )
    text.save_pretrained(studio.folder / "text")
    _say_zero_shot(studio, tokenizer, text, image)


@torch.no_grad()
def _say_zero_shot(studio: Studio, tokenizer: CLIPTokenizer, text: CLIPTextModel, image: nn.Module) -> None:
    """How often the true word's prompt is the nearest among all objects' (in the true style), and all styles'."""
    pictures = studio.pictures("test")[:2000]
    parts = torch.split(torch.arange(len(pictures)), 250)
    test = studio.data("test")
    seen = torch.cat([F.normalize(image(studio.images(test, index)), dim=1) for index in parts])
    wanted: dict[str, list[tuple[str, list[str]]]] = {
        "object": [(p.object, [world.prompt(o, p.style) for o in world.OBJECTS]) for p in pictures],
        "style": [(p.style, [world.prompt(p.object, s) for s in world.STYLES]) for p in pictures],
    }
    for kind, words in (("object", list(world.OBJECTS)), ("style", list(world.STYLES))):
        prompts, which = numbered([row for _, row in wanted[kind]])
        ids = torch.split(networks.token_ids(tokenizer, prompts), 256)
        texts = torch.cat([F.normalize(text(i.to(studio.device)).pooler_output, dim=1) for i in ids])
        chosen = [words[int((texts[row] @ one).argmax())] for row, one in zip(which, seen, strict=True)]
        right = [word == true for word, (true, _) in zip(chosen, wanted[kind], strict=True)]
        print(f"text zero-shot {kind}: {np.mean(right):.4f}", flush=True)


def train_clip(studio: Studio) -> None:
    """Contrastive, with object and style heads on the image tower that are dropped afterwards."""
    tokenizer = studio.tokenizer()
    data, trips = with_round_trips(studio)
    objects, styles = studio.labels("seen")
    seed = derive(studio.seed, "clip")
    captions, which = numbered(studio.captions("seen", held_out=True))
    ids = networks.token_ids(tokenizer, captions)
    with sown(seed):
        clip = networks.make_alignment_clip(tokenizer).to(studio.device)
        heads = nn.Linear(128, len(world.OBJECTS) + len(world.STYLES)).to(studio.device)

    def loss_of(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        draw = stream(seed, "batch", step)
        indices, images = mixed_batch(studio, [(data, 64), (trips, 64)], draw)
        index = torch.cat(indices)
        caption = which[index, torch.randint(CAPTIONS, (128,), generator=draw)]
        same = (caption[:, None] == caption[None]).float().to(studio.device)
        with studio.autocast():
            vision = clip.vision_model(pixel_values=images).pooler_output
            words = clip.text_model(input_ids=ids[caption].to(studio.device)).pooler_output
            image, text = clip.visual_projection(vision), clip.text_projection(words)
            logits = heads(vision)
        o, s = torch.split(logits.float(), [len(world.OBJECTS), len(world.STYLES)], 1)
        to, ts = objects[index].to(studio.device), styles[index].to(studio.device)
        contrast = _contrast(image.float(), text.float(), same, clip.logit_scale)
        loss = contrast + F.cross_entropy(o, to) + F.cross_entropy(s, ts)
        right = {"object": share_right(o, to), "style": share_right(s, ts)}
        return loss, {"contrast": contrast} | right

    train_stage(
        "clip-run",
        nn.ModuleList([clip, heads]),
        loss_of,
        steps=studio.steps["clip"],
        learning_rate=1.2e-3,
        folder=studio.folder,
        weight_decay=0.05,
        warm=200,
    )
    clip.save_pretrained(studio.folder / "clip")
