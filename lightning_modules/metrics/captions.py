"""Caption metrics as tylin/coco-caption computes them: BLEU-1..4, ROUGE-L and CIDEr-D, over a whole split.

BLEU (Papineni et al., 2002): of the corpus, clipped counts over all references, brevity penalty from the reference
length closest to the hypothesis (the shorter of two equally near), summed over images. ROUGE-L (Lin, 2004): best
precision and best recall over the references, which may come from different references, beta 1.2. CIDEr (1411.5726) is
the CIDEr-D variant: n = 1..4, Gaussian length penalty with sigma 6, times 10.

Rules kept because published numbers depend on them:
- document frequencies come from the references being scored, so CIDEr is defined for a split only, never for a batch;
  one image alone scores 0;
- BLEU adds 1e-15 to each number of matches and 1e-9 to each number of n-grams: without a single match it is not 0;
- BLEU and CIDEr split a token at white space inside it (the tokenizer keeps "1 1/2" as one token, with U+00A0 in it),
  ROUGE-L does not; for ROUGE-L a caption without tokens is one empty token;
- CIDEr takes the number of bigrams for the length.

Shapes: I images, R references of all of them, T tokens; for each order n: E distinct (reference, n-gram) entries,
P distinct (image, n-gram) pairs, U distinct n-grams.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import LCSseq

from lightning_modules.metrics.measurement import SOURCE, Measurement, ratio_of_sums

BLEU_NAMES = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")
NAMES = (*BLEU_NAMES, "ROUGE_L", "CIDEr")
_MAX_ORDER = 4
_TINY, _SMALL = 1e-15, 1e-9  # the official guards against a division by zero
_BETA = 1.2  # of ROUGE-L: weight of recall
_SIGMA = 6.0  # of CIDEr-D: tolerated difference of lengths
_KEY_BITS = 31  # an n-gram's key is the id of its first n - 1 tokens and the id of its last token


@dataclass(frozen=True, slots=True)
class _References:
    """The n-grams of one order in all references."""

    keys: np.ndarray  # (U,) int64 sorted; an n-gram's id is its place here
    idf: np.ndarray  # (U,) float64, log(I) - log(number of images with it)
    pairs: np.ndarray  # (P,) int64 sorted, image * U + n-gram
    pair_max: np.ndarray  # (P,) int64, largest count in one reference of the image
    entry_reference: np.ndarray  # (E,) int64
    entry_pair: np.ndarray  # (E,) int64, place in `pairs`
    entry_count: np.ndarray  # (E,) int64
    norm: np.ndarray  # (R,) float64, length of each reference's tf-idf vector


@dataclass(frozen=True, slots=True)
class _Matches:
    """The n-grams of one order in all hypotheses, compared with the references."""

    correct: np.ndarray  # (I,) int64, clipped matches
    pair_count: np.ndarray  # (P,) int64, count in the image's hypothesis
    norm: np.ndarray  # (I,) float64


@dataclass(frozen=True, slots=True)
class _Hypotheses:
    """A system's captions, counted."""

    lengths: np.ndarray  # (I,) int64
    orders: list[_Matches]
    rouge_ids: list[list[int]]  # token ids of each caption


class CaptionMetrics:
    """References of a split, counted once, for any number of systems.

    Args:
        references: per image one or more token lists (which may be empty), as `ptb_tokenizer` gives them.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[str]]]):
        sizes = np.array([len(captions) for captions in references], np.int64)
        if not sizes.all():
            raise ValueError(f"image {int(np.argmin(sizes))} has no reference")
        self._num_images = len(sizes)
        self._num_references = sizes
        self._first = np.cumsum(sizes) - sizes  # (I,) each image's first reference
        self._ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)  # grows with the hypotheses
        captions = [tokens for image in references for tokens in image]
        self._rouge_ids = self._whole_tokens(captions)
        words, self._lengths = self._words(captions)  # (T,), (R,)
        image_of_reference = np.repeat(np.arange(self._num_images), sizes)
        self._orders: list[_References] = []
        grams = words
        for order in range(1, _MAX_ORDER + 1):
            grams, sentence = _extend(grams, words, self._lengths, order)
            keys, grams = np.unique(grams, return_inverse=True)
            self._orders.append(_count_references(keys, grams, sentence, image_of_reference, self._num_images))

    def bleu(self, hypotheses: Sequence[Sequence[str]]) -> dict[str, float]:
        """`{"Bleu_1": .., .., "Bleu_4": ..}` in 0..1 of the corpus: without the other metrics' work.

        Args:
            hypotheses: one token list per image, in the references' order; may be empty.
        """
        return _corpus_bleu(self._bleu_counts(self._count(hypotheses)))

    def per_image(self, hypotheses: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        """Official scores of each image, every metric by name: (I,) float64.

        The corpus's ROUGE_L and CIDEr are the means of these. Its BLEU is not: the means of these BLEUs say nothing.
        """
        counted = self._count(hypotheses)
        bleu = dict(zip(BLEU_NAMES, _bleu(self._bleu_counts(counted)), strict=True))
        return bleu | {"ROUGE_L": self._rouge(counted), "CIDEr": self._cider(counted)}

    def measure(self, hypotheses: Sequence[Sequence[str]]) -> Measurement:
        """All metrics of one system over the split: fractions in 0..1, CIDEr in 0..10 as the official code has it."""
        counted = self._count(hypotheses)
        bleu_counts = self._bleu_counts(counted)
        scores = {"ROUGE_L": self._rouge(counted), "CIDEr": self._cider(counted)}
        num_images = self._num_images

        def resample(weights: np.ndarray) -> dict[str, np.ndarray]:
            if not num_images:
                return dict.fromkeys(NAMES, np.zeros(len(weights)))
            bleu = dict(zip(BLEU_NAMES, _bleu(weights.astype(np.float64) @ bleu_counts), strict=True))
            ones = np.ones(num_images)
            return bleu | {name: ratio_of_sums(weights, values, ones) for name, values in scores.items()}

        means = {name: math.fsum(values) / max(1, num_images) for name, values in scores.items()}
        return Measurement(
            values=_corpus_bleu(bleu_counts) | means,
            variant="coco-caption: corpus BLEU, closest reference length; ROUGE-L beta 1.2; CIDEr-D sigma 6, times 10, "
            "document frequencies from the references being scored (held fixed when images are drawn again)",
            source=SOURCE,
            num_items=num_images,
            resample=resample,
        )

    def _whole_tokens(self, captions: Sequence[Sequence[str]]) -> list[list[int]]:
        """Token ids for ROUGE-L, which sees one empty token in a caption without any."""
        ids = self._ids
        return [[ids[token] for token in tokens] if len(tokens) else [ids[""]] for tokens in captions]

    def _words(self, captions: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Word ids of all captions for BLEU and CIDEr, one after the other (T,), and the captions' lengths."""
        words = [" ".join(tokens).split() for tokens in captions]
        ids = self._ids
        flat = [ids[word] for caption in words for word in caption]
        return np.array(flat, np.int64), np.array([len(caption) for caption in words], np.int64)

    def _count(self, hypotheses: Sequence[Sequence[str]]) -> _Hypotheses:
        """The hypotheses' n-grams of each order, compared with the references'."""
        if len(hypotheses) != self._num_images:
            raise ValueError(f"{len(hypotheses)} hypotheses for {self._num_images} images")
        words, lengths = self._words(hypotheses)
        orders = []
        grams = words
        for order, references in enumerate(self._orders, start=1):
            keys, image = _extend(grams, words, lengths, order)
            grams = _known_or_new(keys, references.keys)
            orders.append(_count_hypotheses(grams, image, references, self._num_images))
        return _Hypotheses(lengths, orders, self._whole_tokens(hypotheses))

    def _bleu_counts(self, hypotheses: _Hypotheses) -> np.ndarray:
        """What BLEU sums over images (I, 10): length, closest reference length, n-grams and matches of each order."""
        lengths = hypotheses.lengths
        # The nearest and, among equally near ones, the shortest: one number orders both.
        bound = int(self._lengths.max(initial=0)) + 1
        rank = np.abs(self._per_reference(lengths) - self._lengths) * bound + self._lengths
        closest = np.minimum.reduceat(rank, self._first) % bound if self._num_images else lengths
        num_grams = [np.maximum(lengths - order, 0) for order in range(_MAX_ORDER)]
        columns = [lengths, closest, *num_grams, *(matches.correct for matches in hypotheses.orders)]
        return np.stack(columns, axis=1).astype(np.float64)

    def _per_reference(self, of_images: np.ndarray) -> np.ndarray:
        """(I,) -> (R,)"""
        return np.repeat(of_images, self._num_references)

    def _rouge(self, hypotheses: _Hypotheses) -> np.ndarray:
        """ROUGE-L of each image (I,)."""
        scores = np.zeros(self._num_images)
        for i, hypothesis in enumerate(hypotheses.rouge_ids):
            precision = recall = 0.0
            for reference in self._rouge_ids[self._first[i] : self._first[i] + self._num_references[i]]:
                common = LCSseq.similarity(hypothesis, reference)
                precision = max(precision, common / len(hypothesis))
                recall = max(recall, common / len(reference))
            if precision:
                scores[i] = (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
        return scores

    def _cider(self, hypotheses: _Hypotheses) -> np.ndarray:
        """CIDEr-D of each image (I,): mean over orders and references of the clipped cosine."""
        num_references = len(self._lengths)
        similarity = np.zeros(num_references)
        for references, matches in zip(self._orders, hypotheses.orders, strict=True):
            idf = references.idf[references.pairs % max(1, len(references.keys))]  # (P,)
            clipped = np.minimum(matches.pair_count[references.entry_pair], references.entry_count)
            products = idf[references.entry_pair] ** 2 * clipped * references.entry_count
            dot = np.bincount(references.entry_reference, products, minlength=num_references)
            norms = self._per_reference(matches.norm) * references.norm
            similarity += dot / np.where(norms == 0, 1, norms)
        difference = self._per_reference(np.maximum(hypotheses.lengths - 1, 0)) - np.maximum(self._lengths - 1, 0)
        similarity *= np.exp(-(difference**2) / (2 * _SIGMA**2))
        total = np.add.reduceat(similarity, self._first) if self._num_images else similarity
        return 10 * total / (_MAX_ORDER * self._num_references)


def _extend(prefixes: np.ndarray, words: np.ndarray, lengths: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys of the n-grams of this order and the caption that each lies in, from the ids of the (n-1)-grams."""
    sentence = np.repeat(np.arange(len(lengths)), np.maximum(lengths - order + 1, 0))
    if order == 1:
        return words, sentence
    position = np.arange(len(words)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    lasts = words[position >= order - 1]
    # Each caption's last (n-1)-gram is the start of no n-gram.
    num_prefixes = np.maximum(lengths - order + 2, 0)
    goes_on = np.ones(len(prefixes), bool)
    goes_on[np.cumsum(num_prefixes)[num_prefixes > 0] - 1] = False
    return (prefixes[goes_on] << _KEY_BITS) | lasts, sentence


def _known_or_new(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Ids of n-grams: the place in `known`, or a new id from `len(known)` on where no reference has the n-gram."""
    ids = np.searchsorted(known, keys)
    is_new = np.append(known, -1)[ids] != keys
    _, new_ids = np.unique(keys[is_new], return_inverse=True)
    ids[is_new] = new_ids + len(known)
    return ids


def _count_references(
    keys: np.ndarray, grams: np.ndarray, sentence: np.ndarray, image_of_reference: np.ndarray, num_images: int
) -> _References:
    size = max(1, len(keys))
    entries, entry_count = np.unique(sentence * size + grams, return_counts=True)
    entry_reference, entry_gram = entries // size, entries % size
    pairs, entry_pair = np.unique(image_of_reference[entry_reference] * size + entry_gram, return_inverse=True)
    pair_max = np.zeros(len(pairs), np.int64)
    np.maximum.at(pair_max, entry_pair, entry_count)
    idf = math.log(max(1, num_images)) - np.log(np.bincount(pairs % size, minlength=len(keys)))
    squares = (entry_count * idf[entry_gram]) ** 2
    norm = np.sqrt(np.bincount(entry_reference, squares, minlength=len(image_of_reference)))
    return _References(keys, idf, pairs, pair_max, entry_reference, entry_pair, entry_count, norm)


def _count_hypotheses(grams: np.ndarray, image: np.ndarray, references: _References, num_images: int) -> _Matches:
    num_known = len(references.keys)
    size = max(num_known, int(grams.max(initial=0)) + 1)
    entries, count = np.unique(image * size + grams, return_counts=True)
    image, gram = entries // size, entries % size
    # An n-gram that no reference has counts as one that a single image has.
    idf = np.append(references.idf, math.log(max(1, num_images)))[np.minimum(gram, num_known)]
    norm = np.sqrt(np.bincount(image, (count * idf) ** 2, minlength=num_images))
    wanted = np.where(gram < num_known, image * num_known + gram, -1)
    place = np.searchsorted(references.pairs, wanted)
    found = np.append(references.pairs, -2)[place] == wanted
    image, place, count = image[found], place[found], count[found]
    pair_count = np.zeros(len(references.pairs), np.int64)
    pair_count[place] = count
    correct = np.bincount(image, np.minimum(count, references.pair_max[place]), minlength=num_images)
    return _Matches(correct.astype(np.int64), pair_count, norm)


def _bleu(counts: np.ndarray) -> list[np.ndarray]:
    """BLEU-1..4 from (.., 10) counts in the order of `_bleu_counts`."""
    length, closest = counts[..., 0], counts[..., 1]
    guesses, correct = counts[..., 2 : 2 + _MAX_ORDER], counts[..., 2 + _MAX_ORDER :]
    precisions = np.cumprod((correct + _TINY) / (guesses + _SMALL), axis=-1)
    ratio = (length + _TINY) / (closest + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return [precisions[..., n] ** (1 / (n + 1)) * brevity for n in range(_MAX_ORDER)]


def _corpus_bleu(counts: np.ndarray) -> dict[str, float]:
    """BLEU by name from the images' (I, 10) counts."""
    return {name: float(value) for name, value in zip(BLEU_NAMES, _bleu(counts.sum(axis=0)), strict=True)}
