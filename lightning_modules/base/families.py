"""What joins a task and a model, which never import each other: what the one tells the other, and how it is called.

A task makes a spec (`Task.spec()`) and a model is built from one (`Model(config, spec)`). Each names the class of it,
`spec_class`; a run joins two that name the same, which `make check` compares before anything is done. The spec's
`protocol` says how the model is called.

Shapes: B images (B, 3, H, W) uint8, normalised by the model; C classes without and K with background; V words.

This file imports no torch, so that checking settings is quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    State = tuple[Tensor, ...]


class Classifier(Protocol):
    def __call__(self, images: Tensor) -> Tensor:
        """Class logits (B, C) float32."""


class Segmenter(Protocol):
    def __call__(self, images: Tensor) -> Tensor:
        """Class logits (B, K, H, W) float32, for images of any sides."""


class Detector(Protocol):
    """Finds objects; an instance segmenter is called in the same way, with masks in targets and detections."""

    def __call__(
        self,
        images: Tensor | Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]] | None = None,
        *,
        sizes: Sequence[tuple[int, int]] | None = None,
        detect: bool = False,
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """Losses if there are targets, detections if asked for.

        Args:
            images: (B, 3, H, W) uint8, or B tensors (3, H, W) uint8 of any sizes.
            targets: of each image `boxes` (N, 4) float32, `labels` (N,) int64 in 1..C, `ignored` (M, 4) float32, and
                where masks are learnt `masks` (N, H, W) uint8.
            sizes: (height, width) of each image's content, from its upper left corner; the whole image by default.
            detect: whether to return detections.

        Returns:
            losses: float32 scalars, each a sum over images of that image's mean; empty without targets.
            detections: per image `boxes` (D, 4) float32 in input pixels, `labels` (D,) int64, `scores` (D,) float32
                falling, and where masks are learnt `masks` (D, 1, M, M) probabilities on the boxes.
        """


class RegionDetector(Protocol):
    """Says what is in regions that it is handed: R-CNN, Fast R-CNN, a sliding window."""

    def __call__(
        self,
        images: Tensor,
        regions: Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]] | None = None,
        *,
        sizes: Sequence[tuple[int, int]] | None = None,
        detect: bool = False,
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """As `Detector`, which looks for `regions` itself: B x (R_i, 4) float32 boxes in input pixels, best first.

        An image may have none. True boxes are not among them; in training a model may add them.
        """


class Captioner(Protocol):
    """Writes words. Rows: images in `encode` and `start`, captions or hypotheses elsewhere; L places of the image."""

    def encode(self, images: Tensor) -> Tensor:
        """Feature grid (B, D, h, w)."""

    def decode(self, features: Tensor, tokens: Tensor, caption_image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, T, V) of the token after each of `tokens` (N, T), attention (N, T, L), both float32.

        `caption_image` (N,) int64 is the image of each caption."""

    def start(self, features: Tensor) -> tuple[State, State]:
        """What stays the same for an image, and the state before `<bos>`."""

    def step(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
        """Logits (N, V), next state, attention (N, L) after `tokens` (N,)."""


class Answerer(Protocol):
    def __call__(self, images: Tensor, questions: Tensor, lengths: Sequence[int], question_image: Tensor) -> Tensor:
        """Answer logits (Q, A) float32 of Q questions.

        Args:
            images: (B, 3, H, W) uint8.
            questions: (Q, T) int64, padded at the end.
            lengths: words of each question, Q numbers.
            question_image: (Q,) int64, the image that each question is about.
        """


@runtime_checkable
class Looker(Protocol):
    """What an `Answerer` may have beside its call."""

    def look(
        self, images: Tensor, questions: Tensor, lengths: Sequence[int], question_image: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Answer logits (Q, A), and the weights (Q, hops, h, w) of the places that each hop looked at, both float32;
        arguments as of `Answerer`."""


class Teller(Protocol):
    def __call__(
        self,
        images: Tensor,
        questions: Tensor,
        lengths: Sequence[int],
        question_image: Tensor,
        answers: Tensor,
        answer_lengths: Sequence[int],
        answer_question: Tensor,
    ) -> Tensor:
        """How well N given answers fit Q questions on B images, float32.

        With `TellerSpec.score` "loglik" (N, S): the log-likelihood of each token of an answer, 0 behind its end; with
        "match" (N,): the logit of its being the right one.

        Args:
            images: (B, 3, H, W) uint8.
            questions: (Q, T) int64, padded at the end.
            lengths: words of each question, Q numbers.
            question_image: (Q,) int64, the image that each question is about.
            answers: (N, S) int64, words and the token that ends a text, padded at the end.
            answer_lengths: tokens of each answer, N numbers, all at least 1.
            answer_question: (N,) int64, the question that each answers.
        """


class Pointer(Protocol):
    def __call__(
        self,
        images: Tensor,
        questions: Tensor,
        lengths: Sequence[int],
        question_image: Tensor,
        boxes: Tensor,
        box_question: Tensor,
    ) -> Tensor:
        """How well N boxes answer Q questions on B images, (N,) float32, larger is better.

        Args:
            images: (B, 3, H, W) uint8.
            questions: (Q, T) int64, padded at the end.
            lengths: words of each question, Q numbers.
            question_image: (Q,) int64, the image that each question is about.
            boxes: (N, 4) float32 `(x1, y1, x2, y2)` in the pixels of `images`.
            box_question: (N,) int64, the question that each is a candidate of.
        """


class SequenceClassifier(Protocol):
    def __call__(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """Class logits (B, C) float32 of B texts.

        Args:
            tokens: (B, T) int64, padded at the end.
            lengths: tokens of each text, B numbers, all at least 1.
        """

    def gates(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor | None:
        """How far the input, forget and output gate (in this order) were open at each token: (B, 2, 3, T) float32 in
        (0, 1), meaningless behind a text's end. [:, 0] is the mean over units, each weighing as much as it says for the
        class, [:, 1] the mean over all alike. None of a network that has no gates."""


class Translator(Protocol):
    """Reads a sentence and writes another. B sentences of at most S source tokens, N hypotheses, T target tokens.

    A state is a tuple of tensors with a row each; of a model that does not look at the source, attention has no places
    (S = 0)."""

    def encode(self, sources: Tensor, lengths: Sequence[int]) -> tuple[State, State]:
        """What stays the same for a sentence, and the state before `<bos>`.

        Args:
            sources: (B, S) int64, `<eos>` at the end of each, padded with 0.
            lengths: tokens of each, `<eos>` counted, B numbers.
        """

    def decode(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V) of the token after each of `tokens` (B, T), attention (B, T, S), both float32."""

    def step(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
        """Logits (N, V), next state, attention (N, S) after `tokens` (N,)."""


class TextReader(Protocol):
    """Reads what is written in a picture. B pictures, T columns from left to right, N rows, S tokens, D features.

    With `TextReaderSpec.alignment` "attention" it writes a token after the other, with "ctc" it names one a column.
    """

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> features of columns (B, T, D)."""

    def start(self, features: Tensor) -> tuple[State, State]:
        """Of "attention": what stays the same for a picture, and the state before `<bos>`."""

    def decode(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of "attention": logits (B, S, V) of the token after each of `tokens` (B, S), attention (B, S, T), both
        float32."""

    def step(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
        """Of "attention": logits (N, V), next state, attention (N, T) after `tokens` (N,)."""

    def columns(self, features: Tensor) -> Tensor:
        """Of "ctc": logits (B, T, V) float32, 0 being the blank."""


class FrameClassifier(Protocol):
    """Says of each frame of a clip what is shown. F frames of all B clips, T of the longest, D features."""

    def encode(self, frames: Tensor) -> Tensor:
        """(F, 3, H, W) uint8 -> features (F, D) float32 of each frame by itself."""

    def classify(self, features: Tensor, lengths: Sequence[int]) -> Tensor:
        """Class logits (B, T, C) float32 at each frame, what stands behind a clip's end being of no meaning.

        Args:
            features: (B, T, D), padded at the end.
            lengths: frames of each clip, B numbers, the largest of them T.
        """


class ClipCaptioner(Protocol):
    """Writes what a clip shows. F frames of all B clips, T of the longest, D features, N captions or hypotheses."""

    def encode(self, frames: Tensor) -> Tensor:
        """(F, 3, H, W) uint8 -> features (F, D) float32 of each frame by itself."""

    def decode(self, features: Tensor, lengths: Sequence[int], tokens: Tensor, caption_clip: Tensor) -> Tensor:
        """Logits (N, S, V) float32 of the token after each of `tokens` (N, S).

        Args:
            features: (B, T, D), padded at the end.
            lengths: frames of each clip, B numbers, the largest of them T.
            caption_clip: (N,) int64, the clip of each caption.
        """

    def start(self, features: Tensor, lengths: Sequence[int]) -> tuple[State, State]:
        """What stays the same for a clip, and the state before `<bos>`, each of B rows."""

    def step(self, memory: State, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """Logits (N, V) float32 and the next state after `tokens` (N,)."""


class Spec:
    """What a task tells its model. `protocol` is how the model is called."""

    protocol: ClassVar[type]


@dataclass(frozen=True, kw_only=True)
class ClassifierSpec(Spec):
    protocol: ClassVar[type] = Classifier
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class SegmenterSpec(Spec):
    """`num_classes` counts background."""

    protocol: ClassVar[type] = Segmenter
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class DetectorSpec(Spec):
    """`num_foreground_classes` leaves background out, which is label 0; images are about `image_size` px wide and
    high, which anchors follow."""

    protocol: ClassVar[type] = Detector
    num_foreground_classes: int
    image_size: int


@dataclass(frozen=True, kw_only=True)
class InstanceSegmenterSpec(Spec):
    """As `DetectorSpec`, for models that also learn and give a mask for each box."""

    protocol: ClassVar[type] = Detector
    num_foreground_classes: int
    image_size: int


@dataclass(frozen=True, kw_only=True)
class RegionDetectorSpec(Spec):
    """As `DetectorSpec`, for models that are handed the regions to look at."""

    protocol: ClassVar[type] = RegionDetector
    num_foreground_classes: int
    image_size: int


@dataclass(frozen=True, kw_only=True)
class CaptionerSpec(Spec):
    """`vocabulary_size` is V, special tokens counted; 0 pads."""

    protocol: ClassVar[type] = Captioner
    vocabulary_size: int


@dataclass(frozen=True, kw_only=True)
class AnswererSpec(Spec):
    """`vocabulary_size` of the questions, special tokens counted; 0 pads."""

    protocol: ClassVar[type] = Answerer
    vocabulary_size: int
    num_answers: int


@dataclass(frozen=True, kw_only=True)
class TellerSpec(Spec):
    """`vocabulary_size` of questions and answers, special tokens counted; 0 pads. `score` is what the model gives."""

    protocol: ClassVar[type] = Teller
    vocabulary_size: int
    score: Literal["loglik", "match"]


@dataclass(frozen=True, kw_only=True)
class PointerSpec(Spec):
    """`vocabulary_size` of the questions, special tokens counted; 0 pads."""

    protocol: ClassVar[type] = Pointer
    vocabulary_size: int


@dataclass(frozen=True, kw_only=True)
class SequenceClassifierSpec(Spec):
    """`vocabulary_size` counts special tokens; 0 pads."""

    protocol: ClassVar[type] = SequenceClassifier
    vocabulary_size: int
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class TranslatorSpec(Spec):
    """Sizes of both vocabularies, special tokens counted; 0 pads."""

    protocol: ClassVar[type] = Translator
    source_vocabulary_size: int
    target_vocabulary_size: int


@dataclass(frozen=True, kw_only=True)
class TextReaderSpec(Spec):
    """`vocabulary_size` counts special tokens; 0 pads, and is CTC's blank. `image_size` is (height, width)."""

    protocol: ClassVar[type] = TextReader
    vocabulary_size: int
    alignment: Literal["attention", "ctc"]
    image_size: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class FrameClassifierSpec(Spec):
    protocol: ClassVar[type] = FrameClassifier
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class ClipCaptionerSpec(Spec):
    """`vocabulary_size` counts special tokens; 0 pads."""

    protocol: ClassVar[type] = ClipCaptioner
    vocabulary_size: int
