# Made by tools/records.py from wire.toml: change that, and build again.

from mooring._core cimport wire

cdef Apply[wire.CM_END - wire.CM_HELLO] TABLE
TABLE[wire.CM_HELLO - wire.CM_HELLO] = on_hello
TABLE[wire.CM_ACK - wire.CM_HELLO] = on_ack
TABLE[wire.CM_SEND - wire.CM_HELLO] = on_send
TABLE[wire.CM_DISCONNECT - wire.CM_HELLO] = on_disconnect
TABLE[wire.CM_DROP - wire.CM_HELLO] = on_drop
TABLE[wire.CM_RESPOND - wire.CM_HELLO] = on_respond
TABLE[wire.CM_SUBSCRIBE - wire.CM_HELLO] = on_subscribe
TABLE[wire.CM_UNSUBSCRIBE - wire.CM_HELLO] = on_unsubscribe
TABLE[wire.CM_PUBLISH - wire.CM_HELLO] = on_publish
TABLE[wire.CM_SESSION - wire.CM_HELLO] = rare
TABLE[wire.CM_CALL - wire.CM_HELLO] = rare
TABLE[wire.CM_HANDSHAKE - wire.CM_HELLO] = rare
TABLE[wire.CM_WANT - wire.CM_HELLO] = on_want
TABLE[wire.CM_FILE - wire.CM_HELLO] = on_file
TABLE[wire.CM_BIND - wire.CM_HELLO] = on_bind
TABLE[wire.CM_PAUSE - wire.CM_HELLO] = on_pause
TABLE[wire.CM_DISCONNECT_USER - wire.CM_HELLO] = on_disconnect_user
TABLE[wire.CM_ROOM - wire.CM_HELLO] = on_room
TABLE[wire.CM_MISSED - wire.CM_HELLO] = on_missed
TABLE[wire.CM_WORK - wire.CM_HELLO] = on_work
TABLE[wire.CM_TAIL - wire.CM_HELLO] = rare
TABLE[wire.CM_FOLLOW - wire.CM_HELLO] = rare
