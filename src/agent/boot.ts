import { describe, isAgentError } from "../base/error.ts";
import { removeMetadataProtocol } from "../machine/firewall-legacy.ts";
import { setUpRdma } from "../machine/rdma.ts";
import { activateResourceDisk } from "../machine/resource-disk.ts";
import { handOverToScvmm } from "../machine/scvmm.ts";
import { activateSwap } from "../machine/swap.ts";
import { kernelRelease } from "../report/os-info.ts";
import { spawnDetached } from "../system/process.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { provisionMachine } from "./provisioning.ts";
import { forgetConnection, type Connection } from "./connection.ts";
import type { OperatorView } from "./operator-view.ts";
import { profileOf } from "./profile.ts";
import type { AgentContext } from "./context.ts";
import { libDirectory } from "./settings.ts";

/**
 * What happens once, before the machine is served (`system.md` DAEMON-09): in this order, and all of it again 15 s
 * after an error that nobody took care of (DAEMON-08).
 */
export interface BootStep {
  /** For log lines: "Resource disk", ... */
  readonly name: string;
  readonly wanted: boolean;
  readonly run: (signal: AbortSignal) => Promise<void>;
}

const RETRY_MS = 15_000;
const DAY_MS = 24 * 60 * 60_000;
const ROOT = 0;
const INSTALLER_ENVIRONMENT = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
};

/** Errors: only AgentError "cancelled". */
export async function boot(
  system: Pick<System, "log" | "emit" | "clock">,
  steps: readonly BootStep[],
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    let doing = "";
    try {
      for (const step of steps.filter(({ wanted }) => wanted)) {
        doing = step.name;
        await step.run(signal);
      }
      return;
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      const message = `${doing} failed: ${describe(error)}`;
      system.log.warning(`${message}; starting over in ${RETRY_MS / 1000} s`);
      system.emit({ operation: "UnhandledError", success: false, message, log: false });
      await system.clock.sleep(RETRY_MS, signal);
    }
  }
}

/** The steps of the daemon. Steps that talk to the platform open the connection when they need it. */
export function bootSteps(
  system: System,
  context: AgentContext,
  { connection, view }: { readonly connection: Connection; readonly view: OperatorView },
): readonly BootStep[] {
  const { config, distro } = context;
  const { keepsMachine, provisions } = profileOf(config);
  return [
    {
      name: "Detection of System Center VMM",
      wanted: config.DetectScvmmEnv,
      run: async (signal) => {
        const startInstaller = (argv: readonly string[]): void => {
          // Below a scratch root nothing outside of it is run.
          if (system.root.isMachine) spawnDetached(argv, INSTALLER_ENVIRONMENT);
        };
        const options = { kernelRelease: kernelRelease(system), startInstaller };
        if (!(await handOverToScvmm(system, config, options))) return;
        // The installer has the machine now. An agent that ended here would be started again and again.
        for (;;) await system.clock.sleep(DAY_MS, signal);
      },
    },
    {
      name: "Forgetting the saved endpoint",
      wanted: true,
      run: async () => forgetConnection(system, config),
    },
    {
      name: "Connecting to the platform",
      wanted: true,
      // Only begun here: making the transport key takes as long as setting up a disk. Who needs it waits for it.
      run: async (signal) => void connection.open(signal).catch(() => undefined),
    },
    {
      name: "Resource disk",
      wanted: keepsMachine,
      run: async () => {
        const disk = await activateResourceDisk(system, config);
        view.component("resource disk", disk.state, "reason" in disk ? disk.reason : undefined);
        if (disk.state === "mounted") await activateSwap(system, config, disk.mountPoint);
      },
    },
    {
      name: "Provisioning",
      wanted: provisions,
      run: async (signal) => {
        const outcome = await provisionMachine(system, context, connection, signal);
        view.component("provisioning", outcome.status, outcome.failure);
      },
    },
    {
      name: "RDMA",
      wanted: keepsMachine,
      run: async (signal) => {
        await setUpRdma(system, config, distro, {
          kernelRelease: kernelRelease(system),
          sharedConfig: async () => {
            // Written with every goal state, and this one is from now.
            await connection.open(signal);
            return system.files.readText(join(libDirectory(config), "SharedConfig.xml"));
          },
        });
      },
    },
    {
      name: "Clean-up after old agents",
      wanted: keepsMachine,
      run: () => removeMetadataProtocol(system, config, ROOT),
    },
  ];
}

/** True when the image or the platform asked for an agent that does nothing (`system.md` DAEMON-10). */
export function isDisabled(
  system: Pick<System, "files" | "log">,
  context: Pick<AgentContext, "config">,
): boolean {
  const file = join(libDirectory(context.config), "disable_agent");
  if (!system.files.exists(file)) return false;
  system.log.warning(
    `Disabling the guest agent by sleeping forever; to re-enable, remove ${file} and restart`,
  );
  system.log.warning(
    "To enable VM extensions, also ensure that the VM's osProfile.allowExtensionOperations property is set to true.",
  );
  return true;
}
