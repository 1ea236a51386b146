from mooring import Server

server = Server("127.0.0.1", 9501)


@server.on("message")
async def said(server, frame):
    server.push(frame.fd, "sent")
    for fd in server.connections:
        if fd != frame.fd:
            server.push(fd, f"worker {server.worker_pid} heard {frame.data!r}")


if __name__ == "__main__":
    server.start()
