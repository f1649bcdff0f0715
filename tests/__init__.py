import pytest

pytest.register_assert_rewrite("tests.mllm_contract")
