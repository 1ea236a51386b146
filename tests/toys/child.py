"""A toy child of the supervisor: speaks the control contract with the standard library and msgspec only.

It shares no code with the package, so that it is a second opinion on what goes over the wire. It reports
what it sees to the test by datagrams, takes commands from the test by datagrams, and behaves as the rules
in its boot payload say: a rule is a map whose `name`, `generation`, `incarnation` select children (absent:
any) and whose other keys are behaviours:

    start: "exit" (with `code`) | "hang" (until the command `ready`); ready at once by default
    serve: "exit" (with `code`)        ends as soon as it is told to serve
    event: "report" | "exit" (with `code`)     it reports each event of the tree, or ends of it
    keep_retired / ignore_drain / ignore_stop / ignore_term: true
    counts: what `drained` carries
"""

import array
import contextlib
import json
import mmap
import os
import selectors
import signal
import socket
import sys

import msgspec


class Toy:
    def __init__(self, boot):
        self.boot = boot
        self.take_rules()
        self.reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.reports.connect(boot["report"])
        self.commands = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.commands.bind(f"{boot['folder']}/{os.getpid()}")
        self.control = socket.socket(fileno=boot["control"])
        self.selector = selectors.DefaultSelector()
        self.links = []
        self.tables = dict(boot["tables"])
        self.listeners = []

    def take_rules(self):
        boot = self.boot
        self.name = f"{boot['role']} {boot['number']}"
        self.rules = {}
        for rule in boot["rules"]:
            keys = {"name": self.name, "generation": boot["generation"], "incarnation": boot["incarnation"]}
            if all(rule.get(key, value) == value for key, value in keys.items()):
                self.rules.update(rule)

    def report(self, event, **fields):
        fields |= {"event": event, "who": self.name, "pid": os.getpid()}
        fields |= {key: self.boot[key] for key in ("generation", "incarnation")}
        with contextlib.suppress(OSError):  # the test is over
            self.reports.send(json.dumps(fields).encode())

    def send(self, op, **fields):
        self.report("sent", op=op, fields=fields)
        self.control.send(msgspec.msgpack.encode({"op": op, **fields}))

    def run(self, inherited):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.rules.get("ignore_term"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for link in self.boot["links"]:
            self.add_link(link)
        self.report(
            "born",
            inherited=inherited,
            named=self.named_descriptors(),
            payload=self.boot["text"],
            group=os.getpgid(0),
            stdin=os.readlink("/proc/self/fd/0"),
            blocking={
                key: [os.get_blocking(link[key]) for link in self.links if link[key] >= 0]
                for key in ("channel", "reply")
            },
        )
        if self.rules.get("start") == "exit":
            print("toy: this application can't be imported", file=sys.stderr)
            os._exit(self.rules["code"])
        self.selector.register(self.control, selectors.EVENT_READ, self.on_control)
        self.selector.register(self.commands, selectors.EVENT_READ, self.on_command)
        if self.rules.get("start") != "hang":
            self.send("warm" if self.boot["role"] == "spare" else "ready")
        while True:
            for key, _ in self.selector.select():
                key.data()

    def named_descriptors(self):
        named = [self.boot["control"], self.boot["pulse"], *self.boot["listeners"], *self.boot["tables"].values()]
        named += [self.boot[name] for name in ("order", "rooms") if self.boot[name] >= 0]
        return named + [link[key] for link in self.boot["links"] for key in ("channel", "reply", "page")]

    def add_link(self, link):
        self.links.append(link)
        self.selector.register(link["channel"], selectors.EVENT_READ, lambda: self.on_channel(link))

    def on_control(self):
        data, rights, flags, _ = self.control.recvmsg(1 << 16, socket.CMSG_SPACE(4 * 64))
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        if not data:
            self.report("orphaned")
            os._exit(0)
        message = msgspec.msgpack.decode(data)
        fds = array.array("i")
        for _, _, content in rights:
            fds.frombytes(content)
        op = message.pop("op")
        if op == "event" and "answer" in message:
            # of others, when the application hears of them says nothing about the order
            if message["name"] == "before_reload" or "event" in self.rules:
                self.report("asked", name=message["name"], arguments=message["arguments"])
            if self.rules.get("event") == "exit":
                os._exit(self.rules["code"])
            if not self.rules.get("ignore_event"):
                self.control.send(msgspec.msgpack.encode({"op": "handled", "answer": message["answer"]}))
            return
        if op == "state" and self.rules.get("start") == "hang":
            self.report("told", state=message["state"])
        if op in ("state", "event"):
            return  # for the application, whenever something has happened: no test of the order can say when
        if op != "gone":  # before or behind others, as the process ended; its own event, so that order can be tested
            self.report("got", op=op, fields=message, fds=len(fds))
        else:
            self.report("gone", link=message["link"])
        getattr(self, f"on_{op}")(message, list(fds))

    def on_attach(self, message, fds):
        link = {key: message[key] for key in ("worker", "gateway")}
        link["number"] = message["link"]
        link["peer_generation"] = message["generation"]
        link |= {"channel": fds[0], "reply": fds[1], "page": fds[2]}
        if len(fds) > 3:
            self.tables[message["gateway"]] = fds[3]
        self.add_link(link)

    def on_place(self, message, fds):
        """A spare takes a slot."""
        self.boot |= message
        self.take_rules()
        if self.rules.get("start") == "exit":
            os._exit(self.rules["code"])
        if self.rules.get("start") != "hang":
            self.send("ready")

    def on_serve(self, message, fds):
        if self.rules.get("serve") == "exit":
            os._exit(self.rules["code"])

    def on_gone(self, message, fds):
        """The end of the channel says the same."""

    def on_degraded(self, message, fds):
        """It is reported, which is all."""

    def on_retire(self, message, fds):
        """A worker's successor serves; its own, or one whose gateway or dispatcher this is."""
        if message["worker"] != self.boot["worker"] and not self.rules.get("keep_retired"):
            self.send("retired", worker=message["worker"], generation=message["generation"])

    def on_drain(self, message, fds):
        if not self.rules.get("ignore_drain"):
            self.send("drained", counts=self.rules.get("counts", {}))

    def on_stop(self, message, fds):
        if not self.rules.get("ignore_stop"):
            os._exit(self.rules.get("stop_code", 0))

    def on_channel(self, link):
        try:
            data = os.read(link["channel"], 65536)
        except ConnectionResetError:
            data = b""
        where = {key: link[key] for key in ("worker", "gateway", "peer_generation")}
        if not data:
            self.selector.unregister(link["channel"])
            self.links.remove(link)
            for key in ("channel", "reply", "page"):
                if link[key] >= 0:  # a service shares only the channel
                    os.close(link[key])
            self.report("unlinked", **where)
        elif data.startswith(b"die "):
            os._exit(int(data[4:]))
        else:
            self.report("bytes", data=data.decode(), **where)

    def on_command(self):
        command = json.loads(self.commands.recv(65536))
        do = command.pop("do")
        if do == "send":
            self.send(**command)
        elif do == "ready":
            self.send(command.get("op", "ready"))
        elif do == "exit":
            os._exit(command["code"])
        elif do == "write":  # to every link that the command's keys select
            data = command.pop("data").encode()
            for link in self.links:
                if all(link[key] == value for key, value in command.items()):
                    os.write(link["channel"], data)
        elif do == "page":  # write or read the shared page of the first link
            with mmap.mmap(self.links[0]["page"], 4096) as page:
                if "data" in command:
                    page[: len(command["data"])] = command["data"].encode()
                self.report("page", data=page[:8].decode())
        elif do == "table":
            fd = self.tables[command["gateway"]]
            if "size" in command:
                os.ftruncate(fd, command["size"])
            self.report("table", size=os.fstat(fd).st_size, inode=os.fstat(fd).st_ino)
        elif do == "accept":
            listener = socket.socket(fileno=os.dup(self.boot["listeners"][0]))
            client, _ = listener.accept()
            client.sendall(b"hello")
            client.close()
            listener.close()
        elif do == "mute":
            self.selector.unregister(self.control)
            self.control.close()
        elif do == "raw":
            self.control.send(command["data"].encode() * command.get("times", 1))
        elif do == "leave_behind":  # somebody who has all of its descriptors, and outlives it
            behind = os.fork()
            if behind == 0:
                signal.pause()
            self.report("behind", behind=behind)
        elif do == "stranger":  # an orphan that ends with code 3, for the supervisor to inherit
            if os.fork() == 0:
                parent = os.getpid()
                if os.fork() == 0:
                    # Until its parent is gone and the subreaper has it.
                    while os.getppid() == parent:
                        os.sched_yield()
                    self.report("stranger", stranger=os.getpid(), parent=os.getppid())
                    os._exit(3)
                os._exit(0)
            os.wait()
        else:
            raise AssertionError(do)


def main():
    own = {int(name) for name in os.listdir("/proc/self/fd")}
    inherited = sorted(fd for fd in own if os.path.exists(f"/proc/self/fd/{fd}"))
    boot_fd = int(sys.argv[-1])
    with open(boot_fd, "rb") as file:
        boot = msgspec.msgpack.decode(file.read())
    boot["text"] = {key: value for key, value in boot.items() if key not in ("tables", "rules")}
    Toy(boot).run([fd for fd in inherited if fd != boot_fd])


main()
