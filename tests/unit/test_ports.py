"""The block of ports of a stack."""

import os
import socket

import pytest

from headway.errors import HeadwayError
from headway.supervisor import ports


@pytest.fixture
def listener():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_block_numbers_every_use_once():
    block = ports.Block(7070)
    assert [block[name] for name in ("api", "sites", "temporal", "temporal-ui", "s3")] == [7070, 7071, 7072, 7073, 7074]
    assert sorted(ports.OFFSETS.values()) == list(range(ports.SIZE))
    assert block.origin("s3") == "http://127.0.0.1:7074"


@pytest.mark.parametrize("first", [-1, 80, 1023, 65530, 70000])
def test_block_outside_the_range_is_refused(first):
    with pytest.raises(HeadwayError) as caught:
        ports.Block(first)
    assert caught.value.code == "stack.port_busy"
    assert str(first) in caught.value.message


def test_free_block_is_free_and_below_the_ephemeral_range():
    block = ports.find_free_block()
    assert 10240 <= block.first <= 32768 - ports.SIZE
    assert all(ports.is_free(block.first + offset) for offset in range(ports.SIZE))


def test_busy_port_names_port_component_and_holder(listener):
    assert not ports.is_free(listener)
    with pytest.raises(HeadwayError) as caught:
        ports.require_free({"caddy (sites)": listener}, suggestion="start elsewhere")
    message = caught.value.message
    assert str(listener) in message
    assert "caddy (sites)" in message
    assert f"process {os.getpid()}" in message
    assert message.endswith("start elsewhere.")


def test_a_port_in_time_wait_counts_as_free():
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        client.close()
    assert ports.is_free(port)
    ports.require_free({"api": port}, suggestion="…")


def test_a_socket_that_somebody_else_left_is_named_before_anything_starts(tmp_path, monkeypatch):
    left, gone = tmp_path / "left.sock", tmp_path / "gone.sock"
    left.touch()
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1 or 1)
    ports.require_replaceable([str(gone)], suggestion="…")
    with pytest.raises(HeadwayError) as caught:
        ports.require_replaceable([str(gone), str(left)], suggestion="start elsewhere")
    assert caught.value.code == "stack.port_busy"
    assert str(left) in caught.value.message
    assert caught.value.message.endswith("start elsewhere.")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    ports.require_replaceable([str(left)], suggestion="…")


def test_the_stores_own_sockets_bear_the_numbers_of_its_ports():
    block = ports.Block(7070)
    assert block.store_sockets()[0] == "/tmp/seaweedfs-master-grpc-7082.sock"
    assert len(set(block.store_sockets())) == 5
