import { rmSync } from "node:fs";
import type { FaultRule } from "./fault.ts";
import { startFabric, waitForEvent, type Fabric, type FabricEvent } from "./fabric.ts";
import type { GoalStateDescription, Scenario } from "./scenario.ts";

/** Serves a running host on a unix socket, so that a test outside its network namespace can steer it. */
export function serveControl(fabric: Fabric, socket: string, onStop: () => void): { stop(): void } {
  rmSync(socket, { force: true });
  const waiting = new Set<() => void>();
  const server = Bun.serve({
    unix: socket,
    routes: {
      "/hello": () =>
        Response.json({
          authority: fabric.authority,
          connectTo: fabric.connectTo,
          startedAt: fabric.startedAt,
        }),
      "/events": async (request: Request) => {
        const from = Number(new URL(request.url).searchParams.get("from"));
        if (fabric.events.length <= from) {
          await new Promise<void>((resolve) => {
            const timer = setTimeout(resolve, 5000);
            waiting.add(() => {
              clearTimeout(timer);
              resolve();
            });
          });
        }
        return Response.json(fabric.events.slice(from));
      },
      "/goal-state": {
        POST: async (request: Request) => {
          await fabric.setGoalState((await request.json()) as number | GoalStateDescription);
          return new Response("ok");
        },
      },
      "/faults": {
        POST: async (request: Request) => {
          await fabric.addFault((await request.json()) as FaultRule);
          return new Response("ok");
        },
        DELETE: async () => {
          await fabric.clearFaults();
          return new Response("ok");
        },
      },
      "/stop": {
        POST: () => {
          setTimeout(onStop, 10);
          return new Response("ok");
        },
      },
    },
    error: (error) => new Response(error.message, { status: 500 }),
  });
  // The host tells us of each event by calling this; see `main.ts`.
  wakers.add(() => {
    for (const wake of waiting) wake();
    waiting.clear();
  });
  return { stop: () => void server.stop(true) };
}

const wakers = new Set<() => void>();

/** Starts a host that is steered through a socket. For the process inside the namespace. */
export async function startControlledFabric(
  scenario: Scenario,
  options: {
    readonly listen: "platform" | "loopback";
    readonly socket?: string;
    readonly onEvent?: (event: FabricEvent) => void;
    readonly onStop: () => void;
  },
): Promise<Fabric> {
  const fabric = await startFabric(scenario, {
    listen: options.listen,
    onEvent: (event) => {
      options.onEvent?.(event);
      // After the event is in the list.
      queueMicrotask(() => wakers.forEach((wake) => wake()));
    },
  });
  if (options.socket !== undefined) serveControl(fabric, options.socket, options.onStop);
  return fabric;
}

/** The same face for a host in another process. `ended` tells when that process is gone. */
export async function connectFabric(
  socket: string,
  options: {
    readonly ended: Promise<unknown>;
    readonly log: () => string;
    readonly onEvent?: (event: FabricEvent) => void;
  },
): Promise<Fabric> {
  let hasEnded = false;
  void options.ended.then(() => (hasEnded = true));
  const call = async (path: string, init: RequestInit = {}): Promise<Response> => {
    const response = await fetch(`http://fabric${path}`, {
      ...init,
      unix: socket,
    } as BunFetchRequestInit);
    if (!response.ok)
      throw new Error(`The emulated host refused ${path}: ${await response.text()}`);
    return response;
  };
  const hello = await retry(
    () => call("/hello"),
    () => {
      if (hasEnded)
        throw new Error(`The emulated host did not start: ${options.log().trim().slice(-2000)}`);
    },
  );
  const { authority, connectTo, startedAt } = (await hello.json()) as Pick<
    Fabric,
    "authority" | "connectTo" | "startedAt"
  >;

  const events: FabricEvent[] = [];
  const watchers = new Set<(event: FabricEvent) => void>();
  const abort = new AbortController();
  const follow = async (): Promise<void> => {
    while (!abort.signal.aborted) {
      const response = await call(`/events?from=${events.length}`, { signal: abort.signal });
      for (const event of (await response.json()) as FabricEvent[]) {
        events.push(event);
        options.onEvent?.(event);
        for (const watcher of [...watchers]) watcher(event);
      }
    }
  };
  const following = follow().catch(() => undefined); // ends with the host; waitFor then runs into its limit

  const stop = async (): Promise<void> => {
    if (!abort.signal.aborted && !hasEnded)
      await call("/stop", { method: "POST" }).catch(() => undefined);
    abort.abort();
    await following;
    await options.ended;
  };
  const pick = <Type extends FabricEvent["type"]>(type: Type) =>
    events.filter((event): event is Extract<FabricEvent, { type: Type }> => event.type === type);
  return {
    events,
    startedAt,
    authority,
    connectTo,
    get requests() {
      return pick("request").map((event) => event.request);
    },
    get violations() {
      return pick("violation").map((event) => event.violation);
    },
    get healthReports() {
      return pick("health").map((event) => event.health);
    },
    get statusDocuments() {
      return pick("status").map((event) => event.status);
    },
    get telemetryEvents() {
      return pick("telemetry").flatMap((event) => event.records);
    },
    waitFor: (predicate, timeoutMs, what) =>
      waitForEvent(events, watchers, predicate, timeoutMs, what),
    setGoalState: async (goal) =>
      void (await call("/goal-state", { method: "POST", body: JSON.stringify(goal) })),
    addFault: async (rule) =>
      void (await call("/faults", { method: "POST", body: JSON.stringify(rule) })),
    clearFaults: async () => void (await call("/faults", { method: "DELETE" })),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

async function retry<Result>(attempt: () => Promise<Result>, check: () => void): Promise<Result> {
  const deadline = performance.now() + 15_000;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      check();
      if (performance.now() > deadline) throw error;
      await Bun.sleep(20);
    }
  }
}
