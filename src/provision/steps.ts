import { describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { writeHostsEntry } from "../machine/hostname-hosts.ts";
import { setHostName } from "../machine/hostname.ts";
import type { System } from "../system/system.ts";
import type { SystemPath } from "../system/root.ts";
import { createAccount, requireAccount } from "./accounts.ts";
import { runCustomData, saveCustomData } from "./custom-data.ts";
import { mixEntropy } from "./entropy.ts";
import {
  generateHostKeys,
  hostKeyFingerprints,
  primaryFingerprint,
  swapHostKeys,
} from "./host-keys.ts";
import { isCancelled } from "./failure.ts";
import type { Journal } from "./journal.ts";
import { ejectMedium } from "./media.ts";
import type { OvfEnvironment } from "./ovf.ts";
import { openForKeys, setPassword } from "./passwords.ts";
import { lockRootPassword } from "./root-password.ts";
import { installKeyPairs, installPublicKeys } from "./ssh-keys.ts";
import { restartSsh } from "./ssh-service.ts";
import { configureSshd } from "./sshd-config.ts";
import { allowSudo } from "./sudoers.ts";

/** What a step may use. The journal is read and written through functions because it changes between steps. */
export interface StepContext {
  readonly system: System;
  readonly config: Config;
  readonly distro: Distro;
  readonly document: OvfEnvironment;
  readonly journal: () => Journal;
  readonly record: (change: Partial<Journal>) => void;
  readonly publishHostName: (name: string) => Promise<void>;
  /** Host keys in the making, begun early because RSA takes its time; undefined when they have to be made now. */
  readonly hostKeys: Promise<void> | undefined;
  /** Fulfilled when the certificates of the goal state are on disk (SSH-25). */
  readonly certificates: Promise<void>;
}

export interface Step {
  /** Written into the journal when done; never renamed. */
  readonly name: string;
  readonly run: (context: StepContext) => Promise<void> | void;
  /**
   * Must not be done again once it is done, so the journal is written after it. The others find what they made and
   * leave it, which costs less than a write to the disk after each of them.
   */
  readonly once?: true;
}

/**
 * Provisioning in its order (PROV-11..15). Each step may be repeated: it leaves alone what is already so, and a run
 * that was interrupted inside of one does it again.
 */
export const STEPS: readonly Step[] = [
  {
    name: "host-name",
    run: async ({ system, distro, config, document }) => {
      await setHostName(system, distro, document.hostName);
      writeHostsEntry(system, config, document.hostName);
    },
  },
  {
    name: "publish-host-name",
    run: async ({ system, document, publishHostName }) => {
      try {
        await publishHostName(document.hostName);
      } catch (error) {
        if (isCancelled(error)) throw error;
        // The machine has its name; that DNS does not know it yet must not cost the VM (DB-37).
        const message = `The host name ${document.hostName} could not be published: ${describe(error)}`;
        system.log.warning(message);
        system.emit({ operation: "HostnamePublishing", success: false, message, log: false });
      }
    },
  },
  {
    name: "user",
    run: async ({ system, distro, config, document }) => {
      await createAccount(
        system,
        distro,
        { name: document.userName },
        { homeDirectory: config["OS.HomeDir"] },
      );
    },
  },
  {
    name: "password",
    once: true,
    run: async ({ system, distro, config, document }) => {
      const account = await requireAccount(system, document.userName);
      if (document.password === undefined) await openForKeys(system, distro, account, { config });
      else await setPassword(system, distro, account, { password: document.password, config });
    },
  },
  {
    // Only now: until the password was set, a run that is interrupted needs the DVD again.
    name: "eject",
    run: ({ system, journal }) => ejectMedium(system, journal().device as SystemPath | undefined),
  },
  {
    name: "sudo",
    run: ({ system, distro, config, document, journal }) =>
      allowSudo(system, distro, config, {
        userName: document.userName,
        withoutPassword: journal().hadPassword !== true,
      }),
  },
  {
    name: "sshd",
    run: ({ system, distro, config, document }) => configureSshd(system, distro, config, document),
  },
  {
    name: "public-keys",
    run: async ({ system, config, document, certificates }) => {
      if (document.publicKeys.length === 0) return;
      if (document.publicKeys.some(({ value }) => value === undefined)) await certificates;
      const account = await requireAccount(system, document.userName);
      await installPublicKeys(system, config, account, { entries: document.publicKeys });
    },
  },
  {
    name: "key-pairs",
    run: async ({ system, config, document, certificates }) => {
      if (document.keyPairs.length === 0) return;
      await certificates;
      const account = await requireAccount(system, document.userName);
      await installKeyPairs(system, config, account, { entries: document.keyPairs });
    },
  },
  {
    name: "save-custom-data",
    run: ({ system, config, document }) => saveCustomData(system, config, document.customData),
  },
  {
    name: "run-custom-data",
    once: true,
    run: async ({ system, config, document, journal, record }) => {
      if (document.customData === undefined) return;
      await runCustomData(system, config, {
        run: journal().customDataRun,
        record: (customDataRun) => record({ customDataRun }),
      });
    },
  },
  {
    name: "root-password",
    run: async ({ system, distro, config }) => {
      if (config["Provisioning.DeleteRootPassword"]) await lockRootPassword(system, distro, config);
    },
  },
  {
    name: "host-keys",
    once: true,
    run: async ({ system, config, hostKeys }) => {
      if (config["Provisioning.RegenerateSshHostKeyPair"]) {
        await (hostKeys ?? makeHostKeys(system, config));
        await swapHostKeys(system, config);
      }
      primaryFingerprint(system, config);
      for (const { type, fingerprint } of hostKeyFingerprints(system, config))
        system.log.info(`SSH host key ${type}: ${fingerprint}`);
    },
  },
  {
    name: "restart-ssh",
    run: ({ system, distro }) => restartSsh(system, distro),
  },
];

/** The host's random bytes go in before keys come out (DB-38). */
export async function makeHostKeys(
  system: Pick<System, "exec" | "files" | "log">,
  config: Config,
): Promise<void> {
  mixEntropy(system);
  await generateHostKeys(system, config);
}
