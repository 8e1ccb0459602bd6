import { describe } from "../base/error.ts";
import { JsonReader } from "../base/json.ts";
import type { System } from "../system/system.ts";

type Reads = Pick<System, "exec" | "files" | "log">;

/** Whether cloud-init provisions this machine, and the fact that says so. */
export interface CloudInit {
  readonly enabled: boolean;
  readonly because: string;
}

/** The unit of PROV-02 and its successors in newer releases (DB-25). */
const UNITS = ["cloud-init-local.service", "cloud-init-main.service", "cloud-init-network.service"];
const ENABLED_STATES = ["enabled", "enabled-runtime", "generated"];
const TIMEOUT_MS = 20_000;

/** Facts in the order cloud-init's own generator looks at them (PROV-02, DB-25). Errors: never. */
export async function detectCloudInit(system: Reads): Promise<CloudInit> {
  if (system.files.exists("/etc/cloud/cloud-init.disabled"))
    return { enabled: false, because: "/etc/cloud/cloud-init.disabled exists" };
  const kernel = (system.files.readTextIfExists("/proc/cmdline") ?? "").trim().split(/\s+/);
  if (kernel.includes("cloud-init=disabled"))
    return { enabled: false, because: "the kernel command line has cloud-init=disabled" };
  if (system.files.exists("/run/cloud-init/disabled"))
    return { enabled: false, because: "/run/cloud-init/disabled exists" };
  if (system.files.exists("/run/cloud-init/enabled"))
    return { enabled: true, because: "/run/cloud-init/enabled exists" };
  const [service, ...units] = await Promise.all([
    ask(system, ["service", "cloud-init", "status"]),
    ...UNITS.map((unit) => ask(system, ["systemctl", "is-enabled", unit])),
  ]);
  for (const [index, state] of units.entries())
    if (state !== undefined && ENABLED_STATES.includes(state))
      return { enabled: true, because: `${UNITS[index]} is ${state}` };
  if (service !== undefined) return { enabled: true, because: "its service is there" };
  return { enabled: false, because: "it is not installed or not enabled" };
}

/** First line of output; undefined when the program is missing or failed: its exit code decides (PROV-02). */
async function ask(system: Reads, argv: readonly string[]): Promise<string | undefined> {
  if (system.exec.find(argv[0] ?? "") === undefined) return undefined;
  try {
    const { code, stdout } = await system.exec.run({ argv, okCodes: "any", timeoutMs: TIMEOUT_MS });
    return code === 0 ? (stdout.split("\n")[0] ?? "") : undefined;
  } catch (error) {
    system.log.verbose(`${argv.join(" ")}: ${describe(error)}`);
    return undefined;
  }
}

/** What cloud-init left when all of its stages had ended; undefined while it is still at work. */
export function readCloudInitResult(
  system: Pick<System, "files">,
): { readonly errors: readonly string[]; readonly dataSource: string } | undefined {
  const file = "/run/cloud-init/result.json";
  try {
    const text = system.files.readTextIfExists(file);
    if (text === undefined) return undefined;
    const result = JsonReader.parse(text, file).get("v1");
    return {
      errors: result
        .get("errors")
        .items()
        .map((item) => item.optionalString() ?? ""),
      dataSource: result.get("datasource").optionalString() ?? "",
    };
  } catch {
    return undefined; // half-written, or a form we do not know: then the file says nothing
  }
}
