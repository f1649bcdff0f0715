"""Meanings of error statuses, in whatever words they come."""

from collections.abc import Callable, Mapping

from pipeline.errors import MLLMUnavailable
from pipeline.mllm.openai.address import host_of
from pipeline.mllm.openai.exchange import Received
from pipeline.mllm.openai.limits import Hint
from pipeline.mllm.openai.replies import error_in, parsed, status_in, words_in
from pipeline.mllm.openai.words import advice_on, hint_of

BUSY = (429, 503)

_NOT_THE_PROMPT = (401, 402, 403, 404, 405, 407, 408, 410, 425, 429, 451)
"""Statuses of 4xx that say something of the client, the address or the moment, and nothing of the prompt."""


class Refused(MLLMUnavailable):
    """The server answered with an error status. `hint` is what its words say was too large."""

    def __init__(self, message: str, status: int, hint: Hint = Hint()) -> None:
        # After 4xx nothing was encoded; after 5xx nobody knows.
        super().__init__(message, sent=status >= 500)
        self.status, self.hint = status, hint

    @property
    def of_prompt(self) -> bool:
        """True if the prompt was refused, for its content or its size."""
        return self.status // 100 == 4 and self.status not in _NOT_THE_PROMPT


class CacheMiss(Refused):
    """A prompt was refused of which some pictures were sent by their content id only: perhaps it does not know one."""


def status_of(received: Received) -> int:
    """The status of a reply. One of 200 that holds an error has the status that this names, or 400."""
    if received.status // 100 != 2:
        return received.status
    try:
        error = error_in(parsed(received.body))
    except ValueError:
        return received.status
    return received.status if error is None else status_in(error) or 400


def refusal(received: Received, status: int, where: str, keyed: bool, shown: Callable[[str], str]) -> Refused:
    """The error for a reply with an error `status`. `keyed`: whether a key was sent."""
    said = words_in(received.body)
    if status in (401, 403):
        lacking = "refuses the key of" if keyed else "wants a key; set"
        return Refused(f"{where} {lacking} mllm.api_key ({status})", status)
    if status // 100 == 3:
        return Refused(f"{where} answers {status}, a redirect{_leads_to(received.headers)}", status)
    hint, advice = (hint_of(said), advice_on(said)) if status >= 400 else (Hint(), "")
    within = "" if status == received.status else f" within a reply of {received.status}"
    return Refused(f"{where} answers {status}{within}: {shown(said)!r}{advice and f' - {advice}'}", status, hint)


def _leads_to(headers: Mapping[str, str]) -> str:
    """The host that a redirect leads to; the rest of the address may hold a token."""
    try:
        return f" to {host_of(headers.get('Location', ''))}; give the address it leads to"
    except ValueError:
        return "; give the address it leads to"
