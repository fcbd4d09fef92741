"""Joining a cluster whose head is busy. With a real one each attempt takes half a minute."""

from __future__ import annotations

import pytest
import ray

from pipeline.cluster.session import _init


@pytest.mark.parametrize(("failures", "raises"), [(0, False), (2, False), (3, True)])
def test_a_head_that_is_slow_to_let_a_client_in_is_asked_again(monkeypatch, capsys, failures: int, raises: bool):
    asked: list[str] = []

    def slow(address: str) -> None:
        asked.append(address)
        if len(asked) <= failures:
            raise ConnectionAbortedError("Initialization failure from server:\nStarting Ray client server failed.")

    monkeypatch.setattr(ray, "init", slow)
    if raises:
        with pytest.raises(ConnectionAbortedError):
            _init(address="ray://head:10001")
    else:
        _init(address="ray://head:10001")
    assert asked == ["ray://head:10001"] * min(failures + 1, 3)
    told = "ray://head:10001 is slow to let us in (Starting Ray client server failed.); trying again\n"
    assert capsys.readouterr().out == told * min(failures, 2)
