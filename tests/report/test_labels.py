"""Labels of the scatter plot: inside the frame, off each other, nearest to their own marks."""

import itertools

from edgegen.report.labels import Box, Disc, place

FRAME = Box(0.0, 0.0, 300.0, 200.0)


def test_a_label_alone_sits_beside_its_mark() -> None:
    ((box, joined),) = place([Disc(100.0, 100.0, 5.0, 40.0, 10.0)], FRAME)
    assert not joined
    assert 0 < box.gap(Disc(100.0, 100.0, 5.0, 40.0, 10.0)) < 8


def test_a_label_at_the_edge_stays_inside() -> None:
    for x, y in itertools.product((2.0, 298.0), (2.0, 198.0)):
        ((box, _),) = place([Disc(x, y, 2.0, 80.0, 10.0)], FRAME)
        assert box.outside(FRAME) == 0.0


def test_a_crowd_is_told_apart() -> None:
    marks = [Disc(100.0 + 12 * i, 100.0 + (i % 2), 7.0, 55.0, 10.0) for i in range(5)]
    places = place(marks, FRAME)
    for (a, _), (b, _) in itertools.combinations(places, 2):
        assert a.overlap(b) == 0.0
    for mark, (box, joined) in zip(marks, places, strict=True):
        assert box.outside(FRAME) == 0.0
        for other in marks:
            assert box.gap(other) > 0.0, "a label covers a mark"
            assert joined or box.gap(mark) <= box.gap(other), "a label reads as another mark's"


def test_no_marks_no_labels() -> None:
    assert place([], FRAME) == []
