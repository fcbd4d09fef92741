"""Text recognition: one word or line in a picture, in any script; measured by word accuracy and character error rate.

Batch: `images` (B, 3, H, W) uint8 and, absent in prediction, `tokens` (B, S) int64, padded with 0: with attention
`BEGIN` characters `END`, with CTC the characters; `lengths` (B,) int64, characters of each; `counts`, what the loss is
a mean over. B pictures, S tokens of the longest text, T columns of a picture, from left to right. Model: `TextReader`.

Prediction: `text`; `characters`, S of them; `attention` (S, T) float16, how much each column was looked at for each
character (with CTC the column that said it); `log_prob`. Truth: `text`, `script`, `direction`.

Texts are written in the order in which they are read, so attention walks to the left for Arabic. CTC cannot: it says
what stands in the columns from left to right, and that is turned around afterwards (`contracts/scripts.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from contracts.errors import ConfigError
from contracts.ranges import COUNT, Range, check_ranges
from contracts.records import DataSpec, Record
from contracts.scripts import as_drawn, drawn_places, script
from contracts.text import BEGIN, END, PAD, UNKNOWN, Vocabulary, plain
from lightning_modules.augment.augment import Augment, AugmentConfig
from lightning_modules.base.families import TextReader, TextReaderSpec
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.blocks.ctc import best_paths, ctc_losses
from lightning_modules.blocks.decoding import beam_search, repeat_rows
from lightning_modules.blocks.pixels import stack_images
from lightning_modules.metrics.item_metric import ItemMetric
from lightning_modules.metrics.recognition_scores import ReadingWalk, RecognitionByScript
from lightning_modules.metrics.text_scores import RecognitionScores

_AUGMENT = AugmentConfig(rotate=2.0, scale=0.05, shift=0.02)
_COLUMN = 4  # pixels: what all `blocks/line_features.py` make a column of
_CUTS = ("horizontal_flip", "vertical_flip", "crop", "random_crop", "object_crop")  # these change what is written


class Task(BaseTask):
    """Scores: `word_accuracy` `CER` `WER` `1-NED`; thorough ones by script, with letters in lower case, and where
    attention walks."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """
        Attributes:
            image_height, image_width: of what the model reads, in pixels.
            resize: "stretch" the picture to that, as 1904.01906 does, or fit its height and leave grey at the right,
                "line"; a longer one is squeezed.
            alignment: how characters find their columns: "attention", or "ctc", which needs as many columns as
                characters, and one more between two that are alike; a text without room teaches nothing.
            case: "lower": capitals are learnt as small letters.
            max_characters: longer texts are cut in training; none longer is written.
            min_character_count: rarer characters become `<unk>`, which is never written.
            beam_size: of attention; 1 is greedy search.
            augment: changes in training; none that mirrors or cuts.
        """

        image_height: int = 32
        image_width: int = 100
        resize: Literal["stretch", "line"] = "stretch"
        alignment: Literal["attention", "ctc"] = "attention"
        case: Literal["keep", "lower"] = "keep"
        max_characters: int = 25
        min_character_count: int = 1
        beam_size: int = 1
        augment: AugmentConfig = field(default=_AUGMENT)

        def __post_init__(self) -> None:
            counts = dict.fromkeys(("max_characters", "min_character_count", "beam_size"), COUNT)
            check_ranges(self, image_height=Range(32, 1024), image_width=Range(32, 8192), **counts)
            wrong = [name for name in _CUTS if getattr(self.augment, name)]
            if wrong:
                raise ConfigError(
                    "what is written must stay whole and readable", value=wrong, where="augment",
                    allowed="no flip and no crop", fix="take these out",
                )  # fmt: skip
            columns = self.image_width // _COLUMN
            if self.alignment == "ctc" and self.max_characters > columns:
                raise ConfigError(
                    "CTC has no room for so many characters", value=self.max_characters, where="max_characters",
                    allowed=f"at most {columns}, the columns of a picture {self.image_width} px wide",
                    fix=f"image_width: {_COLUMN * self.max_characters}, or alignment: attention",
                )  # fmt: skip

    spec_class = TextReaderSpec
    requires = ("has_transcript",)
    eval_requires = ("has_transcript",)
    texts: ClassVar[Mapping[str, str | None]] = {"transcripts": "characters"}
    metric = "word_accuracy"
    config: Config

    def __init__(self, config: Config, data: DataSpec):
        super().__init__(config, data)
        counts: Counter[str] = Counter()
        for character, count in self.counted("transcripts"):
            counts[self._cased(character)] += count
        self.vocabulary = Vocabulary.of_counts(
            "characters", counts.most_common(), min_count=config.min_character_count
        )  # fmt: skip
        self._augment = Augment(config.augment, size=(config.image_height, config.image_width), mode=config.resize)

    def spec(self) -> TextReaderSpec:
        return TextReaderSpec(
            vocabulary_size=len(self.vocabulary),
            alignment=self.config.alignment,
            image_size=(self.config.image_height, self.config.image_width),
        )

    # records to tensors

    def encode(self, record: Record, seed: int | None) -> Example:
        example: Example = {"image": self._augment(record.image, (record.height, record.width), seed=seed).image}
        if record.transcript is not None:
            text = self._cased(plain(record.transcript.text))
            if self.config.alignment == "ctc":
                text = as_drawn(text)
            ids = self.vocabulary.encode(text, max_length=self.config.max_characters)
            example["tokens"] = np.array(ids, np.int64)
        return example

    def _cased(self, text: str) -> str:
        return plain(text.lower()) if self.config.case == "lower" else text

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch: Batch = {"images": stack_images([example["image"] for example in examples])}
        if all("tokens" in example for example in examples):
            texts, attends = [example["tokens"] for example in examples], self.config.alignment == "attention"
            rows = [np.array([BEGIN, *row, END], np.int64) if attends else row for row in texts]
            total = sum(map(len, texts))
            batch |= {
                "tokens": pad_sequence([*map(torch.from_numpy, rows)], batch_first=True, padding_value=PAD),
                "lengths": torch.tensor([len(row) for row in texts]),
                "counts": {"cross_entropy": total + len(texts)} if attends else {"ctc": total},
            }
        return batch

    # tensors to losses and predictions

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Mean]:
        reader = cast(TextReader, model)
        return self._losses(reader, reader.encode(batch["images"]), batch)

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        reader = cast(TextReader, model)
        return self._read(reader, reader.encode(batch["images"]))

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Mean], list[Prediction]]:
        reader = cast(TextReader, model)
        features = reader.encode(batch["images"])  # once for both
        return self._losses(reader, features, batch), self._read(reader, features)

    def _losses(self, model: TextReader, features: Tensor, batch: Batch) -> dict[str, Mean]:
        """`cross_entropy`: mean over characters and ends. `ctc`: of texts, over their characters."""
        tokens, counts = batch["tokens"], batch["counts"]
        if self.config.alignment == "ctc":
            logits = model.columns(features)
            with torch.autocast(logits.device.type, enabled=False):
                losses = ctc_losses(logits, tokens, batch["lengths"], blank=PAD)
            return {"ctc": Mean(losses.sum(), counts["ctc"])}
        logits, _ = model.decode(*model.start(features), tokens[:, :-1])
        with torch.autocast(logits.device.type, enabled=False):
            total = F.cross_entropy(
                logits.float().flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD, reduction="sum"
            )
        return {"cross_entropy": Mean(total, counts["cross_entropy"])}

    def _read(self, model: TextReader, features: Tensor) -> list[Prediction]:
        return self._say(model, features) if self.config.alignment == "ctc" else self._write(model, features)

    def _say(self, model: TextReader, features: Tensor) -> list[Prediction]:
        logits = model.columns(features)
        predictions = []
        for path in best_paths(logits, blank=PAD, banned=(UNKNOWN, BEGIN, END)):
            drawn = "".join(self.vocabulary.tokens[i] for i in path.tokens)
            places = drawn_places(drawn)  # as it is read
            attention = np.zeros((len(drawn), logits.shape[1]), np.float16)
            attention[np.arange(len(drawn)), [path.steps[i] for i in places]] = 1
            characters = [drawn[i] for i in places]
            predictions.append(
                {"text": "".join(characters), "characters": characters, "attention": attention,
                 "log_prob": path.log_prob}
            )  # fmt: skip
        return predictions

    def _write(self, model: TextReader, features: Tensor) -> list[Prediction]:
        beam = self.config.beam_size
        memory, state = (repeat_rows(part, beam) for part in model.start(features))
        decoded = beam_search(
            lambda tokens, state: model.step(memory, state, tokens),
            state,
            num_inputs=len(features),
            beam_size=beam,
            max_length=self.config.max_characters + 1,
            begin=BEGIN,
            end=END,
            banned=(PAD, UNKNOWN, BEGIN),
        )
        rows = zip(decoded.tokens.tolist(), decoded.log_probs.tolist(), decoded.kept.cpu().numpy(), strict=True)
        predictions = []
        for ids, log_prob, attention in rows:
            characters = self.vocabulary.decode(ids)
            predictions.append(
                {"text": "".join(characters), "characters": characters,
                 "attention": attention[: len(characters)].astype(np.float16), "log_prob": log_prob}
            )  # fmt: skip
        return predictions

    # measuring

    def truths(self, record: Record) -> list[Truth]:
        assert record.transcript is not None
        text = plain(record.transcript.text)
        return [{"text": text, "script": script(text), "direction": record.transcript.direction}]

    def metrics(self, *, thorough: bool = False) -> list[ItemMetric]:
        return [RecognitionScores(), *((RecognitionByScript(), ReadingWalk()) if thorough else ())]

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        return {"text": prediction["text"], "log_prob": prediction["log_prob"]}
