import type { Config } from "../config/table.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { isAgentUnwanted, type OvfEnvironment } from "./ovf.ts";
import { AGENT_EVENT_NAME } from "./report.ts";

/** Passes on whether the platform wants an agent here; where not, leaves the empty `disable_agent` (PROV-18). */
export function applyGuestAgentWish(
  system: Pick<System, "files" | "log" | "emit">,
  config: Pick<Config, "Lib.Dir">,
  document: Pick<OvfEnvironment, "provisionGuestAgent">,
): void {
  system.emit({
    name: AGENT_EVENT_NAME,
    operation: "ProvisionGuestAgent",
    success: true,
    message: document.provisionGuestAgent,
    durationMs: 0,
  });
  if (!isAgentUnwanted(document)) return;
  system.log.warning("Disabling guest agent in accordance with ovf-env.xml");
  const file = join(config["Lib.Dir"] as SystemPath, "disable_agent");
  if (system.files.stat(file)?.size !== 0) system.files.write(file, "", { mode: 0o644 });
}
