"""A machine whose time and luck come from a seed: processes that can be killed and stopped.

Belongs here: an event loop that never waits, on which several processes share time, and what
may happen to one of them between any two of its steps. Does not belong here: what they do
(``process``), the store they share (``disk``), or what must hold (``laws``).

A process is a context: everything scheduled from it carries it on, so that a killed one makes
no further step, not even a ``finally``, just as under kill -9; and a stopped one makes its
steps, with all its timers run out, when it goes on. Work for threads is done at once, as a
step of its own.
"""

import asyncio
import gc
import hashlib
import selectors
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

T = TypeVar("T")

START: Final = 1_790_000_000.0
"""The machine's first instant, seconds since the epoch."""

LONGEST: Final = 40_000.0
"""Seconds of machine time after which something hangs that should not."""


class Stuck(Exception):
    """Nothing will ever happen again, or far too late."""


@dataclass
class _Step:
    """What a process is about to do."""

    process: "Process"
    callback: Callable[..., object]
    args: tuple[Any, ...]
    context: Context
    handle: asyncio.Handle | None = None


class Process:
    """One process: its steps, and what becomes of it at which of them.

    Attributes:
        pid: its number.
        steps: made so far; every await and every transaction is at least one.
        dead: killed: it makes no further step.
        stops: how often it was stopped for a while.
        about: what it does next, or is doing.
    """

    def __init__(self, machine: "Machine", pid: int) -> None:
        self.pid = pid
        self.steps = 0
        self.dead = False
        self.stops = 0
        self.about: Callable[..., object] | None = None
        self.context = copy_context()
        self.context.run(PROCESS.set, self)
        self.ended: asyncio.Future[None] = machine.create_future()
        self._machine = machine
        self._fates: dict[int, Callable[[], None]] = {}
        self._stopped = False
        self._held: list[_Step] = []
        self._kept: list[object] = []

    def at(self, step: int, fate: Callable[[], None]) -> None:
        """At its ``step``-th step from now ``fate`` strikes."""
        self._fates[self.steps + step] = fate

    def die(self) -> None:
        """As if killed: nothing of it runs any more."""
        self.dead = True
        self._machine.say("killed", self.pid, self.steps)
        if not self.ended.done():
            self.ended.set_result(None)

    def stop(self, seconds: float) -> None:
        """It makes no step for so long."""
        if self._stopped:
            return
        self._stopped = True
        self.stops += 1
        self._machine.say("stopped", self.pid, seconds)
        self._machine.later(seconds, self._go_on)

    def run(self, step: "_Step") -> None:
        """Make a step, if it makes any; the machine calls this."""
        if self.dead:
            self._kept.append(step)  # collected, a coroutine would run its ``finally``
        elif self._stopped:
            self._held.append(step)
        elif step.handle is None or not step.handle.cancelled():
            self.steps += 1
            self.about = step.callback
            fate = self._fates.pop(self.steps, None)
            if fate is not None:
                fate()
                self.run(step)
            else:
                step.callback(*step.args)

    def _go_on(self) -> None:
        self._stopped = False
        if self.dead:
            return
        self._machine.say("goes on", self.pid)
        held, self._held = self._held, []
        for step in held:
            self._machine.repeat(step)


PROCESS: Final[ContextVar[Process | None]] = ContextVar("process", default=None)
"""Whose code is running; None is the world outside."""


class _Selector(selectors.DefaultSelector):
    """Where a loop would wait, its time jumps instead."""

    machine: "Machine"

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise Stuck("everything waits, and nothing will ever happen")
        self.machine.pass_time(timeout)
        return []


class _Task(asyncio.Task[Any]):
    """Sets of tasks are walked in an order that no address decides.

    The number is there before the task is: asyncio puts it into a set of its own at once.
    """

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **more: Any) -> None:
        self.number = number
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self.number


class Machine(asyncio.SelectorEventLoop):
    """The loop all processes run on, and its clock.

    Attributes:
        history: a line for everything that is worth one; equal seeds have equal histories.
        failure: what ended everything, if something did.
        seen: what befell somebody, for the census.
    """

    def __init__(self, start: float = START) -> None:
        self._elapsed = 0.0
        self._start = start
        self._tasks: list[object] = []
        self.history: list[str] = []
        self.failure: BaseException | None = None
        self.seen: set[str] = set()
        selector = _Selector()
        selector.machine = self
        super().__init__(selector)
        self.set_task_factory(self._task)  # type: ignore[arg-type]
        self.set_exception_handler(self._complain)
        self.outside = Context()

    # --- the clock: ``embedding_pipeline.clock.Clock`` ---

    def time(self) -> float:
        return self._elapsed

    def now(self) -> float:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def pass_time(self, seconds: float) -> None:
        """Nothing happens for so long."""
        self._elapsed += seconds
        if self._elapsed > LONGEST:
            raise Stuck(f"after {LONGEST:.0f} s it has not ended")

    # --- steps ---

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        context = copy_context() if context is None else context
        process = context.get(PROCESS)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        step = _Step(process, callback, args, context)
        step.handle = super().call_soon(process.run, step, context=context)
        return step.handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        process = context.get(PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        step = _Step(process, callback, args, context)
        timer = super().call_at(when, process.run, step, context=context)
        step.handle = timer
        return timer

    def repeat(self, step: _Step) -> None:
        """What was held back has its turn, unless it is cancelled by then."""
        super().call_soon(step.process.run, step, context=step.context)

    def later(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        """Outside every process, after so long."""
        self.call_later(seconds, callback, *args, context=self.outside.copy())

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(_carry_out, future, func, args)
        return future

    def say(self, *words: object) -> None:
        """Write a line into the history."""
        self.history.append(f"{self._elapsed:10.3f} " + " ".join(map(str, words)))

    def note(self, kind: str) -> None:
        """This has happened; see ``census``."""
        self.seen.add(kind)

    def digest(self) -> str:
        """The whole history in a word."""
        return hashlib.sha256("\n".join(self.history).encode()).hexdigest()[:16]

    def launch(self, process: Process, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin ``work`` as a task of ``process``."""
        return process.context.copy().run(self.create_task, work)

    def _task(
        self, _loop: object, coro: Coroutine[Any, Any, Any], **more: Any
    ) -> "asyncio.Task[Any]":
        task = _Task(len(self._tasks), coro, loop=self, **more)
        self._tasks.append(task)
        return task

    def fail(self, exc: BaseException) -> None:
        """Everything ends at once, whoever might catch ``exc``."""
        self.failure = self.failure or exc
        self.stop()

    def _complain(self, _loop: object, context: dict[str, Any]) -> None:
        self.fail(context.get("exception") or Stuck(str(context.get("message"))))

    def bury(self) -> None:
        """Close, and let go of what killed processes held: nothing of it has an effect."""
        self.close()
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        with _unheard():
            self._tasks.clear()


def _carry_out(future: asyncio.Future[T], func: Callable[..., T], args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        result = func(*args)
    except Exception as exc:  # noqa: BLE001 - whoever asked gets it
        future.set_exception(exc)
    else:
        future.set_result(result)


@contextmanager
def _unheard() -> Iterator[None]:
    """What coroutines say that are closed long after their loop is nobody's business.

    Nor may they begin anything: what they would, went to whatever loop this thread has.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(_closed_loop())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        asyncio._set_running_loop(running)
        sys.unraisablehook = hook


@cache
def _closed_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.close()
    return loop


def collect() -> None:
    """Collect garbage. Between seeds only: the moment would not be the seed's."""
    with _unheard():
        gc.collect()


@contextmanager
def no_collector() -> Iterator[None]:
    """Nothing is collected but by ``collect``, and what was there before is left alone."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        collect()
        gc.enable()
        gc.unfreeze()
