import { createExec } from "../system/exec.ts";
import { createFiles } from "../system/files.ts";
import { Root } from "../system/root.ts";
import type { System } from "../system/system.ts";

/** The part of System that needs no configuration: files and programs of the machine or of a scratch root. */
export function earlySystem(
  directory: string | undefined,
): Pick<System, "root" | "files" | "exec"> {
  const root = new Root(directory ?? "/");
  return { root, files: createFiles(root), exec: createExec(root) };
}
