"""Jobs: each missing run of a comparison in a process of its own, several at a time.

Every run has its own process because torch's threads and random streams belong to the process, because its memory is
freed when it ends, and because a crash does not take the other runs along. The parent writes the order (one line of
JSON) to the child's standard input and keeps it open. When the parent ends, in whatever way, the child reads the end
of its input and stops, so that no orphan holds a run folder's lock. The child answers in lines of JSON: a
``stage`` or the row of an ``epoch`` at a time, then ``done`` or ``failed``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rectoolkit.runs.run import is_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rectoolkit.compare.plan import Plan
    from rectoolkit.recipe import Recipe
    from rectoolkit.runs.execute import RunOptions

CHILD = "from rectoolkit.compare.jobs import work; work()"


@dataclass(frozen=True, eq=False)
class Job:
    """One run to make: the label of its row, and its recipe."""

    label: str
    recipe: Recipe

    def __str__(self) -> str:
        return f"{self.label} seed {self.recipe.seed}"


class Observer(Protocol):
    """Receives the progress of the jobs, from several threads."""

    def began(self, job: Job) -> None: ...

    def stage(self, job: Job, what: str) -> None: ...

    def epoch(self, job: Job, row: dict[str, Any]) -> None: ...

    def ended(self, job: Job, failure: str | None) -> None: ...


def missing(plan: Plan, runs: Path) -> list[Job]:
    """The runs of ``plan`` that are not finished in the folder ``runs``: every row's first seed, then every second."""
    rounds = max(len(row.recipes) for row in plan.rows)
    jobs = [Job(row.label, row.recipes[turn]) for turn in range(rounds) for row in plan.rows if turn < len(row.recipes)]
    return [job for job in jobs if not is_whole(runs / job.recipe.folder_name)]


def run_jobs(jobs: Sequence[Job], options: RunOptions, at_once: int, observer: Observer) -> dict[Job, str]:
    """Do all ``jobs``, ``at_once`` at a time. Returns the messages of those that failed; the others go on.

    Whatever ends the wait early, such as an interrupt, also ends the children and is raised again.
    """
    pool = _Pool(options, observer)
    with ThreadPoolExecutor(at_once) as executor:
        futures = {executor.submit(pool.do, job): job for job in jobs}
        try:
            wait(futures)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            pool.stop()
            raise
    return {job: message for future, job in futures.items() if (message := future.result()) is not None}


class _Pool:
    """The children that are alive."""

    def __init__(self, options: RunOptions, observer: Observer) -> None:
        self.options, self.observer = options, observer
        self.lock = threading.Lock()
        self.alive: set[subprocess.Popen[str]] = set()
        self.stopped = False

    def stop(self) -> None:
        """End all children; none begins after this."""
        with self.lock:
            self.stopped = True
            for child in self.alive:
                child.kill()

    def do(self, job: Job) -> str | None:
        """Run ``job``. Returns why it failed, or None."""
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            with self.lock:
                if self.stopped:
                    return "stopped"
                child = _start(self.options.threads or 1, errors)
                self.alive.add(child)
            self.observer.began(job)
            try:
                failure = self._listen(child, job)
                if failure == "":
                    failure = _last_words(child.wait(), errors)
            finally:
                with self.lock:
                    self.alive.discard(child)
                child.kill()
                child.wait()
        if self.stopped and failure is not None:
            return "stopped"  # by the parent: not a failure of its own
        self.observer.ended(job, failure)
        return failure

    def _listen(self, child: subprocess.Popen[str], job: Job) -> str | None:
        """Give the order and follow the answers. Returns None if done, a message if failed, "" if the child stopped."""
        assert child.stdin is not None
        assert child.stdout is not None
        order = {
            "recipe": job.recipe.as_dict(),
            "runs": str(self.options.runs),
            "device": self.options.device,
            "threads": self.options.threads,
            "path": sys.path,  # plugins beside their recipe were found there
        }
        try:
            child.stdin.write(json.dumps(order) + "\n")
            child.stdin.flush()
        except BrokenPipeError:
            return ""
        for line in child.stdout:
            answer = json.loads(line)
            if "stage" in answer:
                self.observer.stage(job, answer["stage"])
            elif "epoch" in answer:
                self.observer.epoch(job, answer["epoch"])
            else:
                return str(answer["failed"]) if "failed" in answer else None
        return ""


def _start(threads: int, errors: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        encoding="utf-8",
        env=environment,
        start_new_session=True,  # Ctrl-C is the parent's, which ends its children itself
    )


def _last_words(code: int, errors: Any) -> str:
    """Why a child stopped without an answer: its signal, or its exit code and the last line that it wrote."""
    errors.seek(0)
    lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        why = "; the machine may have run out of memory" if -code == signal.SIGKILL else ""
        return f"its process was ended by {name}{why}"
    return f"its process ended with code {code}" + (f": {lines[-1]}" if lines else "")


def work() -> None:
    """The program of a child: make the run that its standard input describes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # libraries print to standard output too, and that is not an answer
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    from rectoolkit.errors import UserError

    try:
        _execute(order, channel)
        answer: dict[str, Any] = {"done": True}
    except UserError as error:
        answer = {"failed": str(error)}
    except Exception as error:
        import traceback

        traceback.print_exc()
        answer = {"failed": f"{type(error).__name__}: {error}"}
    channel.write(json.dumps(answer) + "\n")


def _execute(order: dict[str, Any], channel: Any) -> None:
    from rectoolkit.recipe import Recipe
    from rectoolkit.runs.execute import RunOptions, execute
    from rectoolkit.training.callbacks import Callback

    class Channel(Callback):
        def stage(self, what: str) -> None:
            channel.write(json.dumps({"stage": what}) + "\n")

        def epoch(self, row: dict[str, Any]) -> None:
            channel.write(json.dumps({"epoch": row}) + "\n")

    sys.path += [place for place in order["path"] if place not in sys.path]
    options = RunOptions(Path(order["runs"]), order["device"], order["threads"], (Channel(),), wait=True)
    execute(Recipe.check(order["recipe"]), options)


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)
