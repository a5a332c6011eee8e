"""The canvas's training recipe: ``python -m unlearnkit.canvas.train STAGE ...``

Stages, in order: data, vae, text, latents, unet, never-knew, decoder, guide, judge, clip, ship. Each picks up where it was
stopped; the data and the batches are functions of the seed alone. Two stages may run side by side with one thread
each: (vae | text), (unet | guide, judge, clip, never-knew). Measured times are in docs/canvas.md.
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..seeds import derive, stream
from . import augment, networks, painter, world
from .classifier import Eye
from .loop import train_stage
from .world import Picture

STAGES = ("data", "vae", "text", "latents", "unet", "never-knew", "decoder", "guide", "judge", "clip", "ship")
STEPS = {"vae": 1100, "decoder": 800, "text": 800, "unet": 4500, "never-knew": 4500, "guide": 1200, "judge": 1200, "clip": 1200}
PAINTED = {"train": 48_000, "seen": 36_000, "test": 5_000}  # seen: for the evaluators, held pairs included
CAPTIONS = 4  # drawn for each training picture


class Studio:
    """The work folder, the device and the data that stages share."""

    def __init__(self, folder: Path, device: str, seed: int, steps: dict[str, int]) -> None:
        self.folder, self.device, self.seed, self.steps = folder, torch.device(device), seed, STEPS | steps
        self.batch_device = "cuda" if self.device.type == "cuda" else "cpu"
        folder.mkdir(parents=True, exist_ok=True)

    def pictures(self, part: str) -> list[Picture]:
        rng = random.Random(derive(self.seed, "pictures", part))
        return [world.draw_picture(rng, held_pairs=part != "train") for _ in range(PAINTED[part])]

    def painted(self, part: str) -> NDArray[np.uint8]:
        return np.load(self.folder / f"{part}.npy", mmap_mode="r")

    def captions(self, part: str, *, held: bool) -> list[list[str]]:
        rng = random.Random(derive(self.seed, "captions", part))
        return [[world.caption(p, rng, held=held) for _ in range(CAPTIONS)] for p in self.pictures(part)]

    def images(self, data: NDArray[np.uint8], index: Tensor) -> Tensor:
        """(n, 3, 64, 64) in [-1, 1] on the device."""
        chosen = torch.from_numpy(np.ascontiguousarray(data[index.numpy()]))
        return chosen.to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.batch_device, torch.bfloat16)

    def tokenizer(self) -> networks.CLIPTokenizer:
        return networks.make_tokenizer(self.folder / "tokenizer")

    def vae(self) -> networks.AutoencoderKL:
        refined = self.folder / "vae-refined"
        return networks.AutoencoderKL.from_pretrained(refined if refined.is_dir() else self.folder / "vae").to(self.device).requires_grad_(False)

    def text(self) -> networks.CLIPTextModel:
        return networks.CLIPTextModel.from_pretrained(self.folder / "text").to(self.device).requires_grad_(False)


def stage_data(studio: Studio) -> None:
    for part in PAINTED:
        path = studio.folder / f"{part}.npy"
        if path.is_file():
            continue
        done = painter.paint_many(studio.pictures(part), tick=lambda i, n: print(f"data {part} {i}/{n}", flush=True))
        with open(path.with_suffix(".partial"), "wb") as file:
            np.save(file, done)
        os.replace(path.with_suffix(".partial"), path)


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def _reconstruction(y: Tensor, x: Tensor) -> tuple[Tensor, float]:
    """L1 + L2 + half an L1 of the image gradients; and the L1 alone."""
    l1 = F.l1_loss(y, x)
    edge = sum((F.l1_loss(a, b) for a, b in zip(_gradients(y), _gradients(x), strict=True)), torch.zeros_like(l1))
    return l1 + F.mse_loss(y, x) + 0.5 * edge, l1.item()


def stage_vae(studio: Studio) -> None:
    """The reconstruction loss and 1e-3 KL per latent element."""
    torch.manual_seed(derive(studio.seed, "vae"))
    vae = networks.make_vae().to(studio.device)
    data = studio.painted("train")

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        draw = stream(studio.seed, "vae", step)
        x = studio.images(data, torch.randint(len(data), (32,), generator=draw))
        with studio.autocast():
            posterior = vae.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=draw).to(studio.device)
            y = vae.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        loss, l1 = _reconstruction(y.float(), x)
        return loss + 1e-3 * kl, {"l1": l1, "kl": kl.item()}

    train_stage("vae-run", vae, loss_of, steps=studio.steps["vae"], learning_rate=1.5e-3, folder=studio.folder)
    sample = torch.randint(len(data), (2048,), generator=stream(studio.seed, "vae-scale"))
    with torch.no_grad():
        latents = torch.cat([vae.encode(studio.images(data, part)).latent_dist.mean for part in sample.split(256)])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    vae.save_pretrained(studio.folder / "vae")


def stage_decoder(studio: Studio) -> None:
    """Train the decoder further while the encoder, and so every latent, stays as it is."""
    vae = networks.AutoencoderKL.from_pretrained(studio.folder / "vae").to(studio.device)
    data, latents = studio.painted("train"), torch.from_numpy(np.load(studio.folder / "latents.npy", mmap_mode="r"))
    part = nn.ModuleList([vae.post_quant_conv, vae.decoder])

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        draw = stream(studio.seed, "decoder", step)
        index = torch.randint(len(data), (32,), generator=draw)
        z = latents[index] + 0.04 * torch.randn(32, 4, 16, 16, generator=draw)
        x = studio.images(data, index)
        with studio.autocast():
            y = vae.decode(z.to(studio.device) / vae.config.scaling_factor).sample
        loss, l1 = _reconstruction(y.float(), x)
        return loss, {"l1": l1}

    train_stage("decoder-run", part, loss_of, steps=studio.steps["decoder"], learning_rate=8e-4, folder=studio.folder)
    vae.save_pretrained(studio.folder / "vae-refined")


def _contrast(images: Tensor, texts: Tensor, same: Tensor, temperature: Tensor) -> Tensor:
    """Symmetric contrastive loss in which pictures with the same caption share the target."""
    logits = temperature.exp().clamp(max=100) * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
    target = same / same.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


class _Pair(nn.Module):
    def __init__(self, text: nn.Module, image: nn.Module) -> None:
        super().__init__()
        self.text, self.image = text, image
        self.temperature = nn.Parameter(torch.tensor(2.66))


def _token_ids(tokenizer: networks.CLIPTokenizer, captions: list[list[str]]) -> tuple[Tensor, Tensor]:
    """Ids (distinct, 24) of every distinct caption, and which of them each picture has: (pictures, CAPTIONS)."""
    number = {text: i for i, text in enumerate(dict.fromkeys(c for row in captions for c in row))}
    ids = tokenizer(list(number), padding="max_length", max_length=networks.LENGTH, truncation=True, return_tensors="pt")
    return ids.input_ids, torch.tensor([[number[c] for c in row] for row in captions])


def stage_text(studio: Studio) -> None:
    tokenizer = studio.tokenizer()
    torch.manual_seed(derive(studio.seed, "text"))
    pair = _Pair(networks.make_text_tower(tokenizer), networks.make_image_tower()).to(studio.device)
    data = studio.painted("seen")
    ids, which = _token_ids(tokenizer, studio.captions("seen", held=True))

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        draw = stream(studio.seed, "text", step)
        index = torch.randint(len(data), (192,), generator=draw)
        caption = which[index, torch.randint(CAPTIONS, (192,), generator=draw)]
        same = (caption[:, None] == caption[None]).float().to(studio.device)
        with studio.autocast():
            texts = pair.text(ids[caption].to(studio.device)).pooler_output
            images = pair.image(studio.images(data, index))
        loss = _contrast(images.float(), texts.float(), same, pair.temperature)
        return loss, {"temperature": pair.temperature.exp().item()}

    train_stage("text-run", pair, loss_of, steps=studio.steps["text"], learning_rate=1e-3, folder=studio.folder, weight_decay=0.05)
    pair.text.save_pretrained(studio.folder / "text")
    torch.set_grad_enabled(False)
    test, index = studio.painted("test"), torch.arange(2000)
    pictures = studio.pictures("test")[:2000]
    seen = torch.cat([F.normalize(pair.image(studio.images(test, part)), dim=1) for part in index.split(250)])
    for part, words in (("object", list(world.OBJECTS)), ("style", list(world.STYLES))):
        prompts = [[world.prompt(getattr(p, "object") if part == "style" else w, w if part == "style" else p.style) for w in words] for p in pictures]
        distinct = {c: i for i, c in enumerate(dict.fromkeys(c for row in prompts for c in row))}
        tokens = tokenizer(list(distinct), padding="max_length", max_length=networks.LENGTH, return_tensors="pt").input_ids
        texts = torch.cat([F.normalize(pair.text(t.to(studio.device)).pooler_output, dim=1) for t in tokens.split(256)])
        right = [
            words[int((texts[[distinct[c] for c in row]] @ s).argmax())] == getattr(p, part)
            for p, row, s in zip(pictures, prompts, seen, strict=True)
        ]
        print(f"text zero-shot {part}: {np.mean(right):.4f}", flush=True)
    torch.set_grad_enabled(True)


def stage_latents(studio: Studio) -> None:
    """Encode the training pictures once, and every distinct caption once."""
    vae, data = studio.vae(), studio.painted("train")
    with torch.no_grad(), studio.autocast():
        parts = [
            vae.encode(studio.images(data, index)).latent_dist.mean.float().cpu() for index in torch.arange(len(data)).split(256)
        ]
    np.save(studio.folder / "latents.npy", (torch.cat(parts) * vae.config.scaling_factor).numpy())


def _train_unet(studio: Studio, name: str, keep: Tensor, seed: int) -> None:
    """Epsilon prediction with min-SNR-5 weights; a tenth of the captions is dropped for classifier-free guidance."""
    tokenizer, text = studio.tokenizer(), studio.text()
    captions = studio.captions("train", held=False)
    number = {c: i for i, c in enumerate(dict.fromkeys(c for row in captions for c in row))}
    states = networks.states(text, tokenizer, [*number, ""])
    which = torch.tensor([[number[c] for c in row] for row in captions])
    latents = torch.from_numpy(np.load(studio.folder / "latents.npy"))
    alphas = networks.make_scheduler().alphas_cumprod
    torch.manual_seed(derive(seed, name))
    unet = networks.make_unet().to(studio.device)
    if studio.device.type == "cpu":  # the fused kernel's backward pass takes half of a step on this size
        from diffusers.models.attention_processor import AttnProcessor

        unet.set_attn_processor(AttnProcessor())

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        draw = stream(seed, name, step)
        index = keep[torch.randint(len(keep), (64,), generator=draw)]
        caption = which[index, torch.randint(CAPTIONS, (64,), generator=draw)]
        caption[torch.rand(64, generator=draw) < 0.1] = len(number)
        t = torch.randint(1000, (64,), generator=draw)
        noise = torch.randn(64, 4, 16, 16, generator=draw)
        a = alphas[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * latents[index] + (1 - a).sqrt() * noise
        with studio.autocast():
            out = unet(noisy.to(studio.device), t.to(studio.device), states[caption.to(states.device)]).sample
        snr = (a / (1 - a)).flatten()
        error = (out.float() - noise.to(studio.device)).pow(2).mean((1, 2, 3))
        loss = (error * (snr.clamp(max=5) / snr).to(studio.device)).mean()
        return loss, {"error": error.mean().item()}

    average = train_stage(f"{name}-run", unet, loss_of, steps=studio.steps[name], learning_rate=1.2e-3, folder=studio.folder, decay=0.998, warm=200)
    if average:
        unet.load_state_dict(average.shadow)
    unet.save_pretrained(studio.folder / name)


def stage_unet(studio: Studio) -> None:
    _train_unet(studio, "unet", torch.arange(PAINTED["train"]), studio.seed)


def stage_never_knew(studio: Studio) -> None:
    keep = [
        i
        for i, p in enumerate(studio.pictures("train"))
        if p.object not in world.NEVER_KNEW_OBJECTS and p.style not in world.NEVER_KNEW_STYLES
    ]
    _train_unet(studio, "never-knew", torch.tensor(keep), derive(studio.seed, "another"))


def _labels(studio: Studio, part: str) -> tuple[Tensor, Tensor]:
    objects, styles = list(world.OBJECTS), list(world.STYLES)
    pictures = studio.pictures(part)
    return torch.tensor([objects.index(p.object) for p in pictures]), torch.tensor([styles.index(p.style) for p in pictures])


def _degraded(studio: Studio) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The evaluators' pictures, and autoencoder round trips of a third of them (made once)."""
    data, path = studio.painted("seen"), studio.folder / "seen-trips.npy"
    if not path.is_file():
        trips = augment.round_trips(studio.vae(), data[: len(data) // 3], studio.device, seed=studio.seed)
        with open(path.with_suffix(f".{os.getpid()}"), "wb") as file:
            np.save(file, trips)
        os.replace(path.with_suffix(f".{os.getpid()}"), path)
    return data, np.load(path, mmap_mode="r")


def _train_eye(studio: Studio, name: str, form: str) -> None:
    data, trips = _degraded(studio)
    objects, styles = _labels(studio, "seen")
    seed = derive(studio.seed, name)
    torch.manual_seed(seed)
    eye = Eye(form, list(world.OBJECTS), list(world.STYLES)).to(studio.device)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        draw = stream(seed, "batch", step)
        index = torch.cat([torch.randint(len(data), (64,), generator=draw), torch.randint(len(trips), (64,), generator=draw)])
        images = torch.cat([studio.images(data, index[:64]), studio.images(trips, index[64:])])
        images = augment.degrade(images, draw)
        with studio.autocast():
            o, s = eye(images)
        o, s = o.float(), s.float()
        to, ts = objects[index].to(studio.device), styles[index].to(studio.device)
        loss = F.cross_entropy(o, to, label_smoothing=0.02) + F.cross_entropy(s, ts, label_smoothing=0.02)
        right = (o.argmax(1) == to).float().mean().item(), (s.argmax(1) == ts).float().mean().item()
        return loss, {"object": right[0], "style": right[1]}

    average = train_stage(f"{name}-run", eye, loss_of, steps=studio.steps[name], learning_rate=3e-3, folder=studio.folder, decay=0.0)
    del average
    eye.eval().save(studio.folder / name)
    test, (objects, styles) = studio.painted("test"), _labels(studio, "test")
    with torch.no_grad():
        out = [eye(studio.images(test, part)) for part in torch.arange(len(test)).split(250)]
    object_right = (torch.cat([o.argmax(1) for o, _ in out]).cpu() == objects).float().mean()
    style_right = (torch.cat([s.argmax(1) for _, s in out]).cpu() == styles).float().mean()
    print(f"{name} on {len(test)} held-out painted pictures: object {object_right:.4f} style {style_right:.4f}", flush=True)


def stage_guide(studio: Studio) -> None:
    _train_eye(studio, "guide", "separable")


def stage_judge(studio: Studio) -> None:
    _train_eye(studio, "judge", "plain")


def stage_clip(studio: Studio) -> None:
    """The evaluators' CLIP: contrastive, with object and style heads on the image tower that are dropped afterwards."""
    tokenizer = studio.tokenizer()
    data, trips = _degraded(studio)
    objects, styles = _labels(studio, "seen")
    seed = derive(studio.seed, "clip")
    ids, which = _token_ids(tokenizer, studio.captions("seen", held=True))
    torch.manual_seed(seed)
    clip = networks.make_alignment_clip(tokenizer).to(studio.device)
    heads = nn.Linear(128, len(world.OBJECTS) + len(world.STYLES)).to(studio.device)
    both = nn.ModuleList([clip, heads])

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        draw = stream(seed, "batch", step)
        index = torch.cat([torch.randint(len(data), (64,), generator=draw), torch.randint(len(trips), (64,), generator=draw)])
        images = torch.cat([studio.images(data, index[:64]), studio.images(trips, index[64:])])
        images = augment.degrade(images, draw)
        caption = which[index, torch.randint(CAPTIONS, (128,), generator=draw)]
        same = (caption[:, None] == caption[None]).float().to(studio.device)
        with studio.autocast():
            vision = clip.vision_model(pixel_values=images).pooler_output
            image = clip.visual_projection(vision)
            text = clip.text_projection(clip.text_model(input_ids=ids[caption].to(studio.device)).pooler_output)
            logits = heads(vision)
        o, s = logits.float().split([len(world.OBJECTS), len(world.STYLES)], 1)
        to, ts = objects[index].to(studio.device), styles[index].to(studio.device)
        contrast = _contrast(image.float(), text.float(), same, clip.logit_scale)
        loss = contrast + F.cross_entropy(o, to) + F.cross_entropy(s, ts)
        right = (o.argmax(1) == to).float().mean().item(), (s.argmax(1) == ts).float().mean().item()
        return loss, {"contrast": contrast.item(), "object": right[0], "style": right[1]}

    train_stage("clip-run", both, loss_of, steps=studio.steps["clip"], learning_rate=1.2e-3, folder=studio.folder, weight_decay=0.05, warm=200)
    clip.save_pretrained(studio.folder / "clip")


def stage_ship(studio: Studio) -> None:
    from .ship import ship

    ship(studio.folder, {"seed": studio.seed, "steps": studio.steps, "painted": PAINTED})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m unlearnkit.canvas.train", description=__doc__)
    parser.add_argument("stages", nargs="+", choices=[*STAGES, "all"])
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache/unlearnkit/canvas", help="folder for data and checkpoints")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", action="append", default=[], metavar="STAGE=N", help="train a stage for N steps")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    steps = {name: int(n) for name, _, n in (pair.partition("=") for pair in given.steps)}
    if unknown := set(steps) - set(STEPS):
        parser.error(f"--steps knows {', '.join(STEPS)}, not {', '.join(unknown)}")
    studio = Studio(given.work, given.device, given.seed, steps)
    for stage in STAGES if "all" in given.stages else given.stages:
        globals()[f"stage_{stage.replace('-', '_')}"](studio)


if __name__ == "__main__":
    main()
