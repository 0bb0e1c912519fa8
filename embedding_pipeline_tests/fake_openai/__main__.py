"""``python -m embedding_pipeline_tests.fake_openai``: the server in a process of its own.

The first line on standard output is the port. With ``--state-file``, the books survive
the process: they are read from there at the start and written there at the end.
"""

import argparse
import asyncio
import signal
from pathlib import Path

from embedding_pipeline_tests.fake_openai.books import Books
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI, Options, listening


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fake_openai", description="A fake OpenAI API.")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--state-file", type=Path, help="where the books are kept")
    parser.add_argument("--key", action="append", help="a key to accept; may be repeated")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds an answer takes")
    parser.add_argument("--rpm", type=float, help="requests a minute")
    parser.add_argument("--tpm", type=float, help="tokens a minute")
    parser.add_argument("--precomputed", action="store_true", help="for benchmarks")
    return parser.parse_args()


async def _serve(fake: FakeOpenAI, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with listening(fake, port):
        print(fake.port, flush=True)  # noqa: T201
        await stop.wait()


def _main(arguments: argparse.Namespace) -> None:
    file: Path | None = arguments.state_file
    books = Books.from_json(file.read_bytes()) if file and file.exists() else Books()
    options = Options(tuple(arguments.key or (KEY,)), arguments.latency, arguments.precomputed)
    fake = FakeOpenAI(options, books)
    fake.limit(rpm=arguments.rpm, tpm=arguments.tpm)
    asyncio.run(_serve(fake, arguments.port))
    if file:
        fake.books.in_flight = 0
        file.write_text(fake.books.to_json())


if __name__ == "__main__":
    _main(_arguments())
