"""Translation: one sentence in, one sentence out; measured by sacreBLEU on plain text.

Batch: `sources` (B, S) int64, pieces then `END`, padded with 0; `lengths`, B numbers, `END` counted; and, absent in
prediction, `targets` (B, T) int64, `BEGIN` pieces `END`, padded with 0; `counts`, the target tokens that are predicted.
B sentences of at most S source and T target tokens, V target words. Model: `Translator`.

Prediction: `text`; `tokens`, T names, with the one that ends it; `source_tokens`, S names, likewise; `attention` (T, S)
float16, or (T, 0) of a model that has none; `log_prob`. Of a sentence whose translation is known also `nll` and
`num_tokens` of the reference, and, where the model has attention, `reference_attention` (T', S) float16 of the
reference's tokens and `links` (K, 2): each word of the reference with the source word that most attention goes to while
the reference is read to the model (Luong et al., 1508.04025, sec. 4.5).
Truth: `references`, `length` in source tokens, `num_words` of source and reference; where people aligned them `links`
and `possible_links` (K, 2). Words are what stands between blanks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from contracts.errors import ConfigError
from contracts.ranges import AMOUNT, COUNT, Range, check_ranges
from contracts.records import DataSpec, Record
from contracts.text import BEGIN, END, PAD, SPECIALS, TOKENIZERS, UNKNOWN
from lightning_modules.base.families import Translator, TranslatorSpec
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.decoding import beam_search, repeat_rows
from lightning_modules.metrics.alignment import AlignmentScores
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.text_scores import TranslationScores
from lightning_modules.metrics.translation_scores import TokenPerplexity, TranslationByLength

_BLANK = "\u2581"  # what a piece begins with that had a blank before it


class Task(BaseTask):
    """Scores: `BLEU` `chrF2` `perplexity`, and `AER` where there are alignments; thorough ones by source length."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """
        Attributes:
            max_tokens: of a sentence, source or target; longer ones are cut in training, and as source.
            min_token_count: rarer tokens become `<unk>`, which is read but never written.
            beam_size: 1 is greedy search.
            length_factor: a translation has at most so many times the source's tokens.
            length_power: hypotheses are compared by log p / length ** length_power; 0, as in the papers: by log p.
            length_bins: source lengths, in tokens, at which BLEU is told apart: the largest of each bin.
        """

        max_tokens: int = 100
        min_token_count: int = 2
        beam_size: int = 4
        length_factor: float = 2.0
        length_power: float = 0.0
        length_bins: tuple[int, ...] = (5, 10, 15, 25)

        def __post_init__(self) -> None:
            counts = ("max_tokens", "min_token_count", "beam_size", "length_bins")
            check_ranges(self, length_factor=Range(1, 10), length_power=AMOUNT, **dict.fromkeys(counts, COUNT))
            if list(self.length_bins) != sorted(set(self.length_bins)):
                raise ConfigError("bins of lengths must rise", value=self.length_bins, where="length_bins")

    spec_class = TranslatorSpec
    requires = ("num_sources", "num_targets")
    eval_requires = ("num_sources", "num_targets")
    inputs = ("source",)
    texts: ClassVar[Mapping[str, str | None]] = {"sources": "pieces", "targets": "pieces"}
    length_column = "length"
    metric = "BLEU"
    config: Config

    def __init__(self, config: Config, data: DataSpec):
        super().__init__(config, data)
        self.source = self.read_vocabulary("sources", min_count=config.min_token_count)
        self.target = self.read_vocabulary("targets", min_count=config.min_token_count)
        self.split = TOKENIZERS["pieces"].split

    def spec(self) -> TranslatorSpec:
        return TranslatorSpec(source_vocabulary_size=len(self.source), target_vocabulary_size=len(self.target))

    # records to tensors

    def encode(self, record: Record, seed: int | None) -> Example:
        source, target = record.sentence("source"), record.sentence("target")
        pieces = self.split(source.text if source else "")[: self.config.max_tokens]
        example: Example = {
            "source": np.array([*map(self._source_id, pieces), END], np.int64),
            "source_tokens": [*pieces, SPECIALS[END]],
        }
        if target is not None:
            ids = self.target.encode(target.text, max_length=self.config.max_tokens)
            example["target"] = np.array([BEGIN, *ids, END], np.int64)
            example["target_tokens"] = [*self.split(target.text)[: self.config.max_tokens], SPECIALS[END]]
        return example

    def _source_id(self, piece: str) -> int:
        """A piece that is known only with, or only without, a blank before it is taken for that one: a full stop after
        a blank is still a full stop, and a word that begins a sentence still that word."""
        other = piece[1:] if piece[0] == _BLANK else f"{_BLANK}{piece}"
        return self.source.ids.get(piece, self.source.ids.get(other, UNKNOWN))

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch: Batch = {
            "sources": _padded([example["source"] for example in examples]),
            "lengths": [len(example["source"]) for example in examples],
            "source_tokens": [example["source_tokens"] for example in examples],
        }
        if all("target" in example for example in examples):
            targets = [example["target"] for example in examples]
            batch |= {
                "targets": _padded(targets),
                "target_tokens": [example["target_tokens"] for example in examples],
                "counts": {"cross_entropy": sum(len(target) - 1 for target in targets)},  # all but `BEGIN`
            }
        return batch

    def truths(self, record: Record) -> list[Truth]:
        source, target = record.sentence("source"), record.sentence("target")
        assert source is not None and target is not None
        truth: Truth = {
            "references": [target.text],
            "length": len(self.split(source.text)),
            "num_words": (len(source.text.split()), len(target.text.split())),
        }
        if (alignment := record.alignment) is not None:
            kinds = {"links": alignment.links, "possible_links": alignment.possible_links}
            turn = -1 if alignment.source == "target" else 1
            truth |= {name: np.array([link[::turn] for link in links]).reshape(-1, 2) for name, links in kinds.items()}
        return [truth]

    # tensors to losses and predictions

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        logits, _ = self._forced(cast(Translator, model), self._read(model, batch), batch)
        return {"cross_entropy": Mean(self._nll(logits, batch).sum(), batch["counts"]["cross_entropy"])}

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._write(cast(Translator, model), self._read(model, batch), batch)

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        translator, read = cast(Translator, model), self._read(model, batch)  # once for both
        logits, attention = self._forced(translator, read, batch)
        nll = self._nll(logits, batch)
        predictions = self._write(translator, read, batch)
        rows = zip(predictions, nll.tolist(), attention.cpu().numpy(), batch["target_tokens"], strict=True)
        for prediction, own, weights, tokens in rows:
            prediction |= {"nll": own, "num_tokens": len(tokens)}
            if weights.shape[1]:
                sources = prediction["source_tokens"]
                weights = weights[: len(tokens), : len(sources)]
                prediction["reference_attention"] = weights.astype(np.float16)
                prediction["links"] = links_of(weights[:-1, :-1], sources[:-1], tokens[:-1])
        return {"cross_entropy": Mean(nll.sum(), batch["counts"]["cross_entropy"])}, predictions

    @staticmethod
    def _read(model: nn.Module, batch: Batch) -> tuple[Any, Any]:
        return cast(Translator, model).encode(batch["sources"], batch["lengths"])

    @staticmethod
    def _forced(model: Translator, read: tuple[Any, Any], batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V) and attention (B, T, S) while the references are read to the model."""
        return model.decode(*read, batch["targets"][:, :-1])

    @staticmethod
    def _nll(logits: Tensor, batch: Batch) -> Tensor:
        """Negative log-likelihood of each reference, (B,)."""
        with torch.autocast(logits.device.type, enabled=False):
            targets = batch["targets"][:, 1:]
            losses = F.cross_entropy(
                logits.float().flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="none"
            )
            return losses.view_as(targets).sum(dim=1)

    def _write(self, model: Translator, read: tuple[Any, Any], batch: Batch) -> list[Prediction]:
        beam, lengths = self.config.beam_size, batch["lengths"]
        memory, state = (repeat_rows(part, beam) for part in read)
        decoded = beam_search(
            lambda tokens, state: model.step(memory, state, tokens),
            state,
            num_inputs=len(lengths),
            beam_size=beam,
            max_length=torch.tensor([int(self.config.length_factor * length) for length in lengths]),
            begin=BEGIN,
            end=END,
            banned=(PAD, UNKNOWN, BEGIN),
            length_power=self.config.length_power,
        )
        rows = zip(
            decoded.tokens.tolist(), decoded.lengths.tolist(), decoded.log_probs.tolist(), decoded.kept.cpu().numpy(),
            batch["source_tokens"], strict=True,
        )  # fmt: skip
        return [
            {
                "text": self.target.text(ids[:length]),
                "tokens": [self.target.tokens[i] for i in ids[:length]],
                "source_tokens": sources,
                "attention": attention[:length, : len(sources)].astype(np.float16),
                "log_prob": log_prob,
            }
            for ids, length, log_prob, attention, sources in rows
        ]

    # what a user sees

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        by_length = [TranslationByLength(self.config.length_bins)] if thorough else []
        return [TranslationScores(), TokenPerplexity(), AlignmentScores(), *by_length]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        return {"translation": prediction["text"], "log_prob": prediction["log_prob"]}


def word_places(pieces: Sequence[str]) -> np.ndarray:
    """The word, counted from 0, that each piece of a text belongs to, (P,) int64: a piece after a blank begins one. -1
    for a mark that is written beside a word, as the full stop at its end, and says nothing of where that comes from."""
    begins = [i > 0 and len(piece) > 1 and piece[0] == _BLANK for i, piece in enumerate(pieces)]
    places = np.cumsum(begins, dtype=np.int64)
    spelled = np.array([any(map(str.isalnum, piece)) for piece in pieces], bool)
    return np.where(spelled | ~np.isin(places, places[spelled]), places, -1)


def links_of(weights: np.ndarray, sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """Each word of the target with the source word that most of its pieces' attention goes to: (K, 2) of places.

    Args:
        weights: (T, S) of pieces. sources, targets: the pieces' names; none: no link.
    """
    of_source, of_target = word_places(sources), word_places(targets)
    words = np.zeros((of_target.max(initial=-1) + 2, of_source.max(initial=-1) + 2))  # the last for what is in none
    np.add.at(words, (of_target[:, None], of_source[None, :]), weights)
    words = words[:-1, :-1]
    if not words.size:
        return np.zeros((0, 2), np.int64)
    return np.stack([words.argmax(axis=1), np.arange(len(words))], axis=1)


def _padded(rows: Sequence[np.ndarray]) -> Tensor:
    """(B, longest) int64, `PAD` behind each row's end."""
    return pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True, padding_value=PAD)
