"""The ledger of a job: how many frames, persons and pairs were planned, used and skipped, and for which reasons.

Extraction, training, evaluation and prediction fill the same ledger, so that what one of them leaves out can be
compared with what another does.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from configs.errors import IntegrityError
from store.format.manifest import Unit
from store.format.paths import VERIFY
from store.format.shard import Skipped
from store.tables import AXES, FRAME, PAIR, PERSON, Tables

# The data set's owners annotate pairs whose partner has no box in the frame. These are counted but are not damage.
MISSING_PARTNER = "missing_partner"
_NOT_DAMAGE = {MISSING_PARTNER}
_PLURAL = {FRAME: "frames", PERSON: "people", PAIR: "pairs"}


@dataclass(frozen=True)
class Ledger:
    """Planned, used and skipped items of each kind ("frame", "person", "pair"): planned = used + skipped.

    Raises:
        IntegrityError: the counts of a kind do not add up.
    """

    planned: Mapping[str, int]
    used: Mapping[str, int]
    skipped: Mapping[str, Mapping[str, int]]  # kind -> reason -> count
    examples: Mapping[str, Skipped]  # reason -> the first item that was skipped for it, where known

    def __post_init__(self) -> None:
        for kind in AXES:
            planned, used, skipped = self.planned[kind], self.used[kind], sum(self.skipped[kind].values())
            if planned != used + skipped:
                raise IntegrityError(
                    f"{planned} {_PLURAL[kind]} were planned, but {used} used and {skipped} skipped; {VERIFY}"
                )

    @classmethod
    def of_items(cls, planned: Mapping[str, int], used: Mapping[str, int], items: Iterable[Skipped]) -> "Ledger":
        """The ledger of the skipped `items`."""
        skipped: dict[str, Counter[str]] = {kind: Counter() for kind in AXES}
        examples: dict[str, Skipped] = {}
        for item in items:
            skipped[item.kind][item.reason] += 1
            examples.setdefault(item.reason, item)
        return cls(planned, used, skipped, examples)

    @classmethod
    def of_units(cls, units: Iterable[Unit], items: Iterable[Skipped] = ()) -> "Ledger":
        """The ledger of finished units, from their entries in STORE.json; `items` are examples of what they skipped."""
        total = cls.empty()
        for unit in units:
            skipped = {kind: Counter(unit.skipped.get(kind, {})) for kind in AXES}
            planned = {kind: unit.planned(kind) for kind in AXES}
            total += cls(planned, {kind: unit.stored(kind) for kind in AXES}, skipped, {})
        reasons = {reason for counts in total.skipped.values() for reason in counts}
        examples: dict[str, Skipped] = {}
        for item in items:
            if item.reason in reasons:
                examples.setdefault(item.reason, item)
        return cls(total.planned, total.used, total.skipped, examples)

    @classmethod
    def of_tables(cls, tables: Tables) -> "Ledger":
        """The ledger of tables of which nothing was skipped."""
        rows = {FRAME: len(tables.frame_name), PERSON: len(tables.box), PAIR: len(tables.pair)}
        return cls.of_items(rows, rows, ())

    @classmethod
    def empty(cls) -> "Ledger":
        """The ledger of nothing."""
        zero = dict.fromkeys(AXES, 0)
        return cls.of_items(zero, zero, ())

    def __add__(self, other: "Ledger") -> "Ledger":
        """Both together; the examples of `self` come first."""
        return Ledger(
            {kind: self.planned[kind] + other.planned[kind] for kind in AXES},
            {kind: self.used[kind] + other.used[kind] for kind in AXES},
            {kind: Counter(self.skipped[kind]) + Counter(other.skipped[kind]) for kind in AXES},
            {**other.examples, **self.examples},
        )

    def reasons(self, kind: str) -> dict[str, int]:
        """Reason -> count of the damaged items of a kind, the most frequent first."""
        return {
            reason: count for reason, count in Counter(self.skipped[kind]).most_common() if reason not in _NOT_DAMAGE
        }

    @property
    def damaged(self) -> int:
        """The number of frames, persons and pairs that were skipped because of damage."""
        return sum(sum(self.reasons(kind).values()) for kind in AXES)

    def by_reason(self) -> dict[str, int]:
        """Reason -> number of frames, persons and pairs together, in alphabetical order."""
        total: Counter[str] = Counter()
        for counts in self.skipped.values():
            total.update(counts)
        return dict(sorted(total.items()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: `planned`, `used`, `skipped` by kind, `damaged`, and `examples` by reason."""
        return {
            "planned": {f"{kind}s": self.planned[kind] for kind in AXES},
            "used": {f"{kind}s": self.used[kind] for kind in AXES},
            "skipped": {f"{kind}s": dict(sorted(self.skipped[kind].items())) for kind in AXES},
            "damaged": self.damaged,
            "examples": {reason: vars(item) for reason, item in sorted(self.examples.items())},
        }

    def lines(self) -> list[str]:
        """The ledger as lines of text."""
        used = ", ".join(f"{self.used[kind]:,} of {self.planned[kind]:,} {_PLURAL[kind]}" for kind in AXES)
        return [f"Data: {used} are used.", *(f"  skipped: {self._reason_text(reason)}" for reason in self.by_reason())]

    def _reason_text(self, reason: str) -> str:
        counts = ", ".join(
            f"{self.skipped[kind][reason]:,} {_PLURAL[kind]}" for kind in AXES if self.skipped[kind].get(reason)
        )
        note = "" if reason not in _NOT_DAMAGE else ", not damage"
        example = self.examples.get(reason)
        return f"{reason}{note}: {counts}" + ("" if example is None else f"; the first: {example.text()}")


def damage_text(data: Mapping[str, Any]) -> str:
    """One sentence for the end of a command that used `data` (of `Ledger.to_dict`); "" if nothing was damaged."""
    if not data["damaged"]:
        return ""
    reasons: Counter[str] = Counter()
    for counts in data["skipped"].values():
        reasons.update({reason: count for reason, count in counts.items() if reason not in _NOT_DAMAGE})
    listed = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
    return f"Finished, but {data['damaged']:,} damaged frames, people and pairs were skipped ({listed})."
