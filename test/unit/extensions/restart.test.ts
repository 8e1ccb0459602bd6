import { afterEach, beforeEach, expect, test } from "bun:test";
import { RECORDER } from "../../fixtures/extensions/package.ts";
import { createWorld, goal, handler, LIB, LOGS, settings, type World } from "./world.ts";

const NAME = "Contoso.Ext.Demo";
const JOURNALS = `${LIB}/extensions/journal` as const;
const BOOT = "/proc/sys/kernel/random/boot_id";

let world: World;
beforeEach(() => {
  world = createWorld();
});
afterEach(() => world[Symbol.dispose]());

const offer = (version: string, body = ""): void =>
  world.offer({
    name: NAME,
    version,
    script: `${RECORDER}\nnote "begin $1"\n${body}\nnote "end $1"\n[ "$1" = enable ] && status Enable success x\nexit 0\n`,
  });
const wanted = (version: string) => goal([handler(NAME, version, { settings: [settings(1)] })]);

/** Starts a pass and leaves it when one more command has begun, as a stop of the agent does. */
async function leave(which: ReturnType<typeof wanted>): Promise<void> {
  const begun = (): number => world.calls(NAME).filter((line) => line.includes("begin")).length;
  const before = begun();
  const stop = new AbortController();
  const pass = world.createRunner().process(which, stop.signal);
  while (begun() === before) await Bun.sleep(5);
  stop.abort();
  await expect(pass).rejects.toThrow("cancelled");
}

test("extensions.md DB-24 E2E-54: a stop leaves the command alone, the next process waits for it and does the rest once", async () => {
  offer("1.0", "sleep 0.4");
  const current = wanted("1.0");
  await leave(current);
  expect(world.calls(NAME)).toEqual(["1.0 begin install"]);
  expect(world.system.files.list(JOURNALS).length).toBe(1);
  const runner = world.createRunner();
  await runner.process(current);
  expect(world.calls(NAME)).toEqual([
    "1.0 begin install",
    "1.0 end install",
    "1.0 begin enable",
    "1.0 end enable",
  ]);
  expect(runner.reports(current)).toMatchObject([{ status: "Ready" }]);
  expect(world.system.files.list(JOURNALS)).toEqual([]);
  expect(world.system.lines.some((line) => line.includes("is still running as process"))).toBe(
    true,
  );
});

test("extensions.md EXT-12: an enable that was picked up counts for its goal, a new goal enables again", async () => {
  offer("1.0");
  await world.runner.process(wanted("1.0"));
  offer("1.0", "sleep 0.4");
  world.system.files.remove(`${LIB}/${NAME}-1.0`);
  const current = wanted("1.0");
  await world.runner.process(current);
  const before = world.calls(NAME).length;
  const again = { ...current, id: "incarnation_again" };
  await leave(again);
  await world.createRunner().process(again);
  expect(world.calls(NAME).slice(before)).toEqual(["1.0 begin enable", "1.0 end enable"]);
  const next = { ...current, id: "incarnation_next" };
  await leave(next);
  await world.createRunner().process({ ...current, id: "incarnation_later" });
  expect(world.calls(NAME).slice(before + 2)).toEqual([
    "1.0 begin enable",
    "1.0 end enable",
    "1.0 begin enable",
    "1.0 end enable",
  ]);
});

test("extensions.md EXT-84: a command that went with the machine is run again after the boot", async () => {
  world.system.files.makeDirectory("/proc/sys/kernel/random");
  world.system.files.write(BOOT, "first\n");
  offer("1.0", "[ -e went ] || { touch went; sleep 0.5; }");
  const current = wanted("1.0");
  await leave(current);
  world.system.files.write(BOOT, "second\n");
  await Bun.sleep(500);
  const runner = world.createRunner();
  await runner.process(current);
  expect(world.calls(NAME).filter((line) => line === "1.0 begin install").length).toBe(2);
  expect(runner.reports(current)).toMatchObject([{ status: "Ready" }]);
  expect(world.system.lines.some((line) => line.includes("was interrupted; it is run again"))).toBe(
    true,
  );
});

test("extensions.md E2E-51: an update that is left at any of its commands goes on there", async () => {
  offer("1.0");
  await world.runner.process(wanted("1.0"));
  offer("1.1", "sleep 0.2");
  const current = wanted("1.1");
  const before = world.calls(NAME).length;
  for (let round = 0; round < 3; round += 1) await leave(current);
  await world.createRunner().process(current);
  expect(
    world
      .calls(NAME)
      .slice(before)
      .filter((line) => line.includes("begin")),
  ).toEqual([
    "1.0 begin disable",
    "1.1 begin update",
    "1.0 begin uninstall",
    "1.1 begin install",
    "1.1 begin enable",
  ]);
});

test("extensions.md DB-10: a journal that is damaged, or of another format, is not believed", async () => {
  offer("1.0");
  world.system.files.makeDirectory(JOURNALS);
  const file = `${JOURNALS}/${NAME.toLowerCase()}.json` as const;
  for (const text of ["", "{", '{"version": 9}', '{"version": 1, "handler": 5}']) {
    world.system.files.write(file, text);
    const current = wanted("1.0");
    const runner = world.createRunner();
    await runner.process(current);
    expect(runner.reports(current)).toMatchObject([{ status: "Ready" }]);
    expect(world.system.files.list(JOURNALS)).toEqual([]);
  }
});

test("extensions.md DB-37 EXT-11: with Extensions.SkipUnchanged a restarted agent enables again only what changed, failed, or was enabled before a boot", async () => {
  using own = createWorld({ config: { "Extensions.SkipUnchanged": true } });
  own.system.files.makeDirectory("/proc/sys/kernel/random");
  own.system.files.write(BOOT, "boot-1\n");
  const script = (result: string) =>
    `${RECORDER}\nnote "$1 $ConfigExtensionName"\n[ "$1" = enable ] && status Enable ${result} x\nexit 0\n`;
  const other = "Contoso.Ext.Other";
  const many = "Contoso.Ext.Many";
  own.offer(
    { name: NAME, version: "1.0", script: script("success") },
    { name: other, version: "1.0", script: script("error") },
    {
      name: many,
      version: "1.0",
      script: script("success"),
      manifest: { supportsMultipleExtensions: true },
    },
  );
  const entries = (sequence: number) => [
    settings(1, { name: "a" }),
    settings(sequence, { name: "b" }),
  ];
  const at = (sequence: number) => [
    handler(NAME, "1.0", { settings: [settings(sequence)] }),
    handler(other, "1.0"),
    handler(many, "1.0", { multiConfig: true, settings: entries(sequence) }),
  ];
  const current = goal(at(1));
  const names = [NAME, other, many];
  /** Whom one start of the agent enables. */
  const enables = async (which: typeof current): Promise<string[]> => {
    for (const name of names) own.system.files.remove(`${LOGS}/${name}/calls`);
    const runner = own.createRunner();
    await runner.process(which);
    expect(runner.reports(which).map(({ status }) => status)).toEqual(["Ready", "Ready", "Ready"]);
    return names.flatMap((name) =>
      own
        .calls(name)
        .filter((line) => line.includes("enable"))
        .map((line) => line.replace("1.0 enable", name.replace("Contoso.Ext.", "")).trim()),
    );
  };
  expect(await enables(current)).toEqual(["Demo", "Other", "Many a", "Many b"]);
  expect(await enables(current)).toEqual(["Other"]);
  expect(await enables({ ...current, handlers: at(2) })).toEqual(["Demo", "Other", "Many b"]);
  expect(await enables({ ...current, handlers: at(2) })).toEqual(["Other"]);
  // A new goal state is enabled whole (EXT-12), and so is the same one after a boot.
  const next = goal(at(2));
  expect(await enables(next)).toHaveLength(4);
  own.system.files.write(BOOT, "boot-2\n");
  expect(await enables(next)).toHaveLength(4);
  own.system.files.write(`${LIB}/extensions/enabled.json`, "{");
  expect(await enables(next)).toHaveLength(4);
  expect(await enables(next)).toEqual(["Other"]);
});
