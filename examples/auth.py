"""Who may open a WebSocket: the holder of a token, which comes in one of four ways.

a header         Authorization: Bearer TOKEN            programs; browsers cannot set it
a sub-protocol   new WebSocket(url, ["bearer", token])  browsers
the query        ws://.../?token=TOKEN                  where nothing else goes; ends up in the logs of proxies
a cookie         set by /login                          pages of this server only: see check_origin

python examples/auth.py
curl -d name=ada -d password=lovelace http://127.0.0.1:9503/token
"""

import hashlib
import hmac
import os
import secrets
import time

from mooring import Accept, Frame, HttpError, Reject, Request, Response, Server

# Workers are processes of their own, and inherit this one's environment: all of them know the same secret.
SECRET = os.environ.setdefault("AUTH_SECRET", secrets.token_hex()).encode()
PASSWORDS = {"ada": "lovelace"}
HOUR = 3600
server = Server("127.0.0.1", 9503, worker_num=2)


def issue(name: str) -> str:
    """A token for an hour, of characters that fit into a header, a cookie and a sub-protocol."""
    claim = f"{name}.{int(time.time()) + HOUR}"
    return f"{claim}.{hmac.new(SECRET, claim.encode(), hashlib.sha256).hexdigest()}"


def holder(token: str) -> str | None:
    """Whose token it is; None for one that is forged or too old."""
    claim, _, signature = token.rpartition(".")
    right = hmac.new(SECRET, claim.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(right.encode(), signature.encode()):
        return None
    name, _, end = claim.partition(".")
    return name if int(end) > time.time() else None


def token_of(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if request.subprotocols[:1] == ["bearer"]:
        return request.subprotocols[1] if len(request.subprotocols) > 1 else ""
    return request.query.get("token") or request.cookies.get("sid", "")


@server.on("handshake")
def admit(server: Server, request: Request) -> Accept | Reject:
    name = holder(token_of(request))
    if name is None:
        return Reject(401, "a valid token, please\n", {"WWW-Authenticate": "Bearer"})
    accept = Accept("bearer" if "bearer" in request.subprotocols else None, session={"name": name})
    if "sid" in request.cookies:  # whoever comes back within the hour stays logged in
        accept.cookie("sid", issue(name), max_age=HOUR, secure=request.scheme == "https", same_site="Strict")
    return accept


@server.on("message")
def said(server: Server, frame: Frame) -> None:
    server.push(frame.fd, f"{server.session(frame.fd)['name']}: {frame.data}")


@server.on("request")
def log_in(request: Request, response: Response) -> None:
    if request.method != "POST" or request.path not in ("/login", "/token"):
        raise HttpError(404, "POST name and password to /login or /token")
    name, password = request.form.get("name", ""), request.form.get("password", "")
    if not hmac.compare_digest(PASSWORDS.get(name, secrets.token_hex()).encode(), password.encode()):
        raise HttpError(403, "wrong name or password")
    if request.path == "/login":
        response.cookie("sid", issue(name), max_age=HOUR, secure=request.scheme == "https", same_site="Strict")
    response.end("welcome\n" if request.path == "/login" else issue(name) + "\n")


if __name__ == "__main__":
    server.start()
