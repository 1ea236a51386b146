"""The table of child messages."""

from typing import get_args

import msgspec

from mooring.net import messages
from mooring.net.messages import Ready


def test_every_message_of_the_module_is_in_one_table():
    kinds = {kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)}
    tables = [set(get_args(one)) for one in (messages.ToChild, messages.ToSupervisor)]
    assert kinds - tables[0] - tables[1] == {messages._Message}
    assert not tables[0] & tables[1]
    assert messages.op_of(Ready()) == msgspec.msgpack.decode(msgspec.msgpack.encode(Ready()))["op"]
