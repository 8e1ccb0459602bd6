import { describe, expect, test } from "bun:test";
import {
  emptyJournal,
  journalPath,
  readJournal,
  writeJournal,
} from "../../../src/provision/journal.ts";
import { configOf, createMachine, VM_ID } from "./machine.ts";

const config = configOf();

describe("the journal of provisioning", () => {
  test("is read back as it was written, private to root", () => {
    using system = createMachine();
    const journal = {
      ...emptyJournal(VM_ID),
      done: ["host-name", "user"],
      hadPassword: true,
      device: "/dev/sr0",
      customDataRun: 2,
    };
    writeJournal(system, config, journal);
    expect(readJournal(system, config, VM_ID)).toEqual(journal);
    expect(system.files.stat(journalPath(config))?.mode).toBe(0o600);
  });

  test("of another VM, of a version to come, or torn means nothing; that is only told when it is torn", () => {
    using system = createMachine();
    expect(readJournal(system, config, VM_ID)).toBeUndefined();
    writeJournal(system, config, emptyJournal("another"));
    expect(readJournal(system, config, VM_ID)).toBeUndefined();
    system.files.write(journalPath(config), JSON.stringify({ ...emptyJournal(VM_ID), version: 2 }));
    expect(readJournal(system, config, VM_ID)).toBeUndefined();
    expect(system.lines).toEqual([]);
    for (const text of [
      "",
      '{"version": 1, "vmId"',
      '{"version": 1}',
      "[]",
      '{"version":1,"vmId":"' + VM_ID + '","done":7}',
    ]) {
      system.files.write(journalPath(config), text);
      expect(readJournal(system, config, VM_ID)).toBeUndefined();
    }
    expect(system.lines).toHaveLength(5);
    expect(system.lines[0]).toContain("Provisioning starts from its beginning");
  });
});
