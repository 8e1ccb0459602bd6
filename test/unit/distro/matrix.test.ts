import { expect, test } from "bun:test";
import type { DistroRow } from "../../../src/distro/distro.ts";
import { ROWS } from "../../../src/distro/rows.ts";

/** The whole matrix adapter x operation as text a reviewer can read: `bun test -u` writes it anew. */
function matrix(): string {
  const keys = Object.keys(ROWS.get("Default") ?? {}) as (keyof DistroRow)[];
  return keys
    .filter((key) => key !== "adapter")
    .map((key) => {
      const groups = Map.groupBy(ROWS.values(), (row) => show(row[key]));
      const lines = [...groups]
        .toSorted(([, a], [, b]) => b.length - a.length)
        .map(([value, rows]) => `  ${value}\n    ${rows.map((row) => row.adapter).join(" ")}`);
      return `${key}\n${lines.join("\n")}`;
    })
    .join("\n\n");
}

function show(value: DistroRow[keyof DistroRow]): string {
  if (value === undefined) return "-";
  if (Array.isArray(value)) return value.length === 0 ? "-" : value.join(" ");
  if (typeof value === "object" && "globs" in value)
    return `${value.format}: ${value.globs.join(" ")}`;
  return String(value);
}

test("provisioning.md OS-60 OS-61 OS-62 SSH-15 DEPROV-23: the adapter matrix", () => {
  expect(matrix()).toMatchSnapshot();
});

test("every adapter of the specification has a row", () => {
  expect([...ROWS.keys()].toSorted()).toEqual(
    [
      ["Default", "Ubuntu12", "Ubuntu14", "Ubuntu16", "Ubuntu18", "UbuntuOther", "Snappy"],
      ["DebianBase", "DebianModern", "Devuan", "RedHat6", "RedHat7", "RedHatModern"],
      ["SUSE11", "SUSE", "Fedora", "Mariner", "Photon", "Arch", "Clear", "CoreOS", "Chainguard"],
      ["Alpine", "OpenWRT", "IosXE", "BigIp", "Gaia", "FreeBSD", "OpenBSD", "NSBSD"],
    ]
      .flat()
      .toSorted(),
  );
});
