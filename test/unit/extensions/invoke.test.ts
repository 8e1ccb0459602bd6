import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { decode, formatOutput } from "../../../src/extensions/output.ts";
import { OPERATIONS } from "../../../src/extensions/invocation.ts";
import { createWorld, goal, handler, LIB, LOGS, settings, type World } from "./world.ts";

const NAME = "Contoso.Ext.Demo";
let world: World;
beforeEach(() => {
  world = createWorld();
});
afterEach(() => world[Symbol.dispose]());

const run = async (script: string, more: Parameters<typeof handler>[2] = {}) => {
  world.offer({ name: NAME, version: "1.0", script: `#!/bin/sh\n${script}\n` });
  const wanted = goal([handler(NAME, "1.0", { settings: [settings(3)], ...more })]);
  await world.runner.process(wanted);
  return world.runner.reports(wanted)[0];
};

describe("a command", () => {
  test("extensions.md EXT-70 EXT-74 DB-32 DB-33: runs in its directory, in a session of its own, with the contract's environment and nothing else", async () => {
    await run(
      `{ pwd; env | sort; readlink /proc/$$/fd/0; cut -d' ' -f1,4 /proc/$$/stat; } >seen.$1; ps -o sid= -p $$ >sid 2>/dev/null; true`,
    );
    const base = world.system.files.realPath(`${LIB}/${NAME}-1.0`);
    const seen = (world.read(`${NAME}-1.0/seen.enable`) ?? "").split("\n");
    expect(seen[0]).toBe(base);
    const names = seen.filter((line) => line.includes("=")).map((line) => line.split("=")[0]);
    expect(names.filter((name) => name !== "_" && name !== "SHLVL" && name !== "OLDPWD")).toEqual(
      [
        "AZURE_GUEST_AGENT_EXTENSION_PATH",
        "AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES",
        "AZURE_GUEST_AGENT_EXTENSION_VERSION",
        "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE",
        "AZURE_GUEST_AGENT_WIRE_PROTOCOL_ADDRESS",
        "ConfigSequenceNumber",
        "PATH",
        "PWD",
        "WAAGENT_RUN_ID",
        "https_proxy",
      ].filter((name) => names.includes(name) || name !== "PWD"),
    );
    for (const line of [
      `AZURE_GUEST_AGENT_EXTENSION_PATH=${base}`,
      "AZURE_GUEST_AGENT_EXTENSION_VERSION=1.0",
      "AZURE_GUEST_AGENT_WIRE_PROTOCOL_ADDRESS=168.63.129.16",
      "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE=NOT_RUN",
      'AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES=[{"Key": "ExtensionTelemetryPipeline", "Value": "1.0"}]',
      "ConfigSequenceNumber=3",
      "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
      "https_proxy=http://p",
      "/dev/null",
    ])
      expect(seen).toContain(line);
  });

  test("extensions.md EXT-71: time limits, failure codes and events", () => {
    expect(
      Object.fromEntries(
        Object.entries(OPERATIONS).map(([name, row]) => [
          name,
          [row.timeoutMs / 1000, row.code, row.event],
        ]),
      ),
    ).toEqual({
      install: [900, 1007, "Install"],
      enable: [300, 1009, "Enable"],
      update: [900, 1008, "Update"],
      disable: [900, 1010, "Disable"],
      uninstall: [300, 1000, "UnInstall"],
    });
  });

  test("extensions.md EXT-73 EXT-71: a time-out is 1011, says its limit, and ends everything", async () => {
    const row = OPERATIONS.enable as { timeoutMs: number };
    row.timeoutMs = 400;
    try {
      const report = await run(
        "[ $1 = enable ] || exit 0\necho before\n(setsid sleep 60 &)\nsleep 60",
      );
      expect(report).toMatchObject({ status: "NotReady", code: 1011 });
      expect(report?.message).toMatch(
        /^\[ExtensionError\] Timeout\(0\.4\): .*bin\/run enable\n\[stdout\]\nbefore\n/,
      );
    } finally {
      row.timeoutMs = 300_000;
    }
  });

  test("extensions.md EXT-80: exit code 126 names a mount without execution", async () => {
    world.system.files.makeDirectory("/proc");
    const root = world.system.files.realPath("/");
    world.system.files.write(
      "/proc/mounts",
      `tmpfs /other tmpfs rw,noexec 0 0\ntmpfs ${root} tmpfs rw,nosuid,noexec 0 0\n`,
    );
    const report = await run("exit 126");
    expect(report?.message).toContain("Non-zero exit code: 126");
    expect(report?.message).toContain(`WARNING: ${root} is mounted with the noexec flag`);
    expect(world.system.events).toContainEqual(expect.objectContaining({ operation: "NoExec" }));
    expect((await run("exit 127"))?.message).not.toContain("noexec");
  });

  test("extensions.md EXT-80: programs that are missing, of another machine or without an interpreter line get the shell's own answer", async () => {
    expect((await run("no-such-program-at-all"))?.message).toContain("not found");
    world.packages.clear();
    world.offer({ name: NAME, version: "1.0", script: "\u007fELF\u0002\u0001\u0001wrong" });
    const wanted = goal([handler(NAME, "1.0")]);
    await world.runner.process(wanted);
    expect(world.runner.reports(wanted)).toMatchObject([{ status: "NotReady", code: 1007 }]);
    using other = createWorld();
    other.offer({ name: NAME, version: "1.0", script: "exit 0\n" });
    await other.runner.process(wanted);
    expect(other.runner.reports(wanted)).toMatchObject([{ status: "Ready" }]);
  });

  test("extensions.md DB-10: a command that cannot write down its start does not start, and says why", async () => {
    const { launch } = world.system;
    const original = launch.start;
    launch.start = (request) => {
      // The folder is gone in the last moment; a full disk looks the same to the command.
      world.system.files.remove(`${LIB}/extensions/runs`);
      return original(request);
    };
    const report = await run("touch ran; exit 0");
    expect(report).toMatchObject({ status: "NotReady", code: 1007 });
    expect(report?.message).toMatch(
      /^\[ExtensionError\] Could not start .*bin\/run install: .*could not be written; is the disk full\?/,
    );
    expect(world.system.files.exists(`${LIB}/${NAME}-1.0/ran`)).toBe(false);
    // Exit code 125 of a command that did start is only its exit code.
    launch.start = original;
    expect((await run("exit 125"))?.message).toContain("Non-zero exit code: 125");
  });

  test("extensions.md EXT-70: a library directory with blanks and quotes is quoted for the shell", async () => {
    using odd = createWorld({ config: { "Lib.Dir": "/var/lib/it's a lib" } });
    odd.offer({ name: NAME, version: "1.0", script: "#!/bin/sh\nexit 0\n" });
    const wanted = goal([handler(NAME, "1.0")]);
    await odd.runner.process(wanted);
    expect(odd.runner.reports(wanted)).toMatchObject([{ status: "Ready" }]);
  });
});

describe("output", () => {
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

  test("extensions.md EXT-79: both streams in a frame", () => {
    expect(formatOutput(bytes("out"), bytes("err"))).toBe("[stdout]\nout\n\n[stderr]\nerr");
    expect(formatOutput(bytes("o".repeat(3199)), bytes("")).length).toBe(3219);
  });

  test("extensions.md EXT-79: together too long, the ends are kept and share the room", () => {
    const both = formatOutput(bytes(`A${"o".repeat(3000)}`), bytes(`B${"e".repeat(3000)}`));
    expect(both.length).toBe(3200);
    expect(both.match(/o/g)?.length).toBe(1590 + 1);
    expect(both.match(/e/g)?.length).toBe(1590 + 1);
    const one = formatOutput(bytes("o".repeat(4000)), bytes("short"));
    expect(one.length).toBe(3200);
    expect(one).toEndWith("[stderr]\nshort");
    expect(formatOutput(bytes("short"), bytes("e".repeat(4000)))).toStartWith(
      "[stdout]\nshort\n\n",
    );
    // Only the first 3200 bytes of a stream are looked at.
    expect(formatOutput(bytes(`${"o".repeat(3200)}END`), bytes(""))).not.toContain("END");
  });

  test("extensions.md EXT-79: bytes that are no UTF-8 are escaped", () => {
    expect(
      decode(Buffer.concat([Buffer.from("ü€😀"), Buffer.from([0xe2, 0x82]), Buffer.from("x")])),
    ).toBe("ü€😀\\xe2\\x82x");
    expect(decode(Buffer.from([0xc0, 0x80, 0xed, 0xa0, 0x80]))).toBe("\\xc0\\x80\\xed\\xa0\\x80");
  });

  test("extensions.md EXT-81 DB-14 DB-31: the whole output stays in a file of its own, its beginning is in the logs, the environment is not", async () => {
    await run('[ "$1" = enable ] && head -c 100000 /dev/zero | tr "\\0" x\nexit 0');
    const folder = `${LOGS}/${NAME}/CommandOutput` as const;
    const names = world.system.files.list(folder);
    expect(names.length).toBe(4);
    const file = names.find((name) => name.includes("-enable-") && name.endsWith(".stdout"));
    expect(world.system.files.stat(`${folder}/${file}`)).toMatchObject({
      size: 100_000,
      mode: 0o600,
    });
    const log = world.system.files.readText(`${LOGS}/${NAME}/CommandExecution.log`);
    expect(log).toContain(`[${NAME}-1.0] Enable extension: [`);
    expect(log).toContain("xxxxxxxx");
    expect(world.system.lines.join("\n")).not.toContain("SUPPORTED_FEATURES");
  });

  test("extensions.md DB-14 DB-15: old output is compressed and then removed", async () => {
    const folder = `${LOGS}/${NAME}/CommandOutput` as const;
    world.system.files.makeDirectory(folder);
    for (let index = 10; index < 70; index += 1)
      world.system.files.write(
        `${folder}/2020${index}-enable.stdout`,
        new Uint8Array(index === 65 ? 200_000 : 10),
        { durable: false },
      );
    await run("exit 0");
    const names = world.system.files.list(folder);
    expect(names.length).toBeLessThanOrEqual(44);
    expect(names).toContain("202065-enable.stdout.gz");
    expect(names).not.toContain("202010-enable.stdout");
  });

  test("extensions.md EXT-79: a gigabyte of output neither fills the disk nor the message", async () => {
    const report = await run(
      '[ "$1" = enable ] || exit 0\necho begin; head -c 1000000000 /dev/zero; exit 1',
    );
    expect(report?.message?.length).toBeLessThan(3700);
    const folder = `${LOGS}/${NAME}/CommandOutput` as const;
    const total = world.system.files
      .list(folder)
      .reduce((sum, name) => sum + (world.system.files.stat(`${folder}/${name}`)?.size ?? 0), 0);
    expect(total).toBeLessThan(40_000_000);
  }, 20_000);
});

describe("logs", () => {
  test("extensions.md EXT-85 EXT-86: lines of a handler have its name and a copy of their own; a failed event is an error line", async () => {
    await run("[ $1 = enable ] && exit 9\nexit 0");
    const log = world.system.files.readText(`${LOGS}/${NAME}/CommandExecution.log`);
    expect(log).toMatch(
      new RegExp(
        `^\\d{4}-\\d\\d-\\d\\dT[\\d:.]+Z INFO ExtHandler \\[${NAME}-1\\.0\\] Target handler state: enabled`,
        "m",
      ),
    );
    expect(log).toMatch(
      /ERROR ExtHandler \[.*\] Event: name=Contoso\.Ext\.Demo, op=Enable, message=\[ExtensionOperationError\]/,
    );
  });

  test("extensions.md EXT-85 DB-15: a log beyond 10 MiB is compressed and begun anew", async () => {
    const file = `${LOGS}/${NAME}/CommandExecution.log` as const;
    world.system.files.makeDirectory(`${LOGS}/${NAME}`);
    world.system.files.write(file, new Uint8Array(11_000_000), { durable: false });
    await run("exit 0");
    expect(world.system.files.stat(file)?.size).toBeLessThan(100_000);
    expect(world.system.files.exists(`${file}.1.gz`)).toBe(true);
  });
});
