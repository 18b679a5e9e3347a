"""Random generators of torch that are seeded by several whole numbers, such as (seed, epoch)."""

import torch


def generator(*words: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by whole numbers: the same ones give the same random numbers on the same kind of device."""
    mixed = 0
    for word in words:
        # SplitMix64's finaliser (Steele, Lea, Flood 2014), so that neighbouring seeds give unrelated states.
        mixed = (mixed + word + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return torch.Generator(device=device).manual_seed(mixed)
