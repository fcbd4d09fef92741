"""Translation that looks back: a GRU writes, and before each word it weighs what a bidirectional GRU read (1409.0473).

The paper's: n = 1000 units in the decoder and in each direction of the encoder, n' = 1000 of the attention, words of
620, maxout of 2 l = 1000; vocabularies of 30,000; Adadelta (rho 0.95, eps 1e-6), gradients rescaled to a norm of 1,
batches of 80; no dropout. Without biases these are 80,401,000 weights. As in the appendix, what is said of word i is
read from the state before it, s_{i-1}; the main text writes s_i.

Two things differ unless asked for. The encoder is torch's fused GRU, which resets after the product with the state
(`encoder: gru_paper` resets before it, as the paper does, step by step); and scores other than `additive` are of
1508.04025, where the state after the word is compared, not the one before it as here.

Shapes: B sentences of S source tokens, N hypotheses, T target tokens, E word embedding, M units of a direction of the
encoder, n of the decoder, A of the attention, l of the output, V target words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from contracts.errors import ConfigError
from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import TranslatorSpec
from lightning_modules.blocks.attention import AdditiveAttention, GeneralAttention, step_mask
from lightning_modules.blocks.language import RecurrentEncoder

State = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        attention: how a source word is scored for the next target word: `additive` v . tanh(W s + U h), `dot` s . h,
            `general` s . W h; `none`: the same model without attention, whose context is what both directions of the
            encoder end with, for all words (the paper's RNNencdec).
        encoder: torch's GRU, or the paper's.
        encoder_channels: M, of each direction. decoder_channels: n; with `dot` it must be 2 M.
        attention_channels: A, of `additive` alone. output_channels: l, of which the larger of two each is taken.
        embedding_channels: E, of both languages.
        start: the first weights: torch's, or the paper's small ones, from which a small model takes many more steps to
            learn where to look.
        dropout: of word vectors and of the output; the paper has none.
    """

    attention: Literal["additive", "dot", "general", "none"] = "additive"
    encoder: Literal["gru", "gru_paper"] = "gru"
    embedding_channels: int = 64
    encoder_channels: int = 128
    decoder_channels: int = 128
    attention_channels: int = 128
    output_channels: int = 64
    start: Literal["paper", "torch"] = "torch"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        names = ("embedding", "encoder", "decoder", "attention", "output")
        check_ranges(self, dropout=Range(0, 1, open_high=True), **{f"{name}_channels": COUNT for name in names})
        if self.attention == "dot" and self.decoder_channels != 2 * self.encoder_channels:
            raise ConfigError(
                "a dot product is one of equal lengths: the decoder's state with both directions of the encoder",
                value=f"decoder_channels {self.decoder_channels}, encoder_channels {self.encoder_channels}",
                where="attention: dot", allowed=f"decoder_channels: {2 * self.encoder_channels}",
                fix="choose `general`, which has a matrix between them, or make the decoder twice as wide",
            )  # fmt: skip


class Model(nn.Module):
    """A `Translator` (`base/families.py`).

    All that does not depend on the previous step stands outside the time loop: the attention's keys, the words' part of
    the gates and of the output, and, in training, the output layer with the product with the vocabulary.
    """

    spec_class: ClassVar[type] = TranslatorSpec

    def __init__(self, config: Config, spec: TranslatorSpec):
        super().__init__()
        embedding, units = config.embedding_channels, config.decoder_channels
        features = 2 * config.encoder_channels
        self.embed_source = nn.Embedding(spec.source_vocabulary_size, embedding)
        self.encoder: RecurrentEncoder | PaperEncoder = (
            PaperEncoder(embedding, config.encoder_channels)
            if config.encoder == "gru_paper"
            else RecurrentEncoder(embedding, config.encoder_channels, cell="gru", bidirectional=True)
        )
        self.initial = nn.Linear(config.encoder_channels, units)  # W_s
        self.attention = _attention(config, features)
        self.is_additive = config.attention == "additive"
        self.embed_target = nn.Embedding(spec.target_vocabulary_size, embedding)
        self.word_gates = nn.Linear(embedding, 3 * units)  # reset, update, candidate
        self.context_gates = nn.Linear(features, 3 * units, bias=False)
        # One product with the previous state: reset and update gates, the attention's query.
        self.hidden_sizes = [2 * units, config.attention_channels if self.is_additive else 0]
        self.from_hidden = nn.Linear(units, sum(self.hidden_sizes), bias=False)
        self.candidate = nn.Linear(units, units, bias=False)
        width = 2 * config.output_channels
        self.output_hidden = nn.Linear(units, width)  # U_o, V_o, C_o
        self.output_word = nn.Linear(embedding, width, bias=False)
        self.output_context = nn.Linear(features, width, bias=False)
        self.vocabulary = nn.Linear(config.output_channels, spec.target_vocabulary_size)  # W_o
        self.dropout = nn.Dropout(config.dropout)
        if config.start == "paper":
            self._start_as_the_paper()

    @torch.no_grad()
    def _start_as_the_paper(self) -> None:
        """The paper's: matrices from state to state orthogonal, the attention's N(0, 0.001), its vector and all biases
        0, so that it begins by looking everywhere alike; the rest N(0, 0.01)."""
        units = self.candidate.out_features
        for name, parameter in self.named_parameters():
            nn.init.zeros_(parameter) if "bias" in name else nn.init.normal_(parameter, std=0.01)
            if "weight_hh" in name:
                for gate in parameter.split(parameter.shape[1]):
                    nn.init.orthogonal_(gate)
        for square in (*self.from_hidden.weight[: 2 * units].split(units), self.candidate.weight):
            nn.init.orthogonal_(square)
        if isinstance(self.attention, AdditiveAttention):
            nn.init.normal_(self.from_hidden.weight[2 * units :], std=0.001)  # W_a
            nn.init.normal_(self.attention.key.weight, std=0.001)  # U_a
            nn.init.zeros_(self.attention.score.weight)  # v_a

    def encode(self, sources: Tensor, lengths: Sequence[int]) -> tuple[State, State]:
        """Memory and state (s_0 (B, n),) of (B, S) int64 and B lengths.

        Memory is (features (B, S, 2M), keys (B, S, .), mask (B, S)), without attention the one context (B, 2M)."""
        features, (last,) = self.encoder(self.dropout(self.embed_source(sources)), lengths)
        ends = last[:, -1]  # (B, 2M): the forward direction after the last word, the backward one after the first
        state = torch.tanh(self.initial(ends.chunk(2, dim=1)[1])).float()
        if self.attention is None:
            return (ends,), (state,)
        mask = step_mask(torch.tensor(lengths, device=sources.device), sources.shape[1])
        return (features, self.attention.keys(features), mask), (state,)

    def decode(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: logits (B, T, V) of the token after each of (B, T), attention (B, T, S), both float32."""
        words = self.dropout(self.embed_target(tokens))
        hiddens, contexts, weights = [], [], []
        for gates in self.word_gates(words).unbind(dim=1):
            hiddens.append(state[0])
            state, context, weight = self._recur(memory, state, gates)
            contexts.append(context)
            weights.append(weight)
        logits = self._output(words, torch.stack(hiddens, dim=1), torch.stack(contexts, dim=1))
        return logits, torch.stack(weights, dim=1)

    def step(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
        """Logits (N, V), the next state and attention (N, S) after `tokens` (N,)."""
        words = self.dropout(self.embed_target(tokens))
        after, context, weight = self._recur(memory, state, self.word_gates(words))
        return self._output(words, state[0], context), after, weight

    def _recur(self, memory: State, state: State, word_gates: Tensor) -> tuple[State, Tensor, Tensor]:
        """State (s_i,), context c_i (N, 2M) and attention (N, S) from the word's part of the gates (N, 3n)."""
        (before,) = state
        hidden_gates, query = self.from_hidden(before).split(self.hidden_sizes, dim=-1)
        context, weight = self._look(memory, query if self.is_additive else before)
        gates = word_gates + self.context_gates(context)
        after = gru_step(before, gates, hidden_gates, self.candidate)
        return (after,), context, weight

    def _look(self, memory: State, query: Tensor) -> tuple[Tensor, Tensor]:
        if self.attention is None:
            (context,) = memory
            return context, context.new_zeros(len(context), 0, dtype=torch.float32)
        features, keys, mask = memory
        return self.attention(query.to(keys.dtype), keys, features, mask)  # type: ignore[no-any-return]

    def _output(self, words: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Deep output: (..., E), s_{i-1} (..., n), (..., 2M) -> logits (..., V) float32."""
        deep = self.output_hidden(hidden) + self.output_word(words) + self.output_context(context)
        best = deep.unflatten(-1, (-1, 2)).amax(dim=-1)  # maxout of pairs
        return self.vocabulary(self.dropout(best)).float()


class PaperEncoder(nn.Module):
    """The paper's bidirectional GRU, step by step; called as `RecurrentEncoder` is, one layer."""

    def __init__(self, channels: int, units: int):
        super().__init__()
        self.units = units
        self.word_gates = nn.Linear(channels, 6 * units)  # forward, then backward
        bound = units**-0.5  # as torch's GRU starts
        hidden_gates = (torch.empty(2 * units, units).uniform_(-bound, bound) for _ in range(2))
        self.weight_hh = nn.ParameterList([nn.Parameter(weight) for weight in hidden_gates])
        self.candidates = nn.ModuleList([nn.Linear(units, units, bias=False) for _ in range(2)])

    def forward(self, steps: Tensor, lengths: Sequence[int]) -> tuple[Tensor, State]:
        """(N, T, C) and N lengths -> outputs (N, T, 2M), 0 behind a sequence's end, and (last (N, 1, 2M),)."""
        mask = step_mask(torch.tensor(lengths, device=steps.device), steps.shape[1]).unsqueeze(2)
        outputs, last = [], []
        for direction, gates in enumerate(self.word_gates(steps).chunk(2, dim=-1)):
            state, found = gates.new_zeros(len(steps), self.units), []
            order = range(steps.shape[1]) if direction == 0 else range(steps.shape[1] - 1, -1, -1)
            for t in order:
                after = gru_step(
                    state, gates[:, t], state @ self.weight_hh[direction].T, self.candidates[direction]
                )  # fmt: skip
                state = torch.where(mask[:, t], after, state)  # padding moves no state
                found.append(state)
            outputs.append(torch.stack(found if direction == 0 else found[::-1], dim=1))
            last.append(state)
        return torch.cat(outputs, dim=-1) * mask, (torch.cat(last, dim=-1).unsqueeze(1),)


def gru_step(before: Tensor, gates: Tensor, hidden_gates: Tensor, candidate: nn.Module) -> Tensor:
    """`(1 - z) s + z tanh(x + U (r s))`, the paper's GRU: the update gate z takes the new state, r resets the old one
    before its product with U.

    Args:
        before: s (N, n). gates: of the inputs (N, 3n): reset, update, candidate. hidden_gates: of the state (N, 2n).
        candidate: U.
    """
    opened, proposed = gates.split([hidden_gates.shape[-1], before.shape[-1]], dim=-1)
    reset, update = torch.sigmoid((opened + hidden_gates).float()).chunk(2, dim=-1)
    proposal = torch.tanh((proposed + candidate(reset * before)).float())
    return (1 - update) * before + update * proposal


def _attention(config: Config, features: int) -> AdditiveAttention | GeneralAttention | None:
    if config.attention == "none":
        return None
    if config.attention == "additive":
        return AdditiveAttention(features, config.attention_channels)
    return GeneralAttention(features, config.decoder_channels, projected=config.attention == "general")
