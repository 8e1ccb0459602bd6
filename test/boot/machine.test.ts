import { readdirSync } from "node:fs";
import path from "node:path";
import { expect } from "bun:test";
import { testUnless } from "../support/skip.ts";
import { bootProblem, hierarchies, host, scratchParent } from "./image.ts";

const PROGRAM = `
import { bootMachine } from "./machine.ts";
import { firstBoot } from "../fabric/scenarios.ts";
const machine = await bootMachine(firstBoot(), { layers: [], resourceDisk: { generation: 1, mib: 16 } });
console.log((await machine.run(["hostname"])).stdout);
await Bun.sleep(60_000);
`;

/** Everything of a machine that outlives its processes. */
function leftovers(): string[] {
  const groups = hierarchies().flatMap((folder) =>
    readdirSync(folder).map((name) => path.join(folder, name)),
  );
  return [
    ...groups.filter((name) => path.basename(name).startsWith("machine-")),
    ...readdirSync(scratchParent()).filter((name) => name.startsWith("machine-")),
    ...host(["losetup", "--list", "--noheadings", "-O", "BACK-FILE"])
      .split("\n")
      .filter((line) => line.includes(scratchParent())),
    ...host(["findmnt", "-rn", "-o", "TARGET"])
      .split("\n")
      .filter((line) => line.includes(scratchParent())),
  ];
}

testUnless(bootProblem())(
  "a machine whose test is killed leaves nothing on the host",
  async () => {
    const before = leftovers();
    const test = Bun.spawn([process.execPath, "-e", PROGRAM], {
      cwd: import.meta.dir,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    });
    const first = await test.stdout.getReader().read();
    expect(new TextDecoder().decode(first.value)).toContain("unnamed");
    expect(leftovers().length).toBeGreaterThan(before.length);
    test.kill("SIGKILL");
    await test.exited;
    for (let waited = 0; waited < 10_000 && leftovers().length > before.length; waited += 50)
      await Bun.sleep(50);
    expect(leftovers()).toEqual(before);
  },
  60_000,
);
