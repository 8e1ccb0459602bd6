import { eventsToLine } from "./timeline.ts";
import { printTable } from "./table.ts";
import { isEvent, type FabricEvent } from "../fabric/fabric.ts";
import { demoExtension, firstBoot } from "../fabric/scenarios.ts";
import { startGuest, type Guest } from "../e2e/guest.ts";
import { journal } from "../e2e/journal.ts";
import { canSandbox } from "../e2e/sandbox.ts";
import { createKey, ssh, startSshd, type PersonalKey } from "../e2e/ssh.ts";
import { binary } from "../support/binary.ts";
import { missing } from "../support/skip.ts";

/**
 * `npm start`: boots a VM of namespaces over this machine's own files, lets the compiled agent do its work against the
 * emulated host, and shows what it did and when. Ends with a table; leaves nothing behind, also on Ctrl-C.
 */

/** Programs of the guest, and the Debian package each comes with. */
const PROGRAMS: Readonly<Record<string, string>> = {
  useradd: "passwd",
  chpasswd: "passwd",
  openssl: "openssl",
  ip: "iproute2",
  sshd: "openssh-server",
  ssh: "openssh-client",
  "ssh-keygen": "openssh-client",
};
const USER = "azureuser";

const say = (text: string): void => void process.stdout.write(`${text}\n`);

async function main(): Promise<number> {
  const trouble = whatIsMissing();
  if (trouble.length > 0) {
    say("The demo cannot run here:");
    for (const line of trouble) say(`  ${line}`);
    return 1;
  }
  say("Building the agent");
  await binary();
  using key = createKey();
  let bootedAt = 0;
  const timeline = createTimeline(() => bootedAt);
  say(
    "Booting a VM: private namespaces over an overlay of this machine, and an emulated Azure host\n",
  );
  const interrupted = interruption();
  const starting = startGuest(firstBoot(key.publicLine), {
    onEvent: timeline.event,
    prepare: () => void (bootedAt = Date.now()),
  });
  try {
    return await Promise.race([
      starting.then((guest) => show(guest, key, timeline)),
      interrupted.promise,
    ]);
  } finally {
    timeline.stop();
    const guest = await starting.catch(() => undefined); // cleaned up after itself
    await guest?.[Symbol.asyncDispose]();
    interrupted.stop();
  }
}

async function show(guest: Guest, key: PersonalKey, timeline: Timeline): Promise<number> {
  timeline.follow(guest);
  await guest.until("ready");
  await guest.until("status:Fabric.Demo=success");

  timeline.note(`logging in by ssh with the provisioned key`);
  await startSshd(guest.sandbox);
  const login = await ssh(guest.sandbox, USER, key, "id -un; hostname; sudo -n id -un");
  timeline.note(
    `ssh: ${login.code === 0 ? login.stdout.trim().split("\n").join(", ") : login.stderr.trim()}`,
  );

  timeline.note("the platform publishes new settings, this time by the host plugin (Fast Track)");
  await guest.fabric.setGoalState({
    incarnation: "1",
    source: "FastTrack",
    extensions: [demoExtension(1)],
  });
  await guest.fabric.waitFor(
    (event) =>
      isEvent(event, "status:Fabric.Demo=success") &&
      event.type === "status" &&
      event.status.document.aggregateStatus.handlerAggregateStatus[0]?.runtimeSettingsStatus
        ?.sequenceNumber === 1,
    20_000,
    "the status of the new settings",
  );

  timeline.note("the service manager stops the agent");
  guest.agent.signal("SIGTERM");
  const exit = await guest.agent.exited;
  timeline.note(`the agent ended with code ${exit}`);
  timeline.stop();
  await printTable(guest, { user: USER, login, say });
  const isGood = exit === 0 && login.code === 0 && guest.fabric.violations.length === 0;
  say(
    isGood
      ? "\nAll of it is gone now; nothing was left on this machine."
      : "\nSomething went wrong, see above.",
  );
  return isGood ? 0 : 1;
}

interface Timeline {
  event(event: FabricEvent): void;
  note(text: string): void;
  /** Also shows what the extensions were told to do. */
  follow(guest: Guest): void;
  stop(): void;
}

function createTimeline(bootedAt: () => number): Timeline {
  const line = (time: number, text: string): void =>
    say(`${((time - bootedAt()) / 1000).toFixed(2).padStart(7)} s  ${text}`);
  const lineOf = eventsToLine();
  let startedAt: number | undefined;
  let early: FabricEvent[] = [];
  let timer: ReturnType<typeof setInterval> | undefined;
  let shown = 0;
  const showJournal = (guest: Guest): void => {
    for (const entry of journal(guest.sandbox).slice(shown)) {
      shown += 1;
      line(
        entry.time,
        `extension ${entry.handler} ${entry.version}: ${entry.command}${entry.sequence === undefined ? "" : `, settings ${entry.sequence}`}`,
      );
    }
  };
  let followed: Guest | undefined;
  const event = (one: FabricEvent): void => {
    if (startedAt === undefined) return void early.push(one);
    if (followed !== undefined) showJournal(followed);
    const text = lineOf(one);
    if (text !== undefined) line(startedAt + one.at, text);
  };
  return {
    event,
    note: (text) => line(Date.now(), `* ${text}`),
    follow: (guest) => {
      startedAt = guest.fabric.startedAt;
      followed = guest;
      for (const one of early) event(one);
      early = [];
      timer = setInterval(() => showJournal(guest), 50);
    },
    stop: () => clearInterval(timer),
  };
}

function whatIsMissing(): string[] {
  const able = canSandbox();
  if (!able.ok) return [able.reason];
  return Object.entries(PROGRAMS).flatMap(([program, source]) => {
    const reason = missing({ programs: [program] });
    return reason === undefined ? [] : [`${reason}: apt-get install ${source}`];
  });
}

/** Resolves with the exit code when a person or a supervisor wants the demo to end. */
function interruption(): { promise: Promise<number>; stop(): void } {
  const handlers: [NodeJS.Signals, () => void][] = [];
  const promise = new Promise<number>((resolve) => {
    for (const [signal, code] of [
      ["SIGINT", 130],
      ["SIGTERM", 143],
      ["SIGHUP", 129],
    ] as const) {
      const handler = (): void => {
        say("\nEnding, and cleaning up");
        resolve(code);
      };
      handlers.push([signal, handler]);
      process.once(signal, handler);
    }
  });
  return {
    promise,
    stop: () => handlers.forEach(([signal, handler]) => process.off(signal, handler)),
  };
}

process.exitCode = await main().catch((error: unknown) => {
  say(`The demo failed: ${error instanceof Error ? error.message : String(error)}`);
  return 1;
});
// Whatever still waits (a promise that lost its race) must not keep the demo open.
process.exit(process.exitCode);
