import { adaptRow } from "../../src/distro/adapt.ts";
import type { Capabilities, Distro, Release } from "../../src/distro/distro.ts";
import { selectRow } from "../../src/distro/select.ts";

export const NO_CAPABILITIES: Capabilities = {
  systemd: false,
  serviceManager: "none",
  networkManagers: [],
  sshUnit: undefined,
  agentUnit: undefined,
  readOnlyUsr: false,
};

/** A Distro as detection would give it: `distroNamed("ubuntu", "22.04")`. */
export function distroNamed(
  name: string,
  version: string,
  options: { release?: Partial<Release>; capabilities?: Partial<Capabilities> } = {},
): Distro {
  const release: Release = {
    name,
    version,
    codeName: "",
    fullName: name,
    like: [],
    ...options.release,
  };
  const capabilities = { ...NO_CAPABILITIES, ...options.capabilities };
  const { known, ...row } = selectRow(release);
  return { ...adaptRow(row, capabilities), release, capabilities, known };
}
