import { canSandbox } from "../e2e/sandbox.ts";
import { missing } from "../support/skip.ts";

/** A kind of machine that has packages, and how its programs run on this one. */
export interface Kind {
  readonly name: "x64" | "arm64";
  /** The package managers' words. */
  readonly debian: string;
  readonly rpm: string;
  /** Put before a program: nothing where it is native, else an emulator and the libraries it needs. */
  readonly through: readonly string[];
  /** Why its programs do not run here. */
  readonly reason: string | undefined;
}

/** Debian's cross packages hold the other kind's C library; the runtime needs no other. */
const ARM_LIBRARIES = "/usr/aarch64-linux-gnu";

function kind(name: Kind["name"], debian: string, rpm: string): Kind {
  const common = { name, debian, rpm };
  if (process.arch === name) return { ...common, through: [], reason: undefined };
  if (name === "x64") return { ...common, through: [], reason: "this machine does not run x64" };
  return {
    ...common,
    // By its name: a kernel that were told to start foreign programs with it would be so for the whole machine.
    through: ["qemu-aarch64", "-L", ARM_LIBRARIES],
    reason: missing({
      programs: ["qemu-aarch64"],
      files: [`${ARM_LIBRARIES}/lib/ld-linux-aarch64.so.1`],
    }),
  };
}

export const KINDS: readonly Kind[] = [
  kind("x64", "amd64", "x86_64"),
  kind("arm64", "arm64", "aarch64"),
];

/** Why packages cannot be installed in a throw-away machine here. */
export function cannotInstall(...programs: string[]): string | undefined {
  const able = canSandbox();
  return able.ok ? missing({ root: true, programs: ["dpkg", ...programs] }) : able.reason;
}
