"""Count the words and answers of the training split: data/vocab/<dataset>.json, most frequent first.

Words are those of `contracts/text.py`. Answers are counted normalised and written down in the form that annotators use
most: the official accuracy compares what they all agree on letter by letter, so "1 way" is never right for "one way".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from contracts.errors import DataError
from contracts.text import words
from pipeline.settings.params import Params
from pipeline.stages._command import main
from pipeline.system.progress import progress_bar
from pipeline.system.project import Project, write_json

if TYPE_CHECKING:
    from contracts.records import Record


def vocab(project: Project, params: Params, dataset: str) -> None:
    from pipeline.shards.learnable import check_vocabulary
    from pipeline.shards.manifest import load_manifest  # these need numpy: not for --help
    from pipeline.shards.reader import open_splits

    params.dataset(dataset)
    folder = project.shards(dataset)
    manifest = load_manifest(folder, dataset)
    readers = open_splits(folder, manifest)
    if "train" not in readers:
        raise DataError("this data set has no split to train on", where=str(folder), allowed="train", value=[*readers])
    reader = readers["train"]
    with progress_bar(f"vocab {dataset}", len(reader)) as advance:

        def records() -> Iterable[Record]:
            for position in range(len(reader)):
                yield reader.read(position)
                advance(1)

        document = count_words(records())
    check_vocabulary(dataset, document, manifest["splits"]["train"]["totals"], str(folder))
    write_json(project.vocabulary(dataset), document, indent=None)
    print(f"vocab {dataset}: " + ", ".join(f"{len(entries)} {name}" for name, entries in document.items()))


def count_words(records: Iterable[Record]) -> dict[str, list[list]]:
    """`captions` and `questions`: [word, count]; `answers`: [answer in its most frequent form, count]."""
    from lightning_modules.metrics.vqa_accuracy import most_frequent_form, normalise_answer, strip_blanks

    counters: dict[str, Counter[str]] = {"captions": Counter(), "questions": Counter(), "answers": Counter()}
    forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for caption in record.captions:
            counters["captions"].update(words(caption.text))
        for question in record.questions:
            counters["questions"].update(words(question.text))
            if question.answers:
                counters["answers"][normalise_answer(question.multiple_choice_answer)] += 1
                for answer in (question.multiple_choice_answer, *question.answers):
                    forms[normalise_answer(answer)][strip_blanks(answer)] += 1
    counted = {
        name: sorted(counter.items(), key=lambda item: (-item[1], item[0])) for name, counter in counters.items()
    }
    counted["answers"] = [(most_frequent_form(forms[answer]), count) for answer, count in counted["answers"]]
    return {name: [[token, count] for token, count in entries] for name, entries in counted.items()}


if __name__ == "__main__":
    main(vocab, "data set")
