"""Captioners that learn where to look by trying places at random, which a task trains by more than their words.

Shapes: B images, K captions, T tokens, L places, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

# What is read of the image at a word: the mean of all places by their weights, the one of the largest weight, or one
# drawn by them.
LookName = Literal["expected", "argmax", "sample"]


class Explored(NamedTuple):
    """
    Attributes:
        logits: (K, T, V) float32. attention: (K, T, L) float32.
        reinforce: (K,) float32, what the draws add to each caption's loss; its value says nothing, its gradient does.
        entropy: (K,) float32, likewise of the entropy of attention.
        rewards: (K,) float32 without gradient, log p(caption | places).
        is_drawn: (K,) bool, captions whose places were drawn.
    """

    logits: Tensor
    attention: Tensor
    reinforce: Tensor
    entropy: Tensor
    rewards: Tensor
    is_drawn: Tensor


@runtime_checkable
class Explorer(Protocol):
    """What such a model has beside a `Captioner`'s methods.

    Attributes:
        also_look: how it is measured as well; by default as it says itself, never at random.
    """

    also_look: Sequence[LookName]

    def explore(
        self, features: Tensor, tokens: Tensor, targets: Tensor, caption_image: Tensor, draws: Tensor
    ) -> Explored:
        """Teacher forcing as `Captioner.decode`, the places drawn.

        Args:
            targets: (K, T) int64, the token after each of `tokens`, padded with 0.
            draws: (K, 1 + T) float32 in [0, 1): all random numbers, a caption's own and one for each word.
        """
        ...

    def take_rewards(self, rewards: Tensor, *, num_images: int, num_step_images: int) -> None:
        """Every rank calls it once a micro-batch.

        Args:
            rewards: (M,) float32 of the captions whose places were drawn; none of a stand-in.
            num_images: that they are of. num_step_images: of the optimizer's step, over all ranks.
        """
        ...

    def looking(self, name: LookName) -> AbstractContextManager[None]:
        """Within, `decode` and `step` look in this way; "sample" draws the same numbers each time."""
        ...
