"""A Hub on a loopback port for each test, and a client that can reach nothing else."""

import time

import pytest
from huggingface_hub import constants

from .clients import TOKEN, as_client
from .loopback import LoopbackHub


@pytest.fixture
def hub():
    with LoopbackHub(tokens={TOKEN: "org", "hf_stranger0000": "stranger"}) as server:
        yield server


@pytest.fixture(autouse=True)
def client(tmp_path, monkeypatch):
    """The client's own cache, no Xet (whose storage cannot be faked), and no time lost waiting."""
    as_client(monkeypatch.setattr)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were asked of time.sleep by the client, which does not wait."""
    asked = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


def pytest_collection_modifyitems(items):
    """huggingface_hub 2.4 itself sends files in a way of which its HTTP library warns."""
    for item in items:
        if "tests/hub/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"))
