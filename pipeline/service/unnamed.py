"""The default where no MLLM is named: the yard's MLLM, but only for recordings of the yard."""

from collections.abc import Mapping

from pipeline.config.site import SiteConfig
from pipeline.config.values import resolve_url
from pipeline.errors import ConfigError
from pipeline.redact import redact_url
from pipeline.sources.mark import YARD, marked


def require_mllm_or_yard(raw: Mapping[str, object], site: SiteConfig) -> None:
    """Refuse a site that names no MLLM unless every stream is a recording of the yard, by its mark.

    The yard's MLLM knows its own world only: about anything else it says a confident no. `raw` are the mappings that
    `site` was read from. Raises ConfigError saying what to name instead.
    """
    mllm = raw.get("mllm")
    if isinstance(mllm, str) or (isinstance(mllm, Mapping) and "use" in mllm):
        return
    for stream in site.streams.values():
        url = resolve_url(stream.url)
        if not (marked(url) or "").startswith(YARD):
            raise ConfigError(
                f"no MLLM is named, and {redact_url(url)} is no recording of the demo's yard, which is all that the"
                " shipped one knows; name one that knows your pictures: --mllm transformers:Qwen/Qwen3-VL-2B-Instruct"
                " (in this process), vllm:PATH_OR_NAME, or openai:URL#MODEL (a server); in a site file under"
                " `mllm`. To ask the yard's all the same, name it: --mllm yard"
            )
