"""Figures class by class: cases worked out by hand, and the definitions where nothing can be divided."""

import numpy as np
import pytest

from cnnctl.backends.composed import count_right
from cnnctl.train import scores as module
from cnnctl.train.scores import ClassScores, Tally, compute_probabilities, spread_scores

NAMES = ("cat", "dog", "emu", "fox")

LABELS = [0, 0, 0, 1, 1, 2, 2, 2, 2]
ANSWERS = [0, 0, 1, 1, 1, 0, 1, 1, 2]
"""Cats: 2 of 3. Dogs: both, and 3 others. Emus: 1 of 4. No fox, and none taken for one."""


def tell(answers, count=4, lead=1.0):
    """Scores whose highest is that of the answer."""
    scores = np.zeros((len(answers), count), np.float32)
    scores[np.arange(len(answers)), answers] = lead
    return scores


def summarize(scores, labels, names=NAMES, loss="softmax", batch=4):
    tally = Tally(loss)
    for start in range(0, len(labels), batch):
        tally.add(scores[start : start + batch], np.array(labels[start : start + batch]))
    return tally.summarize(names)


class TestClasses:
    def test_by_hand(self):
        cat, dog, emu, _ = summarize(tell(ANSWERS), LABELS).classes
        assert cat == ClassScores("cat", images=3, predicted=3, precision=2 / 3, recall=2 / 3, f1=2 / 3)
        assert dog == ClassScores("dog", images=2, predicted=5, precision=2 / 5, recall=1.0, f1=4 / 7)
        assert emu == ClassScores("emu", images=4, predicted=1, precision=1.0, recall=1 / 4, f1=2 / 5)

    def test_a_class_without_images_that_is_never_predicted_has_no_figures(self):
        fox = summarize(tell(ANSWERS), LABELS).classes[3]
        assert fox == ClassScores("fox", images=0, predicted=0, precision=None, recall=None, f1=None)

    def test_a_class_that_is_never_predicted_has_no_precision_and_f1_of_0(self):
        emu = summarize(tell([0, 1, 0]), [0, 1, 2]).classes[2]
        assert (emu.precision, emu.recall, emu.f1) == (None, 0.0, 0.0)

    def test_a_class_without_images_that_is_predicted_has_no_recall_and_f1_of_0(self):
        emu = summarize(tell([0, 1, 2]), [0, 1, 1]).classes[2]
        assert (emu.precision, emu.recall, emu.f1) == (0.0, None, 0.0)

    def test_the_weakest_come_first_and_those_without_images_not_at_all(self):
        assert [c.name for c in summarize(tell(ANSWERS), LABELS).weakest] == ["emu", "dog", "cat"]

    def test_of_classes_that_are_never_right_the_larger_comes_first(self):
        assert [c.name for c in summarize(tell([3, 3, 3]), [0, 1, 1]).weakest] == ["dog", "cat"]


class TestConfusion:
    def test_rows_are_what_images_are_and_columns_what_they_are_taken_for(self):
        assert summarize(tell(ANSWERS), LABELS).confusion == (
            (2, 1, 0, 0),
            (0, 2, 0, 0),
            (1, 2, 1, 0),
            (0, 0, 0, 0),
        )

    def test_the_rival_is_the_most_frequent_wrong_answer(self):
        details = summarize(tell(ANSWERS), LABELS)
        assert details.find_rival("emu") == ("dog", 2)
        assert details.find_rival("dog") is None

    def test_there_is_none_of_too_many_classes(self, monkeypatch):
        monkeypatch.setattr(module, "MAX_MATRIX", 3)
        details = summarize(tell(ANSWERS), LABELS)
        assert details.confusion is details.find_rival("emu") is None
        assert details.classes[0].recall == 2 / 3

    def test_batches_change_nothing(self):
        whole = summarize(tell(ANSWERS), LABELS, batch=9)
        assert whole == summarize(tell(ANSWERS), LABELS, batch=1)

    def test_equal_scores_are_read_as_the_backends_read_them(self, rng):
        scores = rng.integers(0, 3, (200, 4)).astype(np.float32)
        labels = rng.integers(0, 4, 200)
        confusion = summarize(scores, labels).confusion
        assert np.trace(confusion) == count_right(scores, labels)


class TestTop5:
    NAMES = tuple("abcdef")

    @pytest.mark.parametrize(("label", "share"), [(0, 1.0), (4, 1.0), (5, 0.0)])
    def test_counts_the_five_highest_scores(self, label, share):
        scores = np.array([[6, 5, 4, 3, 2, 1]], np.float32)
        assert summarize(scores, [label], self.NAMES).top5 == share

    def test_of_equal_scores_the_first_are_the_higher(self):
        shares = [summarize(np.zeros((1, 6), np.float32), [k], self.NAMES).top5 for k in range(6)]
        assert shares == [1, 1, 1, 1, 1, 0]

    def test_means_nothing_with_five_classes(self):
        assert summarize(np.zeros((1, 5), np.float32), [0], self.NAMES[:5]).top5 is None


class TestMistakes:
    def test_the_most_confident_come_first(self):
        scores = np.array([[0, 1], [2, 0], [0, 3], [0, 9]], np.float32)
        first, second = summarize(scores, [1, 1, 0, 1], ("cat", "dog")).mistakes
        assert (first.image, first.true, first.predicted, first.score) == (2, "cat", "dog", 3.0)
        assert first.probability == pytest.approx(1 / (1 + np.exp(-3)))
        assert (second.image, second.true, second.predicted) == (1, "dog", "cat")
        assert second.probability == pytest.approx(1 / (1 + np.exp(-2)))

    def test_a_network_of_another_loss_has_scores_alone(self):
        scores = np.array([[0, 5], [0, 7], [9, 0]], np.float32)
        mistakes = summarize(scores, [0, 0, 0], ("cat", "dog"), loss="hinge").mistakes
        assert [(m.image, m.probability, m.score) for m in mistakes] == [(1, None, 7.0), (0, None, 5.0)]

    def test_there_are_no_more_than_fit_into_a_picture(self):
        details = summarize(tell([1] * 100, lead=2.0), [0] * 100)
        assert [m.image for m in details.mistakes] == list(range(module.MAX_MISTAKES))


class TestScores:
    def test_probabilities_are_softmax(self):
        p = compute_probabilities(np.log([[1.0, 2.0, 5.0]]), "softmax")
        assert p == pytest.approx(np.array([[0.125, 0.25, 0.625]]))

    def test_large_scores_do_not_overflow(self):
        assert compute_probabilities(np.array([[1e4, 0.0]]), "softmax").tolist() == [[1.0, 0.0]]

    @pytest.mark.parametrize("loss", ["hinge", "squared_error"])
    def test_other_losses_have_no_probabilities(self, loss):
        assert compute_probabilities(np.zeros((1, 2)), loss) is None

    def test_one_score_alone_speaks_for_both_classes(self):
        scores = np.array([[0.25], [0.5], [0.75]], np.float32)
        assert spread_scores(scores, "squared_error").tolist() == [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]]
        labels = [0, 0, 0]
        details = summarize(scores, labels, ("no", "yes"), loss="squared_error")
        assert np.trace(details.confusion) == count_right(scores, np.array(labels)) == 2
        assert [(m.image, m.predicted, m.score) for m in details.mistakes] == [(2, "yes", 0.75)]
