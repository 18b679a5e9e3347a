"""Another student in a recipe's text: parsed it differs in that alone, and every other line is as it was."""

import tomllib

import pytest

from edgegen.errors import RecipeError
from edgegen.formats.recipe_file import shipped
from edgegen.recipe import Architecture, parse
from edgegen.search.recipe_edit import is_planned, with_student

STUDENT = Architecture(channels=(16, 40), blocks=1, attention=(1,), embedding=32)
IN_TABLE = """# mine
name = "x"   # a name
[slim]  # small
steps = 10   # few
keep = 0.3   # of the teacher
# the end
[distill]
steps = 5
"""
OF_ITS_OWN = """name = "x"
[slim]
steps = 10
[slim.network]  # by hand
channels = [
  8,  # narrow
  16,
]
# why one
blocks = 1

[distill]
steps = 5
"""
TEXTS = [
    IN_TABLE,
    IN_TABLE.replace("keep = 0.3 ", "network = { channels = [8, 16] } "),
    OF_ITS_OWN,
    'slim.keep = 0.3\nslim.steps = 3\nname = "x"\n',
    'name = "x"\n[slim]\nkeep = 0.3',
    *(path.read_text() for path in shipped().values()),
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_student_is_replaced_and_nothing_else(text: str) -> None:
    before = parse(tomllib.loads(text), where="before")
    student = STUDENT
    if before.slim.init == "teacher":  # slices of the teacher have as many resolutions, none of them wider
        teacher = before.teacher.model.channels
        student = STUDENT.model_copy(update={"channels": tuple(8 for _ in teacher)})
    edited = with_student(text, student, note="p50 1 ms of 2 ms")
    after = parse(tomllib.loads(edited), where="after")
    assert after.slim.network == student
    assert after.slim.keep is None
    same = {"keep": None, "network": student}
    assert after == before.model_copy(update={"slim": before.slim.model_copy(update=same)})
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in edited.splitlines() if line.startswith("#")] == comments
    assert edited.count("# edgegen plan: p50 1 ms of 2 ms [") == 1


def test_lines_other_than_the_student_s_stay_to_the_letter() -> None:
    edited = with_student(IN_TABLE, STUDENT, note="n")
    changed = [pair for pair in zip(IN_TABLE.splitlines(), edited.splitlines(), strict=True) if pair[0] != pair[1]]
    ((old, new),) = changed
    assert old == "keep = 0.3   # of the teacher"
    assert new.startswith("network = { channels = [16, 40], blocks = 1, attention = [1], embedding = 32 }  # edgegen ")


def test_the_text_of_a_plan_is_recognised_until_it_is_changed() -> None:
    edited = with_student(IN_TABLE, STUDENT, note="n")
    assert is_planned(edited)
    assert is_planned(with_student(edited, STUDENT, note="for a second budget"))
    assert not is_planned(IN_TABLE)
    assert not is_planned(edited.replace("steps = 10", "steps = 11"))
    assert not is_planned(edited.replace("[16, 40]", "[16, 48]"))


def test_the_text_of_an_earlier_version_is_recognised_too() -> None:
    """Written when the command was called `edgegen slim plan`."""
    line = "keep = 0.3   # of the teacher"
    student = "model = { channels = [16, 40], blocks = 1, attention = [1], embedding = 32 }"
    text = IN_TABLE.replace(line, f"{student}  # edgegen slim plan: n [9489c26181363c26]")
    assert is_planned(text)
    assert not is_planned(text.replace("steps = 10", "steps = 11"))


@pytest.mark.parametrize("text", ['name = "x"\nslim = { keep = 0.3 }\n', 'name = "x"\n["slim"]\nkeep = 0.3\n'])
def test_a_size_written_in_another_way_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(RecipeError, match=r"write `keep = 0.3` on a line of its own below \[slim\]. .* blocks = 1"):
        with_student(text, STUDENT, note="n")
