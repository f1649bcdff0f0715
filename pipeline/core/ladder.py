"""The overload ladder: what a stream gives up, step by step, when it cannot keep up, and takes back when it can.

A stream is *pressed* when sampled frames were lost because the loop was late, or when the MLLM refused or was too slow;
it is *calm* when it was not pressed and had time to spare. Each step keeps what the ones below it gave up.
"""

from dataclasses import dataclass, replace

STEPS = ("normal", "fewer_askings", "smaller_grants", "longer_hops", "shed")
"""By number: watches of lower priority are asked less often; grants are half of what could be spent; hops are
twice as long; watches of lower priority are not asked at all."""

FEWER_ASKINGS, SMALLER_GRANTS, LONGER_HOPS, SHED = range(1, len(STEPS))

SPARE = 0.8
"""A live hop that took less than this part of its own length left time to spare."""


@dataclass(frozen=True, slots=True)
class LadderRules:
    """So many pressed hops in a row make it step up, so many calm ones down. Pressed again within `relapse` hops of a
    step down, it waits twice as long before the next one, up to `2 ** most_relapses` times."""

    up_after: int = 3
    down_after: int = 15
    relapse: int = 30
    most_relapses: int = 4


@dataclass(frozen=True, slots=True)
class Ladder:
    """A stream's step on the ladder. `since_down` counts the hops since its last step down."""

    step: int = 0
    pressed: int = 0
    calm: int = 0
    relapses: int = 0
    since_down: int = 1_000_000

    @property
    def name(self) -> str:
        """The step's name in events."""
        return STEPS[self.step]

    @property
    def stretch(self) -> int:
        """The number of hops' lengths the next hop spans."""
        return 2 if self.step >= LONGER_HOPS else 1

    @property
    def saves(self) -> bool:
        """True if grants are smaller than they could be."""
        return self.step >= SMALLER_GRANTS

    def grant(self, tokens: int, native: int) -> int:
        """The part of a grant that this step leaves for a hop of `native` vision tokens. More than these could not be
        spent, so that half of a large grant would be no less work."""
        return min(tokens, native) // 2 if self.saves else tokens

    def update(self, pressed: bool, spare: bool, rules: LadderRules = LadderRules()) -> "Ladder":
        """The ladder after one more hop. A hop that was neither pressed nor left time to spare changes no step."""
        now = replace(self, since_down=self.since_down + 1)
        if pressed:
            now = replace(now, pressed=self.pressed + 1, calm=0)
            if now.pressed < rules.up_after or self.step == len(STEPS) - 1:
                return now
            fell_back = now.since_down <= rules.relapse
            relapses = min(self.relapses + 1, rules.most_relapses) if fell_back else 0
            return replace(now, step=self.step + 1, pressed=0, relapses=relapses)
        now = replace(now, pressed=0, calm=self.calm + 1 if spare else 0)
        if self.step == 0 or now.calm < rules.down_after * 2**self.relapses:
            return now
        return replace(now, step=self.step - 1, calm=0, since_down=0)
