"""A fake language model for stream.py: it takes a line of JSON, and answers with one for each token, every 50 ms.

python examples/model.py [PORT]
"""

import asyncio
import json
import sys


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        prompt = json.loads(await reader.readline())["prompt"]
        for word in f"You have said {prompt!r}, and to that much can be said, word by word.".split():
            writer.write(json.dumps({"token": f"{word} "}).encode() + b"\n")
            await writer.drain()
            await asyncio.sleep(0.05)
        print("answered", flush=True)
    except ConnectionError:
        print("nobody listens any more", flush=True)  # who pays for tokens wants that to be noticed
    finally:
        writer.close()


async def main(port: int) -> None:
    listening = await asyncio.start_server(talk, "127.0.0.1", port)
    print(f"the model listens on 127.0.0.1:{listening.sockets[0].getsockname()[1]}", flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 9506))
