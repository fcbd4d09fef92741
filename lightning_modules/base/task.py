"""What a task is: the one contract between records, models and metrics.

A file `lightning_modules/tasks/<name>.py` holds one class `Task(BaseTask)`; the file name is its name in params.yaml.
What is drawn of it stands beside it, in `lightning_modules/reports/<name>.py`.
The task never builds its model: `params.yaml` joins the two, and `spec()` is all that the model is told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from contracts.errors import ConfigError
from contracts.inputs import InputName
from contracts.records import Count, DataSpec, Record
from contracts.text import Vocabulary
from lightning_modules.base.families import Spec
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.measurement import Measurement, values_of

Example = dict[str, Any]
Batch = dict[str, Any]
Prediction = dict[str, Any]
Truth = dict[str, Any]


class Mean(NamedTuple):
    """A loss of some of a batch's items: their sum, and how many they are, so that parts add up to the whole.

    `total` is a scalar float32 tensor.
    """

    total: Tensor
    count: int  # type: ignore[assignment]  # in place of tuple's own

    @property
    def value(self) -> Tensor:
        """The mean; 0 of nothing."""
        return self.total / max(1, self.count)


class Item(NamedTuple):
    """What is predicted and measured by itself: a question, an image's caption or objects, a frame, a sentence.

    Attributes:
        id: unique in its split; predictions and truths are keyed by it.
        key: of the record that it is of.
        group: what the bootstrap draws as a whole, such as an image with all its questions, a video, a document.
    """

    id: str
    key: str
    group: str


class BaseTask(ABC):
    """One kind of problem: how a record becomes tensors, what is minimised, what is predicted and measured.

    Attributes:
        Config: frozen keyword-only dataclass with the task's own settings.
        requires: columns of the shard index, of `COUNTS`, that must be positive for a sample to be used by this task.
        eval_requires: the same for validation and test (a detector is also measured on images without objects).
        inputs: what a trained model is asked with (`contracts/inputs.py`): arguments of `predict`, columns of a served
            model. A record with these alone can be encoded.
        texts: what it reads or writes of words, files of `lightning_modules/texts`, and how each is cut into tokens (a
            key of `TOKENIZERS`; None: not at all): `data.vocabulary` has them, counted.
        length_column: one of `COUNTS`: training batches are made of samples that have similar numbers of it, `length`
            for texts; None: of any.
        spec_class: of the spec that it makes; it can train the models that name the same one (`families.py`).
        metric: the name (a key of `score`) by which the best checkpoint and the champion are chosen by default.
        metric_mode: "max" or "min".
    """

    Config: ClassVar[type]
    requires: ClassVar[tuple[str, ...]] = ()
    eval_requires: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[InputName, ...]] = ("image",)
    texts: ClassVar[Mapping[str, str | None]] = {}
    length_column: ClassVar[Count | None] = None
    spec_class: ClassVar[type[Spec]]
    metric: ClassVar[str]
    metric_mode: ClassVar[Literal["max", "min"]] = "max"

    def __init__(self, config: Any, data: DataSpec):
        self.config = config
        self.data = data

    def counted(self, text: str) -> list[list[Any]]:
        """[token, count] of one of `texts`, most frequent first.

        Raises:
            ConfigError: the data set has none.
        """
        counted = self.data.vocabulary.get(text)
        if not counted:
            raise ConfigError(
                f"the data set has no {text}",
                value=self.data.dataset,
                where="runs.<run>.dataset",
                fix=f"choose a data set with {text}, or add the source that brings them to this one",
            )
        return counted

    def read_vocabulary(self, text: str, *, min_count: int = 1) -> Vocabulary:
        """The tokens of one of `texts` that the training split has at least `min_count` times."""
        tokenizer = self.texts[text]
        assert tokenizer is not None, f"{text} are not cut into tokens"
        return Vocabulary.of_counts(tokenizer, self.counted(text), min_count=min_count)

    @abstractmethod
    def spec(self) -> Spec:
        """What the model must know beside its own Config, such as `num_classes` or `vocabulary_size`."""

    @abstractmethod
    def encode(self, record: Record, seed: int | None) -> Example:
        """One record -> numpy arrays of one example. Runs in loader workers.

        Args:
            record: a valid record that has what `requires` names.
            seed: the generator seed of all augmentation and sampling for this record in this epoch; None in
                validation, test and prediction, where nothing may be random.
        """

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> Batch:
        """Examples -> dict of tensors (images uint8, normalised on the device). Shapes stand in the task's legend.

        `counts` {loss: int} says what the losses are means over: tokens, pixels, questions. A loss that it does not
        name is a mean over images.

        The loader adds `keys` (list of str), `is_stand_in` (bool, see `pipeline.loading.sampling`), in training
        `num_step_images` and `step_counts` (int and {loss: int}, of the optimizer's step: the images of all ranks, and
        this rank's `counts`), and otherwise `items` (list of
        `Item`, of all records one after the other) and `truths` (list of `Truth`, one an item).
        """

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        """Losses by name, each with the count that the batch has for it; the sum of their means is minimised.

        Each mean is over the whole global batch, however it is cut into micro-batches and among ranks.
        """

    def items(self, record: Record) -> list[Item]:
        """What is predicted of a record, in order: the record as a whole, unless a task says otherwise. An id begins
        with the record's key, so that no other record has it."""
        return [Item(record.key, record.key, record.group)]

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """One prediction per item of the batch's records, in the order of `items`: plain Python values and numpy
        arrays, in the coordinates and size of the original image. The batch was encoded without a seed, and may have
        been made without annotations."""

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        """Losses and predictions of a validation batch. Override where one pass gives both."""
        return self.losses(model, batch), self.predict(model, batch)

    @abstractmethod
    def truths(self, record: Record) -> list[Truth]:
        """One truth per item of the record, in the order of `items`: what `measure` and a report compare a prediction
        with, as plain values and numpy arrays, nothing large."""

    @abstractmethod
    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        """The official metrics of its items: anybody's `torchmetrics.Metric`.

        Args:
            thorough: also what is too slow or too much for every validation (METEOR, accuracy by question type).
        """

    def measurable(self, prediction: Prediction, truth: Truth) -> tuple[Prediction, Truth]:
        """An item as `metrics` take it. Override where it is kept otherwise."""
        return prediction, truth

    def measure(
        self,
        predictions: Mapping[str, Prediction],
        truths: Mapping[str, Truth],
        groups: Mapping[str, str] | None = None,
        *,
        thorough: bool = False,
    ) -> list[Measurement]:
        """`metrics` over a whole split, computed once on one process in float64.

        All mappings are keyed by item id and have the same keys.

        Args:
            groups: what is drawn again as a whole (`Item.group`); None: each item by itself.
            thorough: as of `metrics`.
        """

        def items() -> Iterator[tuple[str, str, Prediction, Truth]]:
            for item, truth in truths.items():
                yield item, item if groups is None else groups[item], *self.measurable(predictions[item], truth)

        return [m for metric in self.metrics(thorough=thorough) for m in metric.measure_items(items())]

    def score(self, predictions: Mapping[str, Prediction], truths: Mapping[str, Truth]) -> dict[str, float]:
        """Values of `measure` by name, without those that have nothing to measure."""
        return values_of(self.measure(predictions, truths))

    @abstractmethod
    def answer(self, prediction: Prediction) -> dict[str, Any]:
        """The prediction as JSON values, for `pipeline.predicting.predict` and the registered model."""
