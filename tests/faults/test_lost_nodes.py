"""Machines that are taken away from a real training. Nothing may be lost."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from contracts.errors import TrainingError
from pipeline.cluster.train import run_training
from pipeline.settings.sections import ClusterConfig, WorkerRange
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader
from pipeline.training.checkpoints import newest_state
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.ledger import check, merge
from pipeline.training.run_files import DONE
from tests.integration.cluster import Cluster, kill_node, training
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def three_nodes() -> Iterator[Cluster]:
    """A fresh cluster: what plans elastic training on a used one looks for new nodes every 20 s only."""
    with ExitStack() as stack:
        yield Cluster(stack, num_nodes=3)


def test_a_lost_node_leaves_fewer_workers_and_the_same_samples(three_nodes, root, tiny_project, tmp_path):
    """Elastic: three workers on three nodes; one node goes away, two go on with the same global batches."""
    state = tmp_path / "state"
    arguments = training(
        tiny_project, state, max_epochs=10, validate_every_epochs=10, checkpoint_every_steps=2, ledger=True
    )

    def take_away() -> None:
        until(lambda: any(path.read_text().count("\n") > 6 for path in (state / LEDGER).glob("*-rank0002.jsonl")))
        kill_node(three_nodes.nodes[-1])

    killer = threading.Thread(target=take_away, daemon=True)
    killer.start()
    config = ClusterConfig(
        address=three_nodes.address, num_workers=WorkerRange(min=1, max=3), collective_timeout_s=10, max_failures=5
    )
    run_training(arguments, config, root)
    killer.join()
    assert json.loads((state / DONE).read_text()) == {"step": 50, "epochs": 10}
    reader = SplitReader(tiny_project.shards("voc"), load_manifest(tiny_project.shards("voc")), "train")
    steps = merge(state / LEDGER)
    assert all(found.exact for found in check(steps, reader.keys())) and len(steps) == 50
    assert [len(step.keys) for step in steps] == [8] * 50
    heads = {json.loads(path.read_text().split("\n")[0])["world"] for path in (state / LEDGER).glob("*.jsonl")}
    assert 3 in heads and heads & {1, 2}
    assert newest_state(state) is not None


def test_a_fixed_number_of_workers_waits_for_the_node_that_replaces_a_lost_one(root, tiny_project, tmp_path, capfd):
    """Two workers on two nodes; one node goes away for longer than a try takes, then another one comes."""
    state = tmp_path / "state"
    arguments = training(
        tiny_project, state, max_epochs=10, validate_every_epochs=10, checkpoint_every_steps=2, ledger=True
    )
    with ExitStack() as stack:
        cluster = Cluster(stack, num_nodes=2)
        lost = threading.Event()

        def take_away() -> None:
            until(lambda: newest_state(state))
            kill_node(cluster.nodes.pop())
            lost.set()

        killer = threading.Thread(target=take_away, daemon=True)
        killer.start()
        without = ClusterConfig(
            address=cluster.address, num_workers=2, collective_timeout_s=10, max_failures=1, wait_s=3
        )
        with pytest.raises(TrainingError, match=r"(?s)kept failing.*smaller than what.*1 of them fit.*2 tries"):
            run_training(arguments, without, root)
        killer.join()
        assert lost.is_set() and newest_state(state) is not None
        # The same command again, and a node that comes while it waits.
        comes = threading.Timer(5.0, cluster.add_node)
        comes.start()
        run_training(arguments, dataclasses.replace(without, num_workers=2, wait_s=90), root)
        comes.join()
    assert "waiting up to 90 s (cluster.wait_s)" in capfd.readouterr().out
    assert json.loads((state / DONE).read_text()) == {"step": 50, "epochs": 10}
    reader = SplitReader(tiny_project.shards("voc"), load_manifest(tiny_project.shards("voc")), "train")
    assert all(found.exact for found in check(merge(state / LEDGER), reader.keys()))
