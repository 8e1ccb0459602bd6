import { runningDaemon } from "../../agent/instance.ts";
import { redactExtensionsConfig } from "../../azure/redaction.ts";
import { describe } from "../../base/error.ts";
import { VERSION } from "../../base/identity.ts";
import { formatTimestamp0 } from "../../base/time.ts";
import { configKeys } from "../../config/table.ts";
import { readAgentState } from "../../report/agent-state.ts";
import { redactLogText } from "../../report/log-redaction.ts";
import { createClock } from "../../system/clock.ts";
import { architecture, pid as ownPid, runtimeVersion } from "../../system/process.ts";
import type { System } from "../../system/system.ts";
import { type Ground, LOG_FILE } from "../context.ts";
import { checkText, showText } from "../operator-config.ts";
import { diagnosisText } from "../operator-doctor.ts";
import { statusText } from "../operator-status.ts";
import { versionText } from "../version.ts";
import type { Diagnosis } from "./diagnose.ts";

const LOG_LINES = 200;
const MAX_LOG_BYTES = 64 * 1024 * 1024;

/**
 * What somebody who cannot log in needs to know, without secrets: versions, distribution, configuration with origins,
 * status, findings, the end of the log.
 */
export async function reportText(ground: Ground, diagnosis: Diagnosis): Promise<string> {
  const { early, distro, loaded } = ground;
  const sections: readonly (readonly [string, string])[] = [
    ["Versions", await versionText(early, runtimeVersion())],
    [
      "Machine",
      `${distro.release.name} ${distro.release.version}, ${architecture()}, ${kernel(early)}\n`,
    ],
    ["Findings", diagnosisText(diagnosis, true)],
    ["Status", status(ground)],
    [
      "Configuration file",
      loaded.warnings.length === 0 && loaded.file === undefined ? "none\n" : checkText(loaded),
    ],
    ["Configuration", showText(loaded, configKeys().toSorted())],
    [`Last ${LOG_LINES} lines of ${LOG_FILE}`, logTail(early)],
  ];
  const head =
    `Report of waagent ${VERSION}, ${formatTimestamp0(createClock().now())}\n` +
    "Signatures, keys, passwords of proxies and protected settings are taken out. The log may quote what\n" +
    "extensions print: look through it before you give this to others.\n";
  const text = sections.map(([title, body]) => `\n== ${title} ==\n${body}`).join("");
  return withoutSecrets(head + text);
}

/** Everything goes through all filters: a secret does not ask in which section it stands. */
export function withoutSecrets(text: string): string {
  return redactLogText(redactExtensionsConfig(text));
}

function kernel(system: Pick<System, "files">): string {
  try {
    const text = system.files.readTextIfExists("/proc/sys/kernel/osrelease") ?? "";
    return `kernel ${text.trim() || "unknown"}`;
  } catch {
    return "kernel unknown";
  }
}

function status({ early, loaded }: Ground): string {
  try {
    const pid = runningDaemon(early, loaded.config, ownPid());
    return statusText({ pid, state: readAgentState(early) });
  } catch (error) {
    return `${describe(error)}\n`;
  }
}

function logTail(system: Pick<System, "files">): string {
  try {
    if (!system.files.exists(LOG_FILE)) return "There is no log.\n";
    const bytes = system.files.read(LOG_FILE, { maxBytes: MAX_LOG_BYTES });
    // A key that begins before the first line that is shown has to be known as one.
    const lines = withoutSecrets(Buffer.from(bytes).toString("utf8")).trimEnd().split("\n");
    return `${lines.slice(-LOG_LINES).join("\n")}\n`;
  } catch (error) {
    return `It cannot be read: ${describe(error)}\n`;
  }
}
