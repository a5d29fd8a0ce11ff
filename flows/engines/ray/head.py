"""The head of a Ray cluster (its GCS): whether it lives, and what its autoscaler is asked for."""

import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress

import ray
from ray import _private as ray_private  # a question with a time-out has no public way
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from flows.engines.ending import end_at_once
from flows.engines.engine import EngineError

ASK_TIMEOUT_S = 2.0
ASK_AGAIN_S = 30.0  # an autoscaler keeps one request, of whoever asked last: another driver, too
# After so long without its head Ray ends the driver's process, without a word that can be caught.
_SETTING = "RAY_gcs_rpc_server_reconnect_timeout_s"
RAY_ENDS_AFTER_S = float(os.environ.get(_SETTING, "60"))
SILENT_AT_MOST_S = 0.7 * RAY_ENDS_AFTER_S - ASK_TIMEOUT_S


class Head:
    """The head as the driver knows it: all that is asked of a dead one waits for a minute."""

    def __init__(self) -> None:
        self._answered_at = self._asked_at = time.monotonic()
        self._requested: list[dict[str, float]] | None = None
        self._requested_at = -math.inf

    @property
    def is_silent(self) -> bool:
        """Whether the head did not answer the last question."""
        return self._asked_at > self._answered_at

    def answers(self) -> bool:
        """Ask the head whether it lives; it may come back, if its state is kept (Redis).

        Raises EngineError where it has been silent for so long that Ray will soon end the process.
        """
        client = ray_private.worker.global_worker.gcs_client
        try:
            client.internal_kv_get(b"capfilt", None, timeout=ASK_TIMEOUT_S)
        except RayError:
            self._asked_at = time.monotonic()
            silent_s = self._asked_at - self._answered_at
            if silent_s > SILENT_AT_MOST_S:
                end_at_once()
                raise EngineError(
                    f"Ray's head has not answered for {silent_s:.0f} s: its GCS is lost. What is "
                    "committed is safe; start the cluster again, then run the same command again"
                ) from None
            return False
        self._asked_at = self._answered_at = time.monotonic()
        return True

    def request(self, bundles: Sequence[dict[str, float]]) -> None:
        """Ask the autoscaler, if there is one, for room for all these; what was asked is over.

        What is wanted still is asked for again after a time, lest another driver has ended it.
        """
        now = time.monotonic()
        is_fresh = not bundles or now - self._requested_at < ASK_AGAIN_S
        if self.is_silent or (bundles == self._requested and is_fresh):
            return
        self._requested, self._requested_at = list(bundles), now
        with suppress(RayError, RuntimeError):  # the head may be gone
            request_resources(bundles=list(bundles))

    def launched(self) -> list[str]:
        """Name the kinds of node that an autoscaler is starting; none where there is none."""
        from ray.autoscaler.v2.sdk import get_cluster_status

        try:
            status = get_cluster_status(ray.get_runtime_context().gcs_address, timeout=2)
        except (RayError, OSError, RuntimeError, ValueError):
            return []
        launching = [launch.ray_node_type_name for launch in status.pending_launches]
        return launching + [node.ray_node_type_name for node in status.pending_nodes]

    @staticmethod
    def may_bring_gpus() -> bool:
        """Whether an autoscaler may start machines with GPUs, though there are none now."""
        config = ray_private.state.state.get_cluster_config()
        groups = config.node_group_configs if config else ()
        return any(group.max_count and group.resources.get("GPU", 0) for group in groups)
