import type { HandlerGoal } from "../azure/goal-state.ts";
import { describe } from "../base/error.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { isAllowed, isSignatureRequired, readPolicy, type Policy } from "./policy.ts";

/**
 * Says what a policy file means as soon as it is seen changed, and not only when the next goal state is processed
 * (`extensions.md` DB-27); a change alone starts no pass (POL-01). `look` is called with every report: two calls of the
 * kernel while nothing changes, which is cheaper than a watch, and nothing that a replaced folder or a limit of the
 * kernel could make deaf. With policies off it does nothing.
 */
export interface PolicyWatch {
  look(handlers: readonly HandlerGoal[]): void;
}

/** What `lstat` and `stat` say of a file that is not there. */
const ABSENT = "undefined undefined";

export function createPolicyWatch(
  system: Pick<System, "files" | "log" | "emit">,
  file: SystemPath,
  options: { readonly enabled: boolean },
): PolicyWatch {
  let seen = ABSENT;

  const tell = (success: boolean, message: string): void => {
    if (success) system.log.info(message);
    else system.log.error(message);
    system.emit({ operation: "Policy", success, message, log: false });
  };

  return {
    look: (handlers) => {
      if (!options.enabled) return;
      const found = identity(system, file);
      if (found === seen) return;
      const isFirst = seen === ABSENT;
      seen = found;
      const state = readPolicy(system, file, options);
      if (state.state === "off")
        tell(true, `The policy file ${file} is gone: every extension is allowed`);
      else if (state.state === "invalid")
        tell(
          false,
          `The policy file ${file} is not valid, so no extension will be processed: ${state.reason}`,
        );
      else
        tell(
          true,
          `The policy file ${file} is ${isFirst ? "there" : "changed"} and valid: ${meaning(state.policy, handlers)}`,
        );
    },
  };
}

/** Changes with every edit, replacement, change of rights and of what a link leads to. */
function identity(system: Pick<System, "files">, file: SystemPath): string {
  try {
    const itself = system.files.lstat(file);
    const target = itself?.kind === "link" ? system.files.stat(file) : itself;
    return `${JSON.stringify(itself)} ${JSON.stringify(target)}`;
  } catch (error) {
    return describe(error); // readPolicy will say so
  }
}

/** What comes of it for the handlers of the goal state. */
function meaning(policy: Policy, handlers: readonly HandlerGoal[]): string {
  const names = (which: (name: string) => boolean): string =>
    handlers
      .map(({ name }) => name)
      .filter(which)
      .join(", ");
  const refused = names((name) => !isAllowed(policy, name));
  const signed = names((name) => isSignatureRequired(policy, name));
  return [
    policy.allowListedOnly
      ? `only listed extensions are allowed (${policy.extensions.size} are listed)`
      : "every extension is allowed",
    ...(refused === "" ? [] : [`from the next goal state on it refuses ${refused}`]),
    ...(signed === "" ? [] : [`it asks for a signature of ${signed}`]),
  ].join("; ");
}
