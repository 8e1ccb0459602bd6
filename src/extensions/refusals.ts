import type { HandlerGoal } from "../azure/goal-state.ts";
import type { SystemPath } from "../system/root.ts";
import { CODE } from "./failure.ts";
import type { Refusal } from "./plan.ts";
import { isAllowed, type PolicyState } from "./policy.ts";

/** `Extensions.Enabled=n` (`extensions.md` EXT-20). */
export function refusedAsDisabled(handler: HandlerGoal, configFile: string): Refusal {
  return {
    code: codeFor(handler),
    operation: "ExtensionProcessing",
    message: `Extension '${handler.name}' will not be processed since extension processing is disabled. To enable extension processing, set Extensions.Enabled=y in '${configFile}'`,
    overwritesStatus: true,
    failsDependants: false,
  };
}

/** POL-03..08; undefined when the policy has nothing against the handler. */
export function refusedByPolicy(
  handler: HandlerGoal,
  state: PolicyState,
  file: SystemPath,
): Refusal | undefined {
  if (state.state === "off") return undefined;
  const isInvalid = state.state === "invalid";
  if (!isInvalid && isAllowed(state.policy, handler.name)) return undefined;
  return {
    code: codeFor(handler),
    operation: "ExtensionPolicy",
    message: `Extension will not be processed: ${isInvalid ? `the policy file '${file}' is not valid: ${state.reason}` : notAllowed(handler, file)}`,
    overwritesStatus: true,
    failsDependants: !isInvalid,
  };
}

function notAllowed(handler: HandlerGoal, file: SystemPath): string {
  const verb = handler.state === "enabled" ? "run" : "uninstall";
  const hint = `To ${verb}, add the extension to the list of allowed extensions in the policy file ('${file}').`;
  // DB-40: nothing in the machine can make the platform stop waiting for an uninstall.
  const wait =
    verb === "uninstall" ? " Until then the platform keeps waiting, up to its own time-out." : "";
  return `failed to ${verb} extension '${handler.name}' because it is not specified as an allowed extension. ${hint}${wait}`;
}

/** POL-06. */
function codeFor(handler: HandlerGoal): number {
  return handler.state === "enabled" || handler.state === undefined ? CODE.enable : CODE.disable;
}
