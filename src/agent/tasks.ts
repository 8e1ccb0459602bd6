import { AgentError, describe, isAgentError } from "../base/error.ts";
import type { System } from "../system/system.ts";

/**
 * One periodic activity. It owns its loop, period, limit and failure, and never overlaps itself; no task can delay
 * another one (`system.md` BET-30).
 */
export interface Task {
  /** Thread name in log lines (`system.md` THR-01). */
  readonly thread: string;
  /** Name in error lines (`system.md` ENV-06). */
  readonly name: string;
  /** Asked after every run: ms from the end of one run to the start of the next. */
  readonly periodMs: () => number;
  /** Before the first run. Default 0. */
  readonly delayMs?: number;
  /** A run that takes longer is told to stop through its signal; undefined: it may run for ever. */
  readonly limitMs: number | undefined;
  readonly run: (signal: AbortSignal) => Promise<void>;
}

export interface TaskGroup {
  /** Rejects when the process must end (a task that ignores its abort); resolves after `stop`. */
  readonly finished: Promise<void>;
  /** Makes every sleeping task run now, for when the wall clock has jumped (`system.md` HIB-04). */
  wake(): void;
  /** Wakes one task, by name. */
  wakeTask(name: string): void;
}

const HOUR_MS = 3_600_000;
const ABORT_GRACE_MS = 10_000;
const MAX_IGNORED_ABORTS = 2;

/** Starts all tasks; they end when `signal` aborts. */
export function startTasks(
  system: Pick<System, "clock" | "log">,
  tasks: readonly Task[],
  signal: AbortSignal,
): TaskGroup {
  const wakers = new Map<string, () => void>();
  const loops = tasks.map((task) =>
    loop(system, task, signal, (waker) => wakers.set(task.name, waker)),
  );
  return {
    finished: Promise.all(loops).then(() => undefined),
    wake: () => {
      for (const waker of wakers.values()) waker();
    },
    wakeTask: (name) => wakers.get(name)?.(),
  };
}

async function loop(
  system: Pick<System, "clock" | "log">,
  task: Task,
  signal: AbortSignal,
  register: (waker: () => void) => void,
): Promise<void> {
  const log = system.log.named({ thread: task.thread });
  let ignored = 0;
  // A wake-up that comes while the task runs makes it run once more at once.
  let woken = false;
  let alarm: AbortController | undefined;
  register(() => {
    woken = true;
    alarm?.abort();
  });

  const pause = async (ms: number): Promise<void> => {
    if (woken) return;
    alarm = new AbortController();
    try {
      await system.clock.sleep(ms, AbortSignal.any([signal, alarm.signal]));
    } catch (error) {
      if (!isAgentError(error, "cancelled")) throw error; // woken or stopped: both end the pause
    } finally {
      alarm = undefined;
    }
  };

  if ((task.delayMs ?? 0) > 0) await pause(task.delayMs ?? 0);
  while (!signal.aborted) {
    woken = false;
    const outcome = await runOnce(system, task, signal);
    if (outcome === "ignored-abort") {
      ignored += 1;
      log.error(
        `${task.name} did not stop ${ABORT_GRACE_MS / 1000} s after it was told to (${ignored} of ${MAX_IGNORED_ABORTS})`,
      );
      if (ignored >= MAX_IGNORED_ABORTS) {
        throw new AgentError(
          "exec-timeout",
          `${task.name} hangs; the agent ends so that the service manager starts it afresh`,
        );
      }
    } else if (outcome instanceof Error && !signal.aborted) {
      const text = describe(outcome);
      log.periodically(
        "WARNING",
        HOUR_MS,
        `Error in ${task.name}: ${text} --- [NOTE: Will not log the same error for the next hour]`,
        `${task.name}:${text}`,
      );
    }
    if (signal.aborted) break;
    await pause(task.periodMs());
  }
}

/** Runs the task with its limit. The hanging run of an ignored abort is left behind. */
type Outcome = "done" | "ignored-abort" | Error;

async function runOnce(
  system: Pick<System, "clock">,
  task: Task,
  signal: AbortSignal,
): Promise<Outcome> {
  const controller = new AbortController();
  const done = new AbortController();
  const run = task
    .run(AbortSignal.any([signal, controller.signal]))
    .then((): "done" => "done")
    .catch((error: unknown) => (error instanceof Error ? error : new Error(String(error))));
  const { limitMs } = task;
  if (limitMs === undefined) return run;
  const limit = async (): Promise<"ignored-abort" | "done"> => {
    try {
      await system.clock.sleep(limitMs, AbortSignal.any([done.signal, signal]));
    } catch {
      // the run ended, or everything stops: only the grace period is left to wait
    }
    if (done.signal.aborted) return "done";
    controller.abort();
    try {
      await system.clock.sleep(ABORT_GRACE_MS, done.signal);
    } catch {
      return "done"; // it stopped in time
    }
    return "ignored-abort";
  };
  const outcome = await Promise.race([
    run,
    limit().then<Outcome>((result) => (result === "done" ? run : result)),
  ]);
  done.abort();
  return outcome;
}
