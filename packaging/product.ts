import { packageVersion, type Target } from "../build.ts";

/** What every package says about itself. */
export const PRODUCT = {
  /** Not the name of the distributions' Python agent: their updates must never replace our files. */
  name: "waagent-native",
  summary: "Azure Linux VM agent as one executable",
  description: [
    "Provisions a VM on Azure, runs its extensions and reports to the platform,",
    "in place of the Python agent (WALinuxAgent). Configuration, state and",
    "service names are the same, so that either can take over from the other.",
  ],
  license: "Apache-2.0",
  maintainer: "waagent maintainers <waagent@localhost>",
  version: packageVersion(),
  /** Of the packaging, raised when it changes and the agent does not. */
  revision: "1",
} as const;

/** Dates inside packages, seconds: equal sources give equal packages. Override with SOURCE_DATE_EPOCH. */
export const DATE_OF_RELEASE = Number(process.env["SOURCE_DATE_EPOCH"] ?? "1764028800");

export interface Architecture {
  readonly target: Target;
  readonly debian: string;
  readonly rpm: string;
  /** systemd's word, for ARCHITECTURE= of an extension image. */
  readonly systemd: string;
}

export const ARCHITECTURES: Readonly<Record<"x64" | "arm64", Architecture>> = {
  x64: { target: "linux-x64", debian: "amd64", rpm: "x86_64", systemd: "x86-64" },
  arm64: { target: "linux-arm64", debian: "arm64", rpm: "aarch64", systemd: "arm64" },
};

export type ArchitectureName = keyof typeof ARCHITECTURES;
