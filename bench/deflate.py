#!/usr/bin/env python3
"""Engines of permessage-deflate side by side: time to compress and to inflate a message, and what is left of it.

    .venv/bin/python bench/deflate.py [--rounds 5]

zlib is the standard library's. zlib-ng (`mooring-server[deflate]`) is used when it is installed. isal is measured too,
to see whether it should be. The engines take turns in every round; the figures are the smallest of the rounds, CPU
time. The messages are pieces of JSON made of seeded random words. "none" is without context takeover (a full flush
behind each message), "kept" with it.
"""

import argparse
import importlib
import random
import time
import zlib
from types import ModuleType

SIZES = (128, 1024, 16_384, 262_144)


def messages(size: int) -> list[bytes]:
    rng = random.Random(size)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(500)]
    made = []
    for _ in range(max(4, min(200, 2_000_000 // size))):
        text = ""
        while len(text) < size:
            said = " ".join(rng.choices(words, k=8))
            text += f'{{"user":"{rng.choice(words)}","text":"{said}","at":{rng.randrange(10**9)}}},'
        made.append(text[:size].encode())
    return made


def measure(engine: ModuleType, level: int, keeps: bool, given: list[bytes]) -> tuple[float, float, float]:
    """Seconds to compress and to inflate a message, and the part of its size that is left."""
    flush = engine.Z_SYNC_FLUSH if keeps else engine.Z_FULL_FLUSH
    compressor = engine.compressobj(level, engine.DEFLATED, -15, 8)
    begin = time.process_time()
    packed = [compressor.compress(message) + compressor.flush(flush) for message in given]
    middle = time.process_time()
    inflater = engine.decompressobj(-15)
    for message in packed:
        (inflater if keeps else engine.decompressobj(-15)).decompress(message, 1 << 20)
    end = time.process_time()
    count = len(given)
    return (middle - begin) / count, (end - middle) / count, sum(map(len, packed)) / sum(map(len, given))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    engines = [("zlib 6", zlib, 6), ("zlib 1", zlib, 1)]
    for name, module, levels in (("zlib-ng", "zlib_ng.zlib_ng", (6, 1)), ("isal", "isal.isal_zlib", (3, 1))):
        try:
            engines += [(f"{name} {level}", importlib.import_module(module), level) for level in levels]
        except ImportError:
            print(f"{name} is not installed")
    print("| bytes | takeover | engine, level | compress, us | inflate, us | left |\n|---|---|---|---|---|---|")
    for size in SIZES:
        given = messages(size)
        for keeps in (False, True):
            best: dict[str, tuple[float, float, float]] = {}
            for _ in range(rounds):
                for name, engine, level in engines:
                    new = measure(engine, level, keeps, given)
                    old = best.get(name, new)
                    best[name] = (min(old[0], new[0]), min(old[1], new[1]), new[2])
            for name, (packing, unpacking, left) in best.items():
                way = "kept" if keeps else "none"
                print(f"| {size} | {way} | {name} | {packing * 1e6:.1f} | {unpacking * 1e6:.1f} | {left:.2f} |")


if __name__ == "__main__":
    main()
