"""Count the words and answers of the training split: data/vocab/<dataset>.json, most frequent first."""

from __future__ import annotations

from collections import Counter

from contracts.errors import DataError
from contracts.text import words
from pipeline.params import Params
from pipeline.progress import progress_bar
from pipeline.project import Project, write_json
from pipeline.stages._command import main


def vocab(project: Project, params: Params, dataset: str) -> None:
    from lightning_modules.metrics.vqa_accuracy import normalise_answer  # these need numpy: not for --help
    from pipeline.manifest import load_manifest
    from pipeline.shards import open_splits

    params.dataset(dataset)
    folder = project.shards(dataset)
    readers = open_splits(folder, load_manifest(folder, dataset))
    if "train" not in readers:
        raise DataError("this data set has no split to train on", where=str(folder), allowed="train", value=[*readers])
    reader = readers["train"]
    counters: dict[str, Counter[str]] = {"captions": Counter(), "questions": Counter(), "answers": Counter()}
    with progress_bar(f"vocab {dataset}", len(reader)) as advance:
        for position in range(len(reader)):
            record = reader.read(position)
            for caption in record.captions:
                counters["captions"].update(words(caption.text))
            for question in record.questions:
                counters["questions"].update(words(question.text))
                counters["answers"][normalise_answer(question.multiple_choice_answer)] += 1
            advance(1)
    document = {
        name: [[token, count] for token, count in sorted(counter.items(), key=lambda item: (-item[1], item[0]))]
        for name, counter in counters.items()
    }
    write_json(project.vocabulary(dataset), document, indent=None)
    print(f"vocab {dataset}: " + ", ".join(f"{len(entries)} {name}" for name, entries in document.items()))


if __name__ == "__main__":
    main(vocab, "data set")
