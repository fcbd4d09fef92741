"""S2VT: two LSTMs read the frames of a clip, and the same two then write what it shows (1505.00487).

The first LSTM reads a frame a step, the second what the first gives and a word. While frames come in the second gets a
null word; then the first gets null frames and the second the words, each the one before that which it is to say. A flag
tells the second which of both it is. State is carried over from reading to writing.

Of paper and code (s2vt.prototxt), which differ: the null word is zeros, as in the paper (the code has the embedding of
the end of a text); a null frame is zeros before the frames' linear layer, so that its bias is read, as in the code. The
frames' linear layer begins by Xavier with a bias of 0.2, words and LSTMs uniform in +-0.08 at the paper's sizes, 500
channels of frames and words and LSTMs of 1000. Its SGD: 0.01, halved every 20,000 steps, momentum 0.9, clipped at 10.
Caffe's LSTM has one bias a gate, torch's two. Its forget gates begin at a bias of 0.

`mode: mean_pool` is the control with the very same layers (1412.4729): no frame is read in order; the mean of all
frames comes in at each step of writing in place of a null frame.

Shapes: B clips, F frames of all of them, T of the longest, D features, E embedding, H hidden units; N captions (or
hypotheses), S tokens, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import ClipCaptionerSpec
from lightning_modules.blocks.frames import (
    FrameBackbone,
    FrameHead,
    build_frame_backbone,
    check_frame_backbone,
    is_frame,
)
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm
from lightning_modules.blocks.recurrent import set_forget_bias

Pair = tuple[Tensor, Tensor]
_BOUND = 0.08  # of the paper's sizes; smaller ones get more, so that sums over their units are as large


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        backbone: "tiny" is for frames of 32 to 64 pixels.
        features: D, of a frame. pool_size: the CNN's last map is averaged in so many fields a side.
        mode: "s2vt", or "mean_pool", which knows no order of frames.
        embedding: E, of frames and of words.
        hidden: H, of each LSTM. forget_bias: of their forget gates at the start; at 0 half of what was read is lost at
            each step, and a clip's first frames are many steps away from the words on them.
        dropout: of frames, words and what is read out; the published solver has none.
    """

    backbone: FrameBackbone = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    features: int = 256
    pool_size: int = 2
    mode: Literal["s2vt", "mean_pool"] = "s2vt"
    embedding: int = 128
    hidden: int = 256
    forget_bias: float = 1.0
    dropout: float = 0.2

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("features", "pool_size", "embedding", "hidden"), COUNT)
        check_ranges(self, dropout=Range(0, 1, open_high=True), forget_bias=Range(-10, 10), **counts)
        check_frame_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class Model(nn.Module):
    """A `ClipCaptioner` (`base/families.py`)."""

    spec_class: ClassVar[type] = ClipCaptionerSpec

    def __init__(self, config: Config, spec: ClipCaptionerSpec):
        super().__init__()
        self.normalise = PixelNorm()
        self.backbone = build_frame_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.frames = FrameHead(
            self.backbone.channels["c5"], config.features, pool_size=config.pool_size, dropout=config.dropout
        )
        self.decoder = Decoder(config, vocabulary_size=spec.vocabulary_size)

    def encode(self, frames: Tensor) -> Tensor:
        """(F, 3, H, W) uint8 -> (F, D)."""
        return self.frames(self.backbone(self.normalise(frames))["c5"]).float()

    def decode(self, features: Tensor, lengths: Sequence[int], tokens: Tensor, caption_clip: Tensor) -> Tensor:
        """Teacher forcing: logits (N, S, V) float32 of the word after each of `tokens` (N, S)."""
        return self.decoder.write(*self.decoder.read(features, lengths), tokens, caption_clip)

    def start(self, features: Tensor, lengths: Sequence[int]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What the first LSTM gets while words are written, and both LSTMs' states, B rows each."""
        memory, first, second = self.decoder.read(features, lengths)
        return (memory,), (*first, *second)

    def step(
        self, memory: tuple[Tensor, ...], state: tuple[Tensor, ...], tokens: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One word: logits (N, V) float32 and the next state, from `tokens` (N,) int64."""
        return self.decoder.step(memory[0], state, tokens)


class Decoder(nn.Module):
    """All but the CNN: 87,358,668 weights at the paper's sizes with its 46,168 words, if each gate has one bias."""

    def __init__(self, config: Config, *, vocabulary_size: int):
        super().__init__()
        embedding, hidden = config.embedding, config.hidden
        self.mode = config.mode
        self.embed_frame = nn.Linear(config.features, embedding)
        self.embed_word = nn.Embedding(vocabulary_size, embedding)
        self.first = nn.LSTM(embedding, hidden, batch_first=True)
        self.second = nn.LSTM(hidden + embedding + 1, hidden, batch_first=True)
        self.vocabulary = nn.Linear(hidden, vocabulary_size)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.xavier_uniform_(self.embed_frame.weight)
        nn.init.constant_(self.embed_frame.bias, 0.2)
        nn.init.uniform_(self.embed_word.weight, -_BOUND * (500 / embedding) ** 0.5, _BOUND * (500 / embedding) ** 0.5)
        for parameter in (*self.first.parameters(), *self.second.parameters()):
            nn.init.uniform_(parameter, -_BOUND * (1000 / hidden) ** 0.5, _BOUND * (1000 / hidden) ** 0.5)
        for lstm in (self.first, self.second):
            set_forget_bias(lstm, config.forget_bias)

    def read(self, features: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Pair, Pair]:
        """(B, T, D) -> what the first LSTM gets while words are written (B, E), and the state (h, c) of both, each
        (B, H), after each clip's own last frame."""
        rows = len(features)
        if self.mode == "mean_pool":
            zeros = features.new_zeros(rows, self.first.hidden_size)
            there = is_frame(lengths, features.device).unsqueeze(-1)
            mean = (features * there).sum(dim=1) / there.sum(dim=1)
            return self.embed_frame(mean), (zeros, zeros), (zeros, zeros)
        seen, first = _read(self.first, self.embed_frame(features), lengths)
        _, second = _read(self.second, self._joined(seen, None), lengths)
        return self.embed_frame.bias.expand(rows, -1), first, second

    def write(self, memory: Tensor, first: Pair, second: Pair, tokens: Tensor, caption_clip: Tensor) -> Tensor:
        """Logits (N, S, V) for `tokens` (N, S) of the clips `caption_clip` (N,). The first LSTM hears no word, so it
        runs once a clip, however many captions that has."""
        inputs = memory.unsqueeze(1).expand(-1, tokens.shape[1], -1)
        seen, _ = self.first(inputs, _layers(first))
        seen = seen.index_select(0, caption_clip)
        state = tuple(part.index_select(0, caption_clip) for part in second)
        written, _ = self.second(self._joined(seen, self.embed_word(tokens)), _layers(state))
        return self.vocabulary(self.dropout(written)).float()

    def step(self, memory: Tensor, state: tuple[Tensor, ...], tokens: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step of `write`: logits (N, V) and the next state, from `tokens` (N,)."""
        seen, first = self.first(memory.unsqueeze(1), _layers(state[:2]))
        written, second = self.second(self._joined(seen, self.embed_word(tokens).unsqueeze(1)), _layers(state[2:]))
        logits = self.vocabulary(self.dropout(written[:, 0])).float()
        return logits, tuple(part.squeeze(0) for part in (*first, *second))

    def _joined(self, seen: Tensor, words: Tensor | None) -> Tensor:
        """What the second LSTM reads: the first one's outputs (R, L, H), words (R, L, E) or null words, the flag."""
        rows, steps, _ = seen.shape
        flag = seen.new_full((rows, steps, 1), 0.0 if words is None else 1.0)
        if words is None:
            words = seen.new_zeros(rows, steps, self.embed_word.embedding_dim)
        return torch.cat([seen, self.dropout(words).to(seen.dtype), flag], dim=2)


def _read(lstm: nn.LSTM, inputs: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Pair]:
    """Outputs (B, T, H), 0 behind a clip's end, and the state (h, c), each (B, H), after its last frame."""
    packed = pack_padded_sequence(inputs, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    outputs, (hidden, cell) = lstm(packed)
    padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])
    return padded, (hidden.squeeze(0), cell.squeeze(0))


def _layers(state: Sequence[Tensor]) -> Pair:
    """(h, c), each (R, H), as torch's LSTM of one layer takes them."""
    hidden, cell = state
    return hidden.unsqueeze(0).contiguous(), cell.unsqueeze(0).contiguous()
