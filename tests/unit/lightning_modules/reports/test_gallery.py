from lightning_modules.metrics.caption_scores import CaptionScores
from lightning_modules.reports._gallery import NUM_BEST, NUM_WORST, best_and_worst

REFERENCES = {
    f"i{n:02}": [f"a {word} box on a table", f"one {word} box"] for n, word in enumerate("abcdefghijklmnopqrst")
}


def test_best_and_worst_by_their_own_cider():
    captions = {key: texts[0] if n % 2 else "a box" for n, (key, texts) in enumerate(REFERENCES.items())}
    best, worst = best_and_worst(captions, REFERENCES)
    assert len(best) == NUM_BEST and all(captions[key] == REFERENCES[key][0] for key, _ in best)
    assert len(worst) == NUM_WORST and {captions[key] for key, _ in worst} == {"a box"}
    assert max(score for _, score in worst) < min(score for _, score in best) < 10.001
    items = list(REFERENCES)
    metric = CaptionScores(value="CIDEr")
    metric.update(
        [{"id": k, "caption": captions[k]} for k in items], [{"id": k, "captions": REFERENCES[k]} for k in items]
    )
    every = dict((*best, *worst))
    assert len(every) == NUM_BEST + NUM_WORST, "none is in both"
    assert min(every.values()) <= float(metric.compute()) <= max(every.values())


def test_few_images_are_shown_once():
    few = dict(list(REFERENCES.items())[:3])
    best, worst = best_and_worst(dict.fromkeys(few, "a box"), few)
    assert len(best) == 3 and worst == []
    assert best_and_worst({"a": "x"}, {"a": []}) == ([], [])
