"""One measured figure beside its reference: the form in which every benchmark reports.

``reference`` is a limit or a peer measured in the same run, never a figure from elsewhere;
``ratio`` = value / reference; ``met`` compares the ratio with ``target``, and is honest.

    >>> row("sign", 30_000.0, "1/s", reference=40_000.0, target=0.6).met
    True
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. Without a ``target`` it only informs: ``met`` is then ``None``."""

    name: str
    value: float
    unit: str
    reference: float | None
    ratio: float | None
    target: float | None
    met: bool | None

    def plain(self) -> dict[str, str | float | bool | None]:
        """Return the row as JSON builtins, figures rounded to four digits."""
        fields = asdict(self)
        for name in ("value", "reference", "ratio"):
            if fields[name] is not None:
                fields[name] = float(f"{fields[name]:.4g}")
        return fields


def row(
    name: str,
    value: float,
    unit: str,
    *,
    reference: float | None = None,
    target: float | None = None,
    at_most: bool = False,
) -> Row:
    """Make a row; the target is met at or above it, or at or below it with ``at_most``."""
    ratio = value / reference if reference else None
    met = None
    if target is not None:
        measured = value if ratio is None else ratio
        met = measured <= target if at_most else measured >= target
    return Row(name, value, unit, reference, ratio, target, met)
