"""Visual7W's telling: one LSTM with attention reads image, question and answer (1511.03416, section 5).

The image as a whole is the first input, then come `<bos>`, the words of the question and those of the answer. Before
each of them the state looks at the places of the image, `e = w . tanh(W_h h + W_c c)`, and what it sees is joined to
the word. The released code computes `tanh` of one linear map of the flattened places instead, which bounds a place's
weight to 3.65 %, and does not share its biases over time; its tie-breaking counts ties as right. Here as the paper.

With `score: match` the same network reads each answer to its end and says whether it is the right one, as the model of
1606.08390 does with means of words in place of an LSTM.

Shapes: B images, Q questions, T words, N answers of S tokens, L places, D feature channels, E word embedding, A
attention channels, C context channels, H hidden units, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from contracts.ranges import COUNT, Range, check_ranges
from contracts.text import BEGIN
from lightning_modules.base.families import TellerSpec
from lightning_modules.blocks.attention import AdditiveAttention, step_mask
from lightning_modules.blocks.backbones import BackboneName, build_backbone, check_backbone
from lightning_modules.blocks.decoding import select_rows
from lightning_modules.blocks.norms import NormName
from lightning_modules.blocks.pixels import PixelNorm


@dataclass(frozen=True, kw_only=True)
class Config:
    """The paper's is vgg16's c5 of 224 px (fc7 as the whole image), embedding and hidden 512, dropout 0.5.

    Attributes:
        features: the backbone level that is looked at; its mean is the image as a whole.
        blind_to: the controls: a model that sees no image, or reads no question.
    """

    backbone: BackboneName = "small"
    pretrained: bool = False
    norm: NormName = "batch"
    features: Literal["c3", "c4", "c5"] = "c4"
    embedding_channels: int = 64
    hidden_channels: int = 128
    attention_channels: int = 128
    context_channels: int = 128
    dropout: float = 0.1
    blind_to: Literal["nothing", "image", "question"] = "nothing"

    def __post_init__(self) -> None:
        check_ranges(
            self,
            embedding_channels=COUNT,
            hidden_channels=COUNT,
            attention_channels=COUNT,
            context_channels=COUNT,
            dropout=Range(0, 1, open_high=True),
        )
        check_backbone(self.backbone, pretrained=self.pretrained, norm=self.norm)


class _State(NamedTuple):
    """Of R rows: the LSTM's (R, H) each, and what its image is to it, which does not change: the number of it in the
    batch (R,)."""

    hidden: Tensor
    cell: Tensor
    image: Tensor


class Model(nn.Module):
    """A `Teller` (`base/families.py`). What does not depend on the step before stands outside the loop over words: the
    keys, the words' part of the gates, the product with the vocabulary."""

    spec_class: ClassVar[type] = TellerSpec

    def __init__(self, config: Config, spec: TellerSpec):
        super().__init__()
        embedding, hidden, attention = config.embedding_channels, config.hidden_channels, config.attention_channels
        self.normalise = PixelNorm()
        self.backbone = build_backbone(config.backbone, pretrained=config.pretrained, norm=config.norm)
        self.level, self.blind_to, self.score = config.features, config.blind_to, spec.score
        channels = self.backbone.channels[config.features]
        self.embed = nn.Embedding(spec.vocabulary_size, embedding)
        self.from_image = nn.Linear(channels, embedding)
        self.attention = AdditiveAttention(channels, attention)
        self.context = nn.Sequential(nn.Linear(channels, config.context_channels), nn.ReLU())
        self.word_gates = nn.Linear(embedding, 4 * hidden)
        self.context_gates = nn.Linear(config.context_channels, 4 * hidden, bias=False)
        self.hidden_sizes = [4 * hidden, attention]
        self.from_hidden = nn.Linear(hidden, sum(self.hidden_sizes), bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(hidden, spec.vocabulary_size if spec.score == "loglik" else 1)

    def forward(
        self,
        images: Tensor,
        questions: Tensor,
        lengths: Sequence[int],
        question_image: Tensor,
        answers: Tensor,
        answer_lengths: Sequence[int],
        answer_question: Tensor,
    ) -> Tensor:
        """Log-likelihoods (N, S) or logits (N,), float32: see `Teller`."""
        memory = self._memory(images)
        state = self._read(memory, questions, lengths, question_image)
        state = select_rows(state, answer_question)
        counts = torch.tensor(answer_lengths, device=answers.device)
        counted = step_mask(counts, answers.shape[1])  # (N, S)
        gates = self.word_gates(self.dropout(self.embed(answers)))
        states = [state.hidden]
        for t in range(answers.shape[1]):
            state = self._step(memory, state, gates[:, t], counted[:, t])
            states.append(state.hidden)
        if self.score == "match":
            return self.out(self.dropout(state.hidden)).squeeze(1).float()
        logits = self.out(self.dropout(torch.stack(states[:-1], dim=1)))  # of each token from the state before it
        found = torch.log_softmax(logits.float(), dim=-1).gather(2, answers.unsqueeze(2)).squeeze(2)
        return found.where(counted, 0.0)

    def _memory(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Places (B, L, D) and their keys (B, L, A)."""
        if self.blind_to == "image":
            places = self.from_image.weight.new_zeros(len(images), 1, self.from_image.in_features)
        else:
            places = self.backbone(self.normalise(images))[self.level].flatten(2).transpose(1, 2)
        return places, self.attention.keys(places)

    def _read(
        self, memory: tuple[Tensor, Tensor], questions: Tensor, lengths: Sequence[int], question_image: Tensor
    ) -> _State:
        """The state (Q rows) after the image and the question."""
        start = memory[0].new_zeros(len(questions), self.hidden_sizes[0] // 4)
        state = _State(start, start, question_image)
        whole = self.word_gates(self.from_image(memory[0].mean(dim=1))).index_select(0, question_image)
        state = self._step(memory, state, whole)
        begin = self.word_gates(self.embed(questions.new_full((len(questions),), BEGIN)))
        state = self._step(memory, state, begin)
        if self.blind_to == "question":
            return state
        read = step_mask(torch.tensor(lengths, device=questions.device), questions.shape[1])
        gates = self.word_gates(self.dropout(self.embed(questions)))
        for t in range(questions.shape[1]):
            state = self._step(memory, state, gates[:, t], read[:, t])
        return state

    def _step(
        self, memory: tuple[Tensor, Tensor], state: _State, word_gates: Tensor, counts: Tensor | None = None
    ) -> _State:
        """The state after one more input; where `counts` (R,) bool is False, the state before it."""
        hidden, cell, image = state
        gates, query = self.from_hidden(hidden).split(self.hidden_sizes, dim=1)
        places, keys = (part.index_select(0, image) for part in memory)
        seen, _ = self.attention(query, keys, places)
        i, f, g, o = (gates + word_gates + self.context_gates(self.context(seen))).chunk(4, dim=1)
        # The cell stays in float32: sums over many steps lose digits in bfloat16.
        new_cell = torch.sigmoid(f).float() * cell.float() + (torch.sigmoid(i) * torch.tanh(g)).float()
        new_hidden = (torch.sigmoid(o) * torch.tanh(new_cell)).to(hidden.dtype)
        if counts is not None:
            counts = counts.unsqueeze(1)
            new_hidden, new_cell = new_hidden.where(counts, hidden), new_cell.where(counts, cell.float())
        return _State(new_hidden, new_cell, image)
