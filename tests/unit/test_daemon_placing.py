"""The socket's file and the lock: who has them, and how they pass from one daemon to the next."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from tests.daemons import connect

from homeport.daemon import placing
from homeport.model.errors import IOFailure


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_private_socket_under_both_names(tmp_path: Path) -> None:
    bound = placing.bind(tmp_path / "run")
    assert mode(tmp_path / "run") == 0o700
    assert mode(bound.path) == 0o600
    for name in ("homeport.sock", "multus.sock"):
        connect(tmp_path / "run" / name).close()
    assert sorted(os.listdir(tmp_path / "run")) == ["homeport.sock", "multus.sock"]
    assert bound.is_in_place()
    bound.remove()
    assert bound.is_gone()
    assert os.listdir(tmp_path / "run") == []
    bound.remove()
    bound.listener.close()


def test_a_new_daemon_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    old = placing.bind(tmp_path)
    before = connect(old.path)
    new = placing.bind(tmp_path)
    after = connect(new.path)
    assert not old.is_in_place()
    assert not old.is_gone()
    assert new.is_in_place()
    old.remove()
    assert new.is_in_place()
    for listener, caller in ((old.listener, before), (new.listener, after)):
        listener.setblocking(False)
        accepted, _ = listener.accept()
        caller.sendall(b"x")
        assert accepted.recv(1) == b"x"
        accepted.close()
        caller.close()
        listener.close()


def test_whatever_is_in_the_way_is_replaced(tmp_path: Path) -> None:
    """A socket that upstream left, and the leavings of a daemon that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as upstream:
        upstream.bind(str(tmp_path / "multus.sock"))
    (tmp_path / "homeport.sock").write_text("")
    (tmp_path / "homeport.sock.new").write_text("")
    (tmp_path / "multus.sock.new").symlink_to("nowhere")
    bound = placing.bind(tmp_path)
    connect(tmp_path / "multus.sock").close()
    bound.listener.close()


def test_a_directory_that_others_can_change_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(IOFailure, match="found mode 777, expected its owner alone to write"):
        placing.bind(tmp_path)
    tmp_path.chmod(0o755)  # as upstream's may be: left as it is
    placing.bind(tmp_path).listener.close()
    assert mode(tmp_path) == 0o755


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(IOFailure, match=r'key "socketDir": .* too long'):
        placing.bind(tmp_path / ("x" * 100))


def test_the_lock_is_one_daemons_at_a_time(tmp_path: Path) -> None:
    first = placing.lock(tmp_path / "state", lambda holder: False)
    assert first is not None
    asked: list[int] = []

    def until_free(holder: int) -> bool:
        asked.append(holder)
        if len(asked) == 3:
            os.close(first)
        return True

    assert placing.lock(tmp_path / "state", lambda holder: False) is None
    second = placing.lock(tmp_path / "state", until_free)
    assert asked == [os.getpid()] * 3
    assert second is not None
    os.close(second)
    assert mode(tmp_path / "state") == 0o700
