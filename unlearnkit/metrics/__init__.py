"""The metrics by name: which way is better, in what unit, what it means and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "Metric"]


@dataclass(frozen=True)
class Metric:
    """direction: which way is better for whoever erases."""

    name: str
    title: str
    direction: Literal["higher", "lower", "closer to before"]
    unit: str
    meaning: str


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("shown", "erased concept seen", "lower", "share of pictures",
               "pictures of prompts that ask for it on which the classifier sees it; a failed picture shows nothing"),
        Metric("kept", "right picture", "higher", "share of pictures",
               "pictures of other prompts on which the classifier sees what was asked for; a failed picture is wrong"),
        Metric("UA", "unlearning accuracy", "higher", "share of pictures",
               "UnlearnCanvas: 1 - accuracy on the erased concept, asked for by name"),
        Metric("IRA", "in-domain retain accuracy", "higher", "share of pictures",
               "UnlearnCanvas: mean accuracy over the other concepts of the same kind"),
        Metric("CRA", "cross-domain retain accuracy", "higher", "share of pictures",
               "UnlearnCanvas: mean accuracy over the concepts of the other kind"),
        Metric("clip", "CLIP score", "closer to before", "cosine, -1 to 1",
               "how well pictures of kept prompts fit their prompts"),
        Metric("clip rest", "in-prompt CLIP score", "closer to before", "cosine, -1 to 1",
               "how well pictures of erased prompts fit the rest of the prompt (Six-CD, arXiv:2406.14855)"),
        Metric("kid", "KID", "lower", "squared MMD",
               "distance of the edited model's kept pictures to the untouched model's (arXiv:1801.01401)"),
        Metric("cmmd", "CMMD", "lower", "1000 x squared MMD",
               "the same by CLIP's features (arXiv:2401.09603)"),
        Metric("diversity", "diversity", "closer to before", "mean cosine distance",
               "how unlike pictures of different prompts are: a guard against collapse"),
        Metric("failed", "failed pictures", "lower", "share of pictures",
               "blank, noise, not a number, or a prompt that the model could not read to its end"),
        Metric("change", "changed pixels", "closer to before", "levels of 255",
               "mean absolute difference of a picture before and after"),
    )
}  # fmt: skip
