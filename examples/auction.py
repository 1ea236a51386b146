"""A live auction: log in, see who is in the hall, and bid; after 20 s without another bid the lot is sold.

python examples/auction.py    and http://127.0.0.1:9504 in two browsers, as ada (lovelace) and bob (builder)
"""

import os
import time
from pathlib import Path

from auth import ACCOUNTS, HOUR, Tokens, right  # in the file beside this one

from mooring import Accept, BadMessage, HttpError, Reject, Server

PAGE = Path(__file__).with_name("auction.html")
NAMES, SILENCE = ["nobody", *ACCOUNTS], float(os.environ.get("AUCTION_SILENCE", "20"))
server = Server("127.0.0.1", 9504, worker_num=2, task_worker_num=1)
lot = server.atomic("lot", 100_00)  # price * 100 + bidder, negative when sold: it changes at once, for all workers
tokens, last_bid = Tokens(server), server.atomic("last_bid")  # in milliseconds of the monotonic clock


@server.on("task")
def check(server, task):  # a password takes long to check, on purpose: here nobody waits for it
    return right(*task.data)


@server.on("request")
async def page(request, response):
    if (request.method, request.path) == ("POST", "/login"):
        name = request.form.get("name", "")
        if not await server.task([name, request.form.get("password", "")]):
            raise HttpError(403, "wrong name or password")
        response.cookie("sid", tokens.issue(name), max_age=HOUR, secure=request.scheme == "https", same_site="Strict")
        return response.json({"name": name})
    return response.send_file(PAGE)


@server.on("handshake")
def admit(server, request):
    name = tokens.holder(request.cookies.get("sid", ""))
    return Accept(session={"name": name}) if name else Reject(401, "log in first")


@server.on("open")
def entered(server, request):
    server.subscribe(request.fd, "hall")
    tell(server)


@server.on("close")
def tell(server, *_):  # everybody is told everything: who comes late, or comes again, knows as much as the others
    now, here = lot.get(), {server.session(fd).get("name") for fd in server.subscribers("hall")} - {None}
    price, bidder = divmod(abs(now), 100)
    server.publish_json("hall", {"price": price, "leader": NAMES[bidder], "sold": now < 0, "people": sorted(here)})


@server.on("message", type=int)
def bid(server, frame, price):
    now, bidder = lot.get(), NAMES.index(server.session(frame.fd)["name"])
    if now < 0 or not now // 100 < price < 1e12:
        raise BadMessage("it is sold" if now < 0 else f"more than {now // 100}, please")
    last_bid.set(time.monotonic_ns() // 1_000_000)
    if not lot.compare_and_set(now, price * 100 + bidder):
        raise BadMessage("somebody was quicker")
    tell(server)


@server.on("worker_start")
def begin(server, worker_id):
    server.tick(0.2, hammer, once_per_server=True)
    server.tick(5, tell, server, once_per_server=True)  # what two workers tell at the same moment may come in any order


def hammer():
    now, silence = lot.get(), time.monotonic() - last_bid.get() / 1000
    if now % 100 and now > 0 and silence > SILENCE and lot.compare_and_set(now, -now):
        tell(server)


if __name__ == "__main__":
    server.start()
