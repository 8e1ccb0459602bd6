import { CODE } from "../../extensions/failure.ts";
import { OPERATIONS } from "../../extensions/invocation.ts";
import { isAllowed } from "../../extensions/policy.ts";
import type { HandlerState } from "../../report/agent-state.ts";
import type { Facts, HandlerFacts } from "./facts.ts";
import type { Finding, Found } from "./finding.ts";

/** Checks of extensions. Pure; the object of each finding is the extension. */

/** Nothing found, where not all was seen, is no proof. */
function judged(found: readonly Finding[], seesFolders: boolean): Found {
  return found.length === 0 && !seesFolders ? "unseen" : found;
}

const LOGS = "read its logs (waagent explain NAME shows where they are)";

export function checkPolicy({ policy, handlers }: Facts): readonly Finding[] {
  const { state, file } = policy;
  if (state.state === "off") return [];
  if (state.state === "invalid")
    return [
      {
        id: "policy-invalid",
        object: file,
        problem: "the policy file is not valid, so no extension is processed",
        reason: state.reason,
        next: `mend it and see waagent policy check ${file}`,
      },
    ];
  // A name of a multi-config extension has the handler's in front.
  const isListed = (name: string): boolean =>
    isAllowed(state.policy, name) ||
    [...state.policy.extensions.keys()].some((known) => name.toLowerCase().startsWith(`${known}.`));
  return handlers
    .filter(({ name }) => !isListed(name))
    .map(({ name }) => ({
      id: "policy-deny",
      object: name,
      problem: "the machine's policy does not allow this extension",
      reason: `${file} has allowListedExtensionsOnly and does not list it`,
      next: `add it to /extensionPolicies/extensions in ${file}, or take the extension off the VM`,
    }));
}

export function checkTimeouts({ handlers, now, agent, seesFolders }: Facts): Found {
  const found = handlers.flatMap((handler): Finding[] => [
    ...handler.states.flatMap((state) => [
      ...timedOut(state, handler),
      ...(agent.pid === undefined ? [] : hangs(state, now)),
    ]),
    ...(handler.states.length === 0 && isTimeout(handler.written?.message)
      ? [timeout(handler.name, handler.written?.message ?? "")]
      : []),
  ]);
  return judged(found, seesFolders);
}

function isTimeout(message: string | null | undefined): boolean {
  return message !== null && message !== undefined && /\bTimeout\(\d+\): /.test(message);
}

function timedOut(state: HandlerState, handler: HandlerFacts): readonly Finding[] {
  const { lastOperation: last } = state;
  if (last?.exitCode === CODE.timeout) return [timeout(state.name, last.message ?? "")];
  // After a restart of the agent only what is on record tells.
  const message = [state.detail, handler.written?.message].find(isTimeout);
  return last?.exitCode === 0 || message === undefined ? [] : [timeout(state.name, message ?? "")];
}

function timeout(object: string, message: string): Finding {
  const [, limit = "?", command = ""] = /Timeout\((\d+)\): (\S+)/.exec(message) ?? [];
  return {
    id: "command-timeout",
    object,
    problem: `its command did not end in ${limit} s and was ended`,
    reason: command,
    next: `${LOGS} for what it waited for; a long job has to go on in the background and report transitioning`,
  };
}

function hangs(state: HandlerState, now: number): readonly Finding[] {
  const { running } = state;
  if (running === undefined || !Object.hasOwn(OPERATIONS, running.operation)) return [];
  const limit = OPERATIONS[running.operation as keyof typeof OPERATIONS].timeoutMs;
  const since = now - Date.parse(running.since);
  if (!(since > limit / 2)) return [];
  return [
    {
      id: "command-hangs",
      object: state.name,
      problem: `its ${running.operation} runs for ${Math.round(since / 60_000)} min already`,
      reason: `it will be ended after ${limit / 60_000} min`,
      next: `${LOGS} for what it waits for`,
    },
  ];
}

const STATUS_TROUBLE = /The status file \S+ has an incorrect format|Could not get a valid status/;

export function checkStatusFiles({ handlers, seesFolders }: Facts): Found {
  const found = handlers.flatMap((handler): Finding[] => {
    if (handler.badStatus.length > 0)
      return handler.badStatus.map(({ file, reason }) => malformed(handler.name, file, reason));
    return handler.states.flatMap(({ name, detail }) =>
      detail !== undefined && STATUS_TROUBLE.test(detail)
        ? [malformed(name, "its status file", detail)]
        : [],
    );
  });
  return judged(found, seesFolders);
}

function malformed(object: string, file: string, reason: string): Finding {
  return {
    id: "malformed-status",
    object,
    problem: `${file} is not a status that can be reported`,
    reason,
    next: "tell its publisher; until it writes a proper one the platform sees an error (reinstall, or push its settings again)",
  };
}

export function checkHeartbeats({ handlers, seesFolders }: Facts): Found {
  const found = handlers.flatMap(({ name, heartbeat, states }): Finding[] => {
    const problem =
      heartbeat === undefined
        ? states.some(({ state }) => state.startsWith("Unresponsive"))
          ? "its heartbeat is older than 10 min"
          : undefined
        : heartbeat.state === "stale"
          ? "its heartbeat is older than 10 min"
          : heartbeat.state === "broken"
            ? "it has no heartbeat that can be read"
            : undefined;
    if (problem === undefined) return [];
    return [
      {
        id: "stale-heartbeat",
        object: name,
        problem,
        reason:
          heartbeat?.state === "broken"
            ? heartbeat.reason
            : "its manifest promises one, and the platform is told that it is unresponsive",
        next: "see whether its service runs, and restart it",
      },
    ];
  });
  return judged(found, seesFolders);
}

export function checkCommands({ handlers, seesFolders }: Facts): Found {
  const found = handlers.flatMap(({ name, commands }) =>
    commands.map(({ operation, problem }): Finding => ({
      id: problem.id,
      object: name,
      problem: `its ${operation} command ${problem.file} cannot be run on this machine`,
      reason: problem.reason,
      next: {
        "wrong-architecture": "take a version of the extension that is made for this architecture",
        "missing-interpreter":
          "install the interpreter, or ask the publisher for a version that brings its own",
        "not-executable":
          "remove the extension from the VM and add it again, so that its package is unpacked anew",
      }[problem.id],
    })),
  );
  return judged(found, seesFolders);
}

export function checkCertificates({ handlers, seesFolders }: Facts): Found {
  const found = handlers.flatMap(({ name, undecryptable }) =>
    undecryptable.map(({ file, reason }): Finding => ({
      id: "certificate-mismatch",
      object: name,
      problem: `its protected settings in ${file} cannot be decrypted`,
      reason,
      next: "make the platform send them anew: push the extension's settings again, or az vm reapply",
    })),
  );
  return judged(found, seesFolders);
}

/** Extensions that failed and about which nothing more exact is known; `explained` are those that are told already. */
export function checkFailures(facts: Facts, explained: ReadonlySet<string>): readonly Finding[] {
  return facts.handlers
    .filter(({ name }) => !explained.has(name))
    .flatMap(({ states }) =>
      states.flatMap((state): Finding[] => {
        if (explained.has(state.name) || state.running !== undefined) return [];
        const { lastOperation: last } = state;
        const isBad = /^not ?ready/i.test(state.state) || /fail|error/i.test(state.state);
        if (!isBad || state.waitsFor !== undefined) return [];
        return [
          {
            id: "extension-failed",
            object: state.name,
            problem: `it is ${state.state}`,
            reason: state.detail ?? last?.message ?? "",
            next: LOGS,
          },
        ];
      }),
    );
}
