"""Events found by words: those of their questions, descriptions, values, names, and people's notes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.core.ranking import WordCount, WordCounter, query_words, ranks
from pipeline.core.spans import moment_of
from pipeline.delivery.history import EventFilter, History, StoredEvent
from pipeline.delivery.labels import LabelBook
from pipeline.delivery.manifests import Manifests
from pipeline.errors import ConfigError
from pipeline.evidence.bundle import SNAPSHOT
from pipeline.types import Event

MAX_TEXT_CHARS = 500
"""Longest text that is searched for, in characters."""
MOST_SEARCHED = 50_000
"""Events that are looked through, newest first; older ones are left out, which the result says."""
MOST_FOUND = 200
"""Events that a search gives at most."""
SINCE = "7d"
"""Where a search begins that names no beginning."""

_READ_AT_ONCE = 500
_TEXT_FIELDS = ("question", "text", "value", "previous", "zone", "reason", "advice", "severity")


@dataclass(frozen=True, slots=True)
class SearchTerms:
    """The text that is searched for, its words, the events among which, and how many are given."""

    text: str
    words: tuple[str, ...]
    among: EventFilter
    limit: int = 20


@dataclass(frozen=True, slots=True)
class DisplayNames:
    """The names by which people call streams and watches, by slug."""

    streams: Mapping[str, str] = field(default_factory=dict)
    watches: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankedEvent:
    """An event that was looked through: its place in the order of commits, its id, its rank (0: no word of the query
    is in it), which words are, and the path of its snapshot, if one is kept."""

    seq: int
    id: str
    rank: float
    words: tuple[str, ...]
    snapshot: str | None


@dataclass(frozen=True, slots=True)
class TextFound:
    """The events that were looked through, best rank first and newest first within a rank; the times (UTC) of the
    oldest and the newest, the streams they are of, and what was left out."""

    events: tuple[RankedEvent, ...] = ()
    oldest: datetime | None = None
    newest: datetime | None = None
    streams: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()

    @property
    def matched(self) -> list[RankedEvent]:
        """Those that have a word of the query."""
        return [one for one in self.events if one.rank]


def terms_of(
    text: str,
    now: datetime,
    since: str = SINCE,
    until: str | None = None,
    streams: frozenset[str] | None = None,
    watch: str | None = None,
    limit: int = 20,
) -> SearchTerms:
    """The terms of a search. `since` and `until` are as `moment_of` takes them. Raises ConfigError."""
    if len(text) > MAX_TEXT_CHARS:
        raise ConfigError(f"text: has {len(text)} characters; expected at most {MAX_TEXT_CHARS}")
    if not (words := query_words(text)):
        raise ConfigError(f"text: {text[:80]!r} has no word; expected what to search for, such as 'a ladder'")
    if not 1 <= limit <= MOST_FOUND:
        raise ConfigError(f"limit: is {limit}; expected 1 to {MOST_FOUND}")
    for name, value in (("stream", streams or ()), ("watch", (watch or "",))):
        if any("\0" in one for one in value):
            raise ConfigError(f"{name}: holds a NUL character; expected a slug")
    begin = moment_of("since", since, now)
    if begin > now:
        raise ConfigError(f"since: {begin.isoformat()} lies in the future; it is {now.isoformat(timespec='seconds')}")
    end = None if until is None else moment_of("until", until, now)
    if end is not None and end <= begin:
        raise ConfigError(f"until: {end.isoformat()} lies before since, {begin.isoformat()}; expected a time behind it")
    return SearchTerms(text, words, EventFilter(streams, watch, since=begin, until=end), limit)


class EventSearch:
    """Searches the kept events of a store, which are bounded, newest first and at most MOST_SEARCHED. Methods block
    and may raise StoreUnavailable."""

    def __init__(
        self, history: History, labels: LabelBook, manifests: Manifests, names: DisplayNames = DisplayNames()
    ) -> None:
        self._history = history
        self._labels = labels
        self._manifests = manifests
        self._names = names

    def find(self, terms: SearchTerms, most: int = MOST_SEARCHED) -> TextFound:
        """All events among which was searched, ranked."""
        counter, seen = WordCounter(terms.words), _ReadEvents()
        before: int | None = None
        while len(seen.keys) < most:
            wanted = min(_READ_AT_ONCE, most - len(seen.keys))
            page = self._history.events(terms.among, wanted, before)
            self._read(page, counter, seen)
            if len(page) < wanted:
                break
            before = page[-1].seq
        return self._ranked(terms, counter, seen, most)

    def event(self, ranked: RankedEvent) -> StoredEvent | None:
        """The event, unless it has gone since."""
        return self._history.event(ranked.id)

    def _read(self, page: Sequence[StoredEvent], counter: WordCounter, seen: "_ReadEvents") -> None:
        ids = [one.event.id for one in page]
        notes, snapshots = self._labels.notes_of(ids), self._manifests.paths_of(SNAPSHOT, ids)
        for one in page:
            event = one.event
            text = text_of(event, self._names, notes.get(event.id, ()))
            seen.keys.append((one.seq, event.id, snapshots.get(event.id)))
            seen.counts.append(counter.count(text))
            seen.streams[event.stream_id] += 1
            seen.oldest = min(seen.oldest or event.time, event.time)
            seen.newest = max(seen.newest or event.time, event.time)

    def _ranked(self, terms: SearchTerms, counter: WordCounter, seen: "_ReadEvents", most: int) -> TextFound:
        events = [
            RankedEvent(seq, name, rank, _words(counter.words, count), snapshot)
            for (seq, name, snapshot), count, rank in zip(seen.keys, seen.counts, ranks(seen.counts), strict=True)
        ]
        events.sort(key=lambda one: (-one.rank, -one.seq))
        older = sum(row[-1] for row in self._history.count(terms.among)) - most if len(events) >= most else 0
        left_out = (f"{older} older events of that span: {most} are looked through at most",) if older > 0 else ()
        return TextFound(tuple(events), seen.oldest, seen.newest, frozenset(seen.streams), left_out)


@dataclass(slots=True)
class _ReadEvents:
    """Events read so far: place, id and snapshot of each event, and its words."""

    keys: list[tuple[int, str, str | None]] = field(default_factory=list)
    counts: list[WordCount] = field(default_factory=list)
    streams: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    oldest: datetime | None = None
    newest: datetime | None = None


def text_of(event: Event, names: DisplayNames = DisplayNames(), notes: Sequence[str] = ()) -> str:
    """The text in which an event is found. Every event of a watch is one of `watch.`, so that is left out."""
    watch = event.watch_id or ""
    slugs = (event.stream_id, names.streams.get(event.stream_id, ""), watch, names.watches.get(watch, ""))
    said = (str(value) for name in _TEXT_FIELDS if isinstance(value := event.data.get(name), str | int | float))
    return "\n".join(filter(None, (event.type.removeprefix("watch."), *slugs, *said, *notes)))


def _words(words: Sequence[str], count: WordCount) -> tuple[str, ...]:
    return tuple(word for word, worth in zip(words, count.worth, strict=True) if worth)
