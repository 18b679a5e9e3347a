"""A budget: what compressed files must keep of their float generator, "psnr>=30,fd_local<=+5%,size<=0.3"."""

import re
from dataclasses import dataclass, replace

from edgegen.errors import UsageError

FORM = (
    "psnr>=30 (dB), fd_local<=+5% (of the float generator's), size<=0.3 (of the fp32 weights), "
    "latency<=0.6 (of the fp32 file's, on this machine), separated by commas"
)


@dataclass(frozen=True)
class Budget:
    """None is no limit. `fd_local` is the allowed rise as a share, `size` of what the fp32 parameters take.

    `latency` is a share of what the same runtime's fp32 file takes on this machine.
    """

    psnr_db: float | None = None
    fd_local: float | None = None
    size: float | None = None
    latency: float | None = None

    @staticmethod
    def parse(text: str) -> "Budget":
        """Raises UsageError for text that it cannot read, or a limit given twice."""
        limits: dict[str, float] = {}
        forms = {
            "psnr_db": r"psnr\s*>=\s*(\d+(?:\.\d+)?)\s*(?:dB)?",
            "fd_local": r"fd_local\s*<=\s*\+\s*(\d+(?:\.\d+)?)\s*%",
            "size": r"size\s*<=\s*(0?\.\d+|1(?:\.0*)?)",
            "latency": r"latency\s*<=\s*(0?\.\d+|1(?:\.0*)?)",
        }
        for part in text.split(","):
            matched = {name: m for name, form in forms.items() if (m := re.fullmatch(form, part.strip(), re.I))}
            if not matched:
                raise UsageError(f"budget '{part.strip()}' cannot be read; give {FORM}")
            ((name, match),) = matched.items()
            if name in limits:
                raise UsageError(f"budget '{text}' asks twice for {name.removesuffix('_db')}")
            limits[name] = float(match[1]) / (100 if name == "fd_local" else 1)
        return Budget(**limits)

    def too_far(self, *, psnr_db: float | None, fd_change: float | None) -> bool:
        """Whether the images, or their distribution, are further from the float generator's than the limits allow."""
        image_limits = replace(self, size=None, latency=None)
        return bool(image_limits.broken(psnr_db=psnr_db, fd_change=fd_change, size=None))

    def broken(
        self,
        *,
        psnr_db: float | None,
        fd_change: float | None,
        size: float | None,
        latency: float | None = None,
    ) -> list[str]:
        """A message for each limit that is broken; a figure that is not known (None) breaks its limit."""
        complaints = []
        if self.psnr_db is not None and (psnr_db is None or psnr_db < self.psnr_db):
            complaints.append(f"psnr {_shown(psnr_db, '{:.1f} dB')}, asked >= {self.psnr_db:g} dB")
        if self.fd_local is not None and (fd_change is None or fd_change > self.fd_local):
            complaints.append(f"fd_local {_shown(fd_change, '{:+.1%}')}, asked <= +{self.fd_local:.0%}")
        if self.size is not None and (size is None or size > self.size):
            complaints.append(f"size {_shown(size, '{:.3f}')} of fp32, asked <= {self.size:g}")
        if self.latency is not None and (latency is None or latency > self.latency):
            complaints.append(f"latency {_shown(latency, '{:.3f}')} of fp32, asked <= {self.latency:g}")
        return complaints


def require_mixed(budget: Budget | None) -> None:
    """Raises UsageError without a limit of how accurate, small or fast a mixed file must be."""
    if budget is None or (budget.psnr_db is None and budget.size is None and budget.latency is None):
        raise UsageError(
            "a mixed file needs a budget that says psnr, size or latency, such as psnr>=45, size<=0.35 or latency<=0.6"
        )


def _shown(value: float | None, form: str) -> str:
    return "not known" if value is None else form.format(value)
