import { expect, test } from "bun:test";
import type { ExtensionStatus, HandlerReport } from "../../../src/azure/vm-status.ts";
import { summarizeExtensions } from "../../../src/report/convergence.ts";

function handler(
  name: string,
  status: string,
  extensions: [string, string | null][] = [],
): HandlerReport {
  return {
    name,
    version: "1.0",
    status,
    code: 0,
    message: undefined,
    extensions: extensions.map(([extension, text], sequence) => ({
      extensionName: undefined,
      sequence,
      status: { name: extension, status: text, substatuses: [] } as unknown as ExtensionStatus,
    })),
  };
}

test("wire-protocol.md STAT-51: pairs sorted by name, the extension's status before the handler's", () => {
  const summary = summarizeExtensions([
    handler("Pub.B", "Ready"),
    handler("Pub.A", "Ready", [
      ["Pub.A", "error"],
      ["Pub.A", "success"],
    ]),
  ]);
  expect(summary.text).toBe("[('Pub.A', 'error'), ('Pub.A', 'success'), ('Pub.B', 'Ready')]");
  expect(summary.converged).toBeTrue();
});

test("wire-protocol.md STAT-51 FILE-17: terminal states converge, all others do not", () => {
  for (const status of ["success", "error", "Ready", "NotReady"]) {
    expect(summarizeExtensions([handler("E", "x", [["E", status]])]).converged).toBeTrue();
  }
  for (const status of ["transitioning", "warning", "ready", "Unresponsive", null]) {
    expect(summarizeExtensions([handler("E", "Ready", [["E", status]])]).converged).toBeFalse();
  }
  expect(summarizeExtensions([])).toEqual({ entries: [], converged: true, text: "[]" });
});

test("wire-protocol.md FILE-17: odd names are written as Python would", () => {
  const names = ["it's", 'a"b', `both'"`, "back\\slash", "line\nend"];
  expect(names.map((name) => summarizeExtensions([handler(name, "Ready")]).text)).toEqual([
    `[("it's", 'Ready')]`,
    `[('a"b', 'Ready')]`,
    `[('both\\'"', 'Ready')]`,
    `[('back\\\\slash', 'Ready')]`,
    `[('line\\nend', 'Ready')]`,
  ]);
  expect(summarizeExtensions([handler("E", "Ready", [["E", null]])]).text).toBe("[('E', None)]");
});
