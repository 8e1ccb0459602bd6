import path from "node:path";
import { AgentError } from "../base/error.ts";

/** A logical absolute path. Only Root knows where it really is. */
export type SystemPath = `/${string}`;

/** Maps logical paths below a directory, so that the whole agent can run against a scratch tree (`--root`). */
export class Root {
  /** Real directory, "/" for the machine itself. */
  readonly directory: string;

  constructor(directory = "/") {
    this.directory = path.resolve(directory);
  }

  get isMachine(): boolean {
    return this.directory === "/";
  }

  /** Errors: AgentError "refused" for a path that is not absolute or has a NUL. `..` is collapsed first. */
  real(logical: SystemPath): string {
    if (!logical.startsWith("/") || logical.includes("\0")) {
      throw new AgentError("refused", `${JSON.stringify(logical)} is not an absolute path`);
    }
    const normal = path.posix.normalize(logical).replace(/(?<=.)\/$/, "");
    if (this.isMachine) return normal;
    return normal === "/" ? this.directory : this.directory + normal;
  }

  /** Where programs are looked up. Under a scratch root nothing outside it can be run by name. */
  get programPath(): string {
    return this.isMachine
      ? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
      : path.join(this.directory, "bin");
  }
}

/** Joins and normalises logical paths. */
export function join(first: SystemPath, ...rest: readonly string[]): SystemPath {
  return path.posix.join(first, ...rest) as SystemPath;
}

/** Directory part of a logical path. */
export function parentOf(logical: SystemPath): SystemPath {
  return path.posix.dirname(logical) as SystemPath;
}

/** Last component of a logical path. */
export function nameOf(logical: string): string {
  return path.posix.basename(logical);
}
