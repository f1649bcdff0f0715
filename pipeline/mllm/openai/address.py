"""Where an OpenAI-compatible server is and how to be let in: values only, without a connection."""

from urllib.parse import urlsplit

import httpx

from pipeline.errors import ConfigError


def checked_key(api_key: str | None) -> str | None:
    """The key. Raises ConfigError, which does not show it, for one that no HTTP header can carry."""
    if api_key is not None and not (api_key and api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ConfigError(
            "mllm.api_key is empty or has spaces, line ends or other characters that no HTTP header can carry"
        )
    return api_key


def host_of(url: str) -> str:
    """Scheme, host and port. Raises ConfigError for what is no HTTP address."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise ConfigError(
            "the address in mllm.use cannot be read; expected openai:http://HOST:PORT/v1#MODEL"
        ) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("the address in mllm.use is no HTTP address; expected openai:http://HOST:PORT/v1#MODEL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"
