"""The token ledger: what a stream may send to the encoder, and never more.

One bucket per stream fills at `rate` vision tokens per second of stream time up to `burst`; a parent bucket, shared by
the streams of one GPU, fills on the monotonic clock. Tokens are charged before anything is sent, so over any interval a
stream spends at most `rate x interval + burst`, and all streams together at most the parent's. Integers only inside:
micro-tokens and microseconds.
"""

from dataclasses import dataclass

from pipeline.clock import Clock

MICRO = 1_000_000

BURST_S = 10.0
"""Seconds of its rate that a bucket holds at the least, where nothing is configured."""

BURST_HOPS = 10.0
"""Hops that a bucket can pay for at native size at the least, where nothing is configured. Events come together: an
opening and the hop that confirms it want two at once, the end two more. Quiet minutes save up for that, and tokens that
a full bucket refuses are lost."""

GRANT_HOPS = 3.0
"""Native hops that one hop may be granted at the most, where BURST_S of the rate are not more. What is granted tells an
allocator how scarce tokens are, and savings alone do not make them plenty: the learned one would take four hops for
ample (AMPLE) and show whatever comes."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket's refill in vision tokens per second and its size in vision tokens."""

    tokens_per_s: float
    burst_tokens: int

    def __post_init__(self) -> None:
        if not 0 < self.tokens_per_s < float("inf"):
            raise ValueError(f"rate_tokens_per_s is {self.tokens_per_s}; expected a finite number above 0")
        if self.burst_tokens < 1:
            raise ValueError(f"burst_tokens is {self.burst_tokens}; expected at least 1")


class Bucket:
    """A token bucket in its own time. It starts full or empty; time that runs backwards fills nothing."""

    def __init__(self, rate: Rate, at_s: float, full: bool = True) -> None:
        self._micro_per_s = int(rate.tokens_per_s * MICRO)
        self._full = rate.burst_tokens * MICRO
        self._level = self._full if full else 0
        self._at_us = round(at_s * MICRO)

    def resize(self, burst_tokens: int) -> None:
        """Let it hold so many. What there is now more room for has to be saved up; what does not fit is gone."""
        self._full = burst_tokens * MICRO
        self._level = min(self._level, self._full)

    def tokens(self, at_s: float) -> int:
        """Whole tokens that can be taken at `at_s`."""
        at_us = round(at_s * MICRO)
        if at_us > self._at_us:
            self._level = min(self._full, self._level + self._micro_per_s * (at_us - self._at_us) // MICRO)
            self._at_us = at_us
        return self._level // MICRO

    def take(self, tokens: int) -> None:
        """Remove tokens that `tokens()` has just said are there."""
        assert 0 <= tokens * MICRO <= self._level
        self._level -= tokens * MICRO

    def put_back(self, tokens: int) -> None:
        """Return tokens that were taken and not spent; what does not fit is gone."""
        self._level = min(self._full, self._level + tokens * MICRO)


@dataclass(slots=True)
class _Account:
    bucket: Bucket
    tokens_per_s: float
    burst: int
    least_burst: int
    most_at_once: int
    priority: int
    held: int = 0
    credit: float = 0.0
    asked_at_s: float = float("-inf")


class Ledger:
    """The accounts of all streams, and their common parent if there is one.

    What the parent refills is credited to the streams that asked within the last `active_s` seconds, by priority. A
    stream may take its credit and whatever is credited to nobody, so that a lone stream has all and none can starve
    another. The credits only divide; the parent's own level is what bounds.
    """

    def __init__(self, clock: Clock, parent: Rate | None = None, active_s: float = 5.0) -> None:
        self._clock = clock
        self._parent_rate = parent
        self._parent = Bucket(parent, clock.monotonic_s()) if parent else None
        self._credited_at_s = clock.monotonic_s()
        self._accounts: dict[str, _Account] = {}
        self._active_s = active_s

    def share(self, parent: Rate | None) -> None:
        """From now on all streams together have this, which begins full; None: each has its own alone."""
        if parent != self._parent_rate:
            now_s = self._clock.monotonic_s()
            self._parent_rate, self._credited_at_s = parent, now_s
            self._parent = Bucket(parent, now_s) if parent else None

    def open(self, stream_id: str, rate: Rate, at_s: float, priority: int = 1, full: bool = True) -> None:
        """Open a stream's account at a stream time, with a full bucket or an empty one.

        Raises ValueError if it is open, or for a priority below 1.
        """
        if stream_id in self._accounts:
            raise ValueError(f"stream {stream_id!r} has an account already")
        if priority < 1:
            raise ValueError(f"priority of stream {stream_id!r} is {priority}; expected 1 or more")
        burst = rate.burst_tokens
        self._accounts[stream_id] = _Account(Bucket(rate, at_s, full), rate.tokens_per_s, burst, burst, burst, priority)

    def close(self, stream_id: str) -> None:
        """Close an account; unknown ids are fine."""
        self._accounts.pop(stream_id, None)

    def resize(self, stream_id: str, burst_tokens: int, native_hop: int) -> None:
        """From now on the stream may save up so many tokens, and never fewer than its account was opened with. Its next
        hop costs `native_hop` at native size, and is granted at most GRANT_HOPS times that or BURST_S of the rate,
        whichever is more."""
        account = self._accounts[stream_id]
        account.most_at_once = max(round(GRANT_HOPS * native_hop), round(BURST_S * account.tokens_per_s))
        burst = max(account.least_burst, burst_tokens)
        if burst != account.burst:
            account.burst = burst
            account.bucket.resize(burst)

    def grant(self, stream_id: str, at_s: float, owed: int = 0, resent: bool = False, reserve: int = 0) -> int:
        """Take and return the vision tokens that the hop ending at `at_s` (stream seconds) may spend.

        The next restart of the context sends its surviving segments again: `owed` tokens stay in the bucket for that,
        and if this hop will survive too (`resent`), each of its tokens is paid for twice, once now and once then. A
        `reserve` for a second look stays too. At most half of what a hop may be granted is kept back: a stream that has
        just shown much, and owes much, is not blind until all of it is saved up again.
        """
        account = self._accounts[stream_id]
        most = min(account.burst, account.most_at_once)
        free = max(0, account.bucket.tokens(at_s) - min(owed + reserve, most // 2))
        if resent and owed < most // 2:
            free = (free + 1) // 2
        return self._hold(account, min(free, most))

    def take(self, stream_id: str, at_s: float, tokens: int) -> int:
        """Take up to `tokens` more, for what has to be sent again; returns how many there were."""
        account = self._accounts[stream_id]
        return self._hold(account, min(tokens, account.bucket.tokens(at_s)))

    def keep(self, stream_id: str, tokens: int) -> None:
        """Put back all but so many of the tokens that the hop holds: they can be taken again."""
        account = self._accounts[stream_id]
        self._return(account, max(0, account.held - tokens))

    def settle(self, stream_id: str, spent: int) -> None:
        """Close the hop: of the tokens taken since the last settling, `spent` are gone and the rest is put back."""
        account = self._accounts[stream_id]
        assert account.held >= spent, f"{spent} tokens were spent where {account.held} were held"
        self._return(account, account.held - spent)
        account.held = 0

    def _return(self, account: _Account, tokens: int) -> None:
        account.held -= tokens
        account.bucket.put_back(tokens)
        if self._parent:
            self._parent.put_back(tokens)
            account.credit += tokens

    def _hold(self, account: _Account, tokens: int) -> int:
        if self._parent and self._parent_rate:
            tokens = min(tokens, self._parent_share(account, self._parent, self._parent_rate))
            self._parent.take(tokens)
            account.credit = max(0.0, account.credit - tokens)
        account.bucket.take(tokens)
        account.held += tokens
        return tokens

    def _parent_share(self, asking: _Account, parent: Bucket, rate: Rate) -> int:
        now_s = self._clock.monotonic_s()
        asking.asked_at_s = now_s
        active = [account for account in self._accounts.values() if now_s - account.asked_at_s <= self._active_s]
        weights = sum(account.priority for account in active)
        refilled = rate.tokens_per_s * (now_s - self._credited_at_s)
        self._credited_at_s = now_s
        for account in active:
            share = account.priority / weights
            account.credit = min(account.credit + refilled * share, rate.burst_tokens * share)
        level = parent.tokens(now_s)
        others = sum(account.credit for account in active) - asking.credit
        return max(0, min(level, int(level - others)))
