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
  /** The words of the package managers of systems with glibc. */
  readonly packaged?: {
    readonly debian: string;
    readonly rpm: string;
    /** For ARCHITECTURE= of an extension image. */
    readonly systemd: string;
  };
  /** apk's word, of systems with musl. */
  readonly alpine?: string;
}

export const ARCHITECTURES = {
  x64: {
    target: "linux-x64",
    packaged: { debian: "amd64", rpm: "x86_64", systemd: "x86-64" },
  },
  arm64: {
    target: "linux-arm64",
    packaged: { debian: "arm64", rpm: "aarch64", systemd: "arm64" },
  },
  "x64-musl": { target: "linux-x64-musl", alpine: "x86_64" },
  "arm64-musl": { target: "linux-arm64-musl", alpine: "aarch64" },
} as const satisfies Readonly<Record<string, Architecture>>;

export type ArchitectureName = keyof typeof ARCHITECTURES;

/** Errors: an architecture that has no such packages. */
export function packagedFor(name: ArchitectureName): NonNullable<Architecture["packaged"]> {
  const { packaged }: Architecture = ARCHITECTURES[name];
  if (packaged === undefined) throw new Error(`There is only an apk and an archive for ${name}`);
  return packaged;
}

/** Errors: an architecture that apk's systems do not have. */
export function alpineName(name: ArchitectureName): string {
  const { alpine }: Architecture = ARCHITECTURES[name];
  if (alpine === undefined) throw new Error(`There is no apk for ${name}`);
  return alpine;
}
