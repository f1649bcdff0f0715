"""The contract of the API is the document in the repository."""

import json

from tests.openapi import KEPT, document


def test_the_kept_document_is_that_of_the_code():
    assert KEPT.read_text(encoding="utf-8") == document(), "run: python -m tests.openapi"


def test_every_operation_is_named_explained_and_says_what_its_errors_are():
    names = []
    for path, operations in json.loads(document())["paths"].items():
        for method, operation in operations.items():
            names.append(operation["operationId"])
            assert operation.get("description"), (method, path)
            if not path.startswith("/health"):
                assert "application/problem+json" in operation["responses"]["4XX"]["content"], (method, path)
    assert len(set(names)) == len(names)
