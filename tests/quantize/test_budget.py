"""Budgets: what can be read, what is refused, and what counts as broken."""

import pytest

from edgegen.errors import UsageError
from edgegen.quantize.budget import Budget, require_mixed


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("psnr>=30", Budget(psnr_db=30.0)),
        ("psnr >= 42.5 dB , fd_local <= +5 %", Budget(psnr_db=42.5, fd_local=0.05)),
        ("size<=0.3,FD_LOCAL<=+10%", Budget(size=0.3, fd_local=0.1)),
        ("size<=1", Budget(size=1.0)),
        ("latency<=0.55", Budget(latency=0.55)),
    ],
)
def test_what_is_read(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "psnr<=30", "psnr>=", "fd_local<=5", "size<=30%", "psnr>=30,", "latency<=2ms"])
def test_what_cannot_be_read_is_told_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be read; give psnr>=30 \(dB\), fd_local<=\+5%"):
        Budget.parse(text)


def test_a_file_that_is_only_too_big_is_not_too_far_off() -> None:
    budget = Budget.parse("psnr>=30,size<=0.3,latency<=0.5")
    assert budget.broken(psnr_db=31.0, fd_change=None, size=0.4)
    assert not budget.too_far(psnr_db=31.0, fd_change=None)
    assert budget.too_far(psnr_db=29.0, fd_change=None)


def test_asking_twice_is_no_budget() -> None:
    with pytest.raises(UsageError, match="asks twice for psnr"):
        Budget.parse("psnr>=30,psnr>=40")


def test_what_is_broken_is_told_with_what_was_asked() -> None:
    budget = Budget.parse("psnr>=30,fd_local<=+5%,size<=0.3")
    assert budget.broken(psnr_db=30.0, fd_change=0.05, size=0.3) == []
    assert budget.broken(psnr_db=29.9, fd_change=0.051, size=0.301) == [
        "psnr 29.9 dB, asked >= 30 dB",
        "fd_local +5.1%, asked <= +5%",
        "size 0.301 of fp32, asked <= 0.3",
    ]
    assert Budget(latency=0.5).broken(psnr_db=None, fd_change=None, size=None, latency=0.51) == [
        "latency 0.510 of fp32, asked <= 0.5"
    ]
    assert Budget().broken(psnr_db=None, fd_change=None, size=None) == []


def test_a_figure_that_nobody_knows_is_not_kept() -> None:
    assert Budget(psnr_db=1.0, fd_local=9.0).broken(psnr_db=None, fd_change=None, size=0.1) == [
        "psnr not known, asked >= 1 dB",
        "fd_local not known, asked <= +900%",
    ]


def test_a_mixed_file_needs_to_know_how_true_or_how_small() -> None:
    for budget in (None, Budget(fd_local=0.1)):
        with pytest.raises(UsageError, match="a mixed file needs a budget that says psnr, size or latency"):
            require_mixed(budget)
    require_mixed(Budget(size=0.5))
    require_mixed(Budget(latency=0.5))
