"""`sightline ui` before it serves: the port."""

from __future__ import annotations

import os
import socket

import pytest

from contracts.errors import ConfigError
from pipeline.tracking.ui import check_port


def test_a_port_in_use_names_who_has_it_and_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as refused:
            check_port("127.0.0.1", port)
    text = str(refused.value)
    assert "the port is in use" in text and f"127.0.0.1:{port}" in text
    assert f"process {os.getpid()}" in text and "sightline ui --port" in text
    check_port("127.0.0.1", port)


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot be listened on"):
        check_port("192.0.2.1", 5000)
    with pytest.raises(ConfigError, match="cannot be listened on"):
        check_port("127.0.0.1", 70000)
