import { expect, test } from "bun:test";
import { mixEntropy } from "../../../src/provision/entropy.ts";
import { makeHostKeys } from "../../../src/provision/steps.ts";
import { configOf, createMachine } from "./machine.ts";

const SEED = "/sys/firmware/acpi/tables/OEM0";

test("provisioning.md RAND-01 DB-38: the host's seed is in the pool before keys are made", async () => {
  using system = createMachine();
  system.files.makeDirectory("/sys/firmware/acpi/tables");
  system.files.write(SEED, new Uint8Array([0x41, 0x42, 0xff, 0x00]));
  system.files.write("/dev/random", "");
  const keygen = system.programs.get("ssh-keygen")!;
  const poolAtKey: number[] = [];
  system.programs.set("ssh-keygen", (argv, stdin) => {
    poolAtKey.push(system.files.stat("/dev/random")!.size);
    return keygen(argv, stdin);
  });
  await makeHostKeys(system, configOf());
  expect(poolAtKey.length).toBeGreaterThan(0);
  expect(Math.min(...poolAtKey)).toBeGreaterThanOrEqual(4);
  expect(system.files.readText("/dev/random")).toStartWith("AB");
});

test("provisioning.md DB-38: without a seed, or with one that cannot be used, nothing fails", () => {
  using system = createMachine();
  mixEntropy(system);
  system.files.makeDirectory(SEED);
  system.files.write("/dev/random", "");
  mixEntropy(system);
  expect(system.files.readText("/dev/random")).toBe("");
});
