"""Who may open a WebSocket: the holder of a token, which comes in one of four ways.

a header         Authorization: Bearer TOKEN            programs; browsers cannot set it
a sub-protocol   new WebSocket(url, ["bearer", token])  browsers
the query        ws://.../?token=TOKEN                  where nothing else goes; ends up in the logs of proxies
a cookie         set by /login                          pages of this server only: see check_origin

python examples/auth.py
curl -d name=ada -d password=lovelace http://127.0.0.1:9503/token
"""

import asyncio
import hashlib
import hmac
import secrets
import time

from mooring import Accept, Frame, HttpError, Reject, Request, Response, Server

ACCOUNTS = {  # name: salt, and what scrypt makes of it and the password
    "ada": ("93cf0b5bf820e3b3", "9f2341ac203f202e4252cb7eb11fc0a52ce6428470e028d9f209f85f09661001"),  # lovelace
    "bob": ("d55c5342a6addd5f", "9c8835b21e34d7f112ce66034edc60c44e81b1f41452d757f990805f2650637c"),  # builder
}
HOUR = 3600


class Tokens:
    """Signed claims to be somebody, good for an hour. Workers are processes of their own: they find the secret, made
    at the start of the server, in what all of them share. A restart logs everybody out."""

    def __init__(self, server: Server) -> None:
        self._secret = [server.atomic(f"token-secret-{part}", secrets.randbits(63)) for part in range(4)]

    def _signed(self, claim: str) -> str:
        key = b"".join(part.get().to_bytes(8, "big") for part in self._secret)
        return f"{claim}.{hmac.new(key, claim.encode(), hashlib.sha256).hexdigest()}"

    def issue(self, name: str) -> str:
        """Of characters that fit into a header, a cookie and a sub-protocol."""
        return self._signed(f"{name}.{int(time.time()) + HOUR}")

    def holder(self, token: str) -> str | None:
        """Whose token it is; None for one that is forged or too old."""
        claim = token.rpartition(".")[0]
        if not hmac.compare_digest(self._signed(claim).encode(), token.encode()):
            return None
        name, _, end = claim.partition(".")
        return name if int(end) > time.time() else None


def right(name: str, password: str) -> bool:
    """Whether it is the password. It takes long on purpose, also for a name that nobody has."""
    salt, digest = ACCOUNTS.get(name, ("", ""))
    found = hashlib.scrypt(password.encode(), salt=salt.encode(), n=16384, r=8, p=1, dklen=32)
    return hmac.compare_digest(found.hex(), digest)


server = Server("127.0.0.1", 9503, worker_num=2)
tokens = Tokens(server)


def token_of(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if request.subprotocols[:1] == ["bearer"]:
        return request.subprotocols[1] if len(request.subprotocols) > 1 else ""
    return request.query.get("token") or request.cookies.get("sid", "")


@server.on("handshake")
def admit(server: Server, request: Request) -> Accept | Reject:
    name = tokens.holder(token_of(request))
    if name is None:
        return Reject(401, "a valid token, please\n", {"WWW-Authenticate": "Bearer"})
    accept = Accept("bearer" if "bearer" in request.subprotocols else None, session={"name": name})
    if "sid" in request.cookies:  # whoever comes back within the hour stays logged in
        accept.cookie("sid", tokens.issue(name), max_age=HOUR, secure=request.scheme == "https", same_site="Strict")
    return accept


@server.on("message")
def said(server: Server, frame: Frame) -> None:
    server.push(frame.fd, f"{server.session(frame.fd)['name']}: {frame.data}")


@server.on("request")
async def log_in(request: Request, response: Response) -> None:
    if request.method != "POST" or request.path not in ("/login", "/token"):
        raise HttpError(404, "POST name and password to /login or /token")
    name, password = request.form.get("name", ""), request.form.get("password", "")
    if not await asyncio.to_thread(right, name, password):
        raise HttpError(403, "wrong name or password")
    if request.path == "/login":
        response.cookie("sid", tokens.issue(name), max_age=HOUR, secure=request.scheme == "https", same_site="Strict")
    response.end("welcome\n" if request.path == "/login" else tokens.issue(name) + "\n")


if __name__ == "__main__":
    server.start()
