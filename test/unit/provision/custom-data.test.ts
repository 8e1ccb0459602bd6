import { describe, expect, test } from "bun:test";
import { decodeBase64, runCustomData, saveCustomData } from "../../../src/provision/custom-data.ts";
import { configOf, createMachine } from "./machine.ts";

const FILE = "/var/lib/waagent/CustomData";
const decode = configOf({ "Provisioning.DecodeCustomData": true });
const execute = configOf({ "Provisioning.ExecuteCustomData": true });
const base64 = (data: string | Uint8Array): string =>
  Buffer.from(data as string).toString("base64");

describe("custom data", () => {
  test("provisioning.md CD-01: none, nothing is written", () => {
    using system = createMachine();
    saveCustomData(system, decode, undefined);
    expect(system.files.exists(FILE)).toBe(false);
  });

  test("provisioning.md CD-02 CD-03: kept as base64 text, or decoded where decoding or execution is on", () => {
    using system = createMachine();
    saveCustomData(system, configOf(), base64("hello"));
    expect(system.files.readText(FILE)).toBe(base64("hello"));
    expect(system.files.stat(FILE)?.mode).toBe(0o600);
    saveCustomData(system, decode, base64("hello"));
    expect(system.files.readText(FILE)).toBe("hello");
    saveCustomData(system, execute, base64("#!/bin/sh\n"));
    expect(system.files.readText(FILE)).toBe("#!/bin/sh\n");
    expect(system.files.stat(FILE)?.mode).toBe(0o700);
  });

  test("provisioning.md CD-02 DB-24: binary data is as good as text", () => {
    using system = createMachine();
    const data = new Uint8Array(256).map((_, index) => index);
    saveCustomData(system, decode, base64(data));
    expect(system.files.read(FILE)).toEqual(Buffer.from(data));
  });

  test("provisioning.md CD-02: characters outside of the alphabet are passed over, wrong padding is an error", () => {
    expect(Buffer.from(decodeBase64("aGVs\n bG8=\t")).toString()).toBe("hello");
    for (const text of ["CustomData", "aGVsbG8", "a", "aG=s"])
      expect(() => decodeBase64(text)).toThrow("CustomData is not base64");
  });
});

describe("running custom data", () => {
  /** Programs are started for real, below the scratch root. */
  const run = async (script: string, last = 0) => {
    const system = createMachine();
    saveCustomData(system, execute, base64(script));
    const runs: number[] = [];
    await runCustomData(system, execute, { run: last, record: (number) => void runs.push(number) });
    return { system, runs };
  };

  test("provisioning.md CD-04 DB-24: run through the shell with the agent's mark; output is kept, the event follows the exit code", async () => {
    const { system, runs } = await run(
      "#!/bin/sh\necho out $AZURE_GUEST_AGENT_PARENT_PROCESS_NAME; echo err >&2; pwd\n",
    );
    using _ = system;
    expect(system.files.readText(`${FILE}.stdout`)).toBe(
      `out AZURE_GUEST_AGENT\n${system.root.directory}\n`,
    );
    expect(system.files.readText(`${FILE}.stderr`)).toBe("err\n");
    expect(runs).toEqual([1]);
    expect(system.events).toMatchObject([{ operation: "CustomData", success: true }]);
    expect(system.events[0]!.durationMs).toBeGreaterThan(0);
  });

  test("provisioning.md CD-04 DB-24: a failure is an ERROR in the log and a failed event, no more", async () => {
    const { system } = await run("exit 7\n");
    using _ = system;
    expect(system.lines).toEqual([
      "ERROR ExtHandler ExtHandler Custom data failed with exit code 7; its output is in /var/lib/waagent/CustomData.stdout and /var/lib/waagent/CustomData.stderr",
    ]);
    expect(system.events).toMatchObject([{ operation: "CustomData", success: false }]);
  });

  test("provisioning.md DB-24: without the right to execute, the interpreter reads it", async () => {
    using system = createMachine();
    saveCustomData(system, execute, base64("#!/bin/sh -e\necho ran by $0\n"));
    system.files.chmod(FILE, 0o600);
    await runCustomData(system, execute, { run: 0, record: () => {} });
    expect(system.files.readText(`${FILE}.stdout`)).toBe(`ran by ${system.root.real(FILE)}\n`);
  });

  test("a run that ended while no agent was there is not repeated, one that never began is", async () => {
    using system = createMachine();
    saveCustomData(system, execute, base64("echo again\n"));
    system.files.write(`${FILE}.run.1`, "77 77 (sh) S\nexit 3\n");
    const record = (): void => {};
    await runCustomData(system, execute, { run: 1, record });
    expect(system.files.exists(`${FILE}.stdout`)).toBe(false);
    expect(system.lines[0]).toContain("failed with exit code 3");
    await runCustomData(system, execute, { run: 2, record });
    expect(system.files.readText(`${FILE}.stdout`)).toBe("again\n");
  });

  test("provisioning.md CD-04: nothing runs unless execution is on", async () => {
    using system = createMachine();
    saveCustomData(system, decode, base64("touch ran\n"));
    await runCustomData(system, decode, { run: 0, record: () => {} });
    expect(system.events).toEqual([]);
    expect(system.files.list("/var/lib/waagent")).toEqual(["CustomData"]);
  });
});
