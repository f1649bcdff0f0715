"""The OpenAPI document as the code has it. `python -m tests.openapi` writes it where it is kept."""

import json
from pathlib import Path

import pipeline.api
from pipeline.api.app import make_app
from pipeline.clock import SystemClock
from pipeline.config.api import ApiConfig
from pipeline.service.reconciler import Reconciler

KEPT = Path(pipeline.api.__file__).with_name("openapi.json")


def document() -> str:
    app = make_app(Reconciler(None, SystemClock()), ApiConfig(), SystemClock())
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    KEPT.write_text(document(), encoding="utf-8")
