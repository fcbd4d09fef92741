"""Joining a Ray cluster that runs already, with the token that it asks for; failures are told as a ConfigError."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from contracts.errors import ConfigError


@contextmanager
def environment(values: Mapping[str, str | None], *, keep: bool = False) -> Iterator[None]:
    """Environment variables for a while; None unsets one. With `keep`, what the user has set stays."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _set({name: value for name, value in values.items() if not (keep and name in os.environ)})
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def authentication(values: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables that say, for a while, how Ray authenticates. It reads them once, so it is told."""
    with contextlib.ExitStack() as stack:
        stack.callback(_read_authentication)  # when the environment is as it was
        stack.enter_context(environment(values))
        _read_authentication()
        yield


def _read_authentication() -> None:
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def joined(address: str) -> Iterator[str | None]:
    """Authenticate as the running cluster wants it: with the user's token where it asks for one.

    Yields:
        host:port of its head; None behind a proxy.

    Raises:
        ConfigError: nobody answers; a token is asked for, and there is none or another one.
    """
    from ray._private.services import canonicalize_bootstrap_address

    if address.startswith("ray://"):  # a proxy, which takes a token that it has not asked for, too
        knock(address)
        with authentication({"RAY_AUTH_MODE": "token" if has_token() else "disabled"}):
            yield None
        return
    try:
        found = canonicalize_bootstrap_address(address)
    except (ConnectionError, ValueError) as error:
        raise no_cluster(address, error) from error
    if found is None:
        raise no_cluster(address, ConnectionError("no cluster was started on this machine"))
    knock(found)
    with authentication({"RAY_AUTH_MODE": "disabled"}):
        is_open = _lets_in(address, found)
    with authentication({"RAY_AUTH_MODE": "disabled" if is_open else "token"}):
        if is_open:
            print(
                f"warning: this cluster answers without a token: whoever reaches {address} can run code on it, and "
                "reads what it reads. Start it with RAY_AUTH_MODE=token",
                file=sys.stderr,
                flush=True,
            )
        else:
            _check_token(address, found)
        yield found


def _check_token(address: str, found: str) -> None:
    if not has_token():
        raise wrong_token(address, "the Ray cluster asks for a token, and there is none")
    if not _lets_in(address, found):
        raise wrong_token(address, "the Ray cluster refuses this token")


def has_token() -> bool:
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        return AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    except AuthenticationError:  # a file that is named and not there, or empty
        return False


def wrong_token(address: str, what: str) -> ConfigError:
    return ConfigError(
        what,
        value=address,
        where="environment variables RAY_AUTH_TOKEN and RAY_AUTH_TOKEN_PATH, file ~/.ray/auth_token (the first counts)",
        allowed="the token that the cluster was started with",
        fix="copy it from the head node (`ray get-auth-token` shows it there)",
    )


def _lets_in(address: str, found: str) -> bool:
    """Whether the head at `found` answers us as we now authenticate."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest  # type: ignore[attr-defined]
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    with init_grpc_channel(found) as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetAllNodeInfo(GetAllNodeInfoRequest(), timeout=20)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return False
            raise no_cluster(address, ConnectionError(error.code().name)) from error
    return True


def knock(address: str) -> None:
    """Fail within seconds where nobody listens: Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise no_cluster(address, error) from error


def no_cluster(address: str | None, error: Exception) -> ConfigError:
    if address is None:
        return ConfigError(
            "Ray does not start on this machine",
            value=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            fix="look for memory and space in /dev/shm and the temporary folder; or set cluster.engine: local",
        )
    return ConfigError(
        "no Ray cluster answers",
        value=address,
        where="cluster.address or RAY_ADDRESS",
        allowed="host:port of a head node, ray://host:port, or auto",
        fix=f"start one with `ray start --head`, or unset it to work on this machine ({error})",
    )
