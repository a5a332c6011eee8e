"""The text encoders of a pipeline: a cache of prompts' states, and learned vectors in place of tokens."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError

__all__ = [
    "ROOM",
    "States",
    "embedding_spread",
    "encoders",
    "free_tokens",
    "known_words",
    "placeholder",
    "pooled",
    "random_vectors",
    "shared_words",
    "soft_prefix",
    "token_ids",
    "tokenizers",
]

REMEMBERED, ROOM = 4096, 2**30  # the cache's most prompts and bytes; the oldest leave first


def encoders(pipe: Any) -> dict[str, nn.Module]:
    """The text encoders by the names of their components."""
    parts = pipe.components.items()
    return {name: part for name, part in parts if name.startswith("text_encoder") and part is not None}


class States:
    """A cache of prompts' states. It is emptied when the encoders or their weights are replaced or changed."""

    def __init__(self, pipe: Any) -> None:
        self._pipe, self._names = pipe, tuple(encoders(pipe))
        self._states: dict[str, Tensor] = {}
        self._made_with: list[_Weight] = []

    def __len__(self) -> int:
        return len(self._states)

    def of(self, prompts: Sequence[str], encode: Callable[[str], Tensor]) -> Tensor:
        """The states (n, rows, width) of prompts; ``encode`` gives those of one."""
        encoders = [getattr(self._pipe, name) for name in self._names]
        weights = [_Weight(weight) for encoder in encoders for weight in encoder.parameters()]
        if self._made_with != weights:
            self._states, self._made_with = {}, weights
        by_prompt = {prompt: self._states.get(prompt) for prompt in prompts}
        for prompt, states in by_prompt.items():
            if states is None:
                by_prompt[prompt] = new = encode(prompt)
                while self._states and len(self._states) >= min(REMEMBERED, ROOM // new.nbytes):
                    del self._states[next(iter(self._states))]
                self._states[prompt] = new
        return torch.stack([states for prompt in prompts if (states := by_prompt[prompt]) is not None])


class _Weight:
    """A weight's identity and version. Two are equal while nothing writes into the weight; it may be moved."""

    def __init__(self, weight: Tensor) -> None:
        # no weak reference: with one, torch cannot move the weight to another device
        self.weight, self.facts = weight, (weight._version, weight.dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Weight) and self.weight is other.weight and self.facts == other.facts


# learned vectors in place of tokens


def random_vectors(pipe: Any, count: int, draws: torch.Generator) -> dict[str, Tensor]:
    """``count`` random vectors (count, width), fp32, by text encoder, with the spread of its tokens' embeddings."""
    vectors_by_encoder = {}
    for name, spread in embedding_spread(pipe).items():
        embeddings = _embedding(encoders(pipe)[name]).weight
        vectors = torch.randn((count, embeddings.shape[1]), generator=draws) * spread
        vectors_by_encoder[name] = vectors.to(embeddings.device)
    return vectors_by_encoder


def embedding_spread(pipe: Any) -> dict[str, float]:
    """The standard deviation of the token embeddings' entries, by text encoder."""
    parts = encoders(pipe).items()
    return {name: _embedding(part).weight.detach().float().std().item() for name, part in parts}


def placeholder(pipe: Any, count: int) -> str:
    """A text of ``count`` tokens for every tokenizer, which ``soft_prefix`` replaces at the start of a prompt."""
    every = list(tokenizers(pipe).values())
    for word in (*string.ascii_lowercase, *known_words(pipe)):
        text = " ".join([word] * count)
        if all(len(_ids(one, text)) - len(_ids(one, "")) == count for one in every):
            return text
    raise ModelError("the model's tokenizers share no word of one token, so no vector can replace a token")


def free_tokens(pipe: Any, text: str) -> int:
    """How many more tokens fit beside the text: the least of all tokenizers."""
    return min(int(one.model_max_length) - len(_ids(one, text)) for one in tokenizers(pipe).values())


def shared_words(pipe: Any) -> tuple[list[str], dict[str, Tensor]]:
    """The m words that are one token for every tokenizer, in order, and their embeddings (m, width) by text encoder.

    A word has lower-case letters of ASCII. The embeddings are fp32 copies.
    """
    words = [word for word in known_words(pipe) if word == word.lower()]
    ids: dict[str, dict[str, int]] = {}
    for name, one in tokenizers(pipe).items():
        tokens = one(words, add_special_tokens=False, verbose=False).input_ids if words else []
        ids[name] = {
            word: found[0]
            for word, found in zip(words, tokens, strict=True)
            if len(found) == 1 and found[0] not in one.all_special_ids
        }
    words = [word for word in words if all(word in by_word for by_word in ids.values())]
    vectors = {}
    for name, encoder in encoders(pipe).items():
        table = _embedding(encoder).weight.detach()
        vectors[name] = table[[ids[name][word] for word in words]].float()
    return words, vectors


@contextmanager
def pooled(pipe: Any) -> Iterator[dict[str, Tensor]]:
    """A dictionary that holds, by text encoder, the sentence vector (n, width) of the prompts encoded last, fp32.

    It is the encoder's pooled output, and the mean over the tokens' states for one that has none, such as T5.
    """
    found: dict[str, Tensor] = {}

    with ExitStack() as stack:
        for name, encoder in encoders(pipe).items():

            def keep(_: Any, __: Any, output: Any, name: str = name) -> None:
                vector = getattr(output, "text_embeds", None)
                vector = getattr(output, "pooler_output", None) if vector is None else vector
                found[name] = (output[0].mean(1) if vector is None else vector).float()

            stack.callback(encoder.register_forward_hook(keep).remove)
        yield found


def known_words(pipe: Any) -> list[str]:
    """The words of letters in the vocabulary of the first tokenizer, sorted."""
    tokenizer = next(iter(tokenizers(pipe).values()))
    words = (word.strip("▁").removesuffix("</w>") for word in sorted(tokenizer.get_vocab()))
    return list(dict.fromkeys(word for word in words if word.isascii() and word.isalpha()))


@contextmanager
def soft_prefix(pipe: Any, vectors: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the first token embeddings of every prompt are these vectors (k, width) by encoder, with gradient.

    Vectors for which an encoder has no room, before its end token, are left out there.
    """
    with ExitStack() as stack:
        for name, encoder in encoders(pipe).items():
            start = len(_ids(tokenizers(pipe)[name], "")) - 1  # 1 if there is a start token

            def replaced(_: Any, __: Any, output: Tensor, name: str = name, start: int = start) -> Tensor:
                vector = vectors[name][: output.shape[1] - start - 1]  # as an encoder cuts off further tokens
                prefix = vector.to(output).expand(len(output), -1, -1)
                return torch.cat([output[:, :start], prefix, output[:, start + prefix.shape[1] :]], dim=1)

            embeddings = _embedding(encoder).weight
            for layer in encoder.modules():  # T5 shares the weight between two layers
                if isinstance(layer, nn.Embedding) and layer.weight is embeddings:
                    stack.callback(layer.register_forward_hook(replaced).remove)
        yield


def _embedding(encoder: Any) -> Any:
    return encoder.get_input_embeddings()


def tokenizers(pipe: Any) -> dict[str, Any]:
    """The tokenizer of every text encoder, by the encoder's name."""
    return {name: getattr(pipe, name.replace("text_encoder", "tokenizer")) for name in encoders(pipe)}


def token_ids(pipe: Any, text: str) -> tuple[tuple[int, ...], ...]:
    """The text's tokens for each text encoder. Texts with the same tokens have the same states."""
    convert = getattr(pipe, "maybe_convert_prompt", None)
    every = tokenizers(pipe).values()
    return tuple(tuple(_ids(one, convert(text, one) if convert else text)) for one in every)


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, verbose=False).input_ids
    return ids
