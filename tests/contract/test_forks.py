"""Children that the application forks off a worker have no part in the server; what ends them ends nothing else."""

import signal

import pytest

from contract.clients import Asker, Raw, dial

DEATHS = {
    signal.SIGTERM: -signal.SIGTERM,
    signal.SIGINT: 99,  # KeyboardInterrupt, as in any program
    signal.SIGQUIT: -signal.SIGQUIT,
    signal.SIGHUP: -signal.SIGHUP,
    signal.SIGUSR1: -signal.SIGUSR1,
    signal.SIGUSR2: -signal.SIGUSR2,
    signal.SIGALRM: -signal.SIGALRM,
    signal.SIGRTMIN: -signal.SIGRTMIN,
    signal.SIGRTMAX: -signal.SIGRTMAX,
}


@pytest.fixture
def asker(server):
    asker = Asker(server)
    yield asker
    assert asker("os.getpid()") == asker.pid, "the worker was ended with its child"
    asker.close()


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_signal_ends_the_child_and_nobody_else(asker, in_thread):
    found = asker(f"[forking.ends_of(number) for number in {[int(number) for number in DEATHS]}]", in_thread=in_thread)
    assert found == list(DEATHS.values())


def test_a_child_that_is_ended_as_it_begins(asker):
    """Until it is up it has the server's handlers; no signal is lost meanwhile, and none comes to the server."""
    assert asker("list(forking.ends_at_once(60))") == [-signal.SIGTERM]


def test_a_pool_ends(asker):
    assert asker("forking.pooled()") == [1, 2, 3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_a_program_is_ended_by_signals(asker, number):
    """Nothing that is ignored here is inherited by it, and nothing blocked."""
    code = f"(started := subprocess.Popen(['sleep', '30']), started.send_signal({int(number)}), started.wait(15))[2]"
    assert asker(code) == -number


def test_a_child_has_no_part_in_the_server(server):
    asker = Asker(server)
    for call in ("push(fd, 'x')", "publish('t', 'x')", "stats()", "close(fd)", "exists(fd)", "shutdown()", "reload()"):
        said = asker(f"forking.tries(lambda: server.{call})".replace("fd", str(asker.fd)))
        assert said.startswith("StateError: this process was forked off a worker"), call
    assert asker("os.getpid()") == asker.pid
    asker.close()


def test_a_child_has_no_socket_of_the_server(asker):
    """Else a client, or a process of the server, would not see the end of what is closed here."""
    staying = "kept.setdefault('staying', forking.Staying())"
    try:
        # left are the two ends by which asyncio wakes itself
        assert len(asker(f"{staying}.descriptors()")) == 2
    finally:
        assert asker("kept.pop('staying').end()") == -signal.SIGTERM


async def test_a_client_sees_its_end_while_a_child_lives(server):
    async with dial(server, "/eval") as peer:
        assert await peer.ask("bool(kept.setdefault('held', forking.Staying()))")
        with Raw(server) as raw:
            raw.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert raw.answer().status == 200
            assert raw.socket.recv(1) == b""
        assert await peer.ask("kept.pop('held').end()") == -signal.SIGTERM
