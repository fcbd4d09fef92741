import numpy as np

from lightning_modules.augment.mirror import draw_mirror, mirror_text


def test_sides_are_exchanged_in_words_only():
    assert mirror_text("A cat left of the rightmost dog.") == "A cat right of the leftmost dog."
    assert mirror_text("Is it on the Left?") == "Is it on the right?"
    assert mirror_text("bright light, upright") == "bright light, upright"


def test_mirroring_twice_gives_the_original():
    text = "what is left of the box on the right"
    assert mirror_text(mirror_text(text)) == text


def test_drawn_by_seed_at_the_given_rate():
    draws = [draw_mirror(seed, 0.25) for seed in range(2000)]
    assert draws == [draw_mirror(seed, 0.25) for seed in range(2000)]
    assert 0.2 < np.mean(draws) < 0.3
    assert not draw_mirror(None, 1.0)
    assert draw_mirror(5, 1.0)
    assert not draw_mirror(5, 0.0)
